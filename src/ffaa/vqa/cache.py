"""Paid replies on disk (SQLite), by content hash, so that nothing is paid twice; and the batches under way."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ffaa.errors import InputError

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (chunk TEXT PRIMARY KEY, batch TEXT, tokens_in INTEGER, tokens_out INTEGER);
CREATE TABLE IF NOT EXISTS batch_keys (key TEXT PRIMARY KEY, chunk TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class OpenBatch:
    """A batch that was handed in and not yet fetched. batch: the provider's id, None where a kill came before it was
    known. tokens_in, tokens_out: what was held back for it."""

    chunk: str
    batch: str | None
    keys: tuple[str, ...]
    tokens_in: int
    tokens_out: int


def content_key(content: object) -> str:
    """The hash of a request: JSON with sorted keys, SHA-256, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """Replies by key, opened by one process at a time, used by any of its threads. A reply is on disk when `put` ends.

    Raises InputError when another run has it open, or it is no cache.
    """

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a reply was paid for
            self._db.executescript(f"BEGIN EXCLUSIVE;{_TABLES}COMMIT;")
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" not in str(error):
                raise InputError(f"{path}: cannot be written ({error}); make room or name another cache") from error
            raise InputError(f"{path}: another run is using this cache; wait for it or name another") from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(f"{path}: not a cache of replies ({error}); name another file") from error

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._db.close()

    def get(self, key: str) -> str | None:
        """The reply, as it was put."""
        with self._lock:
            found = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: str, reply: str) -> None:
        self._run([("INSERT OR REPLACE INTO replies VALUES (?, ?)", [(key, reply)])])

    def open_batch(self, chunk: str, keys: Sequence[str], tokens_in: int, tokens_out: int) -> None:
        """Note a batch before it is handed in."""
        self._run(
            [
                ("INSERT OR REPLACE INTO batches VALUES (?, NULL, ?, ?)", [(chunk, tokens_in, tokens_out)]),
                ("INSERT OR REPLACE INTO batch_keys VALUES (?, ?)", [(key, chunk) for key in keys]),
            ]
        )

    def name_batch(self, chunk: str, batch: str) -> None:
        """Note the provider's id of an open batch."""
        self._run([("UPDATE batches SET batch = ? WHERE chunk = ?", [(batch, chunk)])])

    def batch_of(self, key: str) -> OpenBatch | None:
        """The open batch that will answer `key`."""
        with self._lock:
            row = self._db.execute(
                "SELECT batches.* FROM batch_keys JOIN batches USING (chunk) WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            keys = self._db.execute("SELECT key FROM batch_keys WHERE chunk = ? ORDER BY key", (row[0],)).fetchall()
        return OpenBatch(row[0], row[1], tuple(k for (k,) in keys), row[2], row[3])

    def close_batch(self, chunk: str, replies: Mapping[str, str]) -> None:
        """Store what a batch gave and forget the batch, both or neither."""
        self._run(
            [
                ("INSERT OR REPLACE INTO replies VALUES (?, ?)", list(replies.items())),
                ("DELETE FROM batch_keys WHERE chunk = ?", [(chunk,)]),
                ("DELETE FROM batches WHERE chunk = ?", [(chunk,)]),
            ]
        )

    def _run(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        try:
            with self._lock:
                self._db.execute("BEGIN")
                try:
                    for text, rows in statements:
                        self._db.executemany(text, rows)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise InputError(
                f"{self._path}: cannot be written ({error}); make room and run again, it goes on"
            ) from error
