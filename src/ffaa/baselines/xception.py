"""Xception (Chollet 2017) as a forgery detector (Rossler et al. 2019): two classes, cross-entropy."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffaa.baselines.backbones.xception import XceptionBackbone, with_kernels
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of


class XceptionSettings(BaselineSettings):
    """Appendix B: 20 epochs, Adam, learning rate 1e-3, batch 112, weight decay 1e-6; horizontal flips."""

    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    batch: int = Field(112, ge=2)
    epochs: int | None = Field(20, ge=1)


class Xception(XceptionBackbone, Baseline):
    """Class 0 is real; every other class is a forgery (the published detector has two classes)."""

    name = "xception"
    settings: XceptionSettings
    image_size = 299
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, num_classes: int = 2, image_size: int = 299, settings: XceptionSettings | None = None):
        super().__init__(num_classes)
        self.image_size, self.settings = image_size, settings or XceptionSettings()

    def score(self, pixels: Tensor) -> Tensor:
        """1 - softmax of class 0, (B,)."""
        return self(pixels).softmax(1)[:, 1:].sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy over real / fake, or over the forgery types where there are more classes."""
        target = batch.fake.long() if self.fc.out_features == 2 else batch.kind
        loss = F.cross_entropy(self(batch.pixels), target)
        return loss, {"classification": loss.item()}

    @property
    def heat_layer(self) -> nn.Module:
        """conv4's norm: the last map before pooling (its ReLU is applied behind it)."""
        return self.bn4

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """A state dict with the head `fc` or `last_linear` (of FaceForensics++: `model.last_linear`, with or without
        a dropout before it). See `Baseline.from_published`."""
        state = with_kernels(read_state(path_or_state))
        if all(name.startswith("model.") for name in state):
            state = {name.removeprefix("model."): value for name, value in state.items()}
        head = ("last_linear.1.", "last_linear.")
        for old in head:
            state = {f"fc.{name.removeprefix(old)}" if name.startswith(old) else name: v for name, v in state.items()}
        model = cls(len(tensor_of(state, "fc.weight", cls.name)))
        load_strict(model, state, cls.name)
        return model.eval()
