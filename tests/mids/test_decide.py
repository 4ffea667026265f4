import numpy as np
import pytest

from ffaa.errors import FFAAError, UsageError
from ffaa.mids.decide import decide, difficulty
from ffaa.types import Difficulty, Label

REAL, FAKE = Label.REAL, Label.FAKE
ROWS = [[0.3, 0.2, 0.1, 0.4], [0.1, 0.2, 0.4, 0.3], [0.05, 0.1, 0.05, 0.8]]


def test_scores_by_hand():
    decision = decide(ROWS, [REAL, REAL, FAKE])
    assert decision.match_scores == pytest.approx([0.3 / 0.4, 0.1 / 0.5, 0.8 / 0.9])
    assert decision.chosen_index == 2
    assert decision.label is FAKE
    assert decision.match_score == pytest.approx(8 / 9)
    assert decision.forgery_score == pytest.approx(8 / 9)


def test_forgery_score_of_an_answer_that_says_real():
    decision = decide(np.array(ROWS[:1]), [REAL])
    assert decision.label is REAL
    assert decision.match_score == pytest.approx(0.75)
    assert decision.forgery_score == pytest.approx(0.25)


def test_ties_go_to_the_lowest_index():
    assert decide([ROWS[1], ROWS[0], ROWS[0]], [REAL, REAL, REAL]).chosen_index == 1


def test_unparsed_is_never_chosen():
    decision = decide([ROWS[0], ROWS[1], None], [None, REAL, None])
    assert decision.chosen_index == 1
    assert decision.match_scores == [None, pytest.approx(0.2), None]


def test_all_unparsed_is_an_error():
    with pytest.raises(FFAAError, match="none of the answers"):
        decide(ROWS, [None, None, None])


def test_underflow_of_both_classes_is_neutral():
    assert decide([[0.0, 1.0, 0.0, 0.0]], [REAL]).match_score == 0.5


@pytest.mark.parametrize("row", [[0.5, 0.5], [np.nan, 0.2, 0.3, 0.5], [-0.1, 0.3, 0.3, 0.5], None])
def test_bad_row_is_an_error(row):
    with pytest.raises(UsageError, match="four probabilities"):
        decide([row], [FAKE])


def test_lengths_must_agree():
    with pytest.raises(UsageError, match="3 rows of probabilities for 2"):
        decide(ROWS, [REAL, FAKE])


def test_published_decision(spec, expected):
    probabilities = expected["logits"].double().softmax(-1).numpy()
    for i, results in enumerate(spec["answer_results"]):
        decision = decide(probabilities[i], [Label(result) for result in results])
        assert decision.chosen_index == expected["best_index"][i]
        assert (decision.label is FAKE) == bool(expected["predicted_fake"][i])
        assert decision.match_score == pytest.approx(float(expected["match_score"][i]), rel=1e-4)
        assert decision.forgery_score == pytest.approx(float(expected["forgery_score"][i]), rel=1e-4)


@pytest.mark.parametrize(
    ("results", "level"),
    [
        ([REAL, REAL, REAL], Difficulty.EASY),
        ([FAKE, FAKE, FAKE], Difficulty.EASY),
        ([FAKE, FAKE, REAL], Difficulty.HARD),
        ([FAKE, None, FAKE], Difficulty.HARD),
        ([None, None, None], Difficulty.HARD),
    ],
)
def test_difficulty(results, level):
    assert difficulty(results) is level
