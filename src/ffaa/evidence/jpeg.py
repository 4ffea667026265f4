"""The 8 px grid of JPEG blocks, and traces of an earlier, stronger compression.

A crop is cut at any place and usually resized: the grid has then another period, and below a certain size it is gone.
"""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.evidence.look import EPSILON, Look, ratio
from ffaa.evidence.record import Measure, NotMeasurableError

BLOCK = 8
LOWEST = 0.75  # image pixels per photo pixel below which the averaging removes the grid
QUALITIES = range(40, 95, 2)
NEAR = 3  # places along QUALITIES to either side that a dip is compared with


def _grid_of(look: Look) -> float:
    if look.scale is None:
        raise NotMeasurableError("the crop was resized by an unknown factor, so the place of its 8 px grid is unknown")
    if look.scale < LOWEST:
        raise NotMeasurableError("the crop was reduced, so its 8 px grid is gone")
    return BLOCK * look.scale


def blocks(look: Look) -> float:
    """Second differences on the lines of the best-fitting grid against the rest, mean of both directions, log2."""
    period = _grid_of(look)
    found = []
    for axis in (0, 1):
        second = np.abs(np.diff(look.gray, 2, axis=1 - axis))
        profile = np.minimum(second, 12).mean(axis)  # strong edges are no blocks
        at = np.arange(len(profile))
        best = -np.inf
        for phase in np.arange(0, period, 0.5):
            on = np.abs((at - phase + period / 2) % period - period / 2) < 0.5 * max(1.0, look.scale or 1.0)
            if on.any():
                best = max(best, ratio(float(profile[on].mean()), float(profile[~on].mean())))
        found.append(best)
    return float(np.mean(found))


def ghost(look: Look) -> float:
    """Depth of the deepest dip of the error of compressing the image again, over qualities, log2 (Farid 2009).

    A dip says that the image was compressed at about that quality before. The file itself may be of a higher one: then
    it was compressed twice.
    """
    if look.scale != 1:
        raise NotMeasurableError("the crop was resized, which wipes out the marks of earlier compressions")
    gray = cv2.cvtColor(look.image, cv2.COLOR_RGB2GRAY)
    _, y, x = max((_blockiness(look.gray, y, x), y, x) for y in range(BLOCK) for x in range(BLOCK))
    gray = np.ascontiguousarray(gray[y:, x:])
    errors = []
    for quality in QUALITIES:
        data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        again = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)
        errors.append(np.log2(np.square(again - gray).mean() + EPSILON))
    curve = np.array(errors)
    return float(((curve[: -2 * NEAR] + curve[2 * NEAR :]) / 2 - curve[NEAR:-NEAR]).max())


def _blockiness(gray: np.ndarray, y: int, x: int) -> float:
    rows = np.abs(np.diff(gray, axis=0))[(y - 1) % BLOCK :: BLOCK].mean()
    return float(rows + np.abs(np.diff(gray, axis=1))[:, (x - 1) % BLOCK :: BLOCK].mean())


MEASURES: dict[str, Measure] = {
    "jpeg_blocks": Measure(blocks, "log2 ratio", "image", "second differences on the 8 px grid of the photo",
                           (0.2, 0.4), ("none", "faint", "visible")),
    "jpeg_ghost": Measure(ghost, "log2", "image", "deepest dip of the error of compressing again",
                          (0.1, 0.25), ("none", "unsure", "marked")),
}  # fmt: skip
