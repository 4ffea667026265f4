"""DFFD, the Diverse Fake Face Dataset (Dang et al. 2020): photos, one folder per generator.

The release names no identities and no originals, so every photo stands alone. Not confirmed from an official page:
the mask folders, here METHOD/SPLIT_mask with the photo's name, as public readers of the set have them. CelebA's photos
are not in the release; put them into celeba/ likewise, or read them as kind pgc. The FaceForensics++ part: kind
faceforensics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffaa.data.images import SUFFIXES
from ffaa.data.sources.base import (
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
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "dffd"
OBTAIN = "DFFD is given on request: http://cvlab.cse.msu.edu/dffd-dataset.html"
REAL = ("ffhq", "celeba")
METHODS = {
    "faceapp": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "stargan": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "pggan_v1": ForgeryType.ENTIRE_FACE_SYNTHESIS,
    "pggan_v2": ForgeryType.ENTIRE_FACE_SYNTHESIS,
    "stylegan_celeba": ForgeryType.ENTIRE_FACE_SYNTHESIS,
    "stylegan_ffhq": ForgeryType.ENTIRE_FACE_SYNTHESIS,
}
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    known = [*(("", root / name) for name in REAL), *((method, root / method) for method in METHODS)]
    for method, folder in folders(NAME, OBTAIN, args, known):
        parts = [name for name in SPLITS if (folder / name).is_dir()]
        if not parts:
            raise InputError(f"{NAME}: expected {folder / 'train'}, validation or test, none is there; {OBTAIN}")
        for part in parts:
            for photo in media(folder / part, SUFFIXES):
                path = relative(photo, root)
                if not method:
                    yield real(path, split=SPLITS[part])
                    continue
                mask = there(root, f"{method}/{part}_mask/{relative(photo, folder / part)}")
                yield fake(path, METHODS[method], method, split=SPLITS[part], mask=mask)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Photos by folder, split and name."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="DFFD: FFHQ and CelebA photos, FaceApp and StarGAN edits, PGGAN and StyleGAN faces",
    obtain=OBTAIN,
    layout="{ffhq,celeba,faceapp,stargan,pggan_v1,pggan_v2,stylegan_celeba,stylegan_ffhq}/{train,validation,test}/*.png"
    ", METHOD/{train,validation,test}_mask/*.png",
)
