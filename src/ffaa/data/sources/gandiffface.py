"""GANDiffFace (Melzi et al. 2023): synthetic persons, made by StyleGAN3 and a fine-tuned diffusion model.

The photos of one synthetic person lie in one folder, and share a group. The release has one folder per demographic
group with one folder per person in it (Black_Male/7381461/49.png) - as public users of the 10K release have it; no
official page shows it. Any depth is read: the folder that holds a photo is the person.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffaa.data.images import SUFFIXES
from ffaa.data.sources.base import Item, Source, SourceArgs, fake, folders, media, relative, some
from ffaa.errors import InputError
from ffaa.types import ForgeryType

NAME = "gandiffface"
METHOD = "GANDiffFace"
OBTAIN = "GANDiffFace is given by its authors: https://github.com/PietroMelzi/GANDiffFace"


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    for _, folder in folders(NAME, OBTAIN, args, [(METHOD, root)]):
        for photo in media(folder, SUFFIXES):
            if photo.parent == root:
                raise InputError(
                    f"{NAME}: {photo} lies in no person's folder, as in Black_Male/7381461/49.png; {OBTAIN}"
                )
            groups = (f"gandiffface/{relative(photo.parent, root)}",)
            yield fake(relative(photo, root), ForgeryType.ENTIRE_FACE_SYNTHESIS, METHOD, groups=groups)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Photos by folder and name; all are synthesised."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="GANDiffFace: photos of synthetic persons (10,000 in the larger release)",
    obtain=OBTAIN,
    layout="Black_Male/7381461/49.png: DEMOGRAPHY/PERSON/PHOTO",
)
