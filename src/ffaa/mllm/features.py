"""Frozen tower features of augmented crops with what was measured on them, computed once and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ffaa.data.crops import train_sample
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.evidence.measure import View, measure
from ffaa.mllm.tower import ForensicVisionModel, pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads
from ffaa.types import Evidence, ForgeryType, Label, Record
from ffaa.vqa.conversation import read_jsonl

log = logging.getLogger(__name__)


class FeatureRow(Record):
    """What belongs to row i of the feature array. A self-blended real photo carries its new label and type."""

    image: str
    sha256: str
    variant: int
    label: Label
    forgery_type: ForgeryType
    regions: tuple[str, ...]
    evidence: list[Evidence]
    tower_score: float


def compute(
    folder: Path,
    name: str,
    tower: ForensicVisionModel,
    heads: TowerHeads,
    root: Path,
    rows: Sequence[Row],
    variants: Sequence[int],
    blend: float,
    seed: int,
    batch: int = 32,
) -> tuple[np.ndarray, list[FeatureRow]]:
    """(float16 (N, 2, 1 + 49, C), rows), N = len(rows) * len(variants), variant by variant.

    Stored as folder/name.npy and folder/name.jsonl; a killed run goes on behind the last whole batch.
    """  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(v, i) for v in variants for i in range(len(rows))]
    shape = (len(jobs), 2, 1 + 49, tower.config.hidden_size)
    array_file, rows_file = folder / f"{name}.npy", folder / f"{name}.jsonl"
    done = list(read_jsonl(rows_file, FeatureRow)) if rows_file.exists() and array_file.exists() else []
    array = np.lib.format.open_memmap(array_file, "r+" if done else "w+", np.float16, None if done else shape)
    if array.shape != shape:
        raise InputError(f"{array_file}: made for other settings; remove it and {rows_file.name}")
    with rows_file.open("a" if done else "w", encoding="utf-8") as file, torch.inference_mode():
        for start in range(len(done), len(jobs), batch):
            part = jobs[start : start + batch]
            samples = [
                train_sample(root, rows[i], tower.config.image_size, np.random.default_rng((seed, 2, v, i)), blend)
                for v, i in part
            ]
            hidden = tower(pixel_tensor([s.image for s in samples])).hidden_states
            array[start : start + len(part)] = torch.stack(hidden, 1).half().numpy()
            array.flush()
            scores = heads.forgery_logit(hidden).sigmoid().tolist()
            for (variant, i), sample, score in zip(part, samples, scores, strict=True):
                found = FeatureRow(
                    image=rows[i].path, sha256=rows[i].sha256, variant=variant, label=sample.label,
                    forgery_type=sample.forgery_type, regions=rows[i].regions,
                    evidence=measure(View(sample.image, sample.rect)), tower_score=score,
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
