import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ffaa.eval.bootstrap import Estimate, aucs, estimate, mcnemar, means, paired, weights


def test_every_stratum_keeps_its_size():
    strata = ["a"] * 3 + ["b"] * 5 + ["c"]
    drawn = weights(strata, range(9), 50, seed=1)
    assert drawn.shape == (50, 9)
    assert (drawn[:, :3].sum(1) == 3).all()
    assert (drawn[:, 3:8].sum(1) == 5).all()
    assert (drawn[:, 8] == 1).all()
    assert len({tuple(row) for row in drawn[:, 3:8]}) > 20
    assert (drawn == weights(strata, range(9), 50, seed=1)).all()
    assert (drawn != weights(strata, range(9), 50, seed=2)).any()


def test_frames_of_a_video_are_drawn_together():
    drawn = weights(["a"] * 6, [0, 1, 1, 1, 2, 3], 40)
    assert (drawn[:, 1] == drawn[:, 2]).all()
    assert (drawn[:, 1] == drawn[:, 3]).all()
    assert (drawn[:, [0, 1, 4, 5]].sum(1) == 4).all()


def test_weighted_figures_are_those_of_repeated_photos():
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.5
    score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.3), 0, 1).round(1)  # many ties
    drawn = weights(truth.tolist(), range(60), 30, seed=4)
    auc, acc = aucs(truth, score, drawn), means(truth == (score > 0.5), drawn)
    for row, area, share in zip(drawn.astype(int), auc, acc, strict=True):
        again = np.repeat(np.arange(60), row)
        assert area == pytest.approx(roc_auc_score(truth[again], score[again]))
        assert share == pytest.approx((truth == (score > 0.5))[again].mean())


def test_the_interval_is_the_normal_one_for_many_photos():
    right = np.arange(2000) < 1600
    drawn = weights(["a"] * 2000, range(2000), 1000)
    found = estimate(0.8, means(right, drawn))
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 2000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.002)
    assert found.high == pytest.approx(0.8 + half, abs=0.002)


def test_no_figure_no_interval():
    assert estimate(None, np.ones(3)) == Estimate(value=None, low=None, high=None)
    assert estimate(float("nan"), np.array([np.nan])).value is None
    assert estimate(0.5, np.array([np.nan, 0.5, np.nan])) == Estimate(value=0.5, low=0.5, high=0.5)
    assert np.isnan(means(np.array([True]), np.zeros((1, 1), np.float32))).all()


def test_the_paired_test_sees_what_two_intervals_hide():
    """B is wrong where A is, and on 12 photos more: a small but certain difference."""
    rng = np.random.default_rng(2)
    a = rng.random(400) < 0.8
    b = a & ~(np.cumsum(a) <= 12)
    drawn = weights(["s"] * 400, range(400), 1000)
    one, two = means(a, drawn), means(b, drawn)
    gap = paired(a.mean(), b.mean(), one, two)
    assert gap.difference == pytest.approx(0.03)
    assert 0 < gap.low < 0.03 < gap.high
    assert gap.p == pytest.approx(2 / 1001)
    assert estimate(a.mean(), one).low < estimate(b.mean(), two).high  # yet the two intervals overlap
    back = paired(b.mean(), a.mean(), two, one)
    assert (back.low, back.high, back.p) == (pytest.approx(-gap.high), pytest.approx(-gap.low), gap.p)
    assert paired(a.mean(), a.mean(), one, one).p == 1


def test_mcnemar():
    a = np.array([True] * 10 + [False] * 2 + [True] * 5)
    b = np.array([False] * 10 + [True] * 2 + [True] * 5)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (10, 2)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # twice P(at most 2 of 12)
    assert mcnemar(a, a).p == 1
