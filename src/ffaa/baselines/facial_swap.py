"""Multi-scale facial swap (Dong et al., CVPR 2023): the training images of `implicit`.

From a forged photo and its original: the whole face of one in the other, or only the window of it in which they differ
most, so that a forgery has a small, known place.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ffaa.data.crops import plain_face, read_photo
from ffaa.data.faces import face_rect
from ffaa.data.forge.warp import elastic, poisson
from ffaa.data.images import load_photo
from ffaa.data.landmarks import landmarks, polygon_mask
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.types import Box

_SIDE = 224
WINDOWS = ((40, 80), (80, 120), (120, 160), (224, 224))  # height and width at 224 px
_VISIBLE = 1e-3  # structural dissimilarity that counts as a change
_LEAST = 1600 / _SIDE**2  # share of such pixels that a partial swap needs: a patch of 40 x 40 at 224 px


class FacialSwap(NamedTuple):
    """image: uint8 RGB (S, S, 3). mask: float32 (7, 7), share of each cell that was swapped. window: left, top, right,
    bottom in pixels for a partial swap, else None."""

    image: np.ndarray
    mask: np.ndarray
    window: tuple[int, int, int, int] | None


def dissimilarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural dissimilarity (1 - SSIM) / 2 of uint8 RGB (H, W, 3): float64 (H, W, 3) (Wang et al. 2004, 11 x 11
    Gaussian window of deviation 1.5)."""

    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return np.abs((1 - ssim) / 2)


def busiest_window(change: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the window of that size with the largest sum of `change` (H, W), which slides in
    steps of a fifth of the image; a window larger than the image is cut to it."""
    rows, columns = change.shape
    height, width = min(height, rows), min(width, columns)
    total = cv2.integral(change.astype(np.float64))
    best, found = -1.0, (0, 0, width, height)
    for top in range(0, rows - height + 1, max(1, rows // 5)):
        for left in range(0, columns - width + 1, max(1, columns // 5)):
            right, bottom = left + width, top + height
            here = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
            if here > best:
                best, found = here, (left, top, right, bottom)
    return found


def blend(new: np.ndarray, onto: np.ndarray, mask: np.ndarray, poisson_blending: bool) -> np.ndarray:
    """uint8 RGB `new` laid over `onto` inside a mask (H, W) of 0..1: by Poisson's equation, or with an edge blurred
    over 5 px."""
    if poisson_blending and (mask > 0.5).any():
        return np.clip(np.round(poisson(new, onto, mask)), 0, 255).astype(np.uint8)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (5, 5), 3)[..., None]
    return np.clip(np.round(new * soft + onto * (1 - soft)), 0, 255).astype(np.uint8)


def facial_swap(fake: np.ndarray, real: np.ndarray, face: np.ndarray, rng: np.random.Generator) -> FacialSwap | None:
    """A new forgery from a forged crop and the same crop of its original.

    fake, real: uint8 RGB (S, S, 3), aligned; face: float (S, S), 1 inside the face's hull. Drawn as published: 4 in 5
    are global - half the real face in the forged photo, a quarter the forged face in the real one, a quarter the
    forged photo as it is -, 1 in 5 is partial, the forged window in the real photo. None when a partial swap would
    change too little to be seen; draw again. Raises InputError when the sizes differ.
    """
    if fake.shape != real.shape or face.shape != fake.shape[:2]:
        raise InputError("a facial swap needs a forged crop, its original and the face's mask of one size")
    by_poisson = bool(rng.random() < 0.5)
    if rng.random() < 0.2:
        return _partial(fake, real, face, rng, by_poisson)
    side = len(face)
    drawn = rng.random()
    if drawn >= 0.75:
        return FacialSwap(fake, _cells(face), None)
    mask = face.astype(np.float32)
    if rng.random() < 0.5:  # the published code bends the outline of half of them
        mask = elastic(mask, rng.uniform(-1, 1, (5, 5, 2)), 0.03 * side)
    new, onto = (real, fake) if drawn < 0.5 else (fake, real)
    return FacialSwap(blend(new, onto, mask, by_poisson), _cells(face), None)


def swap_row(root: Path, row: Row, size: int, rng: np.random.Generator) -> FacialSwap | None:
    """`facial_swap` of a manifest row and its `reference`, on the face image that `analyze` would make.

    None where the row has no reference, no face mesh fits, or a partial swap would not be seen. Raises InputError when
    a file cannot be read or the original has another size, WeightsError without the part 'face-mesh'.
    """
    if not row.reference:
        return None
    photo, original = read_photo(root, row), load_photo(root / row.reference).pixels
    if photo.shape != original.shape:
        raise InputError(f"{root / row.reference}: of another size than its forgery; build the data again")
    face = plain_face(photo, row, size)
    left, top, right, bottom = face_rect(face.crop, face.box)
    points = landmarks(face.image, Box(left=left, top=top, right=right, bottom=bottom))
    if points is None:
        return None
    outline = cv2.convexHull(np.ascontiguousarray(points[:, :2], np.float32))[:, 0]
    hull = polygon_mask(outline, (size, size))
    return facial_swap(face.image, plain_face(original, row, size).image, hull, rng)


def _partial(
    fake: np.ndarray, real: np.ndarray, face: np.ndarray, rng: np.random.Generator, by_poisson: bool
) -> FacialSwap | None:
    side = len(face)
    height, width = (round(n * side / _SIDE) for n in WINDOWS[int(rng.integers(len(WINDOWS)))])
    change = (dissimilarity(fake, real) * (face > 0.5)[..., None]).mean(2)
    left, top, right, bottom = window = busiest_window(change, height, width)
    if (change[top:bottom, left:right] > _VISIBLE).sum() < _LEAST * side**2:
        return None
    mask: np.ndarray = np.zeros(face.shape, np.float32)
    mask[top:bottom, left:right] = 1
    return FacialSwap(blend(fake, real, mask, by_poisson), _cells(mask), window)


def _cells(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (7, 7), interpolation=cv2.INTER_AREA)
