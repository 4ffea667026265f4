"""Metrics of binary forgery detection, per test set and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


class SetMetrics(BaseModel):
    """Figures of one test set, in [0, 1]. What needs both classes is None where one is missing; `undefined` says so.

    acc, real_acc, fake_acc and balanced_acc are of what the detector says, acc_at of its score against a threshold.
    """

    model_config = ConfigDict(frozen=True)

    real: int
    fake: int
    acc: float
    real_acc: float | None
    fake_acc: float | None
    balanced_acc: float | None
    auc: float | None
    ap: float | None
    eer: float | None = Field(description="the rate at which as many real photos as fakes are taken for the other")
    tpr_at_1: float | None = Field(description="share of fakes found where at most 1 % of the real photos are accused")
    tpr_at_5: float | None = Field(description="the same at 5 %")
    ece: float
    brier: float = Field(description="mean squared difference of score and truth")
    acc_at: dict[str, float] = Field(description="name of a threshold -> ACC of 'fake where the score is at least it'")
    undefined: str = Field("", description="what is not defined here and why; '' where all is")


def expected_calibration_error(truth: NDArray[np.bool_], score: NDArray[np.float64], bins: int = 10) -> float:
    """ECE of forgery scores: mean |share of fakes - mean score| over equal-width bins, weighted by their size."""
    place = np.minimum((score * bins).astype(int), bins - 1)
    gaps = [abs(truth[place == b].mean() - score[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


def equal_error_rate(fpr: NDArray[np.float64], tpr: NDArray[np.float64]) -> float:
    """Where the ROC curve, straight between its points, has a false positive rate equal to its false negative rate."""
    gap = fpr + tpr - 1  # false positives - false negatives: rises from -1 to 1
    right = int(np.argmax(gap >= 0))
    share = gap[right - 1] / (gap[right - 1] - gap[right])
    return float(fpr[right - 1] + share * (fpr[right] - fpr[right - 1]))


def set_metrics(
    truth: Sequence[bool],
    said_fake: Sequence[bool | None],
    score: Sequence[float],
    thresholds: Mapping[str, float] | None = None,
) -> SetMetrics:
    """Figures of one set of at least one photo.

    truth: True = fake; said_fake: the determination, None (nothing that could be read) is wrong whatever the truth;
    score: forgery score in [0, 1], behind all but ACC; thresholds: by name, what `acc_at` is computed for.
    """
    t, s = np.asarray(truth, bool), np.asarray(score, float)
    right = np.array([said is not None and bool(said) == bool(true) for said, true in zip(said_fake, t, strict=True)])
    real_acc = float(right[~t].mean()) if (~t).any() else None
    fake_acc = float(right[t].mean()) if t.any() else None
    both = real_acc is not None and fake_acc is not None
    fpr, tpr, _ = roc_curve(t, s, drop_intermediate=False) if both else (np.zeros(0), np.zeros(0), None)
    missing = "" if both else f"only {'fake' if t.any() else 'real'} photos: "
    return SetMetrics(
        real=int((~t).sum()),
        fake=int(t.sum()),
        acc=float(right.mean()),
        real_acc=real_acc,
        fake_acc=fake_acc,
        balanced_acc=(real_acc + fake_acc) / 2 if real_acc is not None and fake_acc is not None else None,
        auc=float(roc_auc_score(t, s)) if both else None,
        ap=float(average_precision_score(t, s)) if both else None,
        eer=equal_error_rate(fpr, tpr) if both else None,
        tpr_at_1=float(tpr[fpr <= 0.01].max()) if both else None,
        tpr_at_5=float(tpr[fpr <= 0.05].max()) if both else None,
        ece=expected_calibration_error(t, s),
        brier=float(np.mean((s - t) ** 2)),
        acc_at={name: float(np.mean((s >= value) == t)) for name, value in (thresholds or {}).items()},
        undefined=missing and missing + "AUC, AP, EER, TPR and balanced ACC not defined",
    )


def best_threshold(truth: Sequence[bool], score: Sequence[float]) -> float:
    """The threshold of 'fake where the score is at least it' with the highest ACC on these photos.

    Candidates lie half way between neighbouring scores, and at both ends; of equally good ones the nearest to 0.5.
    """
    t, s = np.asarray(truth, bool), np.asarray(score, float)
    values = np.unique(s)
    candidates = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    order = np.sort(s[t]), np.sort(s[~t])
    right = len(order[0]) - np.searchsorted(order[0], candidates) + np.searchsorted(order[1], candidates)
    best = candidates[right == right.max()]
    return float(best[np.argmin(abs(best - 0.5))])


def sacc(accuracies: Sequence[float]) -> float:
    """Population standard deviation of ACC over the test sets (the paper's sACC)."""
    return float(np.std(np.asarray(accuracies, float)))
