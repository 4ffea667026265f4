"""Exposing the Deception (Ba et al., "Exposing the Deception: Uncovering More Forgery Clues for Deepfake Detection",
AAAI 2024).

Several backbones look at the whole face; losses on the information their features carry make them look at different
clues, and keep in the fused feature what all of them know. Published as MI_Net.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ffaa.baselines.backbones.mobilenet import MobileNet
from ffaa.baselines.backbones.resnet import DEPTHS, ResNet, depth_of
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of
from ffaa.errors import UsageError

_HIDDEN = (1000, 500)  # of the bottleneck
_DROPOUT = 0.5
_WEIGHTS = "balance.params"  # the loss weights, which released checkpoints do not hold


class ExposingSettings(BaselineSettings):
    """Appendix B: 50 epochs, Adam, rate 1e-4, batch 256, weight decay 1e-6; the rest from the publication's code."""

    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    batch: int = Field(256, ge=2)
    epochs: int | None = Field(50, ge=1)
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    mixup: float = Field(0.5, ge=0, description="both parameters of mixup's beta distribution; 0: no mixup")
    temperature: float = Field(1.5, gt=0, description="of the softmax in the information losses")
    global_loss: bool = Field(True, description="global information loss")
    local_loss: bool = Field(True, description="local information loss")
    balance: Literal["auto", "fixed"] = Field("auto", description="learned loss weights, or `scales`")
    scales: tuple[float, float, float] = Field((1.0, 2.0, 10.0), description="of classification, global, local")


class Bottleneck(nn.Module):
    """The information bottleneck: features of all regions (B, inputs) -> fused feature (B, outputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for hidden in _HIDDEN:
            layers += [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(_DROPOUT)]
            inputs = hidden
        self.model = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class AutomaticWeights(nn.Module):
    """Learned loss weights (Liebel & Koerner 2018): sum of L_i / (2 c_i^2) + ln(1 + c_i^2), c_i starting at 1."""

    def __init__(self, losses: int):
        super().__init__()
        self.params = nn.Parameter(torch.ones(losses))

    def forward(self, losses: Tensor) -> Tensor:
        square = self.params**2
        return (0.5 / square * losses + torch.log(1 + square)).sum()


def _backbone(name: str) -> ResNet | MobileNet:
    depths = {f"resnet{d}": d for d in DEPTHS}
    if name == "mobilenet":
        return MobileNet()
    if name not in depths:
        raise UsageError(f"{name!r} is no backbone; give one of {[*depths, 'mobilenet']}")
    return ResNet(depths[name], None)


def _divergence(p: Tensor, q: Tensor, temperature: float) -> Tensor:
    """KL(q || p) of the softmax of two logits (B, C), divided by B x C as in the published code."""
    return F.kl_div(F.log_softmax(p / temperature, 1), F.softmax(q / temperature, 1), reduction="none").mean()


class Exposing(Baseline):
    """MI_Net. Class 0 is real, class 1 a forgery; with more classes, the others are the forgery types.

    regions: number of backbones, 2 at least; backbone: 'resnet18' to 'resnet152' or 'mobilenet' (published is
    resnet34). Any input size.
    """

    name = "exposing"
    image_size = 224
    resampling = "opencv"
    settings: ExposingSettings

    def __init__(
        self,
        num_classes: int = 2,
        regions: int = 4,
        backbone: str = "resnet34",
        image_size: int = 224,
        settings: ExposingSettings | None = None,
    ):
        super().__init__()
        if regions < 2:
            raise UsageError(f"{regions} region cannot be told from the others; give 2 or more")
        self.image_size, self.settings, self.regions = image_size, settings or ExposingSettings(), regions
        width = 0
        for i in range(1, regions + 1):
            model = _backbone(backbone)
            self.add_module(f"region_model{i}", model)
            width = model.width
        for i in range(1, regions + 1):
            self.add_module(f"local_linear{i}", nn.Linear(width * (regions - 1), num_classes))
        self.bottleneck = Bottleneck(width * regions, width)
        self.baseline_linear = nn.Linear(width * regions, num_classes)
        self.linear = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(width, num_classes))
        self.balance = AutomaticWeights(1 + self.settings.global_loss + self.settings.local_loss)
        self.maps = nn.Identity()  # all regions' maps pass through, for Grad-CAM

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB (S, S, 3) -> (N, 3, image_size, image_size): blue first, normalised by ImageNet's mean and
        deviation in their usual order (red first), as the published detector was trained."""
        return super().preprocess([np.ascontiguousarray(image[..., ::-1]) for image in images])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the fused feature (B, C), of all regions' features (B, C), and of the features without each region
        in turn (regions, B, C)."""
        names = [f"region_model{i}" for i in range(1, self.regions + 1)]
        maps = self.maps(torch.cat([self.get_submodule(name).features(pixels) for name in names], 1))  # type: ignore[operator]
        every = maps.mean((2, 3))
        parts = every.chunk(self.regions, 1)
        without = [
            self.get_submodule(f"local_linear{i + 1}")(torch.cat([*parts[:i], *parts[i + 1 :]], 1))
            for i in range(self.regions)
        ]
        return self.linear(self.bottleneck(every)), self.baseline_linear(every), torch.stack(without)

    def score(self, pixels: Tensor) -> Tensor:
        return self(pixels)[0].softmax(1)[:, 1:].sum(1)

    def losses(self, outputs: tuple[Tensor, Tensor, Tensor], labels: Tensor) -> Tensor:
        """Classification, global and local information loss (those that are switched on), of labels (B,).

        Classification: cross-entropy of every head. Global alignment: what the fused feature says may not fall behind
        what all features say. Local disentanglement: exp(-sum of the divergences between all features and those
        without one region), small when every region has something of its own.
        """
        fused, every, without = (output.float() for output in outputs)
        temperature, known = self.settings.temperature, every.detach()
        classification = F.cross_entropy(fused, labels)
        found = []
        if self.settings.global_loss:
            classification = classification + F.cross_entropy(every, labels)
            found.append(_divergence(known, fused, temperature))
        if self.settings.local_loss:
            classification = classification + sum(F.cross_entropy(part, labels) for part in without)
            apart = torch.stack([_divergence(known, part, temperature) for part in without]).sum()
            found.append(torch.exp(-apart))
        return torch.stack([classification, *found])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The losses on mixed-up images (Zhang et al. 2018), balanced by learned weights (Eq. 13)."""
        labels = batch.fake.long() if self.baseline_linear.out_features == 2 else batch.kind
        if self.settings.mixup:
            share = torch.distributions.Beta(self.settings.mixup, self.settings.mixup).sample().item()
            other = torch.randperm(len(labels), device=labels.device)
            outputs = self(share * batch.pixels + (1 - share) * batch.pixels[other])
            losses = share * self.losses(outputs, labels) + (1 - share) * self.losses(outputs, labels[other])
        else:
            losses = self.losses(self(batch.pixels), labels)
        names = ["classification"] + ["global"] * self.settings.global_loss + ["local"] * self.settings.local_loss
        parts = dict(zip(names, losses.tolist(), strict=True))
        if self.settings.balance == "auto":
            return self.balance(losses), parts
        scales = dict(zip(("classification", "global", "local"), self.settings.scales, strict=True))
        return (losses * torch.tensor([scales[name] for name in names]).to(losses)).sum(), parts

    @property
    def heat_layer(self) -> nn.Module:
        """The last maps of all regions, side by side."""
        return self.maps

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """A released checkpoint (`state_dict` inside), or one of our own, which has the loss weights too. See
        `Baseline.from_published`."""
        state = read_state(path_or_state)
        classes = len(tensor_of(state, "baseline_linear.weight", cls.name))
        regions = len({key for key in state if re.fullmatch(r"local_linear\d+\.weight", key)})
        mobile = "region_model1.model.0.0.weight" in state
        backbone = "mobilenet" if mobile else f"resnet{depth_of(state, 'region_model1.')}"
        model = cls(classes, max(regions, 2), backbone)
        state.setdefault(_WEIGHTS, model.balance.params.detach())
        load_strict(model, state, cls.name)
        return model.eval()
