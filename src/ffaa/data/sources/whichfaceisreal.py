"""WhichFaceIsReal (West and Bergstrom 2019): FFHQ photos and StyleGAN faces, as CNNDetection's test set holds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffaa.data.images import SUFFIXES
from ffaa.data.sources.base import Item, Source, SourceArgs, fake, folders, media, real, relative, some
from ffaa.types import ForgeryType

NAME = "whichfaceisreal"
METHOD = "StyleGAN"
OBTAIN = "it is the folder whichfaceisreal of the test set at https://github.com/PeterWang512/CNNDetection"


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    for method, folder in folders(NAME, OBTAIN, args, [("", root / "0_real"), (METHOD, root / "1_fake")]):
        for photo in media(folder, SUFFIXES):
            path = relative(photo, root)
            yield fake(path, ForgeryType.ENTIRE_FACE_SYNTHESIS, METHOD) if method else real(path)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Reals, then fakes, by name; every photo stands alone."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="WhichFaceIsReal: 1,000 FFHQ photos and 1,000 StyleGAN faces",
    obtain=OBTAIN,
    layout="0_real/*.jpeg, 1_fake/*.jpeg",
)
