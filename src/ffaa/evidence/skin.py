"""Texture of the skin between noise and features."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.look import EPSILON, Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError

CHEEKS = ("picture_left", "picture_right")


def _texture(look: Look) -> np.ndarray:
    return np.abs(cv2.GaussianBlur(look.gray, (0, 0), 1.0) - cv2.GaussianBlur(look.gray, (0, 0), 3.0))


def _cheeks(look: Look) -> np.ndarray:
    found = []
    for name in CHEEKS:
        try:
            found.append(look.patch(name))
        except NotMeasurableError:
            continue
    if not found:
        raise NotMeasurableError("no cheek lies inside the image")
    return np.logical_or.reduce(found)


def texture(look: Look) -> float:
    return float(np.log2(_texture(look)[_cheeks(look)].mean() + EPSILON))


def texture_cheeks(look: Look) -> float:
    """One cheek against the other, without sign."""
    plane = _texture(look)
    left, right = (plane[look.patch(name)].mean() for name in CHEEKS)
    return abs(ratio(left, right))


def texture_forehead(look: Look) -> float:
    """Forehead against cheeks."""
    plane = _texture(look)
    return ratio(plane[look.patch("forehead")].mean(), plane[_cheeks(look)].mean())


def blotches(look: Look) -> float:
    """Spread of the colour over the cheeks at a coarse scale."""
    smooth = cv2.GaussianBlur(look.lab[..., 1], (0, 0), 0.02 * look.size)
    return float(smooth[look.skin].std())


MEASURES: dict[str, Measure] = {
    "skin": Measure(texture, "log2", "cheeks", "mean band from 1 to 3 px", (-0.1, 1.5), ("smooth", "natural", "rough")),
    "skin_cheeks": Measure(texture_cheeks, "log2 ratio", "cheek to cheek", "mean band from 1 to 3 px",
                           (0.25, 0.9), ("alike", "near", "different")),
    "skin_forehead": Measure(texture_forehead, "log2 ratio", "forehead against cheeks", "mean band from 1 to 3 px",
                             (-0.7, 0.4), ("smoother", "alike", "rougher")),
    "skin_tone": Measure(blotches, "a*", "skin", "spread of the smoothed a*",
                         (2.4, 4.2), ("uniform", "lively", "blotchy")),
}  # fmt: skip
