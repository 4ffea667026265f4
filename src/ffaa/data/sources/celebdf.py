"""Celeb-DF v2 (Li et al. 2020): celebrities' YouTube videos and face swaps between them.

id0_id1_0000.mp4 is the video id0_0000.mp4 with the face of id1. The group is that target video: every celebrity is
swapped with many others, so that with the identities as keys one group would remain. Splits by group therefore do not
separate persons; the official test list does not either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources.base import (
    VIDEO_SUFFIXES,
    Item,
    Source,
    SourceArgs,
    expect,
    fake,
    folders,
    media,
    read_text,
    real,
    relative,
    some,
    there,
)
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "celebdf"
METHOD = "Celeb-DF-v2"
OBTAIN = "Celeb-DF v2 is given on request: https://github.com/yuezunli/celeb-deepfakeforensics"
LIST = "List_of_testing_videos.txt"
NAMES = {"Celeb-real": r"(id\d+)_(\d+)", "YouTube-real": r"\d+", "Celeb-synthesis": r"(id\d+)_id\d+_(\d+)"}


def official(path: Path) -> set[str]:
    """The test videos: lines such as '1 YouTube-real/00170.mp4', where 1 is real. Raises InputError."""
    listed = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([01])\s+((Celeb-real|YouTube-real|Celeb-synthesis)/\S+)", line.strip())
        if match is None or (match[1] == "1") != (match[3] != "Celeb-synthesis"):
            raise InputError(f"{path}: line {number}: expected '1 YouTube-real/00170.mp4', found {line[:60]!r}")
        listed.add(match[2])
    return listed


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    known = [("", root / "Celeb-real"), ("", root / "YouTube-real"), (METHOD, root / "Celeb-synthesis")]
    found = folders(NAME, OBTAIN, args, known)
    test = official(expect(root / LIST, NAME, f"{OBTAIN} (or set official: false)")) if args.official else set()
    for _, folder in found:
        for file in media(folder, VIDEO_SUFFIXES):
            match = re.fullmatch(NAMES[folder.name], file.stem)
            if match is None:
                raise InputError(f"{NAME}: {file} is not named as in the release; {OBTAIN}")
            path = relative(file, root)
            split = "test" if path in test else ""
            if folder.name == "YouTube-real":
                yield real(path, groups=(f"celebdf/youtube_{file.stem}",), split=split)
                continue
            target = f"{match[1]}_{match[2]}"
            groups = (f"celebdf/{target}",)
            if folder.name == "Celeb-real":
                yield real(path, groups=groups, split=split)
            else:
                reference = there(root, f"Celeb-real/{target}{file.suffix}")
                kind = ForgeryType.IDENTITY_EXCHANGE
                yield fake(path, kind, METHOD, groups=groups, split=split, reference=reference)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Celeb-real, YouTube-real, Celeb-synthesis, by name. Split test for the listed videos, '' for the others."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="Celeb-DF v2: 890 YouTube videos (590 of celebrities) and 5,639 face swaps",
    obtain=OBTAIN,
    layout="Celeb-real/id0_0000.mp4, YouTube-real/00000.mp4, Celeb-synthesis/id0_id1_0000.mp4, " + LIST,
)
