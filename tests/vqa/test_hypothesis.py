import numpy as np
import pytest

from ffaa.types import Label
from ffaa.vqa.hypothesis import draw_hypothesis, hypothesis_rows


def draw(label, resist, contrary, count=6000):
    rng = np.random.default_rng(0)
    found = [draw_hypothesis(label, resist, contrary, rng) for _ in range(count)]
    return {kind: found.count(kind) / count for kind in (None, label, label.opposite)}


@pytest.mark.parametrize("label", Label)
def test_a_third_presumes_the_truth(label):
    share = draw(label, False, 0.4)
    assert share[None] == pytest.approx(2 / 3, abs=0.02)
    assert share[label] == pytest.approx(1 / 3, abs=0.02)
    assert share[label.opposite] == 0


@pytest.mark.parametrize("label", Label)
def test_strong_evidence_meets_contrary_hypotheses(label):
    share = draw(label, True, 0.4)
    assert share[None] == pytest.approx(2 / 3, abs=0.02)
    assert share[label.opposite] == pytest.approx(0.4 / 3, abs=0.02)
    assert share[label] == pytest.approx(0.6 / 3, abs=0.02)
    assert draw(label, True, 0.0)[label.opposite] == 0


def test_the_same_generator_gives_the_same_draws():
    one, two = (np.random.default_rng(4) for _ in range(2))
    draws = [[draw_hypothesis(Label.FAKE, True, 0.5, rng) for _ in range(50)] for rng in (one, two)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 3


def test_the_second_phase_takes_every_hypothetical_row_and_a_third_as_many_others():
    hypotheses = [Label.REAL if i % 3 == 0 else None for i in range(90)]
    rows = hypothesis_rows(hypotheses, 1)
    assert rows[:30] == list(range(0, 90, 3))
    assert len(rows) == len(set(rows)) == 40
    assert all(hypotheses[i] is None for i in rows[30:])
    assert rows == hypothesis_rows(hypotheses, 1) != hypothesis_rows(hypotheses, 2)
