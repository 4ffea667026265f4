import numpy as np
import pytest

from ffaa.eval.metrics import expected_calibration_error, sacc, set_metrics

TRUTH = [False, False, False, True, True]
SCORE = [0.1, 0.6, 0.3, 0.8, 0.4]


def test_by_hand():
    m = set_metrics(TRUTH, [s > 0.5 for s in SCORE], SCORE)
    assert (m.real, m.fake) == (3, 2)
    assert m.acc == pytest.approx(3 / 5)
    assert m.real_acc == pytest.approx(2 / 3)
    assert m.fake_acc == pytest.approx(1 / 2)
    assert m.auc == pytest.approx(5 / 6)  # of the 6 pairs only (0.6 real, 0.4 fake) is in the wrong order
    assert m.ap == pytest.approx((1 / 1 + 2 / 3) / 2)  # ranks 1 and 3
    # ten bins, one score each: |0 - .1|, |0 - .6|, |0 - .3|, |1 - .8|, |1 - .4|
    assert m.ece == pytest.approx((0.1 + 0.6 + 0.3 + 0.2 + 0.6) / 5)


def test_acc_is_of_the_determination_not_of_the_score():
    m = set_metrics([True, False], [True, False], [0.2, 0.9])
    assert m.acc == 1
    assert m.auc == 0


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_auc(label):
    m = set_metrics([label] * 3, [True, False, True], [0.9, 0.2, 0.8])
    assert m.auc is None
    assert m.ap is None
    assert (m.real_acc, m.fake_acc) == ((None, pytest.approx(2 / 3)) if label else (pytest.approx(1 / 3), None))


def test_ties_count_half():
    assert set_metrics([False, True], [True, True], [0.5, 0.5]).auc == 0.5


def test_ece():
    truth, score = np.array([True, False, True, True]), np.array([0.75, 0.72, 1.0, 0.98])
    # bin 7: share 1/2, mean .735; bin 9 (with 1.0): share 1, mean .99
    assert expected_calibration_error(truth, score) == pytest.approx(0.5 * (0.735 - 0.5) + 0.5 * 0.01)
    assert expected_calibration_error(truth, truth.astype(float)) == 0
    one_bin = abs(truth.mean() - score.mean())
    assert expected_calibration_error(truth, score, bins=1) == pytest.approx(one_bin)


def test_sacc_is_the_population_deviation():
    assert sacc([0.6, 0.8]) == pytest.approx(0.1)  # the sample estimator would say 0.141
    assert sacc([0.2, 0.4, 0.9]) == pytest.approx(np.sqrt(((0.3**2) + (0.1**2) + (0.4**2)) / 3))
    assert sacc([0.7]) == 0
