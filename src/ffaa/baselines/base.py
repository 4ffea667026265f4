"""The one protocol of the baselines: pixels in, forgery score out, the published loss, the published checkpoint."""

from __future__ import annotations

import math
import pickle
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ffaa.errors import WeightsError

State = Mapping[str, Tensor]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Resampling = Literal["bilinear", "bicubic", "opencv"]
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")


class Batch(NamedTuple):
    """What a loss is computed on.

    pixels (B, 3, S, S) float32, from the baseline's `preprocess`; fake (B,) float, 0 real or 1 fake; kind (B,) int64,
    index in the order of ffaa.types.ForgeryType; mask (B, 7, 7) float, share of changed pixels per cell, -1 unknown.
    """

    pixels: Tensor
    fake: Tensor
    kind: Tensor
    mask: Tensor


class BaselineSettings(BaseModel):
    """How a baseline is trained. Each baseline's defaults are those of the paper's appendix B and, where that says
    nothing, of its own publication."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adam", "sgd", "adamw"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; Adam has its usual betas")
    batch: int = Field(32, ge=2)
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, description="training ends after these instead of after epochs")
    schedule: Literal["constant", "step", "cosine"] = "constant"
    gamma: float = Field(1.0, gt=0, description="schedule 'step': the factor")
    every: int = Field(1, ge=1, description="schedule 'step': epochs between two steps")
    warmup_epochs: int = Field(0, ge=0, description="epochs at `warmup_lr` before the schedule begins")
    warmup_lr: float = Field(1e-5, gt=0)
    clip: float | None = Field(None, gt=0, description="gradients are clipped to this value, each by itself")

    def rate_at(self, epoch: int, epochs: int) -> float:
        """The learning rate in an epoch, counted from 0, of a training of `epochs`. The cosine begins at `lr` behind
        the warm-up, and would be 0 after the last epoch."""
        if epoch < self.warmup_epochs:
            return self.warmup_lr
        if self.schedule == "step":
            return self.lr * self.gamma ** (epoch // self.every)
        if self.schedule == "cosine":
            done = (epoch - self.warmup_epochs) / max(1, epochs - self.warmup_epochs)
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        return self.lr


class Baseline(nn.Module, ABC):
    """A published detector. Its modules carry the names of the published state dict.

    image_size: side of the input; an instance may have another one. mean, std, resampling: of the published input.
    """

    name: ClassVar[str]
    image_size: int
    mean: ClassVar[tuple[float, float, float]] = IMAGENET_MEAN
    std: ClassVar[tuple[float, float, float]] = IMAGENET_STD
    resampling: ClassVar[Resampling] = "bilinear"
    settings: BaselineSettings

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB images (S, S, 3), each of any size -> float32 (N, 3, image_size, image_size), normalised."""
        return to_pixels(images, self.image_size, self.mean, self.std, self.resampling)

    @abstractmethod
    def score(self, pixels: Tensor) -> Tensor:
        """Forgery probabilities (B,) in [0, 1]; the module must be in eval mode. Gradients flow."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The published training loss (a scalar) and its parts by name; the module must be in train mode."""

    @property
    @abstractmethod
    def heat_layer(self) -> nn.Module:
        """The layer whose output (B, C, H, W) Grad-CAM looks at."""

    @classmethod
    @abstractmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """The released checkpoint (or its state dict) as a module in eval mode; sizes are read from the tensors.

        Raises WeightsError when it cannot be read or has missing, unexpected or misshapen keys.
        """


def to_pixels(
    images: Sequence[np.ndarray],
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resampling: Resampling = "bilinear",
) -> Tensor:
    """uint8 RGB (S, S, 3) -> float32 (N, 3, size, size), (x / 255 - mean) / std.

    resampling: Pillow's bilinear or bicubic filter (as in torchvision, antialiased), or OpenCV's bilinear one (as in
    Albumentations, not antialiased).
    """
    pixels = torch.from_numpy(np.stack([_resize(image, size, resampling) for image in images]))
    pixels = pixels.permute(0, 3, 1, 2).float().div_(255)
    return pixels.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None]).contiguous()


def _resize(image: np.ndarray, size: int, resampling: Resampling) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    if resampling == "opencv":
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize((size, size), _PILLOW[resampling]))


def read_state(path_or_state: str | Path | State) -> dict[str, Tensor]:
    """A checkpoint's tensors by their published names, without what training wrapped around them.

    path: safetensors, a PyTorch file of tensors alone, or a TorchScript archive (as OpenAI's CLIP).
    Taken off: a dict around the state dict (`state_dict`, `model`, ...; its other entries are ignored) and the prefix
    `module.` of all keys. Raises WeightsError when the file cannot be read or holds no state dict.
    """
    content: Any = path_or_state
    if isinstance(path_or_state, (str, Path)):
        path = Path(path_or_state)
        try:
            if path.suffix == ".safetensors":
                content = load_file(path)
            elif _is_torchscript(path):
                content = torch.jit.load(path, map_location="cpu").state_dict()
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
            first = (str(error).splitlines() or ["empty"])[0]
            raise WeightsError(f"{path} is not a readable checkpoint ({first}); fetch it again") from error
    where = path_or_state if isinstance(path_or_state, (str, Path)) else "the state dict"
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    ):
        raise WeightsError(f"{where} does not hold a state dict of tensors; use the published checkpoint")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def tensor_of(state: State, key: str, name: str) -> Tensor:
    """The tensor that a size is read from. Raises WeightsError naming the key when it is missing."""
    if key not in state:
        raise WeightsError(f"the checkpoint does not fit {name}: missing ['{key}']; use the published one")
    return state[key]


def load_strict(module: nn.Module, state: State, name: str) -> None:
    """Fill all of `module` from all of `state`. Raises WeightsError listing every key or shape that differs.

    Files of before PyTorch 0.4.1 know no `num_batches_tracked`; where none is present the counters stay 0.
    """
    own = module.state_dict()
    missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
    if not any(key.endswith("num_batches_tracked") for key in state):
        missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"the checkpoint does not fit {name}: missing {missing}, unexpected {unexpected}, other shape {shapes}; "
            f"use the published one of this configuration"
        )
    module.load_state_dict(state, strict=False)
