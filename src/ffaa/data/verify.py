"""Check a built data folder again: files and hashes, labels, leaks between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ffaa.data import clean, manifest
from ffaa.data.clean import SPLITS, Faces
from ffaa.data.manifest import Row
from ffaa.data.phash import DISTANCE, hash_array, links
from ffaa.data.shards import read_bytes
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label


def verify(folder: Path, data: Path | None = None) -> Iterator[str]:
    """What is wrong with the manifest in `folder`, a line each; nothing when all is well.

    data: where the photos lie, for manifests that point to photos instead of crops; default: not looked at there.
    Raises InputError when the manifest cannot be read.
    """
    faces, groups, split_of = Faces(), dict[str, int](), dict[str, tuple[str, str]]()
    kinds: dict[tuple[Label, str], int] = {}
    paths, names = set[bytes](), list[str]()
    for row in manifest.scan(folder):
        name = row.path if row.time is None else f"{row.photo} at {row.time:.2f} s"
        yield from (f"{name}: {text}" for text in _row_problems(row))
        key = hashlib.blake2b(f"{row.path}|{row.track}|{row.time}".encode(), digest_size=8).digest()
        if key in paths:
            yield f"{name}: listed twice"
        paths.add(key)
        root = folder if row.size else data
        if root is not None:
            yield from (f"{name}: {text}" for text in _file_problems(root, row))
        if row.group:
            before = split_of.setdefault(row.group, (row.split, name))
            if before[0] != row.split:
                yield f"{name}: leak: its group '{row.group}' is in {row.split}, and with {before[1]} in {before[0]}"
        faces.kind.append(kinds.setdefault((row.label, row.method), len(kinds)))
        _note(faces, groups, row)
        names.append(name)
    if faces.hashes and all(faces.hashes):
        yield from _repeated(faces, names)


def _row_problems(row: Row) -> Iterator[str]:
    if (row.label is Label.REAL) != (row.forgery_type is ForgeryType.REAL):
        yield f"label {row.label.value} does not go with the type {row.forgery_type.value}"
    if row.split not in SPLITS:
        yield f"unknown split '{row.split}'"
    if bool(row.bench) != (row.split == "bench"):
        yield "rows of split bench, and only those, name a benchmark set"
    if row.size and (row.width, row.height) != (row.size, row.size):
        yield f"a crop of {row.width} x {row.height} px where the manifest says {row.size}"


def _file_problems(root: Path, row: Row) -> Iterator[str]:
    try:
        data = read_bytes(root, row)
    except InputError as error:
        yield str(error)
        return
    if hashlib.sha256(data).hexdigest() != row.sha256:
        yield "the file has changed (its sha256 differs)"
    for name in (row.mask, row.reference):
        if name and not (root / name).is_file():
            yield f"{name} is missing"


def _note(faces: Faces, groups: dict[str, int], row: Row) -> None:
    faces.item.append(len(faces.item))
    faces.digest.append(int(row.photo_sha256[:16] or "0", 16))
    faces.hashes.append(bytes.fromhex(row.phash))
    faces.given.append(SPLITS.index(row.split) if row.split in SPLITS else len(SPLITS))
    faces.fake.append(row.label is Label.FAKE)
    faces.group.append(groups.setdefault(row.group, len(groups)) if row.group else -1)


def _repeated(faces: Faces, names: list[str]) -> Iterator[str]:
    """Equal files with two labels, and photos that (nearly) agree in different splits."""
    groups: np.ndarray = np.array([g if g >= 0 else -2 - i for i, g in enumerate(faces.group)], np.int64)
    for i, why in sorted(clean.duplicates(faces, groups, DISTANCE).items()):
        if why.kind == "conflict":
            yield f"{names[i]}: the same file is labelled otherwise as {names[why.of]}"
    found = links(hash_array(faces.hashes), DISTANCE)
    for i in np.flatnonzero(found >= 0).tolist():
        if faces.given[i] != faces.given[found[i]] and groups[i] != groups[found[i]]:
            yield f"{names[i]}: leak: nearly equal to {names[found[i]]}, in another split"
