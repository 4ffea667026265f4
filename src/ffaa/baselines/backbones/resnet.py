"""ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) with the published state-dict names.

The stride of a bottleneck sits in its 3x3 convolution, as in the weights that are in use.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ffaa.errors import UsageError, WeightsError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (Fig. 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut (Fig. 5, right); 4 x planes come out."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = shortcut(inputs, 4 * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def blocks_of(depth: int) -> tuple[Block, tuple[int, int, int, int]]:
    """The kind of block and the number of them per stage. Raises UsageError for another depth."""
    if depth not in DEPTHS:
        raise UsageError(f"there is no ResNet of depth {depth}; give one of {', '.join(map(str, DEPTHS))}")
    return DEPTHS[depth]


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The 1x1 projection of a shortcut whose sizes differ; None where they do not."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def stage(block: Block, inputs: int, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """`blocks` residual blocks; the first takes `inputs` channels and has the stride."""
    wide = planes * block.expansion
    return nn.Sequential(block(inputs, planes, stride), *(block(wide, planes) for _ in range(blocks - 1)))


def init_resnet(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out), unit batch norms; other layers keep their own."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ResNet(nn.Module):
    """A ResNet of depth 18, 34, 50, 101 or 152. num_classes None: no `fc` layer.

    width: channels of the map before pooling, 512 or 2048.
    """

    def __init__(self, depth: int = 34, num_classes: int | None = 1000):
        super().__init__()
        block, blocks = blocks_of(depth)
        self.width = 512 * block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        wide = block.expansion
        self.layer1 = stage(block, 64, 64, blocks[0])
        self.layer2 = stage(block, 64 * wide, 128, blocks[1], 2)
        self.layer3 = stage(block, 128 * wide, 256, blocks[2], 2)
        self.layer4 = stage(block, 256 * wide, 512, blocks[3], 2)
        if num_classes is not None:
            self.fc = nn.Linear(self.width, num_classes)
        init_resnet(self)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the map after `layer4`, (B, width, H / 32, W / 32)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes); needs `fc`."""
        return self.fc(self.features(x).mean((2, 3)))


def depth_of(state: Mapping[str, Tensor], prefix: str) -> int:
    """The depth of the ResNet whose keys start with `prefix`. Raises WeightsError when its blocks fit none."""
    counts = []
    for i in (1, 2, 3, 4):
        layer = f"{prefix}layer{i}."
        counts.append(len({key.removeprefix(layer).split(".")[0] for key in state if key.startswith(layer)}))
    kind: Block = Bottleneck if f"{prefix}layer1.0.conv3.weight" in state else BasicBlock
    for depth, layout in DEPTHS.items():
        if layout == (kind, tuple(counts)):
            return depth
    raise WeightsError(
        f"blocks per stage {counts} under '{prefix}' are no ResNet of depth {list(DEPTHS)}; "
        "use the published checkpoint"
    )
