"""Xception (Chollet 2017, Fig. 5) with the names of the published PyTorch state dict."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ffaa.baselines.base import State


class SeparableConv2d(nn.Module):
    """A 3x3 convolution per channel, then a 1x1 convolution across them; no bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """Separable convolutions beside a shortcut. widths: channels before, between and after them.

    relu_first: a ReLU precedes the first one too. stride 2: a max pooling ends the block.
    """

    def __init__(self, widths: tuple[int, ...], stride: int = 1, relu_first: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.ReLU(), SeparableConv2d(inputs, outputs), nn.BatchNorm2d(outputs)]
        if stride != 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.rep = nn.Sequential(*layers[0 if relu_first else 1 :])
        self.skip: nn.Module | None = None
        if stride != 1 or widths[0] != widths[-1]:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, widths[0], H, W) -> (B, widths[-1], H / stride, W / stride)."""
        return self.rep(x) + (x if self.skip is None else self.skipbn(self.skip(x)))


class XceptionBackbone(nn.Module):
    """Entry flow (to block3), middle flow (block4 to block11), exit flow (from block12), head `fc`."""

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.block1 = Block((64, 128, 128), 2, relu_first=False)
        self.block2 = Block((128, 256, 256), 2)
        self.block3 = Block((256, 728, 728), 2)
        for number in range(4, 12):
            setattr(self, f"block{number}", Block((728, 728, 728, 728)))
        self.block12 = Block((728, 728, 1024), 2)
        self.conv3, self.bn3 = SeparableConv2d(1024, 1536), nn.BatchNorm2d(1536)
        self.conv4, self.bn4 = SeparableConv2d(1536, 2048), nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, num_classes)

    def stem(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 64, about S / 2, S / 2)."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))

    def blocks(self, x: Tensor, first: int, last: int) -> Tensor:
        """`x` through the blocks first ... last."""
        for number in range(first, last + 1):
            x = getattr(self, f"block{number}")(x)
        return x

    def exit(self, x: Tensor) -> Tensor:
        """Output of block12 (B, 1024, H, W) -> pooled features (B, 2048)."""
        x = F.relu(self.bn3(self.conv3(x)))
        return F.relu(self.bn4(self.conv4(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, num_classes)."""
        return self.fc(self.exit(self.blocks(self.stem(x), 1, 12)))


def with_kernels(state: State) -> dict[str, Tensor]:
    """The 2018 file stores the 1x1 convolutions as matrices (out, in); here they are (out, in, 1, 1) always."""
    return {
        name: value[..., None, None] if name.endswith("pointwise.weight") and value.ndim == 2 else value
        for name, value in state.items()
    }
