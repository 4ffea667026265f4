"""Results that a visitor asked to keep: one SQLite file, for the one user of a server on loopback.

What is deleted is overwritten (`secure_delete`); there is no log beside the file that could hold it longer.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffaa.errors import InputError, UsageError
from ffaa.serve.page_result import Shown
from ffaa.serve.settings import ServeSettings

SCHEMA = "CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, at REAL, name TEXT, said TEXT, shown BLOB)"
MARK = 0x66666161  # 'ffaa': another program's SQLite file is not taken
MOST = 500
LARGEST = 64 * 2**20  # of one result, unpacked


@dataclass(frozen=True)
class Kept:
    """A line of the list. at: seconds since 1970."""

    id: int
    at: float
    name: str
    said: str


def check_history(settings: ServeSettings) -> None:
    """Raises UsageError where more than the one user of this machine could read what is kept."""
    if settings.history is None:
        return
    others = [name for name in ("keys", "proxies", "hosts", "origins") if getattr(settings, name)]
    if not settings.loopback or others:
        why = f"with {others[0]}" if settings.loopback else f"on {settings.host}"
        raise UsageError(
            f"{why} several people may use the page, and a history has no owners; leave out --history, or serve on "
            "127.0.0.1 without keys, proxies, hosts and origins"
        )
    if not settings.page:
        raise UsageError("--history is of the web page; leave out --no-page or --history")


class History:
    """path: the SQLite file, made with rights for its owner alone. Raises UsageError when it cannot be used."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path, self._clock = path, clock
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._open() as db:
                (mark,) = db.execute("PRAGMA application_id").fetchone()
                (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                if mark != MARK and tables:
                    raise UsageError(f"{path}: is another program's file; give another --history")
                db.execute(f"PRAGMA application_id = {MARK}")
                db.execute(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{path}: cannot be used as history ({reason}); give another --history") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db = sqlite3.connect(self.path, timeout=10)
            try:
                db.execute("PRAGMA secure_delete = ON")
                with db:
                    yield db
            finally:
                db.close()

    def keep(self, shown: Shown) -> int:
        """Keeps a result; beyond MOST the oldest go. Returns its id."""
        packed = zlib.compress(shown.model_dump_json().encode())
        with self._open() as db:
            row = (self._clock(), shown.name, shown.said, packed)
            added = db.execute("INSERT INTO kept (at, name, said, shown) VALUES (?, ?, ?, ?)", row).lastrowid
            db.execute("DELETE FROM kept WHERE id NOT IN (SELECT id FROM kept ORDER BY id DESC LIMIT ?)", (MOST,))
        return added or 0

    def all(self) -> list[Kept]:
        """All that is kept, newest first."""
        with self._open() as db:
            return [Kept(*row) for row in db.execute("SELECT id, at, name, said FROM kept ORDER BY id DESC")]

    def open(self, id: int) -> Shown:
        """Raises InputError when there is none, or it cannot be read."""
        with self._open() as db:
            row: Any = db.execute("SELECT shown FROM kept WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise InputError("that result is not kept any more")
        try:
            return Shown.model_validate_json(zlib.decompressobj().decompress(row[0], LARGEST))
        except (zlib.error, ValueError) as error:
            raise InputError("that result was kept by another version and cannot be shown; delete it") from error

    def delete(self, id: int | None = None) -> int:
        """Deletes one, or all; returns how many there were. The file's room is given back."""
        with self._open() as db:
            where, values = ("", ()) if id is None else (" WHERE id = ?", (id,))
            gone = db.execute(f"DELETE FROM kept{where}", values).rowcount
            db.commit()
            db.execute("VACUUM")
        return gone
