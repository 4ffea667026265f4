"""Bootstrap intervals of figures, and paired tests between two detectors on the same photos.

Every photo gets a weight per resample: how often it was drawn. All detectors share the weights, so that differences
between them are paired.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ffaa.types import Record

RESAMPLES = 1000
_AT_ONCE = 100  # resamples whose weights are sorted by score together: bounds the memory

Weights = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Estimate(Record):
    """A figure and its percentile bootstrap 95 % interval; all None where the figure is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Paired(Record):
    """A figure of detector A minus that of B on the same photos, its 95 % interval, and the two-sided bootstrap p:
    twice the share of resamples on the other side of zero, at least 2 / (resamples + 1)."""

    difference: float
    low: float
    high: float
    p: float


class McNemar(Record):
    """Photos that only A or only B gets right, and the exact two-sided p of McNemar's test (binomial)."""

    only_a: int
    only_b: int
    p: float


def weights(strata: Sequence[Hashable], units: Sequence[Hashable], count: int = RESAMPLES, seed: int = 0) -> Weights:
    """(count, N) float32: how often each of N photos is drawn in each resample.

    strata: per photo; every stratum keeps its number of units in every resample. units: per photo, what is drawn
    together (the frames of a video); a unit lies in one stratum.
    """
    of_unit: dict[Hashable, int] = {}
    of_photo = np.array([of_unit.setdefault(unit, len(of_unit)) for unit in units], int)
    stratum: dict[Hashable, list[int]] = {}
    for unit, key in dict(zip(of_photo.tolist(), strata, strict=True)).items():
        stratum.setdefault(key, []).append(unit)
    rng = np.random.default_rng(seed)
    drawn: Weights = np.zeros((count, len(of_unit)), np.float32)
    for members in stratum.values():
        drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), count)
    return drawn[:, of_photo]


def means(values: Bools, drawn: Weights) -> NDArray[np.float64]:
    """(R,) weighted mean of `values` (N,) in each of R resamples; nan where no photo was drawn."""
    total = drawn.sum(1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (drawn @ values.astype(np.float32)).astype(np.float64) / total


def aucs(truth: Bools, score: NDArray[np.float64], drawn: Weights) -> NDArray[np.float64]:
    """(R,) AUC in each resample: the share of (real, fake) pairs in the right order, ties counting half."""
    values, place = np.unique(score, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    parts = []
    for start in range(0, len(drawn), _AT_ONCE):
        part = drawn[start : start + _AT_ONCE, order].astype(np.float64)
        fake = np.add.reduceat(part * truth[order], starts, axis=1)
        real = np.add.reduceat(part * ~truth[order], starts, axis=1)
        below = real.cumsum(1) - real
        with np.errstate(invalid="ignore"):
            parts.append(((below + real / 2) * fake).sum(1) / (real.sum(1) * fake.sum(1)))
    return np.concatenate(parts)


def estimate(value: float | None, resampled: NDArray[np.float64]) -> Estimate:
    """The figure with the 2.5 % and 97.5 % percentiles of its resamples; resamples where it is not defined are left
    out."""
    resampled = resampled[np.isfinite(resampled)]
    if value is None or not np.isfinite(value) or not len(resampled):
        return Estimate(value=None, low=None, high=None)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Estimate(value=float(value), low=float(low), high=float(high))


def paired(value_a: float, value_b: float, a: NDArray[np.float64], b: NDArray[np.float64]) -> Paired:
    """A minus B: `value_*` of all photos, a and b of the same resamples."""
    gaps = (a - b)[np.isfinite(a - b)]
    low, high = np.percentile(gaps, (2.5, 97.5))
    beyond = min((gaps <= 0).sum(), (gaps >= 0).sum())
    p = min(1.0, 2 * (int(beyond) + 1) / (len(gaps) + 1))
    return Paired(difference=value_a - value_b, low=float(low), high=float(high), p=p)


def mcnemar(right_a: Bools, right_b: Bools) -> McNemar:
    """McNemar's exact test on two detectors' right and wrong determinations (N,) of the same photos."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a=only_a, only_b=only_b, p=p)
