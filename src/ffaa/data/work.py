"""The state of a build on disk (SQLite), so that a killed build goes on with no face lost or doubled.

Items are listed once. What an item gave is stored in one transaction with the mark that it is done.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ffaa.data.sources.base import Item
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label

NAME = "build.sqlite"
PAGE = 1000

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS items (
  id INTEGER PRIMARY KEY, source INTEGER, stratum TEXT, draw INTEGER, item TEXT, done INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS faces (item INTEGER, n INTEGER, record TEXT, PRIMARY KEY (item, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (item INTEGER, time REAL, kind TEXT, reason TEXT);
"""


@dataclass(frozen=True)
class Task:
    """An item to look at. source: its place in the recipe."""

    id: int
    source: int
    item: Item


@dataclass(frozen=True)
class Rejected:
    """What was left out and why. time: of the frame, seconds; None for a whole item."""

    kind: str
    reason: str
    time: float | None = None


@dataclass
class Outcome:
    """What one task gave: flat manifest records, in order, and what was left out. memory: the worker's peak, bytes."""

    id: int
    records: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    memory: int = 0


def item_text(item: Item) -> str:
    """JSON of an item."""
    return json.dumps(asdict(item))


def item_of(text: str) -> Item:
    """The inverse of `item_text`."""
    flat = json.loads(text)
    flat["groups"], flat["regions"] = tuple(flat["groups"]), tuple(flat["regions"])
    return Item(**flat | {"label": Label(flat["label"]), "forgery_type": ForgeryType(flat["forgery_type"])})


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turns a full or failing disk into one InputError; what was stored stays."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise InputError(f"{folder}: another build is writing here; wait for it, or give another --out") from error
        raise InputError(
            f"{folder}: cannot be written ({error}); make room and run the same command again, it goes on"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise
        reason = (error.strerror or str(error)).lower()
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "make room and run the same command again, it goes on" if full else "give a folder that can be written"
        raise InputError(f"{folder}: cannot be written ({reason}); {advice}") from error


class Work:
    """The state in `folder`, opened by one process at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / NAME, isolation_level=None, timeout=0)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(f"BEGIN EXCLUSIVE;{_TABLES}COMMIT;")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: str) -> str | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def list_items(self, items: Iterable[tuple[int, str, int, Item]]) -> None:
        """Store (source, stratum, draw, item) rows."""
        self._db.executemany(
            "INSERT INTO items (source, stratum, draw, item) VALUES (?, ?, ?, ?)",
            ((source, stratum, draw, item_text(item)) for source, stratum, draw, item in items),
        )

    def keep_drawn(self, source: int, total: int | None, per_stratum: int | None) -> None:
        """Keep the `total` items of a source that drew the lowest numbers, and so many per stratum."""
        if per_stratum is not None:
            self._db.execute(
                "DELETE FROM items WHERE id IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER "
                "(PARTITION BY stratum ORDER BY draw, id) AS place FROM items WHERE source = ?) WHERE place > ?)",
                (source, per_stratum),
            )
        if total is not None:
            self._db.execute(
                "DELETE FROM items WHERE id IN (SELECT id FROM items WHERE source = ? ORDER BY draw, id "
                "LIMIT -1 OFFSET ?)",
                (source, total),
            )

    def counts(self) -> tuple[int, int]:
        """(items, items done)."""
        return tuple(self._db.execute("SELECT COUNT(*), COALESCE(SUM(done), 0) FROM items").fetchone())

    def pending(self) -> Iterator[Task]:
        """The tasks that are not done, in order, a page in memory."""
        last = -1
        while True:
            rows = self._db.execute(
                "SELECT id, source, item FROM items WHERE done = 0 AND id > ? ORDER BY id LIMIT ?", (last, PAGE)
            ).fetchall()
            for number, source, text in rows:
                yield Task(number, source, item_of(text))
            if len(rows) < PAGE:
                return
            last = rows[-1][0]

    def commit(self, outcomes: Iterable[Outcome]) -> None:
        """Store outcomes and mark their items done, all or none."""
        with self.transaction():
            for outcome in outcomes:
                self._db.executemany(
                    "INSERT INTO faces VALUES (?, ?, ?)",
                    ((outcome.id, n, json.dumps(flat)) for n, flat in enumerate(outcome.records)),
                )
                self._db.executemany(
                    "INSERT INTO rejected VALUES (?, ?, ?, ?)",
                    ((outcome.id, r.time, r.kind, r.reason) for r in outcome.rejected),
                )
                self._db.execute("UPDATE items SET done = 1 WHERE id = ?", (outcome.id,))

    def faces(self) -> Iterator[tuple[int, int, Item, dict[str, Any]]]:
        """(source, number of the item, item, flat record) of every face, in order."""
        query = (
            "SELECT source, faces.item, items.item, record FROM faces JOIN items ON items.id = faces.item "
            "ORDER BY faces.item, n"
        )
        for source, number, item, text in self._db.execute(query):
            yield source, number, item_of(item), json.loads(text)

    def items_of_several_faces(self) -> set[int]:
        """Numbers of the items that gave more than one face."""
        return {row[0] for row in self._db.execute("SELECT item FROM faces GROUP BY item HAVING COUNT(*) > 1")}

    def rejected(self) -> Iterator[tuple[int, Item, Rejected]]:
        """(source, item, why) in the order of the items."""
        query = (
            "SELECT source, items.item, time, kind, reason FROM rejected JOIN items ON items.id = rejected.item "
            "ORDER BY rejected.item, rejected.rowid"
        )
        for source, item, time, kind, reason in self._db.execute(query):
            yield source, item_of(item), Rejected(kind, reason, time)
