"""DFDC, the Deepfake Detection Challenge dataset (Dolhansky et al. 2020): actors' videos and face swaps.

Every folder with a list is read: ROOT itself, ROOT/*, ROOT/train/*. The training parts have a metadata.json with
{"label": "FAKE", "split": "train", "original": "x.mp4"} a video. The released test set has a metadata.json with
{"is_fake": 1, ...} a video, or a labels.csv (filename,label; 1 is fake), and does not tell the original; its
metadata.json could not be confirmed from public code. Which of the eight methods made a fake is not published; all
count as identity exchange, which nearly all are. Fakes share the group of their original.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ffaa.data.sources.base import (
    Item,
    Source,
    SourceArgs,
    fake,
    folders,
    inside,
    read_json,
    read_text,
    real,
    relative,
    some,
    there,
)
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "dfdc"
METHOD = "DFDC"
OBTAIN = "DFDC is given at https://ai.meta.com/datasets/dfdc/ and https://www.kaggle.com/c/deepfake-detection-challenge"
LISTS = ("metadata.json", "labels.csv")
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def _lists(root: Path) -> Iterator[Path]:
    """The list of every folder that has one, by name."""
    for parent in (root, root / "train"):
        names = []
        if parent.is_dir():
            with os.scandir(parent) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name != "train")
        for folder in (parent, *(parent / name for name in names)):
            yield from [path for name in LISTS if (path := folder / name).is_file()][:1]


def _entries(path: Path) -> dict[str, Any]:
    """Video -> what its list says. Raises InputError."""
    if path.suffix == ".json":
        entries = read_json(path)
        if not isinstance(entries, dict):
            raise InputError(f"{path}: expected an object with one entry per video")
        return entries
    lines = read_text(path).split()
    if not lines or lines[0] != "filename,label":
        raise InputError(f"{path}: expected the columns filename,label; copy the list again")
    labels = {"0": 0, "1": 1}
    return {
        name: {"is_fake": labels.get(label, label)} for name, _, label in (line.partition(",") for line in lines[1:])
    }


def _is_fake(entry: Any, where: str) -> bool:
    if isinstance(entry, dict):
        if entry.get("label") in ("REAL", "FAKE"):
            return entry["label"] == "FAKE"
        if entry.get("is_fake") in (0, 1):
            return bool(entry["is_fake"])
    raise InputError(f"{where}: expected label REAL or FAKE, or is_fake 0 or 1; found {str(entry)[:60]}")


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    folders(NAME, OBTAIN, args, [("", root), (METHOD, root)])
    found = False
    for path in _lists(root):
        found = True
        folder = path.parent
        for name, entry in sorted(_entries(path).items()):
            where = f"{path}: {name}"
            forged = _is_fake(entry, where)
            if not args.wants(METHOD if forged else ""):
                continue
            video = relative(folder / inside(name, where), root)
            split = "test" if "is_fake" in entry else SPLITS.get(str(entry.get("split")), "")
            if not forged:
                yield real(video, groups=(f"dfdc/{name}",), split=split)
                continue
            original = str(entry.get("original") or "")
            reference = there(root, relative(folder / inside(original, where), root)) if original else ""
            groups = (f"dfdc/{original or name}",)
            yield fake(video, ForgeryType.IDENTITY_EXCHANGE, METHOD, groups=groups, split=split, reference=reference)
    if not found:
        raise InputError(
            f"{NAME}: expected {root / 'dfdc_train_part_0' / 'metadata.json'}, which is not there; {OBTAIN}"
        )


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """What the lists name, by folder and name, whether the video is there or not."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="DFDC: about 120,000 ten-second videos of actors, most of them face-swapped",
    obtain=OBTAIN,
    layout="dfdc_train_part_N/{metadata.json,*.mp4}, test/{metadata.json or labels.csv,*.mp4}",
)
