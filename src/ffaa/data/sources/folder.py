"""Photos and videos of one's own: real/**, fake/METHOD/**, and masks/METHOD/** with the same relative names.

A real and all fakes of one relative name (whatever their suffixes) share a group: most often the fakes were made from
that real. Keys hold the folder given as `root`, so that two folders never meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffaa.data.sources.base import (
    TYPES,
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
from ffaa.errors import UsageError

NAME = "folder"
OBTAIN = "put real photos or videos below real/ and forged ones below fake/METHOD/"


def _items(root: Path, args: SourceArgs) -> Iterator[Item]:
    places = root / "fake"
    methods = sorted(p.name for p in places.iterdir() if p.is_dir() and p.name[0] != ".") if places.is_dir() else []
    found = folders(NAME, OBTAIN, args, [("", root / "real"), *((method, places / method) for method in methods)])
    bare = [method for method, _ in found if method and args.types.get(method, "real") == "real"]
    if bare:
        raise UsageError(f"{NAME}: no forgery type for {', '.join(bare)} in {places}; e.g. types: {{{bare[0]}: "
                         f"identity_exchange}}")  # fmt: skip
    for method, folder in found:
        for file in media(folder):
            name = relative(file, folder)
            groups = (f"{args.root}/{Path(name).with_suffix('').as_posix()}",)
            if method:
                mask = there(root, f"masks/{method}/{name}")
                yield fake(relative(file, root), TYPES[args.types[method]], method, groups=groups, mask=mask)
            else:
                yield real(relative(file, root), groups=groups)


def read(root: Path, args: SourceArgs) -> Iterator[Item]:
    """Reals, then the fakes of every method, by name. `types` must give a forgery type for every method read."""
    yield from some(_items(root, args), NAME, OBTAIN, root, args)


SOURCE = Source(
    read,
    about="a folder of one's own photos and videos",
    obtain=OBTAIN,
    layout="real/**, fake/METHOD/**, masks/METHOD/** (optional, same names); types: {METHOD: forgery type}",
)
