"""What people decide about written rows: accept, edit or reject. One SQLite file holds rows, drafts and the audit log.

Every decision is one transaction, synced to disk before the call returns; the log is only ever appended to. A row is
settled when `reviews` people agree on keeping or rejecting it and no two of them edited it differently; else one more
is asked, who sees what the others decided, until a majority stands.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np

from ffaa.errors import InputError, UsageError
from ffaa.types import Record
from ffaa.vqa.conversation import write_jsonl
from ffaa.vqa.decision import (
    Agreement,
    Choice,
    Decision,
    Reviewed,
    Text,
    agreed,
    check,
    cohen_kappa,
    final,
    one_line,
    settle,
    text_of,
)
from ffaa.vqa.row import VqaRow

VERSION = 1
LEASE = 600.0  # seconds that a row stays with who opened it; opening and typing renew it
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE rows (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, row TEXT NOT NULL,
                   state TEXT NOT NULL DEFAULT 'open', decided INTEGER NOT NULL DEFAULT 0);
CREATE INDEX rows_state ON rows (state);
CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL REFERENCES rows (id),
                  reviewer TEXT NOT NULL, decision TEXT NOT NULL, note TEXT NOT NULL, time TEXT NOT NULL,
                  before TEXT NOT NULL, after TEXT NOT NULL, informed INTEGER NOT NULL);
CREATE INDEX log_row ON log (row, reviewer);
CREATE TRIGGER log_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER log_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TABLE drafts (row INTEGER NOT NULL, reviewer TEXT NOT NULL, text TEXT NOT NULL, note TEXT NOT NULL,
                     PRIMARY KEY (row, reviewer)) WITHOUT ROWID;
CREATE TABLE leases (row INTEGER NOT NULL, reviewer TEXT NOT NULL, until REAL NOT NULL,
                     PRIMARY KEY (row, reviewer)) WITHOUT ROWID;
"""
# Rows that may be given to :me now; :together lets several people hold a row that needs several.
_FREE = """r.state IN ('open', 'contested')
    AND NOT EXISTS (SELECT 1 FROM log l WHERE l.row = r.id AND l.reviewer = :me)
    AND (SELECT COUNT(*) FROM leases s WHERE s.row = r.id AND s.reviewer <> :me AND s.until > :now)
        < CASE WHEN :together AND r.state = 'open' THEN :reviews - r.decided ELSE 1 END"""
_MINE = "EXISTS (SELECT 1 FROM {} t WHERE t.row = r.id AND t.reviewer = :me)"


class View(Record):
    """What one reviewer sees of a row. text: as proposed; draft: as they left it. own, others: last decisions; others'
    only where they disagree."""

    id: int
    row: VqaRow
    state: str
    text: Text
    draft: Text | None
    note: str
    own: Decision | None
    others: list[Decision]


class Progress(Record):
    rows: int
    open: int
    contested: int
    kept: int
    rejected: int
    mine: int


class Store:
    """The reviews of one set of rows.

    reviews: how many people decide each row; None: as the file says (1 in a new one). together: give a row that needs
    several people to several at once. Safe for threads and processes: every call opens its own connection.
    """

    def __init__(
        self, path: Path, reviews: int | None = None, together: bool = False, clock: Callable[[], float] = time.time
    ):
        """Opens or makes the file. Raises InputError when it is no review file, UsageError for reviews < 1."""
        if reviews is not None and reviews < 1:
            raise UsageError(f"{reviews} reviews per row; give at least 1")
        self.path, self._together, self._clock = path, together, clock
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; make it first")
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in re.split(r";\n(?=CREATE|$)", _SCHEMA.strip()):
                    db.execute(statement)
                db.execute("INSERT INTO settings VALUES ('reviews', 1)")
                db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise InputError(f"{path}: no review file of this ffaa (version {version}); give another name")
            (self.reviews,) = db.execute("SELECT value FROM settings WHERE name = 'reviews'").fetchone()
            if reviews is not None and reviews != self.reviews:
                self.reviews = reviews
                db.execute("UPDATE settings SET value = ? WHERE name = 'reviews'", (reviews,))
                for (row,) in db.execute("SELECT DISTINCT row FROM log").fetchall():
                    self._settle(db, row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back on an exception
                yield db
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path}: {error}; is it a review file, on a disk with room?") from error
        finally:
            db.close()

    def add(self, rows: Iterable[VqaRow]) -> tuple[int, int]:
        """Take in rows; returns (new ones, ones that were there)."""
        added = known = 0
        with self._transaction() as db:
            for row in rows:
                text = row.model_dump_json()
                values = (_digest(text), text)
                done = db.execute("INSERT OR IGNORE INTO rows (digest, row) VALUES (?, ?)", values).rowcount
                added, known = added + done, known + 1 - done
        return added, known

    def next(self, reviewer: str) -> View | None:
        """The row this reviewer should look at now, leased to them: one they left a draft of or have open, then
        disagreements, then rows that others began. None when nothing is left for them."""
        # 'contested' sorts before 'open'.
        order = f"{_MINE.format('drafts')} DESC, {_MINE.format('leases')} DESC, r.state, r.decided DESC, r.id"
        return self._open(reviewer, f"WHERE {_FREE} ORDER BY {order} LIMIT 1")

    def step(self, reviewer: str, row: int, forward: bool) -> View | None:
        """The next or previous row, in the order of import, that is theirs to see; None at the end."""
        place, order = (">", "ASC") if forward else ("<", "DESC")
        where = f"r.id {place} :row AND ({_MINE.format('log')} OR {_FREE})"
        return self._open(reviewer, f"WHERE {where} ORDER BY r.id {order} LIMIT 1", row)

    def view(self, reviewer: str, row: int) -> View:
        """A row again, as it stands now. Raises UsageError when there is no such row."""
        found = self._open(reviewer, "WHERE r.id = :row", row)
        if found is None:
            raise UsageError(f"row {row} is not in {self.path}")
        return found

    def _open(self, reviewer: str, where: str, row: int = 0) -> View | None:
        me, now = _name(reviewer), self._clock()
        values = {"me": me, "now": now, "together": self._together, "reviews": self.reviews, "row": row}
        with self._transaction() as db:
            found = db.execute(f"SELECT r.id FROM rows r {where}", values).fetchone()
            if found is None:
                return None
            db.execute("DELETE FROM leases WHERE reviewer = ? OR until <= ?", (me, now))
            view = self._view(db, found[0], me)
            if view.own is None:
                db.execute("INSERT INTO leases VALUES (?, ?, ?)", (view.id, me, now + LEASE))
            return view

    def _view(self, db: sqlite3.Connection, row: int, me: str) -> View:
        found = db.execute("SELECT row, state FROM rows WHERE id = ?", (row,)).fetchone()
        if found is None:
            raise UsageError(f"row {row} is not in {self.path}")
        stored, state = found
        parsed, last = VqaRow.model_validate_json(stored), _last(db, row)
        own = next((d for d in last if d.reviewer == me), None)
        others = [d for d in last if d.reviewer != me] if state == "contested" else []
        text = own.after if own else agreed(text_of(parsed), others)
        draft = db.execute("SELECT text, note FROM drafts WHERE row = ? AND reviewer = ?", (row, me)).fetchone()
        return View(
            id=row, row=parsed, state=state, text=text, draft=Text.model_validate_json(draft[0]) if draft else None,
            note=draft[1] if draft else own.note if own else "", own=own, others=others,
        )  # fmt: skip

    def draft(self, reviewer: str, row: int, text: Text, note: str = "") -> bool:
        """Keep what is being typed; renews the lease. Returns whether it differs from what was there before."""
        me = _name(reviewer)
        with self._transaction() as db:
            view = self._view(db, row, me)
            changed = text != view.text or note != (view.own.note if view.own else "")
            if changed:
                values = (row, me, text.model_dump_json(), note)
                db.execute("INSERT OR REPLACE INTO drafts VALUES (?, ?, ?, ?)", values)
            else:
                db.execute("DELETE FROM drafts WHERE row = ? AND reviewer = ?", (row, me))
            until = self._clock() + LEASE
            db.execute("UPDATE leases SET until = ? WHERE row = ? AND reviewer = ?", (until, row, me))
        return changed

    def decide(self, reviewer: str, row: int, choice: Choice, text: Text, note: str = "") -> None:
        """Record a decision about `text`, the three parts as the reviewer sees them.

        Raises UsageError when they accept a changed text, save an unchanged one, or keep what `check` refuses.
        """
        me = _name(reviewer)
        with self._transaction() as db:
            view = self._view(db, row, me)
            if choice is Choice.ACCEPT and text != view.text:
                raise UsageError("the text is not the one proposed; save it as an edit, or undo the change")
            if choice is Choice.EDIT and text == view.text:
                raise UsageError("nothing was changed; accept the row instead")
            if choice is not Choice.REJECT:
                check(view.row, text)
            when = datetime.fromtimestamp(self._clock(), UTC).isoformat()
            self._write(db, row, me, choice, view.text, text, note, when, view.state == "contested")

    def record(self, reviewer: str, row: VqaRow, choice: Choice, text: Text, note: str, when: str) -> bool:
        """Take in a decision made elsewhere about the teacher's text; the row is added where it is new.

        when: ISO 8601. Returns False when it is the reviewer's last one already. Raises UsageError as `check`.
        """
        self.add([row])
        if choice is not Choice.REJECT:
            check(row, text)
        with self._transaction() as db:
            (number,) = db.execute("SELECT id FROM rows WHERE digest = ?", (_digest(row.model_dump_json()),)).fetchone()
            me = _name(reviewer)
            own = next((d for d in _last(db, number) if d.reviewer == me), None)
            # Elsewhere an accepted edit of a colleague reads as an edit: only keeping or rejecting is compared.
            if own and (own.decision is Choice.REJECT, own.after, own.note) == (choice is Choice.REJECT, text, note):
                return False
            return self._write(db, number, me, choice, text_of(row), text, note, when, False)

    def _write(
        self, db: sqlite3.Connection, row: int, me: str, choice: Choice, before: Text, after: Text, note: str,
        when: str, informed: bool,
    ) -> bool:  # fmt: skip
        own = next((d for d in _last(db, row) if d.reviewer == me), None)
        db.execute("DELETE FROM drafts WHERE row = ? AND reviewer = ?", (row, me))
        db.execute("DELETE FROM leases WHERE row = ? AND reviewer = ?", (row, me))
        if own and (own.decision, own.after, own.note) == (choice, after, note):
            return False
        values = (row, me, choice.value, note, when, before.model_dump_json(), after.model_dump_json(), informed)
        names = "row, reviewer, decision, note, time, before, after, informed"
        db.execute(f"INSERT INTO log ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._settle(db, row)
        return True

    def _settle(self, db: sqlite3.Connection, row: int) -> None:
        last = _last(db, row)
        state = settle(last, self.reviews)
        db.execute("UPDATE rows SET state = ?, decided = ? WHERE id = ?", (state, len(last), row))

    def progress(self, reviewer: str = "") -> Progress:
        """Rows by state, and how many this reviewer decided."""
        with self._transaction() as db:
            states = dict(db.execute("SELECT state, COUNT(*) FROM rows GROUP BY state"))
            query = "SELECT COUNT(DISTINCT row) FROM log WHERE reviewer = ?"
            (mine,) = db.execute(query, (one_line(reviewer),)).fetchone()
        counts = {name: states.get(name, 0) for name in ("open", "contested", "kept", "rejected")}
        return Progress(rows=sum(counts.values()), mine=mine, **counts)

    def agreement(self) -> list[Agreement]:
        """Every two reviewers with rows in common, by name; decisions made in sight of others' are left out."""
        given: dict[str, dict[int, int]] = {}
        choices = list(Choice)
        with self._transaction() as db:
            query = "SELECT row, reviewer, decision FROM log WHERE NOT informed ORDER BY id"
            for row, reviewer, decision in db.execute(query):
                given.setdefault(reviewer, {})[row] = choices.index(Choice(decision))
        pairs = []
        for first, second in combinations(sorted(given), 2):
            counts = np.zeros((3, 3), int)
            for row in given[first].keys() & given[second].keys():
                counts[given[first][row], given[second][row]] += 1
            if counts.any():
                keep = np.array([[counts[:2, :2].sum(), counts[:2, 2].sum()], [counts[2, :2].sum(), counts[2, 2]]])
                pairs.append(
                    Agreement(first=first, second=second, counts=counts.tolist(), kappa=cohen_kappa(counts),
                              kappa_keep=cohen_kappa(keep))
                )  # fmt: skip
        return pairs

    def log(self) -> list[Decision]:
        """The audit log, oldest first."""
        with self._transaction() as db:
            return [_decision(entry) for entry in db.execute(f"{_LOG} ORDER BY id")]

    def reviewed(self, *states: str) -> Iterator[Reviewed]:
        """Rows in one of the states (all: none given) with the last decision of each reviewer, in the order of import.

        States: open, contested, kept, rejected.
        """
        place, marks = 0, ", ".join("?" * len(states))
        where = f"AND state IN ({marks})" if states else ""
        query = f"SELECT id, row FROM rows WHERE id > ? {where} ORDER BY id LIMIT 500"
        while True:
            with self._transaction() as db:
                found = [(n, text, _last(db, n)) for n, text in db.execute(query, (place, *states)).fetchall()]
            if not found:
                return
            place = found[-1][0]
            for _, text, last in found:
                yield Reviewed(row=VqaRow.model_validate_json(text), decisions=last)

    def export(self, kept: Path, rejected: Path) -> tuple[int, int]:
        """Write settled rows: kept ones with the agreed text as VqaRow, rejected ones as Reviewed. Returns counts."""
        return (
            write_jsonl(kept, map(final, self.reviewed("kept"))),
            write_jsonl(rejected, self.reviewed("rejected")),
        )


_LOG = "SELECT row, reviewer, decision, note, time, before, after, informed FROM log"


def _decision(entry: tuple) -> Decision:
    names = ("row", "reviewer", "decision", "note", "time", "before", "after", "informed")
    values = dict(zip(names, entry, strict=True))
    return Decision.model_validate(values | {part: json.loads(values[part]) for part in ("before", "after")})


def _last(db: sqlite3.Connection, row: int) -> list[Decision]:
    """The last decision of every reviewer of a row, oldest first."""
    newest = "id IN (SELECT MAX(id) FROM log WHERE row = ? GROUP BY reviewer)"
    return [_decision(entry) for entry in db.execute(f"{_LOG} WHERE {newest} ORDER BY id", (row,))]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name(reviewer: str) -> str:
    name = one_line(reviewer)
    if not 0 < len(name) <= 80:
        raise UsageError("enter your name first, at most 80 characters")
    return name
