"""Errors by groups of people: of whose real photos are more called fake?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ffaa.data.stats import Table
from ffaa.errors import UsageError
from ffaa.eval.attributes import NONE
from ffaa.eval.bootstrap import Bools, Estimate, estimate, means
from ffaa.eval.figures import groups_of, resampled
from ffaa.eval.result import Result
from ffaa.eval.tables import spread
from ffaa.types import Record

FEW = 30
PERMUTATIONS = 1000


class Group(Record):
    """The photos of one value. accused: share of its real photos that are called fake (false positives); found: of its
    fakes. Wilson 95 % intervals; None without such photos."""

    real: int
    fake: int
    accused: Estimate
    found: Estimate


class Gap(Record):
    """Greatest minus least share of accused real photos among the groups with at least 30 of them, with its bootstrap
    95 % interval. p: how often as great a gap comes about when the values are dealt out anew among the real photos of
    every set. highest, lowest: the groups."""

    value: Estimate
    p: float
    highest: str
    lowest: str


class Fairness(Record):
    """One row in one pool. gap: None with fewer than two groups of 30 real photos."""

    groups: dict[str, Group]
    gap: Gap | None


def fairness(found: Result, attribute: str) -> dict[str, dict[str, Fairness]]:
    """Pool -> row -> figures. Raises UsageError for an attribute that the result does not hold."""
    photos = found.photos
    if attribute not in photos.attributes:
        known = ", ".join(photos.attributes) or "none"
        raise UsageError(
            f"the result holds no attribute '{attribute}' (it holds: {known}); name it in the recipe's `attributes` "
            "and run `ffaa bench run` again with the same --out: nothing is judged again"
        )
    value, fake = np.array(photos.attributes[attribute]), np.array(photos.fake)
    drawn = resampled(photos, found.bootstrap.resamples, found.bootstrap.seed)
    out: dict[str, dict[str, Fairness]] = {}
    for pool, inside in groups_of(photos)[1].items():
        names = sorted(np.unique(value[inside]).tolist())
        out[pool] = {}
        for row, says in photos.says.items():
            called = np.array([said is True for said in says.fake])  # what could not be read accuses nobody
            groups = {name: _group(inside & (value == name), fake, called) for name in names}
            large = [name for name, of in groups.items() if of.real >= FEW and name != NONE]
            gap = None
            if len(large) > 1:
                real = inside & ~fake & np.isin(value, large)
                sets = np.unique(np.array(photos.set)[real], return_inverse=True)[1]
                gap = _gap(large, value[real], called[real], sets, drawn[:, real], found.bootstrap.seed)
            out[pool][row] = Fairness(groups=groups, gap=gap)
    return out


def _group(inside: Bools, fake: Bools, called: Bools) -> Group:
    real, forged = called[inside & ~fake], called[inside & fake]
    return Group(real=len(real), fake=len(forged), accused=_share(real), found=_share(forged))


def _share(hits: Bools) -> Estimate:
    """With Wilson's interval: the bootstrap of 0 of 12 would be certain."""
    if not len(hits):
        return Estimate(value=None, low=None, high=None)
    bounds = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "wilson")
    return Estimate(value=float(hits.mean()), low=float(bounds.low), high=float(bounds.high))


def _gap(
    names: list[str], value: NDArray[np.str_], called: Bools, sets: NDArray[np.int_], drawn: NDArray[np.float32],
    seed: int,
) -> Gap:  # fmt: skip
    def rates(value: NDArray[np.str_]) -> list[float]:
        return [float(called[value == name].mean()) for name in names]

    here = rates(value)
    again = np.stack([means(called[value == name], drawn[:, value == name]) for name in names])
    rng, as_great = np.random.default_rng((seed, 8)), 0
    for _ in range(PERMUTATIONS):
        order = np.lexsort((rng.random(len(value)), sets))  # within every set, in random order
        dealt = np.empty_like(value)
        dealt[np.argsort(sets, kind="stable")] = value[order]
        as_great += np.ptp(rates(dealt)) >= np.ptp(here) - 1e-12
    return Gap(
        value=estimate(float(np.ptp(here)), again.max(0) - again.min(0)),
        p=(as_great + 1) / (PERMUTATIONS + 1),
        highest=names[int(np.argmax(here))],
        lowest=names[int(np.argmin(here))],
    )


def table(found: Result, attribute: str) -> Table:
    """A line per pool, row and value; gaps below."""
    rows, notes, few = [], [], False
    for pool, of_rows in fairness(found, attribute).items():
        for row, of in of_rows.items():
            for name, group in of.groups.items():
                small = min(n for n in (group.real, group.fake) if n) < FEW
                few = few or small
                shares = [spread(e.value, e.low, e.high) for e in (group.accused, group.found)]
                rows.append([pool, row, name + " (!)" * small, str(group.real), str(group.fake), *shares])
            if of.gap is not None:
                gap = of.gap
                notes.append(
                    f"{pool}, {row}: gap of false positives {spread(gap.value.value, gap.value.low, gap.value.high)} "
                    f"({gap.highest} over {gap.lowest}); as great by chance: p {gap.p:.3f}."
                )
            else:
                notes.append(f"{pool}, {row}: fewer than two values with {FEW} real photos: no gap is given.")
    if few:
        notes.append(f"(!) fewer than {FEW} real photos or fakes: read nothing into such a line.")
    notes.append(
        "In brackets 95 % intervals (Wilson; of the gap: bootstrap). A gap is never below 0, so its interval does not "
        "reach 0 even where all groups are alike: look at p. Groups may differ in more than the attribute (collection, "
        "camera, light). Lines of several detectors, pools and attributes are several tests."
    )
    head = ["pool", "", attribute, "real", "fake", "reals called fake", "fakes found"]
    return Table(f"By {attribute}", head, rows, notes)
