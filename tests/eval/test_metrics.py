import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ffaa.eval.metrics import best_threshold, equal_error_rate, expected_calibration_error, sacc, set_metrics

TRUTH = [False, False, False, True, True]
SCORE = [0.1, 0.6, 0.3, 0.8, 0.4]


def test_by_hand():
    m = set_metrics(TRUTH, [s > 0.5 for s in SCORE], SCORE)
    assert (m.real, m.fake) == (3, 2)
    assert m.acc == pytest.approx(3 / 5)
    assert m.real_acc == pytest.approx(2 / 3)
    assert m.fake_acc == pytest.approx(1 / 2)
    assert m.balanced_acc == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert m.auc == pytest.approx(5 / 6)  # of the 6 pairs only (0.6 real, 0.4 fake) is in the wrong order
    assert m.ap == pytest.approx((1 / 1 + 2 / 3) / 2)  # ranks 1 and 3
    # ten bins, one score each: |0 - .1|, |0 - .6|, |0 - .3|, |1 - .8|, |1 - .4|
    assert m.ece == pytest.approx((0.1 + 0.6 + 0.3 + 0.2 + 0.6) / 5)
    assert m.brier == pytest.approx((0.01 + 0.36 + 0.09 + 0.04 + 0.36) / 5)
    # ROC (0, 0) (0, 1/2) (1/3, 1/2) (1/3, 1) ...: it crosses fpr = 1 - tpr on the upright at 1/3
    assert m.eer == pytest.approx(1 / 3)
    assert (m.tpr_at_1, m.tpr_at_5) == (0.5, 0.5)  # without accusing one of the three: only the 0.8 is found
    assert m.undefined == ""


def test_the_equal_error_rate_lies_between_points():
    truth, score = [False] * 2 + [True] * 2, [0.5, 0.1, 0.5, 0.9]  # a tie: aslant from (0, .5) to (.5, 1)
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    assert equal_error_rate(fpr, tpr) == pytest.approx(0.25)
    assert set_metrics(truth, truth, [0.1, 0.2, 0.8, 0.9]).eer == 0
    assert set_metrics(truth, truth, [0.9, 0.8, 0.2, 0.1]).eer == 1


def test_the_true_positive_rate_at_a_false_positive_rate():
    truth = [False] * 100 + [True] * 4
    score = [i / 200 for i in range(100)] + [0.9, 0.4925, 0.475, 0.1]  # above them lie 0, 1, 5 (the tie counts) and 80
    m = set_metrics(truth, truth, score)
    assert (m.tpr_at_1, m.tpr_at_5) == (0.5, 0.75)


def test_acc_is_of_the_determination_not_of_the_score():
    m = set_metrics([True, False], [True, False], [0.2, 0.9], {"0.5": 0.5, "low": 0.1})
    assert m.acc == 1
    assert m.auc == 0
    assert m.acc_at == {"0.5": 0, "low": 0.5}


def test_what_could_not_be_read_is_wrong():
    m = set_metrics([True, False, True, False], [None, None, True, False], [0.5, 0.5, 1, 0])
    assert (m.acc, m.real_acc, m.fake_acc) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_auc(label):
    m = set_metrics([label] * 3, [True, False, True], [0.9, 0.2, 0.8])
    assert [m.auc, m.ap, m.eer, m.tpr_at_1, m.tpr_at_5, m.balanced_acc] == [None] * 6
    assert (m.real_acc, m.fake_acc) == ((None, pytest.approx(2 / 3)) if label else (pytest.approx(1 / 3), None))
    assert m.undefined.startswith(f"only {'fake' if label else 'real'} photos: AUC")
    assert m.brier == pytest.approx(np.mean((np.array([0.9, 0.2, 0.8]) - label) ** 2))


def test_ties_count_half():
    assert set_metrics([False, True], [True, True], [0.5, 0.5]).auc == 0.5


def test_ece():
    truth, score = np.array([True, False, True, True]), np.array([0.75, 0.72, 1.0, 0.98])
    # bin 7: share 1/2, mean .735; bin 9 (with 1.0): share 1, mean .99
    assert expected_calibration_error(truth, score) == pytest.approx(0.5 * (0.735 - 0.5) + 0.5 * 0.01)
    assert expected_calibration_error(truth, truth.astype(float)) == 0
    one_bin = abs(truth.mean() - score.mean())
    assert expected_calibration_error(truth, score, bins=1) == pytest.approx(one_bin)


def test_the_best_threshold():
    assert best_threshold([False, False, True], [0.1, 0.2, 0.4]) == pytest.approx(0.3)
    assert best_threshold([False, True], [0.3, 0.3]) in (0.0, 1.0)  # nothing parts them
    assert best_threshold([True, False, True], [0.2, 0.25, 0.9]) == pytest.approx((0.25 + 0.9) / 2)  # nearer to 0.5
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.4
    score = np.clip(rng.normal(0.2 + 0.3 * truth, 0.2), 0, 1).round(2)
    found = best_threshold(truth.tolist(), score.tolist())
    tried = [((score >= limit) == truth).mean() for limit in np.linspace(0, 1, 401)]
    assert ((score >= found) == truth).mean() == max(tried)


def test_sacc_is_the_population_deviation():
    assert sacc([0.6, 0.8]) == pytest.approx(0.1)  # the sample estimator would say 0.141
    assert sacc([0.2, 0.4, 0.9]) == pytest.approx(np.sqrt(((0.3**2) + (0.1**2) + (0.4**2)) / 3))
    assert sacc([0.7]) == 0


@pytest.mark.parametrize(
    ("accuracies", "published"),
    [
        ([61.1, 78.0, 45.7, 69.4, 91.7, 79.3, 96.8], 16.3),
        ([39.9, 72.2, 41.5, 93.6, 91.6, 75.9, 98.1], 22.4),
        ([46.7, 77.5, 53.7, 56.6, 49.6, 67.8, 67.8], 10.4),
        ([75.8, 76.6, 38.6, 68.5, 48.9, 52.5, 51.0], 13.7),
        ([64.2, 76.4, 48.6, 62.3, 90.0, 75.2, 94.5], 14.9),
        ([47.5, 67.2, 40.1, 67.2, 91.6, 71.4, 97.1], 19.3),
        ([90.4, 77.8, 64.0, 46.0, 91.5, 55.6, 87.4], 16.9),
        ([94.2, 82.7, 65.0, 91.8, 98.2, 87.1, 86.8], 10.0),
    ],
    ids=["Xception", "RECCE", "Implicit", "FedForgery", "Exposing", "NPR", "CLIPping", "FFAA"],
)
def test_sacc_of_the_papers_table_2(accuracies, published):
    """ACC on DPF, DFD, DFDC, PGC, WFIR, MFFDI and MA in percent -> the column sACC."""
    assert sacc(accuracies) == pytest.approx(published, abs=0.051)
