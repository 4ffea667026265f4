"""nano's vision tower: EfficientNet-Lite with a residual (NPR-like) branch beside it, as a transformers model.

`hidden_states` are (previous, last), each (B, 1 + 49, hidden_size) with the pooled vector first: the layout
that `LlavaForConditionalGeneration` and MIDS expect of any vision tower.
Sources: EfficientNet-Lite (Tan & Le 2019; SiLU and squeeze-excite replaced by ReLU6), NPR (Tan et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffaa.errors import WeightsError

Lite = Literal["lite0", "lite1", "lite2"]
# (expansion, kernel, stride) of the seven stages, how many blocks each has, and their output channels
STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))
_DEEPER = (1, 3, 3, 4, 4, 5, 1)
BLOCKS: dict[Lite, tuple[int, ...]] = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite1": _DEEPER, "lite2": _DEEPER}
_NARROW = (16, 24, 40, 80, 112, 192, 320)
WIDTHS: dict[Lite, tuple[int, ...]] = {"lite0": _NARROW, "lite1": _NARROW, "lite2": (16, 24, 48, 88, 120, 208, 352)}
STEM, HEAD = 32, 1280
RESIDUAL = (32, 48, 64, 96)
GRID = 7


class ForensicVisionConfig(PretrainedConfig):
    """image_size: side of the square input, pixels (a multiple of 32). hidden_size: width of both output layers. lite:
    which EfficientNet-Lite; Lite1 is deeper, Lite2 wider too."""

    model_type = "ffaa_forensic_vision"

    def __init__(self, image_size: int = 224, hidden_size: int = 384, lite: Lite = "lite0", **kwargs: Any) -> None:
        self.image_size = image_size
        self.hidden_size = hidden_size
        self.lite = lite
        self.patch_size = image_size // GRID
        self.num_hidden_layers = 2
        super().__init__(**kwargs)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding, as the ImageNet weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        across, down = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[-1], x.shape[-2]))
        padding = (down // 2, across // 2)
        if down % 2 or across % 2:  # more of it on one side, which a convolution cannot do by itself
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            padding = (0, 0)
        if self.groups > 1 and torch.is_autocast_enabled("cpu"):
            # A CPU differentiates these in bfloat16 several times slower than in float32.
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float(), padding).to(x.dtype)
        return self._convolve(x, padding)

    def _convolve(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Module:
    layers: list[nn.Module] = [
        SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, nn.ReLU6()) if relu else nn.Sequential(*layers)


class Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project; added to its input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = inputs * expansion
        self.expand = _conv(inputs, width) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(width, width, kernel, stride, groups=width)
        self.project = _conv(width, outputs, relu=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class ResidualBranch(nn.Module):
    """What up-sampling leaves behind: the photo minus its neighbours, seen by four small convolutions.

    (B, 3, H, W) in [-1, 1] -> (B, 96, 7, 7). Two residuals: to the nearest-neighbour copy of the half-size photo
    (NPR) and to the 3 x 3 mean.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (6, *RESIDUAL)
        self.layers = nn.Sequential(*[_conv(a, b, 3, 2) for a, b in zip(widths, RESIDUAL, strict=False)])

    def forward(self, pixels: Tensor) -> Tensor:
        npr = pixels.clone()
        for row, column in product((0, 1), repeat=2):
            npr[..., row::2, column::2] -= pixels[..., ::2, ::2]
        local = pixels - _local_mean(pixels)
        return F.adaptive_avg_pool2d(self.layers(torch.cat([npr, local], 1) * 4), GRID)


def _local_mean(pixels: Tensor) -> Tensor:
    """Of 3 x 3 pixels, at the border of those there are: avg_pool2d(pixels, 3, 1, 1, count_include_pad=False), and
    faster on a CPU."""
    with torch.autocast(pixels.device.type, enabled=False):
        ones = pixels.new_ones(3, 1, 3, 3)
        counts = F.conv2d(torch.ones_like(pixels[:1, :1]), ones[:1], padding=1)
        return F.conv2d(pixels, ones, padding=1, groups=3) / counts


class ForensicVisionModel(PreTrainedModel):
    """pixel_values (B, 3, S, S) in [-1, 1] -> BaseModelOutputWithPooling with hidden_states (previous, last)."""

    config_class = ForensicVisionConfig
    base_model_prefix = "tower"
    main_input_name = "pixel_values"

    def __init__(self, config: ForensicVisionConfig):
        super().__init__(config)
        self.stem = _conv(3, STEM, 3, 2)
        stages, width, widths = [], STEM, WIDTHS[config.lite]
        for (expansion, kernel, stride), outputs, count in zip(STAGES, widths, BLOCKS[config.lite], strict=True):
            blocks = []
            for i in range(count):
                blocks.append(Block(width, outputs, expansion, kernel, stride if i == 0 else 1))
                width = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = _conv(width, HEAD)
        self.residual = ResidualBranch()
        size = config.hidden_size
        self.previous_patch = nn.Linear(widths[-2] + RESIDUAL[-1], size)
        self.previous_pooled = nn.Linear(widths[-2] + RESIDUAL[-1], size)
        self.last_patch = nn.Linear(HEAD + RESIDUAL[-1], size)
        self.last_pooled = nn.Linear(HEAD + RESIDUAL[-1], size)
        self.previous_norm = nn.LayerNorm(size)
        self.last_norm = nn.LayerNorm(size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            # transformers' own functions, which spare what was loaded: reset_running_stats() would not
            buffers = dict(module.named_buffers())
            init.zeros_(buffers["running_mean"])
            init.ones_(buffers["running_var"])
            init.zeros_(buffers["num_batches_tracked"])
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def trunk(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The convolutional part: (B, 192 + 96, 7, 7), of Lite2 208 + 96, and (B, 1280 + 96, 7, 7)."""
        x = self.stem(pixel_values)
        previous = x
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i == len(self.stages) - 2:
                previous = x
        residual = self.residual(pixel_values)
        return torch.cat([previous, residual], 1), torch.cat([self.head(x), residual], 1)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        previous, last = self.trunk(pixel_values)
        layers = []
        for grid, patch, pooled, norm in (
            (previous, self.previous_patch, self.previous_pooled, self.previous_norm),
            (last, self.last_patch, self.last_pooled, self.last_norm),
        ):
            tokens = grid.flatten(2).transpose(1, 2)
            layers.append(norm(torch.cat([pooled(tokens.mean(1, keepdim=True)), patch(tokens)], 1)))
        return BaseModelOutputWithPooling(
            last_hidden_state=layers[1], pooler_output=layers[1][:, 0], hidden_states=(layers[0], layers[1])
        )


def pixel_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 RGB images of one size -> float32 (N, 3, S, S) in [-1, 1], the tower's input."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def load_imagenet(model: ForensicVisionModel, state: Mapping[str, Tensor]) -> None:
    """Fill the convolutional part from the published EfficientNet-Lite state dict (its classifier is left out).

    Raises WeightsError when a tensor of that part is missing or one of the file stays unused.
    """
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
    inner = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
             "_project_conv": "project.0", "_bn2": "project.1"}  # fmt: skip
    places = [(s, i) for s, count in enumerate(BLOCKS[model.config.lite]) for i in range(count)]
    # a block without expansion numbers its norms from the depthwise one, as the others do
    names |= {
        f"_blocks.{number}.{name}": f"stages.{stage}.{block}.{own}"
        for number, (stage, block) in enumerate(places)
        for name, own in inner.items()
    }
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if module != "_fc":
            renamed[f"{names.get(module, module)}.{leaf}"] = value
    own = {k for k in model.state_dict() if k.startswith(("stem.", "stages.", "head."))}
    if own != set(renamed):
        raise WeightsError(
            f"EfficientNet-{model.config.lite.title()} weights do not fit: missing {sorted(own - set(renamed))}, "
            f"unexpected {sorted(set(renamed) - own)}; get the file again"
        )
    model.load_state_dict({**model.state_dict(), **renamed})


def lite_of(state: Mapping[str, Tensor], prefix: str = "") -> Lite:
    """Which EfficientNet-Lite a tower's state dict is of, by the blocks of its third stage and their channels.

    prefix: of the tower's names. Raises WeightsError where they are no tower's.
    """
    start, end = f"{prefix}stages.2.", ".project.0.weight"
    found = [len(value) for name, value in state.items() if name.startswith(start) and name.endswith(end)]
    for lite, blocks in BLOCKS.items():
        if found == [WIDTHS[lite][2]] * blocks[2]:
            return lite
    raise WeightsError(f"no vision tower: {len(found)} blocks in '{start}'; take a tower that `ffaa train` made")


AutoConfig.register(ForensicVisionConfig.model_type, ForensicVisionConfig)
AutoModel.register(ForensicVisionConfig, ForensicVisionModel)
