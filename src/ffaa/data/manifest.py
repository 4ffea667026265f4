"""The manifest: one row per photo, with its face. Everything after it reads only this."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pydantic import BaseModel, ConfigDict, ValidationError

from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Label

VERSION = "1"
_TYPES = {
    "real": ForgeryType.REAL,
    "identity_exchange": ForgeryType.IDENTITY_EXCHANGE,
    "facial_attribute_manipulation": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "entire_face_synthesis": ForgeryType.ENTIRE_FACE_SYNTHESIS,
}
_BOX = ("left", "top", "right", "bottom")

SCHEMA = pa.schema(
    [(name, pa.string()) for name in
     ("path", "sha256", "label", "forgery_type", "method", "dataset", "split", "bench", "group", "regions")]
    + [(name, pa.int32()) for name in ("width", "height", *_BOX, "faces")],
    metadata={"ffaa_manifest": VERSION},
)  # fmt: skip


class Row(BaseModel):
    """One photo. `box` is its largest face in pixels, None when the detector found none; regions: changed parts."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    label: Label
    forgery_type: ForgeryType
    method: str
    dataset: str
    split: str
    bench: str
    group: str
    regions: tuple[str, ...]
    width: int
    height: int
    box: Box | None = None
    faces: int = 0

    @property
    def test_set(self) -> str:
        """The set a result is reported under: the benchmark's set, else the collection."""
        return self.bench or self.dataset


def _row(record: dict) -> Row:
    box = None
    if record.get("left") is not None:
        box = Box(**{name: record.pop(name) for name in _BOX})
    record = {k: v for k, v in record.items() if k not in _BOX}
    kind = record.pop("forgery_type")
    regions = tuple(r for r in (record.pop("regions") or "").split(";") if r)
    return Row(**record, forgery_type=_TYPES.get(kind, kind), regions=regions, box=box)


def read_csv(path: Path) -> list[Row]:
    """A CSV with the columns of the schema but the face's (they are found by `build`). Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; give a CSV with the columns {', '.join(SCHEMA.names[:12])}")
    text = pyarrow.csv.ConvertOptions(
        column_types={f.name: f.type for f in SCHEMA}, strings_can_be_null=False, include_missing_columns=False
    )
    try:
        table = pyarrow.csv.read_csv(path, convert_options=text)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    missing = [name for name in SCHEMA.names[:12] if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: columns missing: {', '.join(missing)}")
    rows = []
    for number, record in enumerate(table.select(SCHEMA.names[:12]).to_pylist(), 1):
        try:
            rows.append(_row(record))
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InputError(f"{path}: photo {number}: {wrong['loc'][0]}: {wrong['msg']}") from error
    return rows


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as Parquet, in order, replacing the file at once."""
    records = []
    for row in rows:
        record = row.model_dump(mode="json")
        record["regions"] = ";".join(row.regions)
        box = record.pop("box")
        records.append({**record, **(box or dict.fromkeys(_BOX))})
    part = path.with_suffix(".part")
    pyarrow.parquet.write_table(pa.Table.from_pylist(records, SCHEMA), part)
    part.replace(path)


def read(path: Path) -> list[Row]:
    """Rows of a Parquet manifest. Raises InputError when it is missing or of another version."""
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; `ffaa train faces RECIPE` makes it")
    table = pyarrow.parquet.read_table(path)
    version = (table.schema.metadata or {}).get(b"ffaa_manifest", b"none").decode()
    if version != VERSION:
        raise InputError(f"{path}: manifest version {version}, this ffaa reads version {VERSION}; build it again")
    return [_row(r) for r in table.to_pylist()]


def held_for_mids(row: Row, share: float) -> bool:
    """Whether a training photo is kept from the tower and the MLLM so that MIDS learns from answers to unseen photos.

    Decided by a hash of the group (or file), so a source video is never cut and adding photos moves none.
    """
    key = row.group or row.sha256
    return zlib.crc32(key.encode()) / 2**32 < share
