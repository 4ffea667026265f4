"""MobileNet (Howard et al., "MobileNets", 2017, Table 1) with the state-dict names of the region models of "Exposing
the Deception"."""

from __future__ import annotations

from torch import Tensor, nn

# (output channels, stride) of each depthwise-separable block after the first convolution
_BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def _convolve(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class MobileNet(nn.Module):
    """The convolutions of MobileNet. The published layout carries an `fc` that is never used."""

    width = 1024

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [nn.Sequential(*_convolve(3, 32, 3, 2))], 32
        for outputs, stride in _BLOCKS:
            separable = _convolve(inputs, inputs, 3, stride, inputs) + _convolve(inputs, outputs, 1, 1)
            layers.append(nn.Sequential(*separable))
            inputs = outputs
        self.model = nn.Sequential(*layers)
        self.fc = nn.Linear(self.width, 1000)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> map (B, 1024, H / 32, W / 32)."""
        return self.model(x)
