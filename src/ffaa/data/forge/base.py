"""What every forgery is made from and comes back as: face in, parameters, recipe, forged photo with its mask.

The same recipe and photos give the same pixels: every random number is drawn before a pixel is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ffaa.data.landmarks import PARTS, POINTS, face_size, landmarks, region_mask
from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Record

VERSION = "1"


class ForgeSource(Record):
    """A photo that went into a forgery: sha256 of its decoded pixels, and the box of the face in it."""

    sha256: str
    box: Box


class ForgeRecipe(Record):
    """All it takes to make a forgery again from the same photos. sources: the changed photo first, then the donor."""

    version: str
    operation: str
    seed: int
    parameters: dict[str, Any]
    sources: tuple[ForgeSource, ...]


@dataclass(frozen=True)
class ForgeFace:
    """A face in its photo: uint8 RGB (H, W, 3), the detector's box, and the mesh points (468, 3) in photo pixels."""

    photo: np.ndarray
    box: Box
    points: np.ndarray


@dataclass(frozen=True)
class Forged:
    """A forged photo: uint8 RGB (H, W, 3); mask float32 (H, W), steps of 1/255 in [0, 1], the share of the forgery in
    every pixel; where it is 0, the photo is unchanged. regions: the changed parts, by the names of landmarks.REGIONS
    and 'skin'."""

    image: np.ndarray
    mask: np.ndarray
    forgery_type: ForgeryType
    regions: tuple[str, ...]
    recipe: ForgeRecipe


@dataclass(frozen=True)
class Painted:
    """What an operation gives back: image, mask, and the changed parts."""

    image: np.ndarray
    mask: np.ndarray
    regions: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """people: faces it needs. draw: random parameters. render: parameters and faces -> the same forgery every time."""

    about: str
    forgery_type: ForgeryType
    people: int
    parameters: type[Record]
    draw: Callable[[np.random.Generator], Record]
    render: Callable[[Any, Sequence[ForgeFace]], Painted]


def find_points(photo: np.ndarray, box: Box) -> ForgeFace:
    """The face in a box with its points. Raises InputError when the mesh sees no face there."""
    points = landmarks(photo, box)
    if points is None:
        raise InputError("no face mesh fits the face box; give a photo with a face seen from the front")
    return ForgeFace(photo, box, points)


def check(face: ForgeFace) -> None:
    """Raises InputError for a face that cannot be forged."""
    photo, points = face.photo, face.points
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise InputError("a face to forge needs its photo as uint8 RGB (H, W, 3); read it with ffaa.data.images")
    if not isinstance(points, np.ndarray) or points.shape != (POINTS, 3) or not np.isfinite(points).all():
        raise InputError("a face to forge needs its 468 mesh points; find them with ffaa.data.landmarks")
    inside = (points[:, :2] >= 0) & (points[:, :2] < photo.shape[1::-1])
    if inside.all(1).mean() < 0.9:
        raise InputError("the face is cut off by the photo's border; give a photo that shows it whole")
    if face_size(points) < 30:
        raise InputError("the face is smaller than 30 px; give a larger photo")


def pixel_hash(photo: np.ndarray) -> str:
    """sha256 of a photo's shape and pixels: the same for every lossless copy."""
    digest = hashlib.sha256(str(photo.shape).encode())
    digest.update(np.ascontiguousarray(photo).tobytes())
    return digest.hexdigest()


def surroundings(face: ForgeFace, margin: float = 0.6) -> tuple[slice, slice, np.ndarray]:
    """(rows, columns, points moved there): the part of the photo within `margin` face sizes around the points."""
    pad = margin * face_size(face.points)
    low = np.floor(np.maximum(face.points[:, :2].min(0) - pad, 0)).astype(int)
    high = np.ceil(np.minimum(face.points[:, :2].max(0) + pad, face.photo.shape[1::-1])).astype(int)
    points = face.points - np.array([low[0], low[1], 0], np.float32)
    return slice(low[1], high[1]), slice(low[0], high[0]), points


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a float32 image; sigma in pixels, at least 0.3."""
    return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))


def feather(mask: np.ndarray, width: float) -> np.ndarray:
    """A 0/1 mask with an edge that falls smoothly to 0 over about `width` px inside its outline, never outside."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    ramp = np.clip(inside / max(width, 1), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def grow(mask: np.ndarray, pixels: float) -> np.ndarray:
    """A 0/1 mask grown by so many pixels."""
    away = cv2.distanceTransform((mask < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return (away <= pixels).astype(np.float32)


def covered(mask: np.ndarray, points: np.ndarray) -> tuple[str, ...]:
    """The parts of a face of which a mask (H, W), 0..1 or bool, covers more than half."""
    names = []
    for name in (*PARTS, "skin"):
        part = region_mask(points, name, mask.shape)
        if (mask * part).sum() > 0.5 * part.sum():
            names.append(name)
    return tuple(names)


def lay(
    face: ForgeFace, place: tuple[slice, slice], changed: np.ndarray, alpha: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blends `changed` (h, w, 3), 0..255, into a place of the photo by `alpha` (h, w): (image, mask) of the photo.

    Raises InputError when no pixel changes.
    """
    weight = _steps(alpha)[..., None]
    return lay_blended(face, place, np.clip(changed, 0, 255) * weight + face.photo[place] * (1 - weight), alpha)


def lay_blended(
    face: ForgeFace, place: tuple[slice, slice], pixels: np.ndarray, alpha: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `lay`, of `pixels` that are blended with the photo already."""
    image, mask = face.photo.copy(), np.zeros(face.photo.shape[:2], np.float32)
    mask[place] = _steps(alpha)
    rounded = np.round(np.clip(pixels, 0, 255)).astype(np.uint8)
    image[place] = np.where(mask[place][..., None] > 0, rounded, face.photo[place])
    if not (image != face.photo).any():
        raise InputError("nothing changed on this face; use another seed or another photo")
    return image, mask


def _steps(alpha: np.ndarray) -> np.ndarray:
    """Rounded to 1/255, so that an 8-bit mask says exactly which pixels are the original's."""
    return np.round(np.clip(alpha, 0, 1) * 255).astype(np.float32) / np.float32(255)
