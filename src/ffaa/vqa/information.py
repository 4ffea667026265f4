"""Does the text carry information, and does its description give the answer away?

A text-only classifier reads the masked answers (the first two lines, as MIDS sees them, without result, probability
and type) and predicts the forgery type and the label of faces it has not seen. It should do so well from description
and reasoning, and not from the description alone. What it reads from a reasoning without the words that name the
verdict is what the evidence itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import sklearn
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from ffaa.data.stats import Table
from ffaa.types import Record
from ffaa.vqa.claims import STANCE_WORDS
from ffaa.vqa.row import VqaRow

FOLDS, RESAMPLES, LEVEL = 5, 1000, 0.95
MIN_ROWS, MIN_GROUPS = 25, 10  # of each class; with fewer the interval says nothing


def _measured(row: VqaRow) -> str:
    """The reasoning's sentences that rest on measured items alone, not on the manifest or on all items together."""
    told = (s for s in row.sentences if s.part == "reasoning" and s.evidence)
    return " ".join(
        s.text for s in told if all(":" not in name and name not in ("balance", "frame") for name in s.evidence)
    )


TEXTS: dict[str, Callable[[VqaRow], str]] = {
    "description": lambda row: row.description,
    "description and reasoning": lambda row: f"{row.description}\n{row.reasoning}",
    "the same without words of verdict": lambda row: STANCE_WORDS.sub(" ", f"{row.description}\n{row.reasoning}"),
    "measured sentences of the reasoning alone": _measured,
}
TARGETS: dict[str, Callable[[VqaRow], str]] = {
    "forgery type": lambda row: row.forgery_type.value,
    "real or fake": lambda row: row.label.value,
}


class TextReading(Record):
    """Cross-validated balanced accuracy of one text for one target. low, high: 95 % interval, resampled by group;
    chance: 1 / classes. above_chance: low is above chance."""

    scope: str
    text: str
    target: str
    rows: int
    classes: int
    balanced_accuracy: float
    low: float
    high: float
    chance: float
    above_chance: bool


class Information(Record):
    """notes: scopes and targets that were not read, and why."""

    seed: int
    folds: int
    scikit_learn: str
    readings: list[TextReading]
    notes: list[str]


def measure(rows: Iterable[VqaRow], seed: int = 0) -> Information:
    """Read all rows, and those of each split where there are several.

    Faces of a group (or, without one, of a photo) are never in training and test at once. Classes with fewer than
    25 rows or 10 groups are left out. Keeps all texts in memory.
    """
    every = list(rows)
    splits = sorted({row.split or "none" for row in every})
    scopes = {"all": every}
    if len(splits) > 1:
        scopes |= {name: [row for row in every if (row.split or "none") == name] for name in splits}
    readings, notes = list[TextReading](), list[str]()
    for scope, chosen in scopes.items():
        for target, truth in TARGETS.items():
            kept, left_out = _enough(chosen, truth)
            if left_out:
                notes.append(f"{scope}, {target}: too few rows or groups of {', '.join(left_out)}")
            if len({truth(row) for row in kept}) < 2:
                notes.append(f"{scope}, {target}: fewer than two classes, not read")
                continue
            for name, text in TEXTS.items():
                texts = [text(row) for row in kept]
                if not any(texts):
                    notes.append(f"{scope}, {target}: no {name}, since no sentence says what it rests on")
                    continue
                readings.append(_reading(scope, name, target, texts, kept, truth, seed))
    return Information(seed=seed, folds=FOLDS, scikit_learn=sklearn.__version__, readings=readings, notes=notes)


def _key(row: VqaRow) -> str:
    return row.group or row.sha256


def _enough(rows: Sequence[VqaRow], truth: Callable[[VqaRow], str]) -> tuple[list[VqaRow], list[str]]:
    left_out = []
    for name in sorted({truth(row) for row in rows}):
        of = [row for row in rows if truth(row) == name]
        if len(of) < MIN_ROWS or len({_key(row) for row in of}) < MIN_GROUPS:
            left_out.append(name)
    return [row for row in rows if truth(row) not in left_out], left_out


def _reading(
    scope: str, text: str, target: str, texts: Sequence[str], rows: Sequence[VqaRow],
    truth: Callable[[VqaRow], str], seed: int,
) -> TextReading:  # fmt: skip
    names = sorted({truth(row) for row in rows})
    labels = np.array([names.index(truth(row)) for row in rows])
    _, groups = np.unique([_key(row) for row in rows], return_inverse=True)
    said = np.array(texts, object)
    guessed = np.empty_like(labels)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(said, labels, groups):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
        )
        guessed[test] = model.fit(said[train], labels[train]).predict(said[test])
    low, high = _interval(labels, guessed, groups, len(names), seed)
    return TextReading(
        scope=scope, text=text, target=target, rows=len(rows), classes=len(names),
        balanced_accuracy=round(float(balanced_accuracy_score(labels, guessed)), 4), low=low, high=high,
        chance=round(1 / len(names), 4), above_chance=low > 1 / len(names),
    )  # fmt: skip


def _interval(
    labels: np.ndarray, guessed: np.ndarray, groups: np.ndarray, classes: int, seed: int
) -> tuple[float, float]:
    """Bootstrap over groups: rows of a photo or person are not independent."""
    number = int(groups.max()) + 1
    right, count = np.zeros((number, classes)), np.zeros((number, classes))
    np.add.at(right, (groups, labels), labels == guessed)
    np.add.at(count, (groups, labels), 1)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        weight = np.bincount(rng.integers(number, size=number), minlength=number)
        all_of = weight @ count
        if (all_of > 0).all():
            values.append(float((weight @ right / all_of).mean()))
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    return round(low, 4), round(high, 4)


def table(found: Information) -> Table:
    """For the terminal and Markdown."""
    return Table(
        "What a text-only classifier reads (balanced accuracy, 95 % interval)",
        ["rows of", "text", "predicts", "rows", "balanced accuracy", "interval", "chance"],
        [
            [r.scope, r.text, r.target, f"{r.rows:,}", f"{r.balanced_accuracy:.3f}", f"{r.low:.3f} to {r.high:.3f}",
             f"{r.chance:.3f}"]
            for r in found.readings
        ],
        found.notes,
    )  # fmt: skip
