"""What the mouth, eyes and brows do, from the face mesh; all lengths in face sizes."""

from __future__ import annotations

import numpy as np

from ffaa.evidence.look import Look
from ffaa.evidence.record import Measure, NotMeasurableError

TURNED = 28.0  # degrees from which lengths on the mesh are foreshortened too much to read a smile or a brow from them


def _length(look: Look, a: int, b: int) -> float:
    return float(np.linalg.norm(look.points[a] - look.points[b]))


def _near_front(look: Look) -> None:
    if abs(look.pose[0]) > TURNED:
        raise NotMeasurableError("the head is turned too far")


def mouth_open(look: Look) -> float:
    """Gap between the inner lips."""
    return float(np.mean([_length(look, *pair) for pair in ((13, 14), (81, 178), (311, 402))])) / look.size


def smile(look: Look) -> float:
    """How far the mouth's corners stand above the middle of its lips' line, along the face's own upright."""
    _near_front(look)
    points = look.points
    down = points[152] - points[10]
    down = down / np.linalg.norm(down)
    corners = (points[61] + points[291]) / 2
    return float((points[[0, 17]].mean(0) - corners) @ down) / look.size


def mouth_width(look: Look) -> float:
    _near_front(look)
    return _length(look, 61, 291) / look.size


def brows(look: Look) -> float:
    """Mean distance from the upper lids to the brows."""
    _near_front(look)
    return (_length(look, 159, 105) + _length(look, 386, 334)) / 2 / look.size


def eyes_open(look: Look) -> float:
    """Height over width of the eyes' openings."""
    right = (_length(look, 159, 145) + _length(look, 158, 153)) / 2 / _length(look, 33, 133)
    left = (_length(look, 386, 374) + _length(look, 385, 380)) / 2 / _length(look, 263, 362)
    return (right + left) / 2


MEASURES: dict[str, Measure] = {
    "mouth_open": Measure(mouth_open, "face sizes", "mouth", "gap of the mesh's inner lips",
                          (0.02, 0.05, 0.1), ("closed", "barely open", "open", "wide open")),
    "smile": Measure(smile, "face sizes", "mouth", "lift of the mouth's corners",
                     (0.004, 0.022, 0.04), ("none", "slight", "lifted", "smile")),
    "mouth_width": Measure(mouth_width, "face sizes", "mouth", "distance of the mouth's corners",
                           (0.36, 0.47), ("narrow", "relaxed", "stretched")),
    "brows": Measure(brows, "face sizes", "brows", "distance from upper lids to brows",
                     (0.145, 0.175), ("low", "relaxed", "raised")),
    "eyes_open": Measure(eyes_open, "height / width", "eyes", "opening of the mesh's lids",
                         (0.225, 0.35), ("narrow", "open", "wide")),
}  # fmt: skip
