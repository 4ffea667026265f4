"""The manifest: one row per face, typed and versioned. Everything after it reads only this."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pydantic import BaseModel, ConfigDict, Field

from ffaa.data.faces import face_rect
from ffaa.errors import InputError
from ffaa.types import Box, Crop, ForgeryType, Label

VERSION = "2"
NAME = "manifest.parquet"
REJECTED_NAME = "rejected.parquet"
ROW_GROUP = 4096
_BOX = ("left", "top", "right", "bottom")


class Row(BaseModel):
    """One face.

    path: the file it is trained and tested on, relative to the manifest's folder (or, where crops were not cut, to the
    folder of the photos); with `shard`, its name there. photo: what it was cut from, relative to the build's --data.
    `size` 0 means that `path` is the photo itself, else a crop of that side. box: the face in pixels of the photo, None
    where no face was found and the centre square was taken. sharpness to bits_per_pixel: see `ffaa.data.quality`.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    shard: str = Field("", description="tar or Arrow file that holds the crop; '' when it is a file of its own")
    offset: int = Field(0, description="of the file's bytes in a tar, or its row in an Arrow file")
    length: int = Field(0, description="bytes")
    label: Label
    forgery_type: ForgeryType
    method: str = ""
    dataset: str = ""
    split: str = ""
    bench: str = Field("", description="the benchmark's set")
    group: str = Field("", description="no split cuts a group; '' where the face stands alone")
    regions: tuple[str, ...] = Field((), description="changed parts")
    mask: str = Field("", description="grey image of the changed pixels, as large as `path`")
    reference: str = Field("", description="the same cut of the original")
    photo: str = ""
    photo_sha256: str = ""
    photo_width: int = 0
    photo_height: int = 0
    photo_bytes: int = 0
    time: float | None = Field(None, description="seconds into a video; None for photos")
    track: int = Field(0, description="the person in a video, the rank by size in a photo")
    faces: int = Field(0, description="usable faces in the photo or frame")
    box: Box | None = None
    score: float = Field(0.0, description="the face detector's")
    padding: int = 0
    size: int = 0
    face_size: float = Field(0.0, description="square root of the box's area, pixels of the photo")
    sharpness: float | None = None
    brightness: float | None = None
    red: float | None = None
    green: float | None = None
    blue: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None
    jpeg_quality: int | None = None
    bits_per_pixel: float | None = None
    phash: str = Field("", description="perceptual hash of the photo or frame, hex")

    @property
    def test_set(self) -> str:
        """The set a result is reported under: the benchmark's set, else the collection."""
        return self.bench or self.dataset

    @property
    def crop(self) -> Crop | None:
        """How `path` was cut out of the photo; None where it is the photo itself."""
        if not self.size:
            return None
        if self.box is None:
            side = min(self.photo_width, self.photo_height)
            left, top = (self.photo_width - side) // 2, (self.photo_height - side) // 2
            region = Box(left=left, top=top, right=left + side, bottom=top + side)
            return Crop(region=region, padding=0, size=self.size, whole_image=True)
        pad = self.padding
        region = Box(
            left=self.box.left - pad, top=self.box.top - pad, right=self.box.right + pad, bottom=self.box.bottom + pad
        )
        return Crop(region=region, padding=pad, size=self.size)

    @property
    def file_box(self) -> Box | None:
        """The face in pixels of the file at `path`."""
        crop = self.crop
        if crop is None or self.box is None:
            return self.box
        left, top, right, bottom = face_rect(crop, self.box)
        return Box(left=left, top=top, right=right, bottom=bottom)


_INT = {"width", "height", "photo_width", "photo_height", "track", "faces", *_BOX, "padding", "size", "jpeg_quality"}
_INT64 = {"offset", "length", "photo_bytes"}
_FLOAT = {"time", "score", "face_size", "sharpness", "brightness", "red", "green", "blue", "yaw", "pitch", "roll"}
_FLOAT |= {"bits_per_pixel"}


def _arrow(name: str) -> Any:
    if name in _INT:
        return pa.int32()
    if name in _INT64:
        return pa.int64()
    if name in _FLOAT:
        return pa.float64()
    return pa.list_(pa.string()) if name == "regions" else pa.string()


_NAMES = [part for name in Row.model_fields for part in (_BOX if name == "box" else (name,))]
SCHEMA = pa.schema([(name, _arrow(name)) for name in _NAMES], metadata={"ffaa_manifest": VERSION})


def record(row: Row) -> dict[str, Any]:
    """A row as a flat dict with the schema's names."""
    flat = row.model_dump(mode="json")
    return flat | (flat.pop("box") or dict.fromkeys(_BOX))


def row_of(flat: Mapping[str, Any]) -> Row:
    """The inverse of `record`."""
    box = None if flat["left"] is None else Box(**{name: flat[name] for name in _BOX})
    return Row(**{k: v for k, v in flat.items() if k not in _BOX}, box=box)


class Writer:
    """Writes flat records as Parquet, a row group at a time; the file appears, whole, when the block ends well."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA):
        self._path, self._schema, self._rows = path, schema, list[dict[str, Any]]()
        self._part = path.with_name(path.name + ".part")

    def __enter__(self) -> Writer:
        self._file = pyarrow.parquet.ParquetWriter(self._part, self._schema)
        return self

    def add(self, flat: dict[str, Any]) -> None:
        self._rows.append(flat)
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as Parquet, in order, replacing the file at once."""
    with Writer(path) as writer:
        for row in rows:
            writer.add(record(row))


def scan(path: Path) -> Iterator[Row]:
    """Rows of a manifest (its file, or the folder that holds `manifest.parquet`), one row group in memory.

    Raises InputError when it is missing, damaged or of another version.
    """
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; `ffaa data build` makes one")
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: no Parquet file ({str(error).splitlines()[0]}); build it again") from error
    with file:
        version = (file.schema_arrow.metadata or {}).get(b"ffaa_manifest", b"none").decode()
        if version != VERSION:
            raise InputError(f"{path}: manifest version {version}, this ffaa reads version {VERSION}; build it again")
        for batch in file.iter_batches(ROW_GROUP):
            for flat in batch.to_pylist():
                yield row_of(flat)


def read(path: Path) -> list[Row]:
    """All rows of a manifest; raises as `scan` does."""
    return list(scan(path))


def held_for_mids(row: Row, share: float) -> bool:
    """Whether a training photo is kept from the tower and the MLLM so that MIDS learns from answers to unseen photos.

    Decided by a hash of the group (or file), so a source video is never cut and adding photos moves none.
    """
    key = row.group or row.sha256
    return zlib.crc32(key.encode()) / 2**32 < share
