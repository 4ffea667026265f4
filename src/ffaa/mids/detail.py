"""What MIDS's opinion of a photo without fine detail is worth.

Out of focus or enlarged, a real face has lost what tells it from a forged one, and a detector that is then sure that
it is forged harms somebody. How sure it may be is fitted on validation faces whose detail was taken away; faces that
have it are left alone.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ffaa.weights import DetailCorrection

FINE, COARSE = 0.7, (1.4, 2.8)  # deviations of Gaussians, pixels of a 224 px face image
MARGIN = 0.15  # of the side, left out all round: the face lies inside
EPSILON = 1e-3  # keeps the ratio finite on a flat image


def fine_detail(image: np.ndarray) -> float:
    """log2 of the energy of the finest scale against one two octaves coarser, in a uint8 RGB (S, S, 3) face image.

    Of validation faces one in ten lies below -2.1; blur and enlargement lower it.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    pixel = image.shape[0] / 224
    smooth, mid, coarse = (cv2.GaussianBlur(grey, (0, 0), scale * pixel) for scale in (FINE, *COARSE))
    edge = round(MARGIN * image.shape[0])
    inside = slice(edge, image.shape[0] - edge)
    high, low = (np.abs(band)[inside, inside].mean() for band in (grey - smooth, mid - coarse))
    return float(np.log2((high + EPSILON) / (low + EPSILON)))


def lack(correction: DetailCorrection, detail: ArrayLike) -> np.ndarray:
    """How much fine detail is lacking, >= 0."""
    return np.maximum(0.0, correction.below - np.asarray(detail, float))


def correct_log_odds(correction: DetailCorrection, odds: ArrayLike, detail: ArrayLike) -> np.ndarray:
    """Corrected log odds that images are forged; both of one shape. What is likelier stays likelier."""
    return np.asarray(np.asarray(odds, float) / (1 + correction.flatten * lack(correction, detail)))


def correct_logits(correction: DetailCorrection, logits: Tensor, detail: float) -> Tensor:
    """Corrected logits (A, 4) of Eq. 3's classes: for every answer the log odds that the image is forged are then those
    of `correct_log_odds`, so that the same answer is chosen."""
    return logits / (1 + correction.flatten * float(lack(correction, detail)))
