"""Where MIDS's visual layers come from while it is trained: stored features, or crops whose frozen part is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ffaa.errors import InputError
from ffaa.files import write
from ffaa.mids.augment import augment
from ffaa.mids.encoder import SplitEncoder
from ffaa.mids.model import MIDS


class Images(Protocol):
    """(rows, epoch) -> (last, last but one), float32 (B, 1 + P, C) each, as `MIDS.project` wants them. The epoch
    decides over augmentation, where there is any."""

    def __call__(self, rows: Sequence[int], epoch: int = 0) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Stored:
    """Features on disk: (N, 2, 1 + P, C), last but one first, as `ffaa.mllm.features` writes them."""

    array: np.ndarray

    def __call__(self, rows: Sequence[int], epoch: int = 0) -> tuple[Tensor, Tensor]:
        part = torch.from_numpy(np.array(self.array[list(rows)])).float()
        return part[:, 1], part[:, 0]


@dataclass(frozen=True)
class Crops:
    """image: row -> uint8 RGB (S, S, 3). prepare: that -> the image encoder's input (1, 3, H, W)."""

    image: Callable[[int], np.ndarray]
    prepare: Callable[[np.ndarray], Tensor]

    def pixels(self, row: int, seed: int, variant: int | None) -> Tensor:
        """(1, 3, H, W) of a row; variant None: as it is, else augmented."""
        image = self.image(row)
        return self.prepare(image if variant is None else augment(image, seed, row, variant))


class CropImages:
    """The image encoder on crops. Its frozen part runs once per crop and variant and is kept in half precision; its
    trained blocks run whenever they are asked.

    variants: None, the crops as they are; else so many augmented copies of each, epoch e seeing copy e modulo variants;
    0: another augmentation in every epoch, for which nothing can be kept. An encoder that is trained as a whole has
    nothing to keep either. file: where to keep (.npy, with its progress beside it); None: in memory.
    key: what the kept depends on beside all this (photos, encoder). Raises InputError for a file of another key.
    """

    def __init__(
        self,
        mids: MIDS,
        crops: Crops,
        rows: Sequence[int],
        variants: int | None = None,
        seed: int = 0,
        file: Path | None = None,
        key: str = "",
        batch: int = 16,
    ):
        self.mids, self.crops, self.variants, self.seed = mids, crops, variants, seed
        self.split = SplitEncoder(mids.image_encoder, mids.config.unfreeze)
        self.kept: np.ndarray | None = None
        if variants == 0 or mids.config.unfreeze == "all":
            return
        self._place = {row: i for i, row in enumerate(rows)}
        jobs = [(v, row) for v in ([None] if variants is None else range(variants)) for row in rows]
        self.kept = self._fill(jobs, file, key, batch)

    def __call__(self, rows: Sequence[int], epoch: int = 0) -> tuple[Tensor, Tensor]:
        dtype = self.mids.classifier.weight.dtype
        if self.kept is None:
            variant = None if self.variants is None else epoch % self.variants if self.variants else epoch
            below = self._below([(variant, row) for row in rows])
        else:
            ahead = len(self._place) * (epoch % self.variants if self.variants else 0)
            below = torch.from_numpy(np.array(self.kept[[ahead + self._place[row] for row in rows]]))
        last, previous = self.split.above(below.to(self.device, dtype))
        return last.to(dtype), previous.to(dtype)

    @property
    def device(self) -> torch.device:
        return self.mids.classifier.weight.device

    def _below(self, jobs: Sequence[tuple[int | None, int]]) -> Tensor:
        pixels = torch.cat([self.crops.pixels(row, self.seed, variant) for variant, row in jobs])
        encoder = next(self.mids.image_encoder.parameters())
        return self.split.below(pixels.to(self.device, encoder.dtype))

    def _fill(self, jobs: Sequence[tuple[int | None, int]], file: Path | None, key: str, batch: int) -> np.ndarray:
        shape = (len(jobs), *self._below(jobs[:1]).shape[1:])
        if file is None:
            kept: np.ndarray = np.empty(shape, np.float16)
            for start, part in self._computed(jobs, 0, batch):
                kept[start : start + len(part)] = part
            return kept
        note = file.with_suffix(".json")
        key = f"{key} {shape} {self.variants} {self.seed} {self.mids.config.unfreeze}"
        done = 0
        if file.exists() and note.exists():
            was = json.loads(note.read_text())
            if was["key"] != key:
                raise InputError(f"{file}: made for other settings or photos; remove it and {note.name}")
            done = int(was["done"])
        file.parent.mkdir(parents=True, exist_ok=True)
        new = np.lib.format.open_memmap(file, "r+" if done else "w+", np.float16, None if done else shape)
        for start, part in self._computed(jobs, done, batch):
            new[start : start + len(part)] = part
            new.flush()
            write(note, json.dumps({"key": key, "done": start + len(part)}).encode())
        return np.load(file, mmap_mode="r")

    def _computed(
        self, jobs: Sequence[tuple[int | None, int]], done: int, batch: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(done, len(jobs), batch):
            yield start, self._below(jobs[start : start + batch]).half().cpu().numpy()
