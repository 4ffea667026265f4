"""Forgeries from a folder of real faces: photos, forged photos, masks, recipes and a manifest.

A run that was killed goes on where it stopped when it is started again, and ends with the same files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field, ValidationError

from ffaa.data.faces import detector, split_by_size
from ffaa.data.forge.base import VERSION, ForgeRecipe, find_points, pixel_hash
from ffaa.data.forge.files import append, png, read, table
from ffaa.data.forge.operations import OPERATIONS, forge, operation
from ffaa.data.images import load_photo, shown
from ffaa.data.landmarks import pose
from ffaa.data.processes import ProcessPool
from ffaa.data.sources.base import TYPES
from ffaa.errors import InputError, UsageError
from ffaa.files import write
from ffaa.types import Box, ForgeryType, Label, Record

log = logging.getLogger(__name__)

COLUMNS = ("path", "sha256", "label", "forgery_type", "method", "dataset", "split", "bench", "group", "regions",
           "width", "height", "mask", "reference")  # fmt: skip
_NAMES = {kind: name for name, kind in TYPES.items()}
_BATCH = 256
_WIDE_POSE = 15.0  # degrees of yaw within which two faces are exchanged first


class Found(Record):
    """A photo of the folder. reason: why it cannot be used; otherwise its copy in real/ and what is known of it."""

    source: str
    reason: str = ""
    stem: str = ""
    pixels: str = Field("", description="sha256 of the copy's pixels")
    file: str = Field("", description="sha256 of the copy")
    width: int = 0
    height: int = 0
    box: Box | None = None
    yaw: float = 0.0


class Made(Record):
    """A forged photo: paths relative to the output folder. reason: why there is none."""

    stem: str
    operation: str
    path: str = ""
    mask: str = ""
    reference: str = ""
    sha256: str = ""
    regions: tuple[str, ...] = ()
    reason: str = ""
    recipe: ForgeRecipe | None = None


class _Settings(Record):
    version: str
    photos: str = Field(description="sha256 of the photos' names")
    operations: list[str]
    count: int | None
    seed: int
    max_side: int
    dataset: str
    split: str


def forge_folder(
    photos: Iterable[str | Path],
    out: Path,
    operations: Sequence[str] = tuple(OPERATIONS),
    count: int | None = None,
    seed: int = 0,
    *,
    max_side: int = 1024,
    dataset: str = "forge",
    split: str = "",
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Forges every usable photo once by every operation; returns the path of `out`/manifest.csv.

    photos: of real faces. count: at most so many of them, a seeded draw. max_side: larger photos are scaled down to it.
    dataset, split: for the manifest; an empty split is left to whoever reads it. progress: called with the stage
    ('faces', 'forgeries'), done, and the total.

    Real and forged photos are written by the same PNG encoder. What cannot be used is listed in rejected.csv. Two
    photos that exchange faces share their group, and so do all forgeries of a photo.
    Raises UsageError for an unknown operation, or a folder that holds a run with other settings; InputError when no
    photo is usable.
    """
    for name in operations:
        operation(name)
    paths = [str(path) for path in photos]
    names = json.dumps(sorted(map(os.path.basename, paths)))
    settings = _Settings(
        version=VERSION,
        photos=hashlib.sha256(names.encode()).hexdigest(),
        operations=list(operations),
        count=count,
        seed=seed,
        max_side=max_side,
        dataset=dataset,
        split=split,
    )
    _claim(out, settings)
    ordered = sorted(set(paths), key=lambda path: (_order(seed, path), path))
    with ProcessPool(workers) if workers > 1 else _Here() as pool:
        found = _find(ordered, out, settings, pool, progress)
        usable = [photo for photo in found if not photo.reason]
        if not usable:
            raise InputError(f"no usable face in {len(found)} photo(s); {out / 'rejected.csv'} says why")
        donors = _pair(usable, seed) if any(OPERATIONS[name].people == 2 for name in operations) else {}
        made = _make(usable, donors, out, settings, pool, progress)
    _write_rejected(out, found, made)
    lines = [record.model_dump_json() for record in made if record.recipe is not None]
    write(out / "recipes.jsonl", "".join(f"{line}\n" for line in lines).encode())
    write(out / "manifest.csv", _manifest(usable, donors, made, settings))
    return out / "manifest.csv"


class _Here:
    """The pool of a run without further processes."""

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
        return map(function, jobs)


def _order(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{os.path.basename(text)}".encode("utf-8", "surrogateescape")).hexdigest()


def _claim(out: Path, settings: _Settings) -> None:
    """Makes the folder this run's, or checks that it is."""
    file = out / "settings.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.is_file() and _Settings.model_validate_json(file.read_bytes()) != settings:
            raise UsageError(
                f"{out} holds forgeries of other photos or settings (settings.json); choose another folder"
            )
        write(file, settings.model_dump_json(indent=2).encode() + b"\n")
    except ValidationError:
        raise UsageError(f"{file} is no settings of this version; choose another folder") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another folder") from error


# --- faces -----------------------------------------------------------------------------------------------------------


def _find(
    ordered: list[str], out: Path, settings: _Settings, pool: Any, progress: Callable[[str, int, int], None] | None
) -> list[Found]:
    """The photos in order until `count` are usable; new ones are looked at, and noted in faces.jsonl."""
    known = {record.source: record for record in read(out / "faces.jsonl", Found)}
    stems = _stems(ordered)
    want = len(ordered) if settings.count is None else min(settings.count, len(ordered))
    found: list[Found] = []
    pixels: set[str] = set()
    with (out / "faces.jsonl").open("a", encoding="utf-8") as notes:
        while len(pixels) < want and len(found) < len(ordered):
            # never more photos at once than may still be used: real/ holds no others
            batch = ordered[len(found) : len(found) + min(want - len(pixels), _BATCH)]
            jobs = [(path, stems[path]) for path in batch if shown(path) not in known]
            fresh = pool.map(partial(_look, out, settings.max_side), jobs)
            for path in batch:
                photo = known.get(shown(path))
                if photo is None:
                    photo = next(fresh)
                    append(notes, photo)
                if photo.pixels in pixels:
                    (out / "real" / f"{photo.stem}.png").unlink(missing_ok=True)
                    photo = Found(source=photo.source, reason="the same pixels as another photo of the folder")
                elif not photo.reason:
                    pixels.add(photo.pixels)
                found.append(photo)
                if progress is not None:
                    progress("faces", len(found), len(ordered))
    return found


def _stems(ordered: list[str]) -> dict[str, str]:
    """A file name without suffix for every photo: its own, numbered where two would share one."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(ordered):
        own = "".join(c if c.isalnum() or c in "-_." else "_" for c in shown(Path(path).stem))[:100] or "photo"
        stem, number = own, 2
        while stem.lower() in taken:  # some file systems do not tell capitals apart
            stem, number = f"{own}-{number}", number + 1
        taken.add(stem.lower())
        stems[path] = stem
    return stems


def _look(out: Path, max_side: int, job: tuple[str, str]) -> Found:
    """One photo: its largest usable face, and its copy in real/."""
    path, stem = job
    try:
        photo = load_photo(path).pixels
        scale = max_side / max(photo.shape[:2])
        if scale < 1:
            photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        usable, small = split_by_size(detector()(photo))
        if not usable:
            raise InputError(f"only faces below {small[-1].box.width + 1} px" if small else "no face found")
        face = find_points(photo, usable[0].box)
    except InputError as error:
        return Found(source=shown(path), reason=str(error))
    data = png(photo)
    write(out / "real" / f"{stem}.png", data)
    return Found(
        source=shown(path), stem=stem, pixels=pixel_hash(photo), file=hashlib.sha256(data).hexdigest(),
        width=photo.shape[1], height=photo.shape[0], box=face.box, yaw=pose(face.points)[0],
    )  # fmt: skip


def _pair(usable: list[Found], seed: int) -> dict[str, Found]:
    """Stem -> the photo it exchanges faces with; disjoint pairs, of faces turned alike. An odd one stays alone."""
    ordered = sorted(usable, key=lambda photo: (round(photo.yaw / _WIDE_POSE), _order(seed, photo.pixels)))
    donors = {}
    for one, two in zip(ordered[::2], ordered[1::2]):  # the odd one falls out
        donors[one.stem], donors[two.stem] = two, one
    return donors


# --- forgeries -------------------------------------------------------------------------------------------------------


def _make(
    usable: list[Found],
    donors: dict[str, Found],
    out: Path,
    settings: _Settings,
    pool: Any,
    progress: Callable[[str, int, int], None] | None,
) -> list[Made]:
    """Every forgery, in a fixed order; new ones are made, and noted in progress.jsonl."""
    known = {(record.stem, record.operation): record for record in read(out / "progress.jsonl", Made)}
    jobs = [
        (photo, donors.get(photo.stem), name)
        for photo in usable
        for name in settings.operations
        if OPERATIONS[name].people == 1 or photo.stem in donors
    ]
    fresh = pool.map(
        partial(_forge_one, out, settings.seed), [job for job in jobs if (job[0].stem, job[2]) not in known]
    )
    made = []
    with (out / "progress.jsonl").open("a", encoding="utf-8") as notes:
        for photo, _, name in jobs:
            record = known.get((photo.stem, name))
            if record is None:
                record = next(fresh)
                append(notes, record)
            made.append(record)
            if progress is not None:
                progress("forgeries", len(made), len(jobs))
    return made


def _forge_one(out: Path, seed: int, job: tuple[Found, Found | None, str]) -> Made:
    """One forgery, written to disk. Photos are read from real/, whose pixels the recipe names."""
    photo, donor, name = job
    faces = []
    try:
        for used in (photo, donor)[: OPERATIONS[name].people]:
            assert used is not None
            assert used.box is not None
            bgr = cv2.imread(str(out / "real" / f"{used.stem}.png"), cv2.IMREAD_COLOR)
            if bgr is None:
                raise InputError(f"{out / 'real' / used.stem}.png is gone; remove {out} and start again")
            faces.append(find_points(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), used.box))
        own = int(hashlib.sha256(f"{seed}:{name}:{photo.pixels}".encode()).hexdigest()[:12], 16)
        forged = forge(name, own, faces)
    except InputError as error:
        return Made(stem=photo.stem, operation=name, reason=str(error))
    path, mask = f"fake/{name}/{photo.stem}.png", f"masks/{name}/{photo.stem}.png"
    data = png(forged.image)
    write(out / path, data)
    write(out / mask, png(np.round(forged.mask * 255).astype(np.uint8)))
    return Made(
        stem=photo.stem, operation=name, path=path, mask=mask, reference=f"real/{photo.stem}.png",
        sha256=hashlib.sha256(data).hexdigest(), regions=forged.regions, recipe=forged.recipe,
    )  # fmt: skip


# --- lists -----------------------------------------------------------------------------------------------------------


def _write_rejected(out: Path, found: list[Found], made: list[Made]) -> None:
    rows = [{"path": shown(photo.source), "reason": photo.reason} for photo in found if photo.reason]
    rows += [{"path": f"real/{m.stem}.png", "operation": m.operation, "reason": m.reason} for m in made if m.reason]
    write(out / "rejected.csv", table(("path", "operation", "reason"), rows))


def _manifest(usable: list[Found], donors: dict[str, Found], made: list[Made], settings: _Settings) -> bytes:
    rows = []
    forged: dict[str, list[Made]] = {}
    for record in made:
        if record.recipe is not None:
            forged.setdefault(record.stem, []).append(record)
    for photo in sorted(usable, key=lambda p: p.stem):
        people = [photo.pixels, *([donors[photo.stem].pixels] if photo.stem in donors else [])]
        row = {
            "path": f"real/{photo.stem}.png", "sha256": photo.file, "label": Label.REAL.value,
            "forgery_type": _NAMES[ForgeryType.REAL], "dataset": settings.dataset, "split": settings.split,
            "group": f"{settings.dataset}-{min(people)[:16]}", "width": photo.width, "height": photo.height,
        }  # fmt: skip
        rows.append(row)
        for record in forged.get(photo.stem, []):
            rows.append(
                row
                | {
                    "path": record.path, "sha256": record.sha256, "label": Label.FAKE.value,
                    "forgery_type": _NAMES[OPERATIONS[record.operation].forgery_type], "method": record.operation,
                    "regions": ";".join(record.regions), "mask": record.mask, "reference": record.reference,
                }
            )  # fmt: skip
    return table(COLUMNS, rows)
