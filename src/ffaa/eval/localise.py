"""A heatmap against the mask of what was changed, with two yardsticks: chance, and a map that only looks at the middle.

Most changes lie in the middle of a face crop; a heatmap that is no better than the middle has found nothing.
"""

from __future__ import annotations

import numpy as np

from ffaa.types import Record

SPREAD = 0.25  # standard deviation of the map of the middle, share of the side


class Overlap(Record):
    """hit: the map's highest pixel lies in the mask (pointing game). iou: of the mask and as many highest pixels.
    energy: share of the map that lies in the mask. A map that is zero everywhere misses."""

    hit: bool
    iou: float
    energy: float


class HeatScore(Record):
    """found: of the heatmap. middle: of the map of the middle. area: the mask's share of the crop, which chance gives
    for hit and energy; chance_iou: for IoU. flat: the heatmap is zero everywhere."""

    found: Overlap
    middle: Overlap
    area: float
    chance_iou: float
    flat: bool


def overlap(heat: np.ndarray, mask: np.ndarray) -> Overlap:
    """heat: float (H, W), not negative. mask: bool (H, W), neither empty nor full."""
    total = float(heat.sum(dtype=np.float64))
    if total <= 0:
        return Overlap(hit=False, iou=0.0, energy=0.0)
    count = int(mask.sum())
    # Of equal values those first in reading order, always the same ones.
    highest = np.argsort(-heat, axis=None, kind="stable")[:count]
    both = int(mask.ravel()[highest].sum())
    return Overlap(
        hit=bool(mask.ravel()[highest[0]]),
        iou=both / (2 * count - both),
        energy=float(heat[mask].sum(dtype=np.float64)) / total,
    )


def middle(shape: tuple[int, ...]) -> np.ndarray:
    """float64 (H, W): a Gaussian about the middle."""
    y, x = ((2 * np.arange(n) + 1 - n) / (2 * n * SPREAD) for n in shape)
    return np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2)


def score(heat: np.ndarray, mask: np.ndarray) -> HeatScore | None:
    """heat: float (H, W), not negative. mask: float (H, W) in [0, 1]. None where nothing or all of it was changed:
    then there is nothing to find."""
    changed = mask > 0.5
    area = float(changed.mean())
    if not 0 < area < 1:
        return None
    return HeatScore(
        found=overlap(heat, changed), middle=overlap(middle(heat.shape), changed), area=area,
        chance_iou=area / (2 - area), flat=not heat.any(),
    )  # fmt: skip
