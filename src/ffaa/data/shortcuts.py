"""The shortcut check: what a model could tell real from fake by that is no evidence of forgery.

A small forest is trained on the photo's file size, aspect and native size and on the crop's mean colour. Where it beats
chance, a detector trained on the same faces can do so too, without looking for a forgery.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sklearn
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ffaa.data import manifest
from ffaa.data.manifest import Row
from ffaa.data.stats import Table
from ffaa.types import Label, Record

FAMILIES: dict[str, tuple[str, ...]] = {
    "file size": ("photo_bytes",),
    "aspect": ("aspect",),
    "colour": ("red", "green", "blue"),
    "native size": ("photo_width", "photo_height"),
}
FEATURES = tuple(name for names in FAMILIES.values() for name in names)
ALL = "all"
UNKNOWN = -9.0  # below every feature: trees set it apart by themselves
FOLDS = 5
CHANCE, LIMIT = 0.5, 0.55  # the limit leaves room for what the interval does not hold: chance in training
MIN_FACES, MIN_GROUPS = 25, 10  # of each label; with fewer the interval says nothing
RESAMPLES = 1000
LEVEL = 0.95


class Reading(Record):
    """Cross-validated figures of one family of features, or of all. low, high: 95 % interval of balanced_accuracy."""

    features: str
    balanced_accuracy: float
    low: float
    high: float
    auc: float
    flagged: bool


class Collection(Record):
    """A collection or (bench) benchmark set that holds both labels. note: why there are no readings."""

    name: str
    bench: bool
    real: int
    fake: int
    readings: list[Reading]
    flagged: bool
    note: str = ""


class Transfer(Record):
    """The forest of the training split on faces of another. low, high: 95 % interval of accuracy; majority: accuracy
    of the answer that is right most often there; beats_majority: low is above it."""

    name: str
    split: str
    real: int
    fake: int
    accuracy: float
    low: float
    high: float
    majority: float
    beats_majority: bool
    balanced_accuracy: float | None
    auc: float | None


class OneLabel(Record):
    """A collection whose training faces are all real or all fake."""

    name: str
    label: Label
    faces: int


class Shortcuts(Record):
    """What `check` found. transfer_note: why there is no transfer."""

    seed: int
    folds: int
    limit: float
    scikit_learn: str
    features: list[str]
    collections: list[Collection]
    transfer: list[Transfer]
    transfer_note: str
    one_label: list[OneLabel]


def features(row: Row) -> list[float]:
    """FEATURES of a face's photo: log of bytes, of width / height and of pixels; mean colour; UNKNOWN: not measured."""
    known = row.photo_width > 0 and row.photo_height > 0
    return [
        math.log(row.photo_bytes) if row.photo_bytes > 0 else UNKNOWN,
        math.log(row.photo_width / row.photo_height) if known else UNKNOWN,
        *(UNKNOWN if value is None else value for value in (row.red, row.green, row.blue)),
        *(math.log(side) if known else UNKNOWN for side in (row.photo_width, row.photo_height)),
    ]


@dataclass
class _Faces:
    """Numbers only, some 80 bytes a face. group: equal for faces of one group, negative where a face stands alone."""

    values: array[float] = field(default_factory=lambda: array("d"))
    fake: array[int] = field(default_factory=lambda: array("b"))
    group: array[int] = field(default_factory=lambda: array("q"))
    place: array[int] = field(default_factory=lambda: array("i"))
    places: dict[tuple[str, str, str], int] = field(default_factory=dict)  # (split, benchmark set, collection)

    def add(self, row: Row) -> None:
        self.values.extend(features(row))
        digest = hashlib.blake2b(row.group.encode(), digest_size=8).digest()
        self.group.append(int.from_bytes(digest, "big") >> 1 if row.group else -1 - len(self.fake))
        self.place.append(self.places.setdefault((row.split, row.bench, row.dataset), len(self.places)))
        self.fake.append(row.label is Label.FAKE)


@dataclass(frozen=True)
class _Part:
    """x: float64 (n, features); fake: bool (n,); group: int64 (n,)."""

    x: np.ndarray
    fake: np.ndarray
    group: np.ndarray

    def take(self, mask: np.ndarray) -> _Part:
        return _Part(self.x[mask], self.fake[mask], self.group[mask])

    @property
    def counts(self) -> tuple[int, int]:
        """(real, fake)"""
        fakes = int(self.fake.sum())
        return len(self.fake) - fakes, fakes

    def too_few(self) -> str:
        """Why nothing can be learned or read from these; '' when it can."""
        groups = [len(np.unique(self.group[self.fake == label])) for label in (False, True)]
        if min(self.counts) >= MIN_FACES and min(groups) >= MIN_GROUPS:
            return ""
        needed = f"{MIN_FACES} faces and {MIN_GROUPS} groups of each label"
        held = f"{self.counts[0]} real in {groups[0]} groups, {self.counts[1]} fake in {groups[1]}"
        return f"too few to say: {held}; needs {needed}"


def check(folder: Path, seed: int = 0) -> Shortcuts:
    """Look for shortcuts in the manifest of `folder`. Raises InputError when it cannot be read.

    Within each collection: out-of-fold answers of FOLDS folds, groups kept whole. Over the training split: trained on
    'train', tested on the held-out faces (val and test) of each collection and on each benchmark set.
    """
    found = _Faces()
    for row in manifest.scan(folder):
        found.add(row)
    x = np.array(found.values).reshape(-1, len(FEATURES))
    part = _Part(x, np.array(found.fake, bool), np.array(found.group, np.int64))
    place, keys = np.array(found.place, np.int64), list(found.places)

    def pick(places: Iterable[int], splits: Container[str]) -> _Part:
        return part.take(np.isin(place, [n for n in places if keys[n][0] in splits]))

    sets: dict[tuple[bool, str], list[int]] = {}
    for n, (_, bench, dataset) in enumerate(keys):
        sets.setdefault((bool(bench), bench or dataset), []).append(n)
    collections, one_label, tests = list[Collection](), list[OneLabel](), list[tuple[str, str, _Part]]()
    for (in_bench, name), places in sorted(sets.items()):
        whole, trained = pick(places, {keys[n][0] for n in places}), pick(places, {"train"})
        if min(whole.counts):
            collections.append(_within(name, in_bench, whole, seed))
        if max(trained.counts) and not min(trained.counts):
            label = Label.FAKE if trained.fake[0] else Label.REAL
            one_label.append(OneLabel(name=name, label=label, faces=len(trained.fake)))
        tests.append((name, "bench", whole) if in_bench else (name, "held out", pick(places, {"val", "test"})))
    tests = [test for test in tests if max(test[2].counts)]
    train = pick(range(len(keys)), {"train"})
    note = train.too_few() or ("" if tests else "there are no faces to test on")
    return Shortcuts(
        seed=seed, folds=FOLDS, limit=LIMIT, scikit_learn=sklearn.__version__, features=list(FEATURES),
        collections=collections, transfer=[] if note else list(_transfer(train, tests, seed)), transfer_note=note,
        one_label=one_label,
    )  # fmt: skip


def _forest(seed: int) -> ExtraTreesClassifier:
    """Small, balanced between the labels, and the same for a seed on any number of cores."""
    return ExtraTreesClassifier(
        50, min_samples_leaf=5, max_leaf_nodes=512, max_features=1.0, class_weight="balanced", random_state=seed
    )


def _within(name: str, bench: bool, faces: _Part, seed: int) -> Collection:
    real, fake = faces.counts
    if note := faces.too_few():
        return Collection(name=name, bench=bench, real=real, fake=fake, readings=[], flagged=False, note=note)
    grouped = len(np.unique(faces.group)) < len(faces.group)
    folds = (StratifiedGroupKFold if grouped else StratifiedKFold)(FOLDS, shuffle=True, random_state=seed)
    parts = list(folds.split(faces.x, faces.fake, faces.group if grouped else None))
    if any(len(np.unique(faces.fake[train])) < 2 or not len(test) for train, test in parts):
        note = "its groups are too uneven for folds that hold both labels"
        return Collection(name=name, bench=bench, real=real, fake=fake, readings=[], flagged=False, note=note)
    readings = []
    for family, names in {ALL: FEATURES, **FAMILIES}.items():
        x = faces.x[:, [FEATURES.index(feature) for feature in names]]
        if not (x != UNKNOWN).any():
            continue
        score: np.ndarray = np.zeros(len(x))
        for train, test in parts:
            score[test] = _forest(seed).fit(x[train], faces.fake[train]).predict_proba(x[test])[:, 1]
        right = (score >= CHANCE) == faces.fake
        real_n, real_right, fake_n, fake_right = _resampled(right, faces, seed)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may lack a label
            low, high = _interval((real_right / real_n + fake_right / fake_n) / 2)
        readings.append(
            Reading(
                features=family,
                balanced_accuracy=_balanced(right, faces.fake),
                low=low,
                high=high,
                auc=float(roc_auc_score(faces.fake, score)),
                flagged=low > LIMIT,
            )
        )
    return Collection(
        name=name, bench=bench, real=real, fake=fake, readings=readings, flagged=any(r.flagged for r in readings),
        note="" if readings else "nothing was measured on its photos",
    )  # fmt: skip


def _transfer(train: _Part, tests: list[tuple[str, str, _Part]], seed: int) -> Iterator[Transfer]:
    forest = _forest(seed).fit(train.x, train.fake)
    for name, split, faces in tests:
        real, fake = faces.counts
        score = forest.predict_proba(faces.x)[:, 1]
        right = (score >= CHANCE) == faces.fake
        real_n, real_right, fake_n, fake_right = _resampled(right, faces, seed)
        low, high = _interval((real_right + fake_right) / (real_n + fake_n))
        majority, both = max(real, fake) / (real + fake), min(real, fake) > 0
        yield Transfer(
            name=name, split=split, real=real, fake=fake, accuracy=float(right.mean()), low=low, high=high,
            majority=majority, beats_majority=low > majority,
            balanced_accuracy=_balanced(right, faces.fake) if both else None,
            auc=float(roc_auc_score(faces.fake, score)) if both else None,
        )  # fmt: skip


def _balanced(right: np.ndarray, fake: np.ndarray) -> float:
    return float((right[~fake].mean() + right[fake].mean()) / 2)


def _resampled(right: np.ndarray, faces: _Part, seed: int) -> np.ndarray:
    """(4, RESAMPLES): reals, those that are right, fakes, those that are right, of bootstrap draws of whole groups,
    since the frames of one video are no independent proofs."""
    _, member = np.unique(faces.group, return_inverse=True)
    fake, count = faces.fake, int(member.max()) + 1
    sums = np.stack([np.bincount(member, mask, count) for mask in (~fake, ~fake & right, fake, fake & right)])
    rng = np.random.default_rng(seed)
    return np.stack(
        [sums @ np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)], axis=1
    )


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    return low, high


def tables(found: Shortcuts) -> list[Table]:
    """What was found, as text."""
    kinds = [ALL, *FAMILIES]
    within, notes = list[list[str]](), list[str]()
    for one in found.collections:
        by = {reading.features: reading for reading in one.readings}
        if by:
            cells = [
                f"{r.balanced_accuracy:.3f} ({r.low:.3f}-{r.high:.3f})" if (r := by.get(k)) else "-" for k in kinds
            ]
            within.append([one.name, f"{one.real} : {one.fake}", *cells, f"{by[ALL].auc:.3f}"])
        else:
            notes.append(f"{one.name}: {one.note}.")
        if one.flagged:
            what = ", ".join(f"{r.features} (at least {r.low:.3f})" for r in one.readings if r.flagged)
            notes.append(f"SHORTCUT: in {one.name} real and fake are told apart by {what}.")
        if any(r.high < 2 * CHANCE - found.limit for r in one.readings):
            notes.append(f"{one.name} lies below chance, as where forged copies and their originals share no group.")
    if within and not any(one.flagged for one in found.collections):
        notes.append(f"No collection is told apart: no interval lies above {found.limit}.")
    if not found.collections:
        notes.append("No collection holds both labels.")
    notes += [
        f"{one.name} holds only {one.label} faces ({one.faces}) in training: "
        "a model can learn the collection instead of the label."
        for one in found.one_label
    ]
    transfer = [
        [t.name, t.split, f"{t.real} : {t.fake}", f"{t.accuracy:.3f} ({t.low:.3f}-{t.high:.3f})", f"{t.majority:.3f}",
         *("-" if value is None else f"{value:.3f}" for value in (t.balanced_accuracy, t.auc))]
        for t in found.transfer
    ]  # fmt: skip
    return [
        Table(
            f"Shortcuts within a collection: balanced accuracy and 95 % interval, chance {CHANCE}",
            ["collection", "real : fake", *kinds, "AUC (all)"], within, notes,
        ),
        Table(
            "Shortcuts over the training split: accuracy of a forest that sees no face",
            ["set", "split", "real : fake", "accuracy", "majority", "balanced", "AUC"], transfer,
            [f"The training split: {found.transfer_note}."] if found.transfer_note else [],
        ),
    ]  # fmt: skip
