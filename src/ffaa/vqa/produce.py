"""From a manifest to rows of FFA-VQA: one ask per face, one row per ask, in order. Resumes after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.vqa.conversation import resume_jsonl
from ffaa.vqa.prompting import draw_question
from ffaa.vqa.row import VqaRow
from ffaa.vqa.teachers.base import Ask, Teacher


def chosen(folder: Path, split: str, count: int | None, seed: int) -> list[Row]:
    """The crops of a split, in the manifest's order; with `count` a seeded draw of so many.

    Raises InputError for a manifest without crops, or when nothing is left.
    """
    rows = [row for row in manifest.scan(folder) if row.split == split]
    if any(not row.size for row in rows):
        raise InputError(f"{folder}: the manifest points to photos; build it with a crop size (224)")
    if count is not None and count < len(rows):
        kept = np.random.default_rng((seed, 8)).permutation(len(rows))[:count]
        rows = [rows[i] for i in sorted(kept.tolist())]
    if not rows:
        raise InputError(f"{folder}: no faces in the split '{split}'")
    return rows


def asks(folder: Path, rows: list[Row], seed: int) -> Iterator[Ask]:
    """Reads each crop, and its mask and reference where it has them, when its turn comes."""
    for row in rows:
        rng = np.random.default_rng((seed, 9, int(row.sha256[:12] or "0", 16)))
        yield Ask(
            row=row, image=read_photo(folder, row), question=draw_question(None, rng), seed=seed,
            mask=_picture(folder / row.mask, cv2.IMREAD_GRAYSCALE) if row.mask else None,
            reference=_picture(folder / row.reference, cv2.IMREAD_COLOR_RGB) if row.reference else None,
        )  # fmt: skip


def _picture(path: Path, how: int) -> np.ndarray:
    pixels = cv2.imread(str(path), how)
    if pixels is None:
        raise InputError(f"{path}: cannot be read; check the data folder (`ffaa data verify`)")
    return pixels


def generate(
    folder: Path,
    out: Path,
    teacher: Teacher,
    split: str = "train",
    count: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write `out` (JSON Lines of VqaRow); returns the number of rows. A killed run loses no row and doubles none.

    Rows of a teacher that keeps no replies are taken as they are, and the run goes on behind them; a teacher with a
    cache is asked again from the start, which costs nothing, so that failed requests get another chance, and `out` is
    replaced at the end. Raises InputError when `out` holds rows of other faces, another seed or another teacher.
    """
    rows = chosen(folder, split, count, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f"{out.name}.part") if teacher.cached else out
    written = 0
    if teacher.cached:
        path.unlink(missing_ok=True)
    else:
        done = resume_jsonl(out, VqaRow)
        expected = [(row.path, row.sha256, seed, teacher.name) for row in islice(rows, len(done))]
        if [(row.image, row.sha256, row.seed, row.teacher) for row in done] != expected:
            raise InputError(f"{out}: holds rows of another run; give another --out")
        written = len(done)
    progress(written, len(rows))
    with path.open("a", encoding="utf-8") as file:
        for row in teacher.teach(asks(folder, rows[written:], seed)):
            file.write(row.model_dump_json() + "\n")
            file.flush()
            written += 1
            progress(written, len(rows))
    if teacher.cached:
        path.replace(out)
    return written
