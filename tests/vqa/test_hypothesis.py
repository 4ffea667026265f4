from collections import Counter

import numpy as np
import pytest

from ffaa.types import Label
from ffaa.vqa.hypothesis import draw_hypothesis, draw_weighed, hypothesis_rows


def shares(draw, count=6000):
    """What is drawn -> its share."""
    rng = np.random.default_rng(0)
    return {drawn: n / count for drawn, n in Counter(draw(rng) for _ in range(count)).items()}


@pytest.mark.parametrize("label", Label)
def test_a_third_presumes_the_truth(label):
    share = shares(lambda rng: draw_hypothesis(label, rng))
    assert set(share) == {None, label}
    assert share[label] == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize(("label", "fake"), [(Label.REAL, 0.1), (Label.REAL, 0.02), (Label.FAKE, 0.9)])
def test_a_sure_tower_withstands_a_contrary_hypothesis(label, fake):
    share = shares(lambda rng: draw_weighed(label, fake, 0.9, 0.4, rng))
    assert set(share) == {(None, label), (label, label), (label.opposite, label)}
    assert share[None, label] == pytest.approx(2 / 3, abs=0.02)
    assert share[label.opposite, label] == pytest.approx(0.4 / 3, abs=0.02)


@pytest.mark.parametrize(("label", "fake"), [(Label.REAL, 0.12), (Label.REAL, 0.88), (Label.FAKE, 0.5)])
def test_an_unsure_tower_follows_it(label, fake):
    share = shares(lambda rng: draw_weighed(label, fake, 0.9, 0.4, rng))
    assert set(share) == {(None, label), (label, label), (label.opposite, label.opposite)}
    assert share[label.opposite, label.opposite] == pytest.approx(0.4 / 3, abs=0.02)


@pytest.mark.parametrize(("label", "fake"), [(Label.REAL, 0.95), (Label.FAKE, 0.05)])
def test_a_tower_that_is_surely_wrong_teaches_no_hypothesis(label, fake):
    assert shares(lambda rng: draw_weighed(label, fake, 0.9, 0.4, rng), 300) == {(None, label): 1}


def test_the_second_phase_takes_every_hypothetical_row_and_a_third_as_many_others():
    hypotheses = [Label.REAL if i % 3 == 0 else None for i in range(90)]
    rows = hypothesis_rows(hypotheses, 1)
    assert rows[:30] == list(range(0, 90, 3))
    assert len(rows) == len(set(rows)) == 40
    assert all(hypotheses[i] is None for i in rows[30:])
    assert rows == hypothesis_rows(hypotheses, 1) != hypothesis_rows(hypotheses, 2)
