"""Light and colour of the face."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.expression import TURNED
from ffaa.evidence.look import Look
from ffaa.evidence.record import Measure, NotMeasurableError


def brightness(look: Look) -> float:
    return float(look.lab[..., 0][look.skin].mean())


def contrast(look: Look) -> float:
    low, high = np.percentile(look.gray[look.filled(1.0)], (5, 95))
    return float(high - low)


def light_side(look: Look) -> float:
    """Picture-left minus picture-right cheek."""
    if abs(look.pose[0]) > TURNED:
        raise NotMeasurableError("the head is turned too far to compare the cheeks")
    plane = look.lab[..., 0]
    return float(plane[look.patch("picture_left")].mean() - plane[look.patch("picture_right")].mean())


def light_height(look: Look) -> float:
    """Forehead minus chin."""
    plane = look.lab[..., 0]
    return float(plane[look.patch("forehead")].mean() - plane[look.patch("chin")].mean())


def evenness(look: Look) -> float:
    """Spread of the smoothed lightness over the skin."""
    smooth = cv2.GaussianBlur(look.lab[..., 0], (0, 0), 0.06 * look.size)
    return float(smooth[look.skin].std())


def glare(look: Look) -> float:
    """Share of skin much lighter than its median: shine."""
    plane = look.lab[..., 0][look.skin]
    return float((plane > np.median(plane) + 18).mean() * 100)


def warmth(look: Look) -> float:
    return float(look.lab[..., 2].mean())


def saturation(look: Look) -> float:
    return float(np.hypot(look.lab[..., 1], look.lab[..., 2]).mean())


MEASURES: dict[str, Measure] = {
    "brightness": Measure(brightness, "L*", "skin", "mean CIE L*", (48.0, 68.0), ("dark", "medium", "bright")),
    "contrast": Measure(contrast, "grey levels", "face", "5th to 95th percentile",
                        (95.0, 150.0), ("low", "medium", "high")),
    "light_side": Measure(light_side, "L*", "cheeks", "left minus right cheek in the picture",
                          (-14.0, -5.0, 5.0, 14.0), ("right", "slightly right", "even", "slightly left", "left")),
    "light_height": Measure(light_height, "L*", "forehead to chin", "forehead minus chin",
                            (0.0, 18.0), ("below", "even", "above")),
    "evenness": Measure(evenness, "L*", "skin", "spread of the smoothed lightness",
                        (6.2, 11.5), ("flat", "modelled", "strong shadows")),
    "glare": Measure(glare, "percent", "skin", "share 18 L* above the median", (0.3, 8.0), ("matt", "soft", "shiny")),
    "warmth": Measure(warmth, "b*", "image", "mean CIE b*", (7.0, 18.0), ("cool", "neutral", "warm")),
    "saturation": Measure(saturation, "C*", "image", "mean CIE chroma",
                          (5.0, 13.0, 26.0), ("grey", "muted", "natural", "strong")),
}  # fmt: skip
