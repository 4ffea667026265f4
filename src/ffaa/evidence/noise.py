"""What is left of the image where no edge explains it."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.look import EPSILON, Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError


def noise_gap(look: Look) -> float:
    return ratio(look.noise[look.inside].mean(), look.noise[look.around].mean())


def noise_level(look: Look) -> float:
    return float(np.log2(look.noise[look.skin].mean() + EPSILON))


def noise_patches(look: Look) -> float:
    """Spread of the noise over forehead, cheeks, nose and chin."""
    levels = []
    for name in ("forehead", "picture_left", "picture_right", "nose", "chin"):
        try:
            levels.append(np.log2(look.noise[look.patch(name)].mean() + EPSILON))
        except NotMeasurableError:
            continue
    if len(levels) < 4:
        raise NotMeasurableError("too few parts of the face lie inside the image")
    return float(np.std(levels))


def noise_colour(look: Look) -> float:
    """Colour noise against luminance noise on the skin."""
    residual = look.residual
    colour = np.abs(residual[..., 0] - residual[..., 1]) + np.abs(residual[..., 2] - residual[..., 1])
    return ratio(colour[look.skin].mean() / 2, look.noise[look.skin].mean())


def noise_grain(look: Look) -> float:
    """Correlation of neighbouring residuals on the skin: 0 for grain of single pixels, high for smeared grain."""
    plane = look.gray - cv2.GaussianBlur(look.gray, (0, 0), 1.5)
    skin = look.skin
    pairs = [(plane[:, :-1][m], plane[:, 1:][m]) for m in [skin[:, :-1] & skin[:, 1:]]]
    pairs += [(plane[:-1][m], plane[1:][m]) for m in [skin[:-1] & skin[1:]]]
    return float(np.mean([(a * b).mean() / (np.sqrt((a * a).mean() * (b * b).mean()) + EPSILON) for a, b in pairs]))


MEASURES: dict[str, Measure] = {
    "noise_gap": Measure(noise_gap, "log2 ratio", "face against surroundings", "mean residual to the 3 x 3 median",
                         (-0.5, 0.4), ("cleaner", "equal", "noisier")),
    "noise_level": Measure(noise_level, "log2", "skin", "mean residual to the 3 x 3 median",
                           (-1.5, 0.1), ("clean", "ordinary", "noisy")),
    "noise_patches": Measure(noise_patches, "log2", "forehead, cheeks, nose, chin", "spread of the mean residual",
                             (0.25, 0.6), ("even", "ordinary", "patchy")),
    "noise_colour": Measure(noise_colour, "log2 ratio", "skin", "colour against luminance residual",
                            (-1.1, -0.05), ("faint", "ordinary", "strong")),
    "noise_grain": Measure(noise_grain, "correlation", "skin", "of neighbouring residuals",
                           (0.6, 0.75), ("fine", "ordinary", "smeared")),
}  # fmt: skip
