"""DeepFakeDetection (Google and Jigsaw 2019): actors in scenes, distributed inside FaceForensics++.

01__exit_phone_room.mp4 is actor 01 in a scene; 01_02__exit_phone_room__YVGY8LOK.mp4 the same video with the face of 02.
The group is the target video: with the actors as keys nearly everything would be one group, since each of the 28 is
swapped with many others. Splits by group therefore do not separate persons. There is no official split.
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
    fake,
    folders,
    media,
    real,
    relative,
    some,
    there,
)
from ffaa.data.sources.faceforensics import videos
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "deepfakedetection"
METHOD = "DeepFakeDetection"
OBTAIN = (
    "DeepFakeDetection is given on request with FaceForensics++: "
    "https://github.com/ondyari/FaceForensics/blob/master/dataset/README.md"
)


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    original = videos(root, "original_sequences/actors", args.compression)
    changed = videos(root, f"manipulated_sequences/{METHOD}", args.compression)
    for method, folder in folders(NAME, OBTAIN, args, [("", original), (METHOD, changed)]):
        for path in media(folder, VIDEO_SUFFIXES):
            match = re.fullmatch(r"(\d\d)_\d\d__(.+)__[^_]+" if method else r"(\d\d)__(.+)", path.stem)
            if match is None:
                wanted = "01_02__scene__CODE.mp4" if method else "01__scene.mp4"
                raise InputError(f"{NAME}: {path} is not named like {wanted}; {OBTAIN}")
            target = f"{match[1]}__{match[2]}"
            groups = (f"deepfakedetection/{target}",)
            if not method:
                yield real(relative(path, root), groups=groups)
                continue
            yield fake(
                relative(path, root),
                ForgeryType.IDENTITY_EXCHANGE,
                METHOD,
                groups=groups,
                reference=there(root, f"{relative(original, root)}/{target}{path.suffix}"),
                mask=there(root, f"manipulated_sequences/{METHOD}/masks/videos/{path.name}"),
            )


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Originals, then swaps, by name."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="DeepFakeDetection (Google): 363 videos of 28 actors and 3,068 face swaps",
    obtain=OBTAIN,
    layout="original_sequences/actors/C/videos/01__scene.mp4, manipulated_sequences/DeepFakeDetection/C/videos/"
    "01_02__scene__CODE.mp4, manipulated_sequences/DeepFakeDetection/masks/videos (C: raw, c23 or c40)",
)
