"""MultiFFDI (Global Multimedia Deepfake Detection challenge, 2024; later MFFI): photos with labels, nothing more.

trainset_label.txt and valset_label.txt are CSV with the columns img_name,target (1 is fake); the photos lie in
trainset/ and valset/. The lists tell neither method nor forgery type - the fakes are swaps, edits and syntheses of some
fifty generators - so a recipe must say what type to note for them: types: {MultiFFDI: identity_exchange}.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources.base import (
    TYPES,
    Item,
    Source,
    SourceArgs,
    expect,
    fake,
    folders,
    inside,
    real,
    relative,
    some,
)
from ffaa.errors import InputError, UsageError

NAME = "multiffdi"
METHOD = "MultiFFDI"
OBTAIN = (
    "MultiFFDI is given at https://www.kaggle.com/competitions/multi-ffdi and https://github.com/inclusionConf/MFFI"
)
LISTS = {"trainset_label.txt": "train", "valset_label.txt": "val"}


def _labels(path: Path) -> Iterator[tuple[str, bool]]:
    """Photo and whether it is fake. Raises InputError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"img_name", "target"} <= set(rows.fieldnames or ()):
                raise InputError(f"{path}: expected the columns img_name,target; copy the list again")
            for number, row in enumerate(rows, 1):
                if row["target"] not in ("0", "1"):
                    raise InputError(f"{path}: row {number}: target is {row['target']!r}, not 0 (real) or 1 (fake)")
                yield inside(row["img_name"], f"{path}: row {number}"), row["target"] == "1"
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    folders(NAME, OBTAIN, args, [("", root), (METHOD, root)])
    if args.wants(METHOD) and METHOD not in args.types:
        raise UsageError(
            f"{NAME}: its lists tell no forgery type; give one, e.g. types: {{{METHOD}: identity_exchange}}"
        )
    if "manifest" in args.model_fields_set:
        names = [args.manifest]
    else:
        names = [name for name in LISTS if (root / name).is_file()] or list(LISTS)
    for name in names:
        path = expect(root / inside(name, NAME), NAME, OBTAIN)
        photos = path.parent / path.stem.removesuffix("_label")
        folder = relative(photos if photos.is_dir() else path.parent, root)
        for photo, forged in _labels(path):
            if not args.wants(METHOD if forged else ""):
                continue
            where, split = (photo if folder == "." else f"{folder}/{photo}"), LISTS.get(path.name, "")
            yield fake(where, TYPES[args.types[METHOD]], METHOD, split=split) if forged else real(where, split=split)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """What the lists (or only args.manifest, where given) name, in their order, whether the photo is there or not."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="MultiFFDI: challenge photos, real and made by some fifty forgers",
    obtain=OBTAIN,
    layout="trainset_label.txt and valset_label.txt (img_name,target), trainset/*.jpg, valset/*.jpg",
)
