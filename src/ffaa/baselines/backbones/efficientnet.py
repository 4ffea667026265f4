"""EfficientNet B0 to B7 (Tan & Le, "EfficientNet: Rethinking Model Scaling", ICML 2019) with the state-dict names of
the widely used PyTorch port (`_conv_stem`, `_blocks`, `_conv_head`, `_fc`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffaa.errors import WeightsError


class _Stage(NamedTuple):
    """A row of Table 1: blocks, kernel, stride, expansion, channels."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
# variant: width, depth, dropout before the classifier
VARIANTS: dict[str, tuple[float, float, float]] = {
    "b0": (1.0, 1.0, 0.2),
    "b1": (1.0, 1.1, 0.2),
    "b2": (1.1, 1.2, 0.3),
    "b3": (1.2, 1.4, 0.3),
    "b4": (1.4, 1.8, 0.4),
    "b5": (1.6, 2.2, 0.4),
    "b6": (1.8, 2.6, 0.5),
    "b7": (2.0, 3.1, 0.5),
}
_DROP_CONNECT = 0.2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _channels(base: int, width: float) -> int:
    """Scaled channels: a multiple of 8, never more than 10 % below the wanted number."""
    wanted = base * width
    found = max(8, int(wanted + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wanted else found


def _blocks(depth: float) -> list[int]:
    return [math.ceil(row.blocks * depth) for row in _STAGES]


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's 'same' pads an even map: at stride 2 one more pixel right and below.

    The port fixes the padding by the variant's nominal image size, which is even, for all layers.
    """

    def forward(self, input: Tensor) -> Tensor:
        total = max(self.kernel_size[0] - self.stride[0], 0)
        before = total // 2
        padded = F.pad(input, (before, total - before) * 2) if total else input
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze and excitation; drop: probability that a sample's residual is left out."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, drop: float):
        super().__init__()
        wide, squeezed = inputs * expand, max(1, inputs // 4)
        if expand != 1:
            self._expand_conv = SameConv(inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._se_reduce = SameConv(wide, squeezed, 1)
        self._se_expand = SameConv(squeezed, wide, 1)
        self._project_conv = SameConv(wide, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.expand, self.residual, self.drop = expand != 1, stride == 1 and inputs == outputs, drop

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self._bn0(self._expand_conv(x))) if self.expand else x
        out = F.silu(self._bn1(self._depthwise_conv(out)))
        gate = self._se_expand(F.silu(self._se_reduce(out.mean((2, 3), keepdim=True))))
        out = self._bn2(self._project_conv(torch.sigmoid(gate) * out))
        if not self.residual:
            return out
        if self.training and self.drop:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) >= self.drop
            out = out / (1 - self.drop) * kept
        return out + x


class EfficientNet(nn.Module):
    """The convolutions of a variant 'b0' to 'b7'. The published layout carries an ImageNet `_fc` that is never used.

    width: channels of the map that comes out. dropout: the variant's rate before a classifier.
    """

    def __init__(self, variant: str = "b4"):
        super().__init__()
        width, depth, self.dropout = VARIANTS[variant]
        inputs = _channels(32, width)
        self._conv_stem = SameConv(3, inputs, 3, 2, bias=False)
        self._bn0 = _norm(inputs)
        counts = _blocks(depth)
        made: list[nn.Module] = []
        for row, count in zip(_STAGES, counts, strict=True):
            outputs = _channels(row.channels, width)
            for i in range(count):
                drop = _DROP_CONNECT * len(made) / sum(counts)
                made.append(MBConv(inputs, outputs, row.kernel, 1 if i else row.stride, row.expand, drop))
                inputs = outputs
        self._blocks = nn.ModuleList(made)
        self.width = _channels(1280, width)
        self._conv_head = SameConv(inputs, self.width, 1, bias=False)
        self._bn1 = _norm(self.width)
        self._fc = nn.Linear(self.width, 1000)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> map (B, width, H / 32, W / 32)."""
        x = F.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.silu(self._bn1(self._conv_head(x)))


def variant_of(state: Mapping[str, Tensor], prefix: str) -> str:
    """The variant whose keys start with `prefix`. Raises WeightsError when the sizes fit none."""
    stem = state[f"{prefix}_conv_stem.weight"].shape[0]
    blocks = len({key.removeprefix(f"{prefix}_blocks.").split(".")[0] for key in state if f"{prefix}_blocks." in key})
    head = state.get(f"{prefix}_conv_head.weight")
    for name, (width, depth, _) in VARIANTS.items():
        sizes = (_channels(32, width), sum(_blocks(depth)))
        if sizes == (stem, blocks) and (head is None or head.shape[0] == _channels(1280, width)):
            return name
    raise WeightsError(
        f"{blocks} blocks after a stem of {stem} channels under '{prefix}' are no EfficientNet B0 to B7; "
        "use the published checkpoint"
    )
