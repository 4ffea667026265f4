"""Eq. 1: match scores, and the answer with the highest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ffaa.errors import FFAAError, UsageError
from ffaa.mids.label import NUM_CLASSES, pair_label
from ffaa.types import Difficulty, Label


@dataclass(frozen=True)
class Decision:
    """The outcome for one face.

    chosen_index: of the answer with the highest match score, the first of equals. label: what it says.
    match_scores: one per answer in [0, 1], None where the answer could not be parsed. match_score: the chosen one's.
    forgery_score: match score if the chosen answer says fake, else 1 - match score; the score behind AUC and AP.
    """

    chosen_index: int
    label: Label
    match_scores: list[float | None]
    match_score: float
    forgery_score: float


def decide(probabilities: Sequence[ArrayLike | None] | np.ndarray, results: Sequence[Label | None]) -> Decision:
    """Choose among A answers (Eq. 1).

    probabilities (A, 4): softmax over the classes of Eq. 3. results: what each answer says, None where it could not
    be parsed; such an answer is never chosen and its row of probabilities is not read (it may be None).
    Raises UsageError when the two disagree in length or a row has not four finite values >= 0, FFAAError when no
    answer could be parsed.
    """
    if len(probabilities) != len(results):
        raise UsageError(f"{len(probabilities)} rows of probabilities for {len(results)} answers; pass one row each")
    scores = [
        None if result is None else _match_score(row, result)
        for row, result in zip(probabilities, results, strict=True)
    ]
    best: tuple[int, Label, float] | None = None
    for index, (score, result) in enumerate(zip(scores, results, strict=True)):
        if score is not None and result is not None and (best is None or score > best[2]):
            best = (index, result, score)
    if best is None:
        raise FFAAError("none of the answers could be parsed, so there is nothing to choose; generate them again")
    index, label, score = best
    return Decision(index, label, scores, score, score if label is Label.FAKE else 1 - score)


def difficulty(results: Sequence[Label | None]) -> Difficulty:
    """Easy when all determinations agree, else hard. An unparsed answer (None) has none that could agree: hard."""
    agree = None not in results and len(set(results)) == 1
    return Difficulty.EASY if agree else Difficulty.HARD


def _match_score(row: ArrayLike | None, result: Label) -> float:
    """Eq. 1: p0 / (p0 + p2) for an answer that says real, p3 / (p3 + p1) for one that says fake."""
    p = np.asarray(row if row is not None else [], dtype=np.float64)
    if p.shape != (NUM_CLASSES,) or not np.isfinite(p).all() or (p < 0).any():
        raise UsageError(f"an answer needs four probabilities >= 0, got {row!r}; pass the softmax of the MIDS logits")
    right, wrong = float(p[pair_label(result, result)]), float(p[pair_label(result.opposite, result)])
    # Both can underflow to zero: then the image says nothing about this answer.
    return right / (right + wrong) if right + wrong > 0 else 0.5
