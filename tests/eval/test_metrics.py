"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ffaa.eval.metrics import expected_calibration_error, sacc, set_metrics


def test_figures_of_a_small_set():
    truth = [False, False, True, True]
    found = set_metrics(truth, [False, True, True, True], [0.1, 0.6, 0.4, 0.9])
    assert (found.real, found.fake) == (2, 2)
    assert found.acc == 0.75
    assert (found.real_acc, found.fake_acc) == (0.5, 1.0)
    assert found.auc == 0.75  # 3 of 4 pairs in order
    assert found.ap == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_one_class_has_no_auc():
    found = set_metrics([True, True], [True, False], [0.9, 0.2])
    assert found.auc is None
    assert found.ap is None
    assert found.real_acc is None
    assert found.acc == 0.5


def test_calibration_error():
    truth = np.array([True, False, True, True])
    score = np.array([0.75, 0.75, 0.95, 0.95])
    assert expected_calibration_error(truth, score) == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert expected_calibration_error(np.array([True]), np.array([1.0])) == 0


def test_sacc_is_the_population_standard_deviation():
    assert sacc([0.8, 0.9, 1.0]) == pytest.approx(np.sqrt(0.02 / 3))
    assert sacc([0.8, 0.9]) == pytest.approx(0.05)
