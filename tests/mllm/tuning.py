"""A small set of plain crops with conversations about them, for the tests of tuning."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from tests.vqa.rows import row as vqa_row
from tests.vqa.rows import told

from ffaa.data import manifest
from ffaa.data.manifest import Row
from ffaa.recipe import Recipe
from ffaa.types import ForgeryType, Label


def make_set(folder: Path, train: int = 16, val: int = 4) -> Path:
    """Crops of 24 x 24 px, light for real and dark for fake, with a manifest; returns the folder."""
    (folder / "crops").mkdir(parents=True)
    rows = []
    for i in range(train + val):
        label = (Label.REAL, Label.FAKE)[i % 2]
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 90, (24, 24, 3), np.uint8) + np.uint8(150 * (label is Label.REAL))
        path = folder / "crops" / f"{i}.png"
        Image.fromarray(pixels).save(path)
        rows.append(
            Row(
                path=f"crops/{i}.png", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), width=24, height=24,
                label=label, forgery_type=ForgeryType.REAL if label is Label.REAL else ForgeryType.IDENTITY_EXCHANGE,
                dataset="plain", split="train" if i < train else "val", size=24, photo_width=24, photo_height=24,
            )
        )  # fmt: skip
    manifest.write(folder / manifest.NAME, rows)
    return folder


def rows_of(folder: Path, **changes):
    """A `VqaRow` about each crop, of different lengths; `changes` are those of all."""
    out = []
    for i, found in enumerate(manifest.read(folder)):
        known = {"image": found.path, "sha256": found.sha256, "label": found.label, "split": found.split,
                 "forgery_type": found.forgery_type}  # fmt: skip
        texts = told(("A face.",) * (1 + i % 3), ("Its skin is even.",) * (1 + i % 2))
        out.append(vqa_row(i, **known, **{"sentences": texts, "method": ""} | changes))
    return out


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(base: str = "llava_mistral", mllm=(), **tune) -> Recipe:
    """Two steps of 8 an epoch on `make_set`'s 16, two epochs."""
    return Recipe.model_validate(
        {
            "name": "tuned",
            "base": {"random": base},
            "data": {"held": 0},
            "mllm": {"epochs": 2, "batch": 8, "lr": 1e-2, "projector_lr": 1e-3, "bf16": False, "save_steps": 2,
                     "lora": {"r": 4, "alpha": 8, "dropout": 0.1}} | dict(mllm),
            "tune": {"per_device": 4, "workers": 0, "samples": 1, "sample_tokens": 4} | tune,
        }
    )  # fmt: skip
