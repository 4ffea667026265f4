"""Sharpness of the face, and against what is around it."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.look import EPSILON, Look, ratio
from ffaa.evidence.record import Measure


def sharpness(look: Look) -> float:
    return float(np.log2(look.edges[look.inside].mean() + EPSILON))


def sharpness_gap(look: Look) -> float:
    return ratio(look.edges[look.inside].mean(), look.edges[look.around].mean())


def crispness(look: Look) -> float:
    """Energy of the finest against the next coarser scale inside the face: low when detail was interpolated."""
    fine = cv2.GaussianBlur(look.gray, (0, 0), 0.7)
    mid = cv2.GaussianBlur(look.gray, (0, 0), 1.4)
    coarse = cv2.GaussianBlur(look.gray, (0, 0), 2.8)
    inside = look.inside
    return ratio(np.abs(fine - mid)[inside].mean(), np.abs(mid - coarse)[inside].mean())


def crispness_gap(look: Look) -> float:
    """The same inside minus around the face: an inserted face was resampled once more than the rest."""
    fine = cv2.GaussianBlur(look.gray, (0, 0), 0.7)
    mid = cv2.GaussianBlur(look.gray, (0, 0), 1.4)
    coarse = cv2.GaussianBlur(look.gray, (0, 0), 2.8)
    high, low = np.abs(fine - mid), np.abs(mid - coarse)
    inside, around = look.inside, look.around
    return ratio(high[inside].mean(), low[inside].mean()) - ratio(high[around].mean(), low[around].mean())


MEASURES: dict[str, Measure] = {
    "sharpness": Measure(sharpness, "log2", "face", "mean absolute Laplacian", (1.6, 3.0), ("soft", "medium", "sharp")),
    "sharpness_gap": Measure(sharpness_gap, "log2 ratio", "face against surroundings", "mean absolute Laplacian",
                             (-0.5, 0.4), ("softer", "equal", "sharper")),
    "crispness": Measure(crispness, "log2 ratio", "face", "finest against next coarser scale",
                         (-1.1, -0.7), ("interpolated", "ordinary", "crisp")),
    "crispness_gap": Measure(crispness_gap, "log2 ratio", "face against surroundings",
                             "finest against next coarser scale, inside minus around",
                             (-0.2, 0.12), ("coarser", "equal", "finer")),
}  # fmt: skip
