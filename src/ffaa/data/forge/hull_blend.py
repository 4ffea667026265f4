"""Self-blended images (Shiraishi & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022) on landmarks.

A copy of the face with other colours and frequencies, slightly moved, is blended into the photo inside a deformed hull.
Only the source is changed here, never the photo around it, so that the mask stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, covered, feather, grow, lay, surroundings
from ffaa.data.forge.warp import elastic, frequency, read_at
from ffaa.data.landmarks import PARTS, REGIONS, face_size, polygon_mask
from ffaa.types import Record

HULLS = ("oval", "jaw", "centre", "features")
_JAW = REGIONS["face_oval"][8:29]  # ear to ear, over the chin
_GRID = 5


class HullBlend(Record):
    """Lengths are shares of the face's size (root of its area). turn: degrees. grid: shifts that bend the mask."""

    hull: Literal["oval", "jaw", "centre", "features"]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]
    frequency: Literal["blur", "sharpen", "resample", "none"]
    frequency_amount: float
    shift: tuple[float, float]
    scale: float
    turn: float
    grid: list[list[list[float]]]
    bend: float
    edge: float
    ratio: float


def draw(rng: np.random.Generator) -> HullBlend:
    """Ranges after the paper's code: shift up to 3 %, scale up to 5 %, five blending ratios of which three are 1."""
    return HullBlend(
        hull=rng.choice(HULLS),
        gain=tuple(rng.uniform(0.95, 1.05, 3)),
        offset=tuple(rng.uniform(-6, 6, 3)),
        frequency=rng.choice(["blur", "sharpen", "resample", "none"]),
        frequency_amount=rng.uniform(),
        shift=tuple(rng.uniform(-0.03, 0.03, 2)),
        scale=rng.uniform(0.95, 1.05),
        turn=rng.uniform(-2, 2),
        grid=rng.uniform(-1, 1, (_GRID, _GRID, 2)).tolist(),
        bend=rng.uniform(0.02, 0.07),
        edge=rng.uniform(0.03, 0.14),
        ratio=rng.choice([0.5, 0.75, 1, 1, 1]),
    )


def hull_mask(points: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """A hull of the face, float32 (H, W) of 0 and 1.

    'oval': the whole face; 'jaw': brows to chin; 'centre': brows, nose and mouth; 'features': a band over brows and
    eyes, the nose, and the mouth.
    """

    def hull(names: Sequence[int]) -> np.ndarray:
        return polygon_mask(cv2.convexHull(points[list(names), :2].astype(np.float32))[:, 0], shape)

    brows = REGIONS["left_brow"] + REGIONS["right_brow"]
    if kind == "oval":
        return polygon_mask(points[list(REGIONS["face_oval"]), :2], shape)
    if kind == "jaw":
        return hull(brows + _JAW)
    if kind == "centre":
        return hull([i for name in PARTS for i in REGIONS[name]])
    eyes = brows + REGIONS["left_eye"] + REGIONS["right_eye"]
    band = np.maximum(np.maximum(hull(eyes), hull(REGIONS["nose"])), hull((*REGIONS["mouth"], 98, 327)))
    return grow(band, 0.04 * face_size(points))


def render(params: HullBlend, faces: Sequence[ForgeFace]) -> Painted:
    """The photo with part of the face replaced by its changed copy."""
    face = faces[0]
    rows, columns, points = surroundings(face)
    original = face.photo[rows, columns].astype(np.float32)
    size = face_size(points)
    source = np.clip(original * np.array(params.gain, np.float32) + np.array(params.offset, np.float32), 0, 255)
    source = frequency(source, params.frequency, params.frequency_amount)
    centre = points[:, :2].mean(0)
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), params.turn, params.scale)
    matrix = matrix + np.array([[0, 0, params.shift[0]], [0, 0, params.shift[1]]]) * size
    y, x = np.mgrid[: original.shape[0], : original.shape[1]].astype(np.float32)
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    source = read_at(source, np.stack([x, y], 2) @ back[:, :2].T + back[:, 2])
    mask = elastic(hull_mask(points, params.hull, original.shape), np.array(params.grid), params.bend * size)
    alpha = feather(mask, params.edge * size) * np.float32(params.ratio)
    image, whole = lay(face, (rows, columns), source, alpha)
    return Painted(image, whole, covered(whole > 0.25, face.points))
