"""DeeperForensics-1.0 (Jiang et al. 2020): actors' faces put into FaceForensics++ videos by DF-VAE, in 11 variants.

000_M101.mp4 is FaceForensics++'s video 000 with the face of actor M101; both are its groups, so that it meets the same
video in kind faceforensics. The unchanged targets are not in the collection. Its authors name them, not the actors'
studio recordings (source_videos, read here as real), as the real part for detection: to follow them, leave 'real' out
of `methods` and add FaceForensics++ c23 with methods: [real]. The official split separates the actors; recordings
follow their actor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources import faceforensics
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
)
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "deeperforensics"
OBTAIN = (
    "DeeperForensics-1.0 is given on request: "
    "https://github.com/EndlessSora/DeeperForensics-1.0/blob/master/dataset/README.md"
)
METHODS = (
    "end_to_end",
    *(f"end_to_end_level_{i}" for i in range(1, 6)),
    "end_to_end_random_level",
    *(f"end_to_end_mix_{i}_distortions" for i in range(2, 5)),
    "reenact_postprocess",
)


def _parts(path: Path | str, where: str) -> tuple[str, str]:
    """Target video and actor of a swap's file name."""
    match = re.fullmatch(r"(\d{3})_([MW]\d{3})", Path(path).stem)
    if match is None:
        raise InputError(f"{where}: {str(path)!r} is not named TARGET_ACTOR.mp4 such as 000_M101.mp4; {OBTAIN}")
    return match[1], match[2]


def official(folder: Path) -> dict[str, str]:
    """Actor -> split from train.txt, val.txt and test.txt, which list swaps, one a line. Raises InputError."""
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = expect(folder / f"{split}.txt", NAME, f"{OBTAIN} (or set official: false)")
        for line in filter(None, map(str.strip, read_text(path).splitlines())):
            _, actor = _parts(line, str(path))
            if splits.setdefault(actor, split) != split:
                raise InputError(f"{path}: actor {actor} is also in {splits[actor]}.txt; copy the lists again")
    return splits


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    known = [("", root / "source_videos"), *((m, root / "manipulated_videos" / m) for m in METHODS)]
    found = folders(NAME, OBTAIN, args, known)
    splits = official(root / "lists" / "splits") if args.official else {}
    for method, folder in found:
        for file in media(folder, VIDEO_SUFFIXES):
            path = relative(file, root)
            if method:
                target, actor = _parts(file, NAME)
                groups = (f"deeperforensics/{actor}", faceforensics.group(target))
                kind = ForgeryType.IDENTITY_EXCHANGE
                yield fake(path, kind, method, groups=groups, split=splits.get(actor, ""))
            else:
                actor = relative(file, folder).split("/")[0]
                yield real(path, groups=(f"deeperforensics/{actor}",), split=splits.get(actor, ""))


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """The actors' recordings, then every variant, by name."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="DeeperForensics-1.0: 48,475 recordings of 100 actors and 1,000 face swaps in 11 variants",
    obtain=OBTAIN,
    layout="source_videos/M101/**/*.mp4, manipulated_videos/end_to_end*/000_M101.mp4, "
    "lists/splits/{train,val,test}.txt",
)
