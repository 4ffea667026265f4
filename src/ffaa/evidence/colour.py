"""Whether the parts of the face, and face and neck, share one skin colour (a*b* only, so that shade counts little)."""

from __future__ import annotations

import numpy as np

from ffaa.evidence.look import Look
from ffaa.evidence.record import Measure

CHIN = (14, 22)  # of the outline's 36 points, 18 is the chin


def _tone(look: Look, name: str) -> np.ndarray:
    return np.asarray(np.median(look.lab[..., 1:][look.patch(name)], axis=0))


def forehead_chin(look: Look) -> float:
    return float(np.linalg.norm(_tone(look, "forehead") - _tone(look, "chin")))


def cheeks(look: Look) -> float:
    return float(np.linalg.norm(_tone(look, "picture_left") - _tone(look, "picture_right")))


def neck(look: Look) -> float:
    """Chin against the strip below it."""
    plane = np.ascontiguousarray(look.lab[..., 1:])
    below = look.along(plane, look.contour(1.14, *CHIN))
    above = look.along(plane, look.contour(0.88, *CHIN))
    return float(np.linalg.norm(np.median(below, axis=0) - np.median(above, axis=0)))


MEASURES: dict[str, Measure] = {
    "forehead_chin": Measure(forehead_chin, "a*b* distance", "forehead to chin", "distance of median a*b*",
                             (2.8, 8.0), ("uniform", "gradual", "shifting")),
    "cheeks": Measure(cheeks, "a*b* distance", "cheek to cheek", "distance of median a*b*",
                      (1.6, 6.0), ("matching", "near", "different")),
    "neck": Measure(neck, "a*b* distance", "chin to neck", "distance of median a*b* across the chin's outline",
                    (3.0, 13.0), ("matching", "near", "different")),
}  # fmt: skip
