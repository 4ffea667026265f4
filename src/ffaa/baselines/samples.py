"""Training images of a baseline. Which row and which augmentation follow from (seed, index) alone, so a run resumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ffaa.baselines.base import Batch
from ffaa.baselines.facial_swap import swap_row
from ffaa.baselines.recipe import Augment, BaselineRecipe
from ffaa.data.crops import plain_face, read_photo, seed_each, train_sample
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label

CROP = 224  # side of the face crop that a detector is given; it resizes to its own input
_CELLS = 7
_SWAPS = 3  # draws of a facial swap before the forgery is taken as it is
_KINDS = list(ForgeryType)
Preprocess = Callable[[Sequence[np.ndarray]], Tensor]


class Drawn(NamedTuple):
    """image: uint8 RGB (S, S, 3). cells: float32 (7, 7), share of changed pixels per cell, -1 unknown."""

    image: np.ndarray
    cells: np.ndarray


def face_of(root: Path, row: Row) -> np.ndarray:
    """The crop (224, 224, 3), uint8 RGB, that `ffaa analyze` would make of the row: what detectors are tested on."""
    return plain_face(read_photo(root, row), row, CROP).image


class Samples(Dataset):
    """`count` samples. key: seeds that tell this series from others. With `balance`, real and forged rows take turns;
    each of the two is gone through in a new random order every time."""

    def __init__(
        self,
        root: Path,
        rows: Sequence[Row],
        recipe: BaselineRecipe,
        size: int,
        preprocess: Preprocess,
        key: tuple[int, ...],
        count: int,
    ):
        self.root, self.recipe, self.size, self.preprocess = root, recipe, size, preprocess
        self.key, self.count = key, count
        self.pools = [list(rows)]
        if recipe.balance:
            halves = ([r for r in rows if r.label is label] for label in Label)
            self.pools = [half for half in halves if half]

    def __len__(self) -> int:
        return self.count

    def row(self, index: int) -> Row:
        """The row of a sample."""
        turn, which = divmod(index, len(self.pools))
        pool = self.pools[which]
        again, place = divmod(turn, len(pool))
        return pool[np.random.default_rng((*self.key, 0, which, again)).permutation(len(pool))[place]]

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a Batch without its first dimension."""
        row, rng = self.row(index), np.random.default_rng((*self.key, 1, index))
        drawn = draw(self.root, row, self.recipe, self.size, rng)
        pixels = self.preprocess([drawn.image])[0]
        if self.recipe.crop is not None:
            top, left = rng.integers(0, self.size - self.recipe.crop + 1, 2)
            pixels = pixels[:, top : top + self.recipe.crop, left : left + self.recipe.crop]
        return Batch(
            pixels,
            torch.tensor(float(row.label is Label.FAKE)),
            torch.tensor(_KINDS.index(row.forgery_type)),
            torch.from_numpy(drawn.cells),
        )


def draw(root: Path, row: Row, recipe: BaselineRecipe, size: int, rng: np.random.Generator) -> Drawn:
    """An augmented training image. size: side of the detector's input."""
    if recipe.augment == "ours":
        sample = train_sample(root, row, size, rng)
        return Drawn(sample.image, sample.mask)
    swapped = _swapped(root, row, rng) if recipe.swap else None
    image, cells = swapped or Drawn(face_of(root, row), _cells(root, row))
    transform = augmentation(recipe.augment, size)
    seed_each(transform, rng)
    if cells.min() < 0:
        return Drawn(transform(image=image)["image"], cells)
    out = transform(image=image, mask=cv2.resize(cells, image.shape[1::-1], interpolation=cv2.INTER_NEAREST))
    return Drawn(out["image"], cv2.resize(out["mask"], (_CELLS, _CELLS), interpolation=cv2.INTER_AREA))


def _swapped(root: Path, row: Row, rng: np.random.Generator) -> Drawn | None:
    for _ in range(_SWAPS if row.reference and row.label is Label.FAKE else 0):
        if (swap := swap_row(root, row, CROP, rng)) is not None:
            return Drawn(swap.image, swap.mask)
    return None


def _cells(root: Path, row: Row) -> np.ndarray:
    """The changed share of each cell of the row's crop; -1 where it is not known, or the crop is still to be cut."""
    if row.forgery_type in (ForgeryType.REAL, ForgeryType.ENTIRE_FACE_SYNTHESIS):
        return np.full((_CELLS, _CELLS), float(row.label is Label.FAKE), np.float32)
    if not row.mask or not row.size:
        return np.full((_CELLS, _CELLS), -1, np.float32)
    mask = cv2.imread(str(root / row.mask), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise InputError(f"{root / row.mask}: missing or damaged; build the data again")
    return cv2.resize(mask.astype(np.float32) / 255, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)


@cache
def augmentation(name: Augment, size: int) -> Any:
    """An albumentations pipeline.

    'flip': Xception's (appendix B), RECCE's and NPR's. 'exposing': that of the published code (its rotation, shift and
    scale as one affine map). 'clipping': CoOp's random resized cut of 8 to 100 % of the area, and the flip.
    """
    import albumentations as A

    flip = A.HorizontalFlip(p=0.5)
    if name == "none":
        return A.Compose([])
    if name == "clipping":
        cut = A.RandomResizedCrop((size, size), scale=(0.08, 1.0), interpolation=cv2.INTER_CUBIC)
        return A.Compose([cut, flip])
    if name == "exposing":
        return A.Compose(
            [
                A.ImageCompression(quality_range=(60, 100), p=0.5),
                A.GaussNoise(std_range=(0.0124, 0.0277), p=0.1),  # variance 10 to 50 of 255 levels
                A.GaussianBlur((3, 3), p=0.05),
                flip,
                A.OneOf([A.RandomBrightnessContrast(), A.FancyPCA(), A.HueSaturationValue()], p=0.7),
                A.ToGray(p=0.2),
                A.Affine(translate_percent=(-0.1, 0.1), scale=(0.8, 1.2), rotate=(-10, 10), p=0.5),
            ]
        )
    return A.Compose([flip])
