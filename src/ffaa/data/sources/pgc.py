"""PGC: CelebA's aligned photos (Liu et al. 2015) and faces made by PGGAN (Karras et al. 2018), as one test set.

CelebA as released: Img/img_align_celeba, Eval/list_eval_partition.txt, Anno/identity_CelebA.txt (given by its authors
on request; without it a photo stands alone); the two lists may also lie beside the folder of photos, as copies have
them. PGGAN: the generated photos of its CelebA-HQ network (images/100k-generated-images of the release) below PGGAN/,
at any depth - how that archive unpacks could not be confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffaa.data.images import SUFFIXES
from ffaa.data.sources.base import (
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

NAME = "pgc"
METHOD = "PGGAN"
OBTAIN = (
    "CelebA is given at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, PGGAN's generated photos at "
    "https://github.com/tkarras/progressive_growing_of_gans"
)
PARTITION = {"0": "train", "1": "val", "2": "test"}


def _list(path: Path) -> dict[str, str]:
    """Photo -> the number beside it. Raises InputError."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        parts = line.split()
        if len(parts) == 2 and parts[1].isdecimal():
            found[parts[0]] = parts[1]
        elif parts:
            raise InputError(
                f"{path}: line {number}: expected '000001.jpg 0', found {line[:60]!r}; copy the list again"
            )
    return found


def _celeba(celeba: Path, photos: Path, root: Path, args: SourceArgs) -> Iterator[Item]:
    partition, identity = (
        next((p for p in (celeba / part / name, celeba / name) if p.is_file()), celeba / part / name)
        for part, name in (("Eval", "list_eval_partition.txt"), ("Anno", "identity_CelebA.txt"))
    )
    splits = _list(expect(partition, NAME, f"{OBTAIN} (or set official: false)")) if args.official else {}
    wrong = sorted(set(splits.values()) - set(PARTITION))
    if wrong:
        raise InputError(
            f"{partition}: partition {wrong[0]} is not 0 (train), 1 (val) or 2 (test); copy the list again"
        )
    persons = _list(identity) if identity.is_file() else {}
    for photo in media(photos, SUFFIXES):
        person = persons.get(photo.name)
        groups = (f"celeba/{person}",) if person else ()
        yield real(relative(photo, root), groups=groups, split=PARTITION.get(splits.get(photo.name, ""), ""))


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    celeba = root / "CelebA"
    photos = next((p for p in (celeba / "Img/img_align_celeba", celeba / "img_align_celeba") if p.is_dir()), None)
    known = [("", photos or celeba / "Img/img_align_celeba"), (METHOD, root / "PGGAN")]
    for method, folder in folders(NAME, OBTAIN, args, known):
        if not method:
            yield from _celeba(celeba, folder, root, args)
            continue
        for photo in media(folder, SUFFIXES):
            yield fake(relative(photo, root), ForgeryType.ENTIRE_FACE_SYNTHESIS, METHOD)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """CelebA, then PGGAN, by name."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="PGC: 202,599 aligned CelebA photos and PGGAN faces",
    obtain=OBTAIN,
    layout="CelebA/Img/img_align_celeba/000001.jpg, CelebA/Eval/list_eval_partition.txt, "
    "CelebA/Anno/identity_CelebA.txt, PGGAN/**/*.png",
)
