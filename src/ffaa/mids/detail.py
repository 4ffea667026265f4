"""Who judges a photo without fine detail.

Out of focus or enlarged, a real face has lost what tells it from a forged one, and a detector that has learnt from
sharp faces is then sure that it is forged, which harms somebody. The less fine detail a face has, the less MIDS counts
and the more the towers that have learnt from such faces (`blurred` of their settings); where there are none, all that
is left is to be less sure. How much is fitted on validation faces whose detail was taken away; faces that have it are
left alone.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ffaa.mids.label import NUM_CLASSES, pair_label
from ffaa.types import Label
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


def mids_share(correction: DetailCorrection, detail: ArrayLike) -> np.ndarray:
    """What of MIDS's opinion is left, in (0, 1]; 1 where nothing lacks."""
    return np.asarray(1 / (1 + correction.flatten * lack(correction, detail)))


def correct_log_odds(
    correction: DetailCorrection, odds: ArrayLike, detail: ArrayLike, told: ArrayLike = 0.0
) -> np.ndarray:
    """Corrected log odds that images are forged. told: the mean logit of `correction.towers`; all of one shape."""
    share = mids_share(correction, detail)
    return np.asarray(share * np.asarray(odds, float) + (1 - share) * correction.trust * np.asarray(told, float))


def correct_logits(correction: DetailCorrection, logits: Tensor, detail: float, told: float = 0.0) -> Tensor:
    """Corrected logits (A, 4) of Eq. 3's classes: for every answer the log odds that the image is forged are then those
    of `correct_log_odds`."""
    share = float(mids_share(correction, detail))
    forged = torch.arange(NUM_CLASSES, device=logits.device) >= pair_label(Label.FAKE, Label.REAL)
    return logits * share + (1 - share) * correction.trust * told * forged
