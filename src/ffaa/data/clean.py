"""Which faces stay and in which split: groups, duplicates, splits, leaks. Works on numbers: some 100 bytes a face."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ffaa.data.phash import hash_array, links
from ffaa.errors import InputError

SPLITS = ("bench", "test", "val", "train")  # the most held-out first
SHOWN = 5


def draw(seed: int, name: str) -> int:
    """A number in [0, 2^63) that depends on the seed and the name alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


class Groups:
    """Union-find over group keys."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._parent: list[int] = []

    def join(self, keys: Sequence[str]) -> int:
        """Join the groups of all keys; returns a number to hand to `root`. keys: at least one."""
        numbers = []
        for key in keys:
            if key not in self._number:
                self._number[key] = len(self._parent)
                self._parent.append(len(self._parent))
            numbers.append(self.root(self._number[key]))
        first = min(numbers)
        for number in numbers:
            self._parent[number] = first
        return first

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def names(self) -> dict[int, str]:
        """Root -> the first of its keys in alphabetical order."""
        found: dict[int, str] = {}
        for key, number in self._number.items():
            root = self.root(number)
            found[root] = min(found.get(root, key), key)
        return found


@dataclass
class Faces:
    """What is known of every face, in manifest order.

    digest: the first 8 bytes of its photo's sha256. hashes: `phash` of the photo. kind: a number for label and method.
    stratum: one for collection and type. given: place of its split in SPLITS, or len(SPLITS). group: a number of
    Groups, or -1: it stands alone. draw: its lot.
    """

    item: array[int] = field(default_factory=lambda: array("q"))
    digest: array[int] = field(default_factory=lambda: array("Q"))
    hashes: list[bytes] = field(default_factory=list)
    fake: array[int] = field(default_factory=lambda: array("b"))
    kind: array[int] = field(default_factory=lambda: array("i"))
    stratum: array[int] = field(default_factory=lambda: array("i"))
    given: array[int] = field(default_factory=lambda: array("b"))
    group: array[int] = field(default_factory=lambda: array("q"))
    draw: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Dropped:
    """Why a face is left out; of: the face it gives way to (its place), -1 none."""

    kind: str
    of: int = -1


def duplicates(faces: Faces, groups: np.ndarray, distance: int) -> dict[int, Dropped]:
    """Faces that repeat another one. The most held-out copy stays, then the first.

    Equal files: all but one; if they are called real here and fake there, all of them, as nobody knows. Near ones
    (perceptual hashes of the photos within `distance` bits): only of one label and method, and only between groups -
    frames of one video are alike by nature, and cannot leak. groups: (N,) int64.
    """
    dropped: dict[int, Dropped] = {}
    order = np.argsort(np.array(faces.given), kind="stable")
    digests: np.ndarray = np.array(faces.digest)
    _, place, counts = np.unique(digests, return_inverse=True, return_counts=True)
    by_digest: dict[int, list[int]] = {}
    for i in order[counts[place[order]] > 1].tolist():
        by_digest.setdefault(int(digests[i]), []).append(i)
    for same in by_digest.values():
        first = same[0]
        if len({faces.fake[i] for i in same}) > 1:
            dropped |= {i: Dropped("conflict", next(j for j in same if faces.fake[j] != faces.fake[i])) for i in same}
        else:
            dropped |= {i: Dropped("duplicate", first) for i in same if faces.item[i] != faces.item[first]}
    left = np.array([i for i in order.tolist() if i not in dropped], np.int64)
    kinds: np.ndarray = np.array(faces.kind)[left]
    hashes = hash_array(faces.hashes)
    for kind in np.unique(kinds):
        alike = left[kinds == kind]
        found = links(hashes[alike], distance)
        for i in np.flatnonzero(found >= 0):
            this, other = int(alike[i]), int(alike[found[i]])
            if groups[this] != groups[other]:
                dropped[this] = Dropped("near duplicate", other)
    return dropped


def related(faces: Faces, groups: np.ndarray, kept: np.ndarray, distance: int) -> np.ndarray:
    """Groups with those joined whose photos nearly agree: as a rule a forgery and the photo it was made from, which no
    split may part. groups: (N,) int64, and so is what is returned; only the faces in `kept` are compared."""
    found = links(hash_array(faces.hashes)[kept], distance)
    parent: dict[int, int] = {}

    def root(group: int) -> int:
        while parent.get(group, group) != group:
            group = parent[group]
        return group

    for i in np.flatnonzero(found >= 0):
        one, two = root(int(groups[kept[i]])), root(int(groups[kept[found[i]]]))
        if one != two:
            parent[min(one, two)] = max(one, two)  # a group with a name (from 0 on) names the joined one
    return np.array([root(int(group)) for group in groups], np.int64) if parent else groups


def given_splits(faces: Faces, groups: np.ndarray, kept: np.ndarray, drop: bool) -> dict[int, Dropped]:
    """Faces whose collection puts them elsewhere than others of their group: `drop` leaves out the less held-out.

    kept: places of the faces that are left. Without `drop`, raises InputError with the pairs.
    """
    given: np.ndarray = np.array(faces.given)
    order = kept[np.argsort(groups[kept], kind="stable")]
    order = order[given[order] < len(SPLITS)]
    dropped: dict[int, Dropped] = {}
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else ():
        if len(set(given[members])) > 1:
            first = int(members[np.argmin(given[members])])
            dropped |= {int(i): Dropped("leak", first) for i in members if given[i] != given[first]}
    if dropped and not drop:
        raise LeakError([(i, why.of) for i, why in sorted(dropped.items())])
    return dropped


class LeakError(InputError):
    """Groups that the given splits cut. pairs: places of two faces of one group."""

    def __init__(self, pairs: list[tuple[int, int]]):
        self.pairs = pairs
        super().__init__(f"{len(pairs)} faces of a group lie in another split")


def assign(faces: Faces, groups: np.ndarray, kept: np.ndarray, shares: dict[int, tuple[float, float]]) -> np.ndarray:
    """Split of every face in `kept`, as its place in SPLITS (int8). A group goes where its faces were given to; the
    others are drawn, whole groups, so that every stratum (collection and type) has its share of val and test.

    shares: stratum -> (val, test).
    """
    given: np.ndarray = np.array(faces.given)[kept]
    draws: np.ndarray = np.array(faces.draw)[kept]
    _, first, member, count = np.unique(groups[kept], return_index=True, return_inverse=True, return_counts=True)
    split: np.ndarray = np.full(len(first), len(SPLITS), np.int8)
    np.minimum.at(split, member, given)
    lot: np.ndarray = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(lot, member, draws)
    stratum: np.ndarray = np.array(faces.stratum)[kept][first]
    for number in np.unique(stratum[split == len(SPLITS)]):
        drawn = np.flatnonzero((stratum == number) & (split == len(SPLITS)))
        drawn = drawn[np.argsort(lot[drawn], kind="stable")]
        before = np.cumsum(count[drawn]) - count[drawn]
        total = int(count[drawn].sum())
        val, test = (round(share * total) for share in shares[int(number)])
        # A group belongs to the first quota that was not full before it.
        split[drawn] = np.where(
            before < val,
            SPLITS.index("val"),
            np.where(before < val + test, SPLITS.index("test"), SPLITS.index("train")),
        )
    return split[member]


def leak_message(pairs: Iterable[tuple[str, str]], total: int) -> str:
    """One line with the first pairs."""
    shown = "; ".join(f"{a} and {b}" for a, b in pairs)
    more = f" and {total - SHOWN} more" if total > SHOWN else ""
    return f"{total} leaks: of one group or nearly equal, but in different splits: {shown}{more}"
