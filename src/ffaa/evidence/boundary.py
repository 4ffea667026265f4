"""Traces of blending along the face's outline, against contours parallel to it (cf. Face X-ray, Li et al. 2020).

Only the outline from ear to ear below the eyes is read: above it hair hides the skin.
"""

from __future__ import annotations

import numpy as np

from ffaa.evidence.look import Look, ratio
from ffaa.evidence.record import Measure

JAW = (8, 28)  # of the outline's 36 points, clockwise from the forehead; 18 is the chin
OUTLINE = (0.94, 0.98, 1.02, 1.06)
WITHIN = (0.70, 0.75, 0.80, 0.85)
SEAMS = (0.74, 0.78, 0.82, 0.86, 0.90)
BEYOND = (1.10, 1.15, 1.20)


def _rings(look: Look, plane: np.ndarray, factors: tuple[float, ...]) -> list[np.ndarray]:
    return [look.along(plane, look.contour(factor, *JAW)) for factor in factors]


def _across(look: Look, factor: float) -> float:
    """Median slope of the luminance across the contour scaled by `factor`."""
    line = look.contour(factor, *JAW)
    normal = line - look.oval.mean(0)
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    seen = ((line >= 0) & (line <= look.gray.shape[0] - 1)).all(1)
    slope = look.along(look.gradient, line)
    return float(np.median(np.abs((slope * normal[seen]).sum(1))))


def edge(look: Look) -> float:
    """Slope across the jaw's outline against that across contours inside it."""
    return ratio(max(_across(look, f) for f in OUTLINE), float(np.mean([_across(look, f) for f in WITHIN])) + 0.05)


def seam(look: Look) -> float:
    """The strongest single contour inside the outline against the others: a mask's rim lies on one of them."""
    slopes = sorted(_across(look, f) for f in SEAMS)
    return ratio(slopes[-1], float(np.mean(slopes[:-1])) + 0.05)


def noise_step(look: Look) -> float:
    """Noise within against beyond the outline."""
    within = np.mean([ring.mean() for ring in _rings(look, look.noise, WITHIN)])
    return ratio(float(within), float(np.mean([ring.mean() for ring in _rings(look, look.noise, BEYOND)])))


def colour_step(look: Look) -> float:
    """Colour across a narrow band about 0.85 of the outline, where blended faces usually end: skin on both sides."""
    plane = np.ascontiguousarray(look.lab[..., 1:])
    inner, outer = (np.median(look.along(plane, look.contour(f, *JAW)), axis=0) for f in (0.74, 0.92))
    return float(np.linalg.norm(inner - outer))


MEASURES: dict[str, Measure] = {
    "boundary_edge": Measure(edge, "log2 ratio", "jaw line", "slope across the outline against contours inside it",
                             (0.8, 2.0), ("soft", "ordinary", "hard")),
    "boundary_seam": Measure(seam, "log2 ratio", "inside the jaw line", "strongest parallel contour against the others",
                             (0.27, 0.68), ("none", "faint", "visible")),
    "boundary_noise": Measure(noise_step, "log2 ratio", "jaw line", "residual within against beyond the outline",
                              (-1.0, 0.1), ("cleaner", "continuous", "noisier")),
    "boundary_colour": Measure(colour_step, "a*b* distance", "inside the jaw line", "median a*b* of two contours",
                               (1.7, 4.7), ("continuous", "slight", "step")),
}  # fmt: skip
