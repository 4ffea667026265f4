"""NPR (Tan et al. 2024): neighbouring pixel relationships, the traces of up-sampling, in a short ResNet-50."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffaa.baselines.backbones.resnet import DEPTHS, blocks_of, init_resnet, stage
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of


class NPRSettings(BaselineSettings):
    """Appendix B: 98 epochs, Adam, learning rate 2e-4, batch 32; as published the rate falls by a fifth every
    10 epochs."""

    lr: float = Field(2e-4, gt=0)
    batch: int = Field(32, ge=2)
    epochs: int | None = Field(98, ge=1)
    schedule: Literal["constant", "step", "cosine"] = "step"
    gamma: float = Field(0.8, gt=0)
    every: int = Field(10, ge=1)


class NPR(Baseline):
    """The first two stages of a ResNet on x - up(down(x)), with a 3x3 stem and one logit.

    No part depends on the size of the input. depth: of the ResNet, 18 to 152; num_classes: 1, as published (the
    sigmoid is the forgery probability), or more (class 0 is real).
    """

    name = "npr"
    settings: NPRSettings
    image_size = 256

    def __init__(
        self,
        depth: int = 50,
        num_classes: int = 1,
        image_size: int = 256,
        settings: NPRSettings | None = None,
    ):
        super().__init__()
        self.image_size, self.settings = image_size, settings or NPRSettings()
        block, counts = blocks_of(depth)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.layer1 = stage(block, 64, 64, counts[0], 1)
        self.layer2 = stage(block, 64 * block.expansion, 128, counts[1], 2)
        self.fc1 = nn.Linear(128 * block.expansion, num_classes)
        init_resnet(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(residual(pixels) * (2 / 3))))
        x = self.layer2(self.layer1(F.max_pool2d(x, 3, 2, 1)))
        return self.fc1(x.mean((2, 3)))

    def score(self, pixels: Tensor) -> Tensor:
        """Sigmoid of the one logit, or 1 - softmax of class 0, (B,)."""
        logits = self(pixels)
        return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:].sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Binary cross-entropy; cross-entropy where there are more classes."""
        logits = self(batch.pixels)
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], batch.fake)
        else:
            loss = F.cross_entropy(logits, batch.fake.long() if logits.shape[1] == 2 else batch.kind)
        return loss, {"classification": loss.item()}

    @property
    def heat_layer(self) -> nn.Module:
        """The second stage: the last map before pooling."""
        return self.layer2

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """The published `NPR.pth` or a file of the published trainer. See `Baseline.from_published`.

        That trainer leaves a layer `fc` in the model which nothing uses; it is left out.
        """
        state = read_state(path_or_state)
        if "fc1.weight" in state:
            state = {name: value for name, value in state.items() if name not in ("fc.weight", "fc.bias")}
        classes = len(tensor_of(state, "fc1.weight", cls.name))
        model = cls(_depth(state), classes)
        load_strict(model, state, cls.name)
        return model.eval()


def residual(pixels: Tensor) -> Tensor:
    """x minus x halved and doubled by nearest neighbours, (B, 3, S, S); every pixel minus the first one of its
    2x2 cell. An odd last row or column is cut off."""
    even = pixels[..., : pixels.shape[-2] // 2 * 2, : pixels.shape[-1] // 2 * 2]
    first = even[..., ::2, ::2]
    return even - first.repeat_interleave(2, -2).repeat_interleave(2, -1)


def _depth(state: State) -> int:
    """The depth whose first two stages have the blocks of `state`; of several (50 and 101) the first one."""
    blocks = [1 + max((int(name.split(".")[1]) for name in state if name.startswith(layer)), default=0)
              for layer in ("layer1.", "layer2.")]  # fmt: skip
    bottleneck = "layer1.0.conv3.weight" in state
    fitting = (depth for depth, (block, counts) in DEPTHS.items()
               if [*counts[:2]] == blocks and (block.expansion == 4) == bottleneck)  # fmt: skip
    return next(fitting, 50)
