"""Whether eyes, nose and mouth belong to one picture: their detail and grain against each other's and the skin's."""

from __future__ import annotations

import numpy as np

from ffaa.evidence.expression import TURNED
from ffaa.evidence.look import Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError

REACH = 0.03  # face sizes around a part that belong to it


def _turned(look: Look) -> None:
    if abs(look.pose[0]) > TURNED:
        raise NotMeasurableError("the head is turned too far to compare its sides")


def eyes_gap(look: Look) -> float:
    """Detail of one eye against the other's, without sign."""
    _turned(look)
    left, right = (look.edges[look.region(name, REACH)].mean() for name in ("left_eye", "right_eye"))
    return abs(ratio(left, right))


def eyes_mouth(look: Look) -> float:
    eyes = np.mean([look.edges[look.region(name, REACH)].mean() for name in ("left_eye", "right_eye")])
    return ratio(float(eyes), look.edges[look.region("mouth", REACH)].mean())


def _cheeks(look: Look) -> float:
    cheeks = [look.noise[look.patch(name)].mean() for name in ("picture_left", "picture_right")]
    return float(np.mean(cheeks)) + 0.05  # a flat cheek must not make any grain look coarse


def _grain(look: Look, name: str) -> float:
    """Noise just around a part, on skin, against that of the cheeks."""
    ring = look.region(name, 0.08) & ~look.region(name, 0.02) & look.skin
    if ring.sum() < 30:
        raise NotMeasurableError("too little skin around that part")
    return ratio(look.noise[ring].mean(), _cheeks(look))


def eyes_grain(look: Look) -> float:
    return float(np.mean([_grain(look, name) for name in ("left_eye", "right_eye")]))


def nose_grain(look: Look) -> float:
    nose = look.region("nose") & look.skin
    if nose.sum() < 30:
        raise NotMeasurableError("too little of the nose is seen")
    return ratio(look.noise[nose].mean(), _cheeks(look))


def mouth_grain(look: Look) -> float:
    return _grain(look, "mouth")


MEASURES: dict[str, Measure] = {
    "eyes_gap": Measure(eyes_gap, "log2 ratio", "eye to eye", "mean absolute Laplacian",
                        (0.1, 0.4), ("alike", "near", "different")),
    "eyes_mouth": Measure(eyes_mouth, "log2 ratio", "eyes against mouth", "mean absolute Laplacian",
                          (0.2, 0.95), ("mouth", "balanced", "eyes")),
    "eyes_grain": Measure(eyes_grain, "log2 ratio", "skin by the eyes against cheeks", "residual to the 3 x 3 median",
                          (0.1, 0.9), ("finer", "ordinary", "coarser")),
    "nose_grain": Measure(nose_grain, "log2 ratio", "nose against cheeks", "residual to the 3 x 3 median",
                          (0.1, 0.9), ("finer", "ordinary", "coarser")),
    "mouth_grain": Measure(mouth_grain, "log2 ratio", "skin by the mouth against cheeks",
                           "residual to the 3 x 3 median", (-0.15, 0.55), ("finer", "ordinary", "coarser")),
}  # fmt: skip
