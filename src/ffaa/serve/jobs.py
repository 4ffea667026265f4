"""Accepted jobs, in one SQLite file and a folder of waiting files; several processes may share them.

A file is claimed by one worker at a time, under a lease that the worker prolongs. A worker that is not heard of loses
its files to others. A result and the state it ends are written in one transaction by whoever holds the claim, so that
a file has one result whatever was killed when.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ffaa.errors import FFAAError, UsageError
from ffaa.serve.queue import Options
from ffaa.serve.settings import ServeSettings

VERSION = 1
ORPHAN_SECONDS = 600  # a spooled file without a job: its upload was cut off; while younger it may be being written
_SCHEMA = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, options TEXT NOT NULL, created REAL NOT NULL, ended REAL);
CREATE TABLE files (
  number INTEGER PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE, place INTEGER NOT NULL,
  name TEXT NOT NULL, spool TEXT NOT NULL, bytes INTEGER NOT NULL, state TEXT NOT NULL, worker TEXT, lease REAL,
  attempts INTEGER NOT NULL DEFAULT 0, outcome TEXT, ended REAL
);
CREATE INDEX files_state ON files (state, lease);
CREATE INDEX files_job ON files (job)
"""


class FullError(FFAAError):
    """As many files wait as are allowed to."""


@dataclass(frozen=True)
class Claim:
    """A file that this worker may judge."""

    number: int
    path: Path
    name: str
    options: Options


class JobStore:
    """The jobs below `settings.jobs`. Raises UsageError when that folder cannot be used."""

    def __init__(self, settings: ServeSettings):
        assert settings.jobs is not None
        self.settings = settings
        self.path, self.spool = settings.jobs / "jobs.sqlite", settings.jobs / "spool"
        try:
            self.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._transaction() as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in re.split(r";\n(?=CREATE)", _SCHEMA.strip()):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {VERSION}")
                elif version != VERSION:
                    raise UsageError(f"{self.path}: of another version of ffaa ({version}); give another --jobs folder")
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{settings.jobs}: jobs cannot be kept there ({error}); give another --jobs") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back on an exception
                yield db
        finally:
            db.close()

    # --- for clients ---

    def accept(self, owner: str, files: Sequence[tuple[IO[bytes], str]], options: Options) -> str:
        """Keeps the files and returns the job's id; from then on the job ends, whatever happens to the process.

        Raises FullError; OSError or sqlite3.Error when there is no room. Nothing is kept then.
        """
        job, now = secrets.token_urlsafe(16), time.time()
        kept: list[tuple[str, int]] = []
        try:
            for file, _ in files:
                path = self.spool / secrets.token_hex(16)
                kept.append((path.name, 0))
                with path.open("xb") as target:
                    shutil.copyfileobj(file, target)
                    target.flush()
                    os.fsync(target.fileno())
                    kept[-1] = (path.name, target.tell())
            with self._transaction() as db:
                count, size = db.execute(
                    "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM files WHERE state != 'done'"
                ).fetchone()
                if count + len(kept) > self.settings.waiting_files:
                    raise FullError(f"{count} files of jobs wait already; try again later")
                if size + sum(size for _, size in kept) > self.settings.waiting_bytes:
                    raise FullError("the waiting files of jobs take all the room allowed; try again later")
                db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, NULL)", (job, owner, json.dumps(asdict(options)), now))
                db.executemany(
                    "INSERT INTO files (job, place, name, spool, bytes, state) VALUES (?, ?, ?, ?, ?, 'queued')",
                    [(job, i, name, *spool) for i, ((_, name), spool) in enumerate(zip(files, kept, strict=True))],
                )
        except BaseException:
            self._unlink(name for name, _ in kept)
            raise
        return job

    def look(self, job: str, owner: str) -> dict[str, Any] | None:
        """What is known of a job as JSON values, None for one that is not there or is somebody else's."""
        with self._transaction() as db:
            row = db.execute("SELECT created, ended FROM jobs WHERE id = ? AND owner = ?", (job, owner)).fetchone()
            if row is None:
                return None
            files = db.execute("SELECT name, state, outcome FROM files WHERE job = ? ORDER BY place", (job,)).fetchall()
        states = {state for _, state, _ in files}
        return {
            "id": job,
            "state": "done" if row[1] is not None else "queued" if states == {"queued"} else "running",
            "created": row[0],
            "ended": row[1],
            "files": [{"name": name, "state": state} | json.loads(outcome or "{}") for name, state, outcome in files],
        }

    def delete(self, job: str, owner: str) -> bool:
        """Forgets a job, its files and results; a file that is being judged is judged in vain."""
        with self._transaction() as db:
            names = db.execute(
                "SELECT spool FROM files JOIN jobs ON jobs.id = job WHERE job = ? AND owner = ?", (job, owner)
            ).fetchall()
            gone = db.execute("DELETE FROM jobs WHERE id = ? AND owner = ?", (job, owner)).rowcount
        self._unlink(name for (name,) in names)
        return bool(gone)

    def waiting(self) -> int:
        """Files that have not ended."""
        with self._transaction() as db:
            return int(db.execute("SELECT COUNT(*) FROM files WHERE state != 'done'").fetchone()[0])

    # --- for workers ---

    def claim(self, worker: str, most: int) -> list[Claim]:
        """Takes up to `most` files that wait, or whose worker is not heard of any more, the oldest first."""
        now = time.time()
        free = "(state = 'queued' OR (state = 'running' AND lease < :now))"
        with self._transaction() as db:
            lost = db.execute(
                f"SELECT number, job FROM files WHERE {free} AND attempts >= :most",
                {"now": now, "most": self.settings.attempts},
            ).fetchall()
            for number, job in lost:
                message = f"given up: the server ended {self.settings.attempts} times while it worked on this file"
                self._end(db, number, job, {"error": {"code": "given_up", "message": message}}, now)
            rows = db.execute(
                "UPDATE files SET state = 'running', worker = :worker, lease = :lease, attempts = attempts + 1 "
                f"WHERE number IN (SELECT number FROM files WHERE {free} ORDER BY number LIMIT :most) "
                "RETURNING number, spool, name, (SELECT options FROM jobs WHERE id = job)",
                {"worker": worker, "lease": now + self.settings.lease_seconds, "now": now, "most": most},
            ).fetchall()
        for number, _ in lost:
            self._forget(number)
        return [Claim(n, self.spool / spool, name, Options(**json.loads(o))) for n, spool, name, o in sorted(rows)]

    def prolong(self, worker: str) -> None:
        """Says that the worker lives."""
        with self._transaction() as db:
            db.execute(
                "UPDATE files SET lease = ? WHERE worker = ? AND state = 'running'",
                (time.time() + self.settings.lease_seconds, worker),
            )

    def end(self, claim: Claim, worker: str, outcome: dict[str, Any]) -> bool:
        """Writes a file's outcome and ends it; False, and nothing written, when it is not this worker's any more."""
        now = time.time()
        with self._transaction() as db:
            row = db.execute(
                "SELECT job FROM files WHERE number = ? AND worker = ? AND state = 'running'", (claim.number, worker)
            ).fetchone()
            if row is None:
                return False
            self._end(db, claim.number, row[0], outcome, now)
        claim.path.unlink(missing_ok=True)
        return True

    def _end(self, db: sqlite3.Connection, number: int, job: str, outcome: dict[str, Any], now: float) -> None:
        db.execute(
            "UPDATE files SET state = 'done', worker = NULL, lease = NULL, outcome = ?, ended = ? WHERE number = ?",
            (json.dumps(outcome), now, number),
        )
        if not db.execute("SELECT 1 FROM files WHERE job = ? AND state != 'done'", (job,)).fetchone():
            db.execute("UPDATE jobs SET ended = ? WHERE id = ?", (now, job))

    def _forget(self, number: int) -> None:
        with self._transaction() as db:
            row = db.execute("SELECT spool FROM files WHERE number = ?", (number,)).fetchone()
        if row:
            self._unlink(row)

    def sweep(self) -> None:
        """Deletes results that were kept long enough, and spooled files that no waiting file needs."""
        now = time.time()
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE ended < ?", (now - self.settings.keep_seconds,))
            ended = dict(db.execute("SELECT spool, state = 'done' FROM files").fetchall())
        for path in self.spool.iterdir():
            with suppress(FileNotFoundError):  # another worker sweeps too
                old = now - path.stat().st_mtime > ORPHAN_SECONDS
                if ended.get(path.name, old):  # of an ended file where its worker was killed before it removed it
                    path.unlink()

    def _unlink(self, names: Any) -> None:
        for name in names:
            (self.spool / name).unlink(missing_ok=True)
