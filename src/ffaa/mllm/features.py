"""Frozen tower features of augmented crops with what was measured on them, computed once and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ffaa.data.crops import Sample, plain_face, read_photo, train_sample
from ffaa.data.faces import face_rect
from ffaa.data.landmarks import landmarks
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.evidence.examine import examine, examine_face
from ffaa.mllm.tower import ForensicVisionModel, pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads
from ffaa.types import Box
from ffaa.vqa.conversation import read_jsonl, resume_jsonl
from ffaa.vqa.generate import MeasuredFace

log = logging.getLogger(__name__)


class FeatureRow(MeasuredFace):
    """What belongs to row i of the feature array. A self-blended real photo carries its new label and type."""


class _Samples(Dataset):
    """Crops with their evidence. Augmentation follows from (seed, variant, row) alone; blend None: there is none."""

    def __init__(
        self,
        root: Path,
        rows: Sequence[Row],
        jobs: list[tuple[int, int]],
        size: int,
        blend: float | None,
        blurred: float,
        seed: int,
    ):
        self.root, self.rows, self.jobs, self.size, self.seed = root, rows, jobs, size, seed
        self.blend, self.blurred = blend, blurred

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[Sample, dict[str, float]]:
        variant, row = self.jobs[index]
        if self.blend is None:
            return _plain_sample(self.root, self.rows[row], self.size)
        rng = np.random.default_rng((self.seed, 2, variant, row))
        sample = train_sample(self.root, self.rows[row], self.size, rng, self.blend, blurred=self.blurred)
        left, top, right, bottom = sample.rect
        points = landmarks(sample.image, Box(left=left, top=top, right=right, bottom=bottom))
        return sample, examine(sample.image, points).values


def _plain_sample(root: Path, row: Row, size: int) -> tuple[Sample, dict[str, float]]:
    """The crop that `analyze` makes, with what it measures there."""
    face = plain_face(read_photo(root, row), row, size)
    unknown = np.full((7, 7), -1, np.float32)
    sample = Sample(face.image, row.label, row.forgery_type, unknown, face_rect(face.crop, face.box))
    return sample, examine_face(face).values


def compute(
    folder: Path,
    name: str,
    tower: ForensicVisionModel,
    heads: TowerHeads,
    root: Path,
    rows: Sequence[Row],
    variants: Sequence[int],
    blend: float | None,
    seed: int,
    batch: int = 32,
    workers: int = 2,
    dtype: type[np.floating] = np.float16,
    blurred: float = 0.0,
) -> tuple[np.ndarray, list[FeatureRow]]:
    """(`dtype` (N, 2, 1 + 49, C), rows), N = len(rows) * len(variants), variant by variant.

    blend: share of real photos that are self-blended; None: crops as `analyze` makes them, without augmentation.
    blurred: share of the crops that lose their fine detail (`blur_out`).
    Stored as folder/name.npy and folder/name.jsonl; a killed run goes on behind the last whole batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(v, i) for v in variants for i in range(len(rows))]
    shape = (len(jobs), 2, 1 + 49, tower.config.hidden_size)
    array_file, rows_file = folder / f"{name}.npy", folder / f"{name}.jsonl"
    done = resume_jsonl(rows_file, FeatureRow, batch) if array_file.exists() else []
    array = np.lib.format.open_memmap(array_file, "r+" if done else "w+", dtype, None if done else shape)
    if array.shape != shape:
        raise InputError(f"{array_file}: made for other settings; remove it and {rows_file.name}")
    rest = _Samples(root, rows, jobs[len(done) :], tower.config.image_size, blend, blurred, seed)
    loader = DataLoader(rest, batch_size=batch, num_workers=workers, collate_fn=list)
    with rows_file.open("a" if done else "w", encoding="utf-8") as file, torch.inference_mode():
        for part in loader:
            start = len(done)
            hidden = tower(pixel_tensor([sample.image for sample, _ in part])).hidden_states
            array[start : start + len(part)] = torch.stack(hidden, 1).numpy()
            array.flush()
            scores, kinds = heads.opinion(hidden)
            told = zip(jobs[start:], part, scores, kinds, strict=False)
            for (variant, i), (sample, values), score, kind in told:
                found = FeatureRow(
                    image=rows[i].path, sha256=rows[i].sha256, variant=variant, label=sample.label,
                    forgery_type=sample.forgery_type, values=values, tower_score=score, tower_type=kind,
                )  # fmt: skip
                done.append(found)
                file.write(found.model_dump_json() + "\n")
            file.flush()
            if start // batch % 20 == 0:
                log.info("features %s: %d of %d", name, len(done), len(jobs))
    return np.load(array_file, mmap_mode="r"), done


def load(folder: Path, name: str) -> tuple[np.ndarray, list[FeatureRow]]:
    """What `compute` stored."""
    return np.load(folder / f"{name}.npy", mmap_mode="r"), list(read_jsonl(folder / f"{name}.jsonl", FeatureRow))
