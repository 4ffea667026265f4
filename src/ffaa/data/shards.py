"""Crops packed into few files: WebDataset tars or Arrow files; and reading a crop back, wherever it lies."""

from __future__ import annotations

import io
import json
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from ffaa.data.manifest import SCHEMA, Row
from ffaa.errors import InputError

ARROW_BATCH = 64
_ARROW = pa.schema([*SCHEMA, ("image", pa.binary())])


class TarShard:
    """A WebDataset tar: KEY.png and KEY.json of every face. The same faces give the same bytes."""

    suffix = ".tar"

    def __init__(self, path: Path):
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by `close`

    def add(self, flat: dict[str, Any], data: bytes) -> int:
        """Append one face; returns the offset of its image's bytes."""
        key = flat["path"].rsplit(".", 1)[0].replace("/", "_")
        self._tar.addfile(_info(f"{key}.png", len(data)), io.BytesIO(data))
        offset = self._tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        text = json.dumps(flat, sort_keys=True).encode()
        self._tar.addfile(_info(f"{key}.json", len(text)), io.BytesIO(text))
        return offset

    def close(self) -> None:
        self._tar.close()


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


class ArrowShard:
    """An Arrow IPC file: the manifest's columns and `image` (PNG bytes), in batches of ARROW_BATCH rows."""

    suffix = ".arrow"

    def __init__(self, path: Path):
        self._file = pyarrow.ipc.new_file(str(path), _ARROW)
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def add(self, flat: dict[str, Any], data: bytes) -> int:
        """Append one face; returns its row in the file."""
        self._rows.append(flat | {"image": data})
        if len(self._rows) == ARROW_BATCH:
            self._flush()
        self._count += 1
        return self._count - 1

    def _flush(self) -> None:
        self._file.write_batch(pa.RecordBatch.from_pylist(self._rows, _ARROW))
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._file.close()


SHARDS: dict[str, type[TarShard] | type[ArrowShard]] = {"webdataset": TarShard, "arrow": ArrowShard}


class ShardWriter:
    """Spreads faces over shards of at most `rows`, one series per split, in `folder`/shards."""

    def __init__(self, folder: Path, kind: str, rows: int):
        self._folder, self._kind, self._rows = folder, SHARDS[kind], rows
        self._open: dict[str, tuple[TarShard | ArrowShard, Path]] = {}
        self._counts: dict[str, int] = {}
        (folder / "shards").mkdir(exist_ok=True)

    def add(self, flat: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Pack a face; returns its record with shard and offset."""
        split = flat["split"]
        count = self._counts.get(split, 0)
        name = f"shards/{split}-{count // self._rows:05}{self._kind.suffix}"
        if count % self._rows == 0:
            self._finish(split)
            part = self._folder / f"{name}.part"
            self._open[split] = (self._kind(part), part)
        offset = self._open[split][0].add(flat, data)
        self._counts[split] = count + 1
        return flat | {"shard": name, "offset": offset}

    def _finish(self, split: str) -> None:
        if split in self._open:
            shard, part = self._open.pop(split)
            shard.close()
            part.replace(part.with_suffix(""))

    def close(self) -> None:
        for split in list(self._open):
            self._finish(split)


@lru_cache(maxsize=4)
def _arrow(path: str, changed: int) -> pyarrow.ipc.RecordBatchFileReader:
    return pyarrow.ipc.open_file(pa.memory_map(path))


def read_bytes(root: Path, row: Row) -> bytes:
    """The file of a row, out of its shard where it lies in one. Raises InputError when it cannot be read."""
    path = root / (row.shard or row.path)
    try:
        if row.shard.endswith(ArrowShard.suffix):
            batch = _arrow(str(path), path.stat().st_mtime_ns).get_batch(row.offset // ARROW_BATCH)
            return batch["image"][row.offset % ARROW_BATCH].as_py()
        with path.open("rb") as file:
            if row.shard:
                file.seek(row.offset)
                return file.read(row.length)
            return file.read()
    except (OSError, IndexError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); check the data folder") from error
