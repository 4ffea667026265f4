"""How the face lies in the image and what is behind it."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.look import Look
from ffaa.evidence.record import Measure


def face_share(look: Look) -> float:
    """Share of the image that the face's outline holds, percent."""
    return float(look.filled(1.0).mean() * 100)


def backdrop(look: Look) -> float:
    """How much goes on around the face: mean gradient outside it, at a coarse scale."""
    smooth = cv2.GaussianBlur(look.gray, (0, 0), 2.0)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    return float(slope[look.around].mean())


def backdrop_tone(look: Look) -> float:
    """Lightness around the face minus that of the skin."""
    return float(look.lab[..., 0][look.around].mean() - look.lab[..., 0][look.skin].mean())


def symmetry(look: Look) -> float:
    """Correlation of the face with its mirror image after the eyes were levelled."""
    right, left = look.points[[33, 133], :2].mean(0), look.points[[263, 362], :2].mean(0)
    axis = (left - right) / max(float(np.linalg.norm(left - right)), 1.0)
    turn = np.array([axis, [-axis[1], axis[0]]], np.float64)  # picture axes -> the face's
    middle = turn @ look.oval.mean(0)
    middle[0] = turn[0] @ (left + right) / 2
    turn *= 48 / look.size
    move = np.hstack([turn, (32 - 48 / look.size * middle)[:, None]])
    face = cv2.warpAffine(cv2.GaussianBlur(look.gray, (0, 0), 2.0), move, (64, 64))[8:-8, 12:-12]
    with np.errstate(invalid="ignore", divide="ignore"):  # a flat face has no correlation: 0
        return float(np.nan_to_num(np.corrcoef(face.ravel(), face[:, ::-1].ravel())[0, 1]))


MEASURES: dict[str, Measure] = {
    "face_share": Measure(face_share, "percent", "image", "area of the mesh's outline",
                          (35.0, 75.0), ("roomy", "close", "very close")),
    "backdrop": Measure(backdrop, "grey levels per pixel", "around the face", "mean coarse gradient",
                        (2.4, 4.6), ("plain", "some", "busy")),
    "backdrop_tone": Measure(backdrop_tone, "L*", "around the face", "mean L* minus that of the skin",
                             (-30.0, -8.0, 6.0), ("much darker", "darker", "alike", "lighter")),
    "symmetry": Measure(symmetry, "correlation", "face", "correlation with the mirror image",
                        (0.3, 0.75), ("uneven", "fair", "even")),
}  # fmt: skip
