"""The run: every sampled photo once through detection, its face crop to every detector, what they say kept on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ffaa import __version__
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.faces import MIN_FACE, cut, detector, split_by_size, whole_image
from ffaa.data.images import load_photo
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample, sample_hash
from ffaa.eval.detectors import Detector, Judgement
from ffaa.types import Face, ForgeryType, Label
from ffaa.vqa.conversation import resume_jsonl, write_jsonl

log = logging.getLogger(__name__)

BATCH = 8


class Outcome(Judgement):
    """One photo: what is true, and what one detector says. video: frames of one video have the same, '' alone."""

    path: str
    sha256: str
    split: str
    test_set: str
    label: Label
    forgery_type: ForgeryType
    video: str
    whole_image: bool


Kept = TypeVar("Kept", bound=Outcome)


def versions() -> dict[str, str]:
    """Of what the scores depend on."""
    names = ("torch", "transformers", "numpy", "opencv-python-headless", "scikit-learn")
    return {"ffaa": __version__} | {name: version(name) for name in names}


def face_of(data: Path, row: Row, size: int) -> tuple[Face, str]:
    """The face crop (size x size) of a row that all detectors see, and the sha256 of its file.

    A built set's crop, or a face that its manifest knows, is taken; else the largest face that the detector finds, and
    where it finds none, as a user would after the message, the centre of the photo. Raises InputError.
    """
    _, face, sha256 = photo_and_face(data, row, size)
    return face, sha256


def photo_and_face(data: Path, row: Row, size: int) -> tuple[np.ndarray, Face, str]:
    """(pixels of the row's file, uint8 RGB, and what `face_of` gives)."""
    if row.size or row.box is not None:
        pixels = read_photo(data, row)
        return pixels, plain_face(pixels, row, size), row.sha256
    photo = load_photo(data / row.path)
    find = detector()
    usable, _ = split_by_size(find(photo.pixels), MIN_FACE)
    face = cut(photo.pixels, usable[0], size, find.name) if usable else whole_image(photo.pixels, size)
    return photo.pixels, face, photo.source.sha256 or ""


def run(
    recipe: BenchRecipe, data: Path, detectors: Sequence[Detector], records: Path, batch: int = BATCH
) -> dict[str, list[Outcome]]:
    """Detector's name -> one outcome per sampled photo, in order.

    records: folder that keeps them, NAME.jsonl and NAME.json (of which run it is) per detector. A killed run goes on
    with the batch it stopped in; detectors may be added later. Raises InputError when a photo cannot be read, or a
    file there holds another run.
    """
    todo = sample(recipe, read_rows(recipe, data))
    if not todo:
        raise InputError(
            f"no photo of split '{recipe.in_domain}' or '{recipe.open_world}' in {data}; see the recipe's in_domain "
            f"and open_world, and the manifest's column 'split'"
        )
    done = {d.name: _resume(recipe, todo, d, records, batch) for d in detectors}
    files = {d.name: (records / f"{d.name}.jsonl").open("a", encoding="utf-8") for d in detectors}
    try:
        for start in range(0, len(todo), batch):
            waiting = [d for d in detectors if len(done[d.name]) <= start]
            if not waiting:
                continue
            rows = todo[start : start + batch]
            faces = [face_of(data, row, recipe.size) for row in rows]
            for one in waiting:
                judged = one.judge([face for face, _ in faces])
                some = [
                    outcome_of(row, said, sha256, face.crop.whole_image)
                    for row, (face, sha256), said in zip(rows, faces, judged, strict=True)
                ]
                done[one.name] += some
                files[one.name].write("".join(outcome.model_dump_json() + "\n" for outcome in some))
                files[one.name].flush()
            if start // 100 != (start + len(rows)) // 100:
                log.info("%d of %d photos", start + len(rows), len(todo))
    finally:
        for file in files.values():
            file.close()
    return done


def _resume(recipe: BenchRecipe, todo: Sequence[Row], one: Detector, records: Path, batch: int) -> list[Outcome]:
    """What is done; whole batches only, so that a photo is always judged beside the same others."""
    decides = recipe.model_dump(mode="json", exclude={"robustness", "attributes"})
    lines = claim(records, one, run_of(decides, todo, one, batch))
    done = resumed(lines, Outcome, [min(start + batch, len(todo)) for start in range(0, len(todo), batch)])
    if [outcome.path for outcome in done] != [row.path for row in todo[: len(done)]]:
        raise InputError(f"{lines}: holds other photos than this run; remove it, or give another --out")
    return done


def resumed(path: Path, kind: type[Kept], ends: Sequence[int]) -> list[Kept]:
    """The records that a killed run left, whole steps only; the file is cut behind them. ends: the number of records
    behind every step, ascending."""
    found = resume_jsonl(path, kind)
    whole = max((end for end in ends if end <= len(found)), default=0)
    if whole < len(found):
        write_jsonl(path, found[:whole])
    return found[:whole]


def run_of(recipe: dict[str, Any], todo: Sequence[Row], one: Detector, batch: int) -> dict[str, Any]:
    """What names a run of one detector: nothing else decides over what is kept of it."""
    return {
        "recipe": recipe,
        "photos": sample_hash([f"{row.path} {row.sha256} {row.label.value} {row.test_set}" for row in todo]),
        "rows": list(one.rows), "detector": one.about.model_dump(mode="json"), "batch": batch, "versions": versions(),
    }  # fmt: skip


def claim(records: Path, one: Detector, run_of: dict[str, Any]) -> Path:
    """The file that keeps a detector's records, claimed for this run. Raises InputError where it holds another's."""
    records.mkdir(parents=True, exist_ok=True)
    kept, lines = records / f"{one.name}.json", records / f"{one.name}.jsonl"
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    if before is None and lines.exists() and lines.stat().st_size:
        raise InputError(f"{lines}: it is not known of which run this is; remove it, or give another --out")
    if before is not None and before != run_of:
        other = [name for name in run_of if before.get(name) != run_of[name]]
        raise InputError(f"{lines}: holds another run ({', '.join(other)} differ); remove it, or give another --out")
    if before is None:
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(run_of, indent=1) + "\n", encoding="utf-8")
        part.replace(kept)
    return lines


def outcome_of(row: Row, judgement: Judgement, sha256: str, whole_image: bool) -> Outcome:
    """The record of a judged photo. sha256: of its file. whole_image: no face was found in it."""
    return Outcome(
        **judgement.model_dump(), path=row.path, sha256=sha256, split=row.split, test_set=row.test_set,
        label=row.label, forgery_type=row.forgery_type, video=_video(row), whole_image=whole_image,
    )  # fmt: skip


def _video(row: Row) -> str:
    """Frames of one video and person; of photos, those of one group with one label and method."""
    source = row.photo if row.time is not None else row.group
    return "|".join((row.test_set, row.label.value, row.method, source, str(row.track))) if source else ""
