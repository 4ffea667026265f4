"""What every source gives: items, one per photo or video, with what the collection says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ffaa.data.images import SUFFIXES as PHOTO_SUFFIXES
from ffaa.data.kinds import VIDEO_SUFFIXES
from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType, Label

TYPES = {
    "real": ForgeryType.REAL,
    "identity_exchange": ForgeryType.IDENTITY_EXCHANGE,
    "facial_attribute_manipulation": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "entire_face_synthesis": ForgeryType.ENTIRE_FACE_SYNTHESIS,
}
TypeName = Literal["real", "identity_exchange", "facial_attribute_manipulation", "entire_face_synthesis"]


class SourceArgs(BaseModel):
    """One collection of a data recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(description="which reader: a name of `ffaa data sources`")
    root: str = Field(description="the collection's folder, relative to the command's --data")
    name: str = Field("", description="what the manifest calls the collection; default: the reader's name")
    methods: list[str] | None = Field(None, description="only these methods ('real' for the originals)")
    compression: Literal["raw", "c23", "c40"] = Field("c23", description="FaceForensics++ videos; raw is c0")
    official: bool = Field(True, description="keep the collection's own split where it has one")
    split: Literal["", "train", "val", "test"] = Field("", description="put all of it into this split")
    bench: str = Field("", description="put all of it into split 'bench', as the benchmark set of this name")
    sample: int | None = Field(None, ge=1, description="at most this many items, a seeded draw")
    per_class: int | None = Field(None, ge=1, description="at most this many per split, benchmark set and label")
    frames: int | None = Field(None, ge=1, le=256, description="per video, instead of the recipe's")
    manifest: str = Field("manifest.csv", description="the file that kind csv (or multiffdi) reads, inside root")
    columns: dict[str, str] = Field({}, description="kind csv: manifest column -> the file's name for it")
    types: dict[str, TypeName] = Field({}, description="kinds csv, folder, multiffdi: method -> forgery type")

    def wants(self, method: str) -> bool:
        """Whether items of a method ('' for real ones) are asked for."""
        return self.methods is None or (method or "real") in self.methods


@dataclass(frozen=True)
class Item:
    """A photo or video of a collection. Paths are relative to the source's root, with forward slashes.

    groups: keys of whatever no split may cut - the video, the person, the original that it was made from; items that
    share a key, directly or through others, stay together; empty: it stands alone. Keys of published collections begin
    with the name of the collection that owns the original, so that collections made from the same videos meet.
    split: train, val or test where the collection says so (kind csv: also bench). reference: the original that was
    changed. mask: grey image or video of the changed pixels, as large as the item and, for videos, frame by frame.
    regions: names of the changed parts. dataset: the collection's own name where a file of it says so; '' for the
    source's name.
    """

    path: str
    label: Label
    forgery_type: ForgeryType
    method: str = ""
    groups: tuple[str, ...] = ()
    split: str = ""
    reference: str = ""
    mask: str = ""
    regions: tuple[str, ...] = ()
    bench: str = ""
    dataset: str = ""

    @property
    def is_video(self) -> bool:
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Source:
    """A reader. read: (root, args) -> items in a fixed order; raises InputError for a wrong layout.

    about: the collection, one line. obtain: how one gets it, one sentence. layout: the paths that `read` expects.
    """

    read: Callable[[Path, SourceArgs], Iterator[Item]]
    about: str
    obtain: str
    layout: str


def expect(path: Path, source: str, obtain: str) -> Path:
    """`path`, which must exist. Raises InputError that says what was expected and how the collection is obtained."""
    if not path.exists():
        raise InputError(f"{source}: expected {path}, which is not there; {obtain}")
    return path


def real(path: str, **more: object) -> Item:
    """An unchanged photo or video."""
    return Item(path, Label.REAL, ForgeryType.REAL, **more)  # type: ignore[arg-type]


def fake(path: str, forgery_type: ForgeryType, method: str, **more: object) -> Item:
    """A forged photo or video."""
    return Item(path, Label.FAKE, forgery_type, method, **more)  # type: ignore[arg-type]


def folders(name: str, obtain: str, args: SourceArgs, known: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Of `known` (method, '' for the originals; folder), what is wanted and there, in order.

    Raises UsageError for a method the collection does not have, InputError when all folders of a method asked for by
    name, or all folders, are missing.
    """
    unknown = sorted(set(args.methods or ()) - {method or "real" for method, _ in known})
    if unknown:
        names = dict.fromkeys(method or "real" for method, _ in known)
        raise UsageError(f"{name}: no method {unknown[0]!r}; it has {', '.join(names)}")
    wanted = [(method, path) for method, path in known if args.wants(method)]
    found = [(method, path) for method, path in wanted if path.is_dir()]
    for method, path in wanted:
        if not found or (args.methods is not None and method not in dict(found)):
            raise InputError(f"{name}: expected the folder {path}, which is not there; {obtain}")
    return found


def some(items: Iterable[Item], name: str, obtain: str, root: Path, args: SourceArgs) -> Iterator[Item]:
    """`items`, as they come. Raises InputError at the end when there was none, or none of a method asked for."""
    seen = set()
    for item in items:
        seen.add("real" if item.label is Label.REAL else item.method)
        yield item
    missing = sorted(set(args.methods or ()) - seen)
    if missing:
        raise InputError(f"{name}: no photo or video of {', '.join(missing)} in {root}; {obtain}")
    if not seen:
        raise InputError(f"{name}: no photo or video in {root}; {obtain}")


def relative(path: Path, root: Path) -> str:
    """`path` as an item says it."""
    return path.relative_to(root).as_posix()


def there(root: Path, path: str) -> str:
    """`path` (relative to root) if that file is there, else ''."""
    return path if (root / path).is_file() else ""


def inside(path: str, where: str) -> str:
    """`path` as a list gives it. Raises InputError, with `where`, when it is empty or does not stay below the root."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or ".." in parts or "\0" in path or PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        raise InputError(f"{where}: path {path!r} leaves the collection's folder; give it relative to that folder")
    return path


def read_text(path: Path) -> str:
    """A list's text. Raises InputError when it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def read_json(path: Path) -> Any:
    """A JSON file. Raises InputError with its name."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON ({error}); copy the file again") from error


def media(folder: Path, suffixes: frozenset[str] = PHOTO_SUFFIXES | VIDEO_SUFFIXES) -> Iterator[Path]:
    """The photos and videos in a folder and below, sorted by name, hidden ones left out, links not followed."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda e: e.name)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from media(Path(entry.path), suffixes)
        elif Path(entry.name).suffix.lower() in suffixes:
            yield Path(entry.path)
