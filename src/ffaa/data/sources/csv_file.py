"""Any CSV with one photo or video a row; its columns are those of the manifest, or named by `columns`."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources.base import TYPES, Item, Source, SourceArgs, expect, inside, some
from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType, Label

NAME = "csv"
OBTAIN = "give the CSV's name as `manifest`, relative to `root`"
COLUMNS = (
    "path", "label", "forgery_type", "method", "dataset", "split", "bench", "group", "regions", "mask", "reference",
)  # fmt: skip
LABELS = {"real": Label.REAL, "0": Label.REAL, "fake": Label.FAKE, "1": Label.FAKE}
SPLITS = ("", "train", "val", "test", "bench")


def _columns(path: Path, header: list[str], args: SourceArgs) -> dict[str, str]:
    """Manifest column -> the file's column, of those the file has. Raises UsageError, InputError."""
    unknown = sorted(set(args.columns) - set(COLUMNS))
    if unknown:
        raise UsageError(f"{NAME}: no column {unknown[0]!r}; `columns` may name {', '.join(COLUMNS)}")
    names = {column: args.columns.get(column, column) for column in COLUMNS}
    for column, name in names.items():
        if name not in header and (column in args.columns or column in ("path", "label")):
            raise InputError(f"{path}: no column {name!r} (for {column}); it has {', '.join(header)}; see `columns`")
    return {column: name for column, name in names.items() if name in header}


def _type(label: Label, given: str, method: str, args: SourceArgs) -> ForgeryType:
    """Raises ValueError where the row tells none, or one that contradicts the label."""
    name = given.lower().replace(" ", "_") or ("real" if label is Label.REAL else args.types.get(method, ""))
    if not name:
        raise ValueError(f"no forgery_type, and `types` has none for method {method!r}")
    if name not in TYPES:
        raise ValueError(f"forgery_type {given!r} is none of {', '.join(TYPES)}")
    if (label is Label.REAL) != (TYPES[name] is ForgeryType.REAL):
        raise ValueError(f"label {label.value} with forgery_type {name}")
    return TYPES[name]


def _item(row: dict[str, str], where: str, args: SourceArgs) -> Item:
    """Raises ValueError for a bad value, InputError for a path that leaves the root."""
    label = LABELS.get(row["label"].lower())
    if label is None:
        raise ValueError(f"label {row['label']!r} is none of real, fake, 0 (real), 1 (fake)")
    if row["split"] not in SPLITS:
        raise ValueError(f"split {row['split']!r} is none of train, val, test, bench")
    return Item(
        inside(row["path"], where),
        label,
        _type(label, row["forgery_type"], row["method"], args),
        row["method"],
        groups=(row["group"],) if row["group"] else (),
        split=row["split"],
        reference=row["reference"] and inside(row["reference"], where),
        mask=row["mask"] and inside(row["mask"], where),
        regions=tuple(filter(None, map(str.strip, row["regions"].split(";")))),
        bench=row["bench"],
        dataset=row["dataset"],
    )


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    path = expect(root / inside(args.manifest, NAME), NAME, OBTAIN)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            names = _columns(path, header, args)
            places = {column: header.index(name) for column, name in names.items()}
            empty = dict.fromkeys(COLUMNS, "")
            for number, values in enumerate(filter(None, lines), 1):
                where = f"{path}: row {number}"
                if len(values) != len(header):
                    raise InputError(
                        f"{where}: {len(values)} values for {len(header)} columns; quote values with commas"
                    )
                row = empty | {column: values[place].strip() for column, place in places.items()}
                try:
                    item = _item(row, where, args)
                except ValueError as error:
                    raise InputError(f"{where}: {error}; correct the row") from error
                if args.methods is None or ("real" if item.label is Label.REAL else item.method) in args.methods:
                    yield item
    except (UnicodeDecodeError, csv.Error, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """The rows of args.manifest in their order, values as they stand, whether the files are there or not.

    Paths are relative to root. Columns used: those of COLUMNS, of which path and label must be there; label is real,
    fake (any case), 0 or 1; regions are separated by ';'. Groups are keys as they stand. A fake row without a
    forgery_type takes that of its method in args.types. Raises InputError with the row's number (the first after the
    header is 1).
    """
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


def real_photos(path: Path) -> list[Path]:
    """The real photos of a CSV that are in split train, or in none: what forgeries for training may be made from.

    Of each group the photo whose name has the least hash: two groups whose photos exchange faces become one, and with
    several photos of each nearly all would. Raises InputError as `read` does, and where there is no photo.
    """
    args = SourceArgs(kind=NAME, root="", manifest=path.name, methods=["real"])
    chosen: dict[tuple[str, ...], str] = {}
    for item in read(path.parent, args):
        if item.split in ("", "train"):
            key = item.groups or (item.path,)
            chosen[key] = min(chosen.get(key, item.path), item.path, key=lambda name: zlib.crc32(name.encode()))
    found = [path.parent / name for name in chosen.values()]
    if not found:
        raise InputError(f"{path}: no real photo in split train; forgeries for training need some")
    return found


SOURCE = Source(
    read,
    about="any CSV with one photo or video a row",
    obtain=OBTAIN,
    layout="manifest.csv with the columns path, label and any of " + ", ".join(COLUMNS[2:]),
)
