"""Implicit Identity Leakage (Dong et al., CVPR 2023): an ID-unaware detector, published as CADDM.

Beside the label, an artifact detection module (ADM) finds the forged area with anchors of several scales,
so that the features serve local artifacts instead of identities. Training images come from the multi-scale facial
swap (`facial_swap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ffaa.baselines.anchors import anchors, assign, detection_loss, mask_box
from ffaa.baselines.backbones.efficientnet import VARIANTS, EfficientNet, variant_of
from ffaa.baselines.backbones.resnet import DEPTHS, ResNet, depth_of
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of
from ffaa.errors import UsageError

_GRID = 7  # side of the backbone's map at the published 224 px; the ADM's maps have sides 7, 5, 3 and 1
_RATIOS = 2  # anchors per cell: lying and standing


class ImplicitSettings(BaselineSettings):
    """The publication's: AdamW, 200 epochs at batch 128; the rates of its code (`rate_at`); appendix B has none."""

    optimizer: Literal["adam", "sgd", "adamw"] = "adamw"
    lr: float = Field(3.6e-4, gt=0)
    weight_decay: float = Field(4e-3, ge=0)
    batch: int = Field(128, ge=2)
    epochs: int | None = Field(200, ge=1)
    falls: tuple[tuple[int, float], ...] = Field(
        ((4, 1e-4), (10, 5e-5)), description="(epoch, learning rate from there on)"
    )
    clip: float | None = Field(2.0, gt=0, description="gradients are clipped to this value, each by itself")
    detection: float = Field(0.1, ge=0, description="weight of the detection loss")
    overlap: float = Field(0.5, gt=0, lt=1, description="IoU from which an anchor stands for an area")
    negatives: float = Field(2.0, ge=0, description="hardest background anchors kept per positive one")

    def rate_at(self, epoch: int, epochs: int = 0) -> float:
        """The learning rate in an epoch, counted from 0; it does not depend on how many there are."""
        return ([self.lr] + [rate for start, rate in self.falls if epoch >= start])[-1]


class ExtraBlock(nn.Module):
    """A residual block of the ADM; without padding a kernel of 3 takes two off the side of the map."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(width, width, kernel, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class EndBlock(nn.Module):
    """The ADM's last block, 3 x 3 to 1 x 1, without norms."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.downsample = nn.Conv2d(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.downsample(x))


class Heads(nn.Module):
    """Per scale and anchor: 4 numbers of a box (`ms_dets`), and 2 logits, background and artifact (`ms_cls`)."""

    def __init__(self, width: int):
        super().__init__()
        kernels = (3, 3, 3, 1)
        self.ms_dets = nn.ModuleList(nn.Conv2d(width, _RATIOS * 4, k, padding=k // 2) for k in kernels)
        self.ms_cls = nn.ModuleList(nn.Conv2d(width, _RATIOS * 2, k, padding=k // 2) for k in kernels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        def flat(heads: nn.ModuleList, size: int) -> Tensor:
            out = [head(m).permute(0, 2, 3, 1).flatten(1) for head, m in zip(heads, maps, strict=True)]
            return torch.cat(out, 1).unflatten(1, (-1, size))

        return flat(self.ms_dets, 4), flat(self.ms_cls, 2)


class ADM(nn.Module):
    """Artifact detection module: map (B, width, 7, 7) -> boxes (B, 168, 4), logits (B, 168, 2), and the
    vector (B, width) of its last block."""

    def __init__(self, width: int):
        super().__init__()
        blocks = [nn.Sequential(ExtraBlock(width, kernel)) for kernel in (1, 3, 3)]
        self.adm_extra_layers = nn.ModuleList([*blocks, EndBlock(width)])
        self.multi_scale_detection_module = Heads(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = []
        for layer in self.adm_extra_layers:
            x = layer(x)
            maps.append(x)
        boxes, logits = self.multi_scale_detection_module(maps)
        return boxes, logits, x.flatten(1)


def _backbone(name: str) -> ResNet | EfficientNet:
    depths, variants = {f"resnet{d}": d for d in DEPTHS}, {f"efficientnet-{v}": v for v in VARIANTS}
    if name in depths:
        return ResNet(depths[name])
    if name in variants:
        return EfficientNet(variants[name])
    raise UsageError(f"{name!r} is no backbone; give one of {[*depths, *variants]}")


def _areas(fake: Tensor, mask: Tensor) -> Tensor:
    """The forged areas (n, 4) of an image: none, the whole, or the whole and the box around its mask (7, 7)."""
    if fake < 0.5:
        return torch.zeros(0, 4)
    whole, part = torch.tensor([0.0, 0.0, 1.0, 1.0]), mask_box(mask)
    return torch.stack([whole] if part is None else [whole, part])


class Implicit(Baseline):
    """CADDM. Class 0 is real, class 1 a forgery; with more classes, the others are the forgery types.

    backbone: 'resnet18' to 'resnet152' or 'efficientnet-b0' to 'b7'; published are resnet34, efficientnet-b3 and -b4.
    Inputs of another size than 224 work: the backbone's map is pooled to 7 x 7 (at 224 it is that already).
    """

    name = "implicit"
    image_size = 224
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    resampling = "opencv"
    settings: ImplicitSettings
    anchors: Tensor

    def __init__(
        self,
        num_classes: int = 2,
        backbone: str = "resnet34",
        image_size: int = 224,
        settings: ImplicitSettings | None = None,
    ):
        super().__init__()
        self.image_size, self.settings = image_size, settings or ImplicitSettings()
        self.base_model = _backbone(backbone)
        width = self.base_model.width
        self.adm = ADM(width)
        self.fc = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(self.base_model.dropout if isinstance(self.base_model, EfficientNet) else 0.0)
        self.register_buffer("anchors", anchors(), persistent=False)

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB (S, S, 3) -> (N, 3, image_size, image_size), blue first, 0..255: the published input is not
        normalised."""
        return super().preprocess([np.ascontiguousarray(image[..., ::-1]) for image in images])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, 168, 4) as offsets from the anchors, anchor logits (B, 168, 2), class logits (B, num_classes)."""
        maps = self.base_model.features(pixels)
        boxes, anchor_logits, local = self.adm(F.adaptive_avg_pool2d(maps, _GRID))
        return boxes, anchor_logits, self.fc(self.dropout(maps.mean((2, 3))) + local)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax over the classes (B, num_classes): what the published model gives in eval mode."""
        return self(pixels)[2].softmax(1)

    def score(self, pixels: Tensor) -> Tensor:
        return self.probabilities(pixels)[:, 1:].sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy plus 0.1 x detection loss.

        The areas to find: of a forgery the whole image and, where its mask is known, the smallest box around it (for
        a partial swap that is its window); of a real photo none.
        """
        boxes, anchor_logits, logits = (output.float() for output in self(batch.pixels))
        labels = batch.fake.long() if self.fc.out_features == 2 else batch.kind
        classification = F.cross_entropy(logits, labels)
        areas = [_areas(fake, mask).to(self.anchors) for fake, mask in zip(batch.fake, batch.mask, strict=True)]
        found = [assign(area, self.anchors, self.settings.overlap) for area in areas]
        targets, positive = torch.stack([t for t, _ in found]), torch.stack([p for _, p in found])
        location, confidence = detection_loss(boxes, anchor_logits, targets, positive, self.settings.negatives)
        total = classification + self.settings.detection * (location + confidence)
        parts = {"classification": classification, "location": location, "confidence": confidence}
        return total, {name: value.item() for name, value in parts.items()}

    @property
    def heat_layer(self) -> nn.Module:
        """The backbone's last stage."""
        return self.base_model.layer4 if isinstance(self.base_model, ResNet) else self.base_model._bn1

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """A released checkpoint (`network` inside a .pkl). See `Baseline.from_published`."""
        state = read_state(path_or_state)
        classes = len(tensor_of(state, "fc.weight", cls.name))
        if "base_model._conv_stem.weight" in state:
            backbone = f"efficientnet-{variant_of(state, 'base_model.')}"
        else:
            backbone = f"resnet{depth_of(state, 'base_model.')}"
        model = cls(classes, backbone)
        load_strict(model, state, cls.name)
        return model.eval()
