"""FaceForensics++ (Roessler et al. 2019): YouTube videos and five manipulations of each.

Names are TARGET_SOURCE: the face (or expression) of SOURCE put into the video TARGET. Every pair exists in both
directions, so target and source share a group. FaceShifter has no masks; masks are the same for all compressions.
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
    read_json,
    real,
    relative,
    some,
    there,
)
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "faceforensics"
OBTAIN = "FaceForensics++ is given on request: https://github.com/ondyari/FaceForensics/blob/master/dataset/README.md"
SPLITS = (
    "copy train.json, val.json and test.json from https://github.com/ondyari/FaceForensics/tree/master/dataset/splits "
    "into it, or set official: false"
)
METHODS = {
    "Deepfakes": ForgeryType.IDENTITY_EXCHANGE,
    "Face2Face": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "FaceSwap": ForgeryType.IDENTITY_EXCHANGE,
    "NeuralTextures": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "FaceShifter": ForgeryType.IDENTITY_EXCHANGE,
}


def videos(root: Path, sequences: str, compression: str) -> Path:
    """The folder of a sequence's videos; the lossless ones lie in raw or, in copies compressed by oneself, in c0."""
    names = ("raw", "c0") if compression == "raw" else (compression,)
    paths = [root / sequences / name / "videos" for name in names]
    return next((path for path in paths if path.is_dir()), paths[0])


def group(video: str) -> str:
    """The group key of a YouTube original ('000' ... '999')."""
    return f"faceforensics/{video}"


def official(folder: Path, name: str, obtain: str) -> dict[str, str]:
    """Video -> split from train.json, val.json and test.json: lists of pairs of video numbers.

    Raises InputError when a list is missing or not of that form.
    """
    splits: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = expect(folder / f"{split}.json", name, obtain)
        pairs = read_json(path)
        if not isinstance(pairs, list):
            raise InputError(f"{path}: expected a list of pairs of video numbers; {obtain}")
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(video, str) for video in pair)):
                raise InputError(f"{path}: expected pairs of video numbers, found {str(pair)[:60]}; {obtain}")
            for video in pair:
                if splits.setdefault(video, split) != split:
                    raise InputError(f"{path}: video {video} is also in {splits[video]}.json; {obtain}")
    return splits


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    original = videos(root, "original_sequences/youtube", args.compression)
    known = [(m, videos(root, f"manipulated_sequences/{m}", args.compression)) for m in METHODS]
    found = folders(NAME, OBTAIN, args, [("", original), *known])
    splits = official(root / "splits", NAME, SPLITS) if args.official else {}
    for method, folder in found:
        for path in media(folder, VIDEO_SUFFIXES):
            match = re.fullmatch(r"(\d{3})_(\d{3})" if method else r"(\d{3})", path.stem)
            if match is None:
                wanted = "TARGET_SOURCE.mp4 such as 000_003.mp4" if method else "000.mp4 to 999.mp4"
                raise InputError(f"{NAME}: {path} is not named {wanted}; {OBTAIN}")
            groups, split = tuple(map(group, match.groups())), splits.get(match[1], "")
            if not method:
                yield real(relative(path, root), groups=groups, split=split)
                continue
            yield fake(
                relative(path, root),
                METHODS[method],
                method,
                groups=groups,
                split=split,
                reference=there(root, f"{relative(original, root)}/{match[1]}{path.suffix}"),
                mask=there(root, f"manipulated_sequences/{method}/masks/videos/{path.name}"),
            )


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Originals, then every method, by name. The official lists are read from ROOT/splits when args.official."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="FaceForensics++: 1,000 videos and Deepfakes, Face2Face, FaceSwap, NeuralTextures, FaceShifter of each",
    obtain=OBTAIN,
    layout="original_sequences/youtube/C/videos/000.mp4, manipulated_sequences/METHOD/C/videos/000_003.mp4, "
    "manipulated_sequences/METHOD/masks/videos/000_003.mp4 (C: raw, c23 or c40), splits/{train,val,test}.json",
)
