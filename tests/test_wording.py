"""How sure a verdict may sound."""

import pytest

from ffaa.types import Difficulty, ForgeryType, Label, Verdict
from ffaa.wording import NOT_A_FINDING, explain, headline, reasoning

SURE = {"difficulty": Difficulty.EASY, "match_score": 0.95, "reasoning": "Because."}


@pytest.mark.parametrize(
    ("label", "kind", "said"),
    [(Label.FAKE, ForgeryType.IDENTITY_EXCHANGE, "FAKE - "), (Label.REAL, ForgeryType.REAL, "REAL - ")],
)
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"difficulty": Difficulty.HARD}, "the three answers disagree"),
        ({"match_score": 0.89}, "the chosen answer fits the face weakly"),
        ({"match_score": 0.9}, None),
        ({"lacks_detail": True}, "the face lacks fine detail"),
    ],
)
def test_what_is_uncertain_is_no_finding(label, kind, said, changes, why):
    verdict = Verdict.model_construct(label=label, forgery_type=kind, **SURE | changes)
    assert headline(verdict).startswith(f"leans {label.value}, uncertain" if why else said)
    assert reasoning(verdict).startswith(f"[{NOT_A_FINDING}]") == (why is not None)
    assert explain(verdict).startswith(f"Undecided: {why}.") == (why is not None)
