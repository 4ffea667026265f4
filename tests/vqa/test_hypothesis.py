"""A third of the conversations presume something; what they presume is true unless the evidence is strong."""

from __future__ import annotations

import numpy as np

from ffaa.types import Label
from ffaa.vqa.hypothesis import draw_hypothesis


def shares(resist, contrary):
    rng = np.random.default_rng(0)
    drawn = [draw_hypothesis(Label.FAKE, resist, contrary, rng) for _ in range(6000)]
    asked = [d for d in drawn if d]
    return len(asked) / len(drawn), sum(d is Label.REAL for d in asked) / len(asked)


def test_a_third_is_hypothetical_and_true():
    share, false = shares(resist=False, contrary=0.4)
    assert abs(share - 1 / 3) < 0.02
    assert false == 0


def test_contrary_hypotheses_only_where_the_evidence_is_strong():
    share, false = shares(resist=True, contrary=0.4)
    assert abs(share - 1 / 3) < 0.02
    assert abs(false - 0.4) < 0.04
