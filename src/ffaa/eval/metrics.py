"""Metrics of binary forgery detection, per test set and pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import average_precision_score, roc_auc_score


class SetMetrics(BaseModel):
    """Figures of one test set, in [0, 1]; auc and ap are None where only one class is present."""

    model_config = ConfigDict(frozen=True)

    real: int
    fake: int
    acc: float
    real_acc: float | None
    fake_acc: float | None
    auc: float | None
    ap: float | None
    ece: float


def expected_calibration_error(truth: NDArray[np.bool_], score: NDArray[np.float64], bins: int = 10) -> float:
    """ECE of forgery scores: mean |share of fakes - mean score| over equal-width bins, weighted by their size."""
    place = np.minimum((score * bins).astype(int), bins - 1)
    gaps = [abs(truth[place == b].mean() - score[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


def set_metrics(truth: Sequence[bool], said_fake: Sequence[bool], score: Sequence[float]) -> SetMetrics:
    """truth and said_fake: True = fake; score: forgery score in [0, 1] (the score behind AUC and AP)."""
    t, p, s = np.asarray(truth, bool), np.asarray(said_fake, bool), np.asarray(score, float)
    both = 0 < t.sum() < len(t)
    return SetMetrics(
        real=int((~t).sum()),
        fake=int(t.sum()),
        acc=float((t == p).mean()),
        real_acc=float((~p[~t]).mean()) if (~t).any() else None,
        fake_acc=float(p[t].mean()) if t.any() else None,
        auc=float(roc_auc_score(t, s)) if both else None,
        ap=float(average_precision_score(t, s)) if both else None,
        ece=expected_calibration_error(t, s),
    )


def sacc(accuracies: Sequence[float]) -> float:
    """Population standard deviation of ACC over the test sets (the paper's sACC)."""
    return float(np.std(np.asarray(accuracies, float)))
