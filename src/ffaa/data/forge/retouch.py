"""Retouching as beauty filters do it: smooth skin, other colours of lips, irises, skin or brows."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, blur, feather, grow, lay_blended, surroundings
from ffaa.data.landmarks import INNER_MOUTH, REGIONS, face_size, polygon_mask, region_mask
from ffaa.types import Record

# Kind -> lowest and highest shift of L, a, b (L in 0..100).
TINTS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "lips": ((-12, 10, -8), (0, 22, 6)),
    "irises": ((3, -12, -28), (12, 0, -12)),
    "skin": ((-7, 1, 3), (-2, 4, 7)),
    "brows": ((-20, -2, -4), (-10, 3, 2)),
}
PARTS = {
    "smooth": ("skin",),
    "lips": ("mouth",),
    "irises": ("left_eye", "right_eye"),
    "skin": ("skin",),
    "brows": ("left_brow", "right_brow"),
}
KINDS = tuple(PARTS)


class Retouch(Record):
    """kinds: one or two of `KINDS`. smooth: 0..1. tints: kind -> shift of L, a, b."""

    kinds: tuple[str, ...]
    smooth: float
    tints: dict[str, tuple[float, float, float]]


def draw(rng: np.random.Generator) -> Retouch:
    """One or two kinds."""
    kinds = [str(kind) for kind in rng.choice(KINDS, rng.integers(1, 3), replace=False)]
    return Retouch(
        kinds=tuple(kinds),
        smooth=rng.uniform(0.5, 1),
        tints={kind: tuple(rng.uniform(*TINTS[kind])) for kind in sorted(TINTS)},
    )


def iris_mask(points: np.ndarray, eye: str, photo: np.ndarray) -> np.ndarray:
    """The visible iris, float32 (H, W) of 0 and 1: a disc of a fifth of the eye's width where the eye is darkest."""
    outline = points[list(REGIONS[eye]), :2]
    width = float(np.linalg.norm(outline[0] - outline[8]))
    radius = 0.2 * width
    opening = polygon_mask(outline, photo.shape)
    light = blur(photo.astype(np.float32).mean(2), 0.7 * radius)
    middle = np.hypot(*np.moveaxis(np.indices(light.shape) - outline.mean(0)[::-1, None, None], 0, 0))
    light = np.where((opening > 0) & (middle < 0.3 * width), light, np.inf)
    y, x = np.unravel_index(np.argmin(light), light.shape)
    disc: np.ndarray = np.zeros(light.shape, np.uint8)
    cv2.circle(disc, (int(x), int(y)), max(1, round(radius)), 1, -1)
    return disc.astype(np.float32) * opening


def smooth(image: np.ndarray, radius: int, contrast: float) -> np.ndarray:
    """Guided filter (He et al. 2010) of an image (h, w, 3) by itself: flattens what differs by less than `contrast`."""
    side = (2 * radius + 1, 2 * radius + 1)
    mean = cv2.blur(image, side)
    variance = np.maximum(cv2.blur(image * image, side) - mean * mean, 0)
    slope = variance / (variance + np.float32(contrast**2))
    return cv2.blur(slope, side) * image + cv2.blur(mean * (1 - slope), side)


def _area(kind: str, points: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Where a kind works: float32 (H, W) in [0, 1], soft at its edge."""
    size = face_size(points)
    if kind == "lips":
        lips = region_mask(points, "mouth", photo.shape) * (
            1 - polygon_mask(points[list(INNER_MOUTH), :2], photo.shape)
        )
        return feather(lips, 0.015 * size)
    if kind == "irises":
        both = np.maximum(*(iris_mask(points, eye, photo) for eye in PARTS["irises"]))
        return feather(both, 0.008 * size)
    if kind == "brows":
        both = np.maximum(*(region_mask(points, brow, photo.shape) for brow in PARTS["brows"]))
        return feather(grow(both, 0.015 * size), 0.03 * size)
    skin = region_mask(points, "skin", photo.shape)
    lab = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cheeks = lab[(region_mask(points, "nose", photo.shape) * skin) > 0]
    # hair and glasses inside the oval are no skin: far from the nose's colour
    away = np.linalg.norm((blur(lab, 0.01 * size) - np.median(cheeks, 0)) * (0.5, 1, 1), axis=2)
    return feather(skin, 0.06 * size) * np.clip(2 - away / 12, 0, 1).astype(np.float32)


def render(params: Retouch, faces: Sequence[ForgeFace]) -> Painted:
    """The photo with its face retouched."""
    face = faces[0]
    rows, columns, points = surroundings(face)
    original = face.photo[rows, columns]
    pixels = original.astype(np.float32)
    keep = np.ones(original.shape[:2], np.float32)
    size = face_size(points)
    for kind in params.kinds:
        area = _area(kind, points, original)
        if kind == "smooth":
            new = smooth(pixels, max(2, round(0.03 * size)), 8 + 16 * params.smooth)
        else:
            lab = cv2.cvtColor(np.clip(pixels, 0, 255) / np.float32(255), cv2.COLOR_RGB2LAB)
            new = np.clip(cv2.cvtColor(lab + np.array(params.tints[kind], np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255
        pixels = new * area[..., None] + pixels * (1 - area[..., None])
        keep *= 1 - area
    image, mask = lay_blended(face, (rows, columns), pixels, 1 - keep)
    return Painted(image, mask, tuple(dict.fromkeys(part for kind in params.kinds for part in PARTS[kind])))
