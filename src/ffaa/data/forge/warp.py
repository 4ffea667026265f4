"""Geometry and colour that several forgeries share: mesh warps, alignment, colour transfer, blending."""

from __future__ import annotations

import cv2
import numpy as np

from ffaa.data.forge.base import ForgeFace, blur, feather, surroundings
from ffaa.data.landmarks import face_size


def triangles(points: np.ndarray) -> np.ndarray:
    """Delaunay triangles of points (n, 2): int (m, 3) indices into them."""
    low = points.min(0) - 1
    span = np.ceil(points.max(0) - low + 2).astype(int)
    mesh = cv2.Subdiv2D((0, 0, int(span[0]), int(span[1])))
    corners: dict[int, int] = {}
    for i, point in enumerate(points - low):
        corners.setdefault(mesh.insert((float(point[0]), float(point[1]))), i)
    found = []
    for triangle in np.reshape(mesh.getTriangleList(), (-1, 3, 2)):
        # getTriangleList gives coordinates; locating one gives the number it was inserted under
        names = [corners.get(mesh.findNearest((float(x), float(y)))[0]) for x, y in triangle]
        if None not in names and len(set(names)) == 3:
            found.append(names)
    return np.array(found, int)


def mesh_map(here: np.ndarray, there: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Piecewise-affine map that sends the points `here` (n, 2) to `there` (n, 2).

    Returns float32 (H, W, 2), for every pixel the place (x, y) it is read from, and float32 (H, W), 1 inside the mesh.
    """
    mesh = triangles(here)
    label: np.ndarray = np.zeros(shape[:2], np.int32)
    for i, corner in enumerate(mesh):
        cv2.fillConvexPoly(label, np.round(here[corner] * 16).astype(np.int32), i + 1, shift=4)
    ones = np.ones((len(mesh), 3, 1))
    affine = np.linalg.pinv(np.concatenate([here[mesh], ones], 2)) @ there[mesh]  # (m, 3, 2)
    table = np.concatenate([np.zeros((1, 3, 2)), affine]).astype(np.float32)[label]
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    place = table[..., 0, :] * x[..., None] + table[..., 1, :] * y[..., None] + table[..., 2, :]
    return place, (label > 0).astype(np.float32)


def read_at(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) read at places (h, w, 2) as float32, mirrored at its borders."""
    found = cv2.remap(image, place, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[call-overload]
    return np.clip(found.astype(np.float32), 0, 255)


def donor_at_scale(donor: ForgeFace, size: float) -> tuple[np.ndarray, np.ndarray]:
    """(part of the donor's photo, its points (468, 2)); a face larger than `size` px is shrunk to it, by areas."""
    rows, columns, points = surroundings(donor)
    part, flat = donor.photo[rows, columns], points[:, :2]
    scale = size / face_size(points)
    if scale < 0.9:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        flat = (flat + 0.5) * np.array(part.shape[1::-1]) / (columns.stop - columns.start, rows.stop - rows.start) - 0.5
    return part, flat.astype(np.float32)


def similarity(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that brings points `here` (n, 2) closest to `there` (Umeyama 1991)."""
    a, b = here - here.mean(0), there - there.mean(0)
    scale = (a * b).sum() / (a * a).sum()
    turn = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / (a * a).sum()
    matrix = np.array([[scale, -turn], [turn, scale]])
    return np.hstack([matrix, (there.mean(0) - matrix @ here.mean(0))[:, None]])


def match_colour(image: np.ndarray, like: np.ndarray, weight: np.ndarray, amount: float) -> np.ndarray:
    """Brings mean and spread of Lab inside `weight` to those of `like` (Reinhard et al. 2001), by a share `amount`.

    image, like: (h, w, 3), 0..255; weight: (h, w), 0..1. Returns float32 (h, w, 3), 0..255.
    """
    inside = weight > 0.5
    source, target = (cv2.cvtColor(i.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for i in (image, like))
    a, b = source[inside], target[inside]
    spread = np.clip(b.std(0) / np.maximum(a.std(0), 1e-3), 0.7, 1.4)
    matched = (source - a.mean(0)) * spread + b.mean(0)
    mixed = source + amount * (matched - source)
    return np.clip(cv2.cvtColor(mixed.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255


def poisson(image: np.ndarray, onto: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Poisson blending (Pérez et al. 2003) of `image` into `onto` inside a 0/1 mask: float32 (h, w, 3)."""
    pad = 8  # the solver needs a border that is not part of the mask
    inside = cv2.copyMakeBorder((mask > 0.5).astype(np.uint8) * 255, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    new, old = (
        cv2.copyMakeBorder(np.round(np.clip(i, 0, 255)).astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
        for i in (image, onto)
    )
    x, y, width, height = cv2.boundingRect(inside)
    cloned = cv2.seamlessClone(new, old, inside, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
    return cloned[pad:-pad, pad:-pad].astype(np.float32)


def insert(
    new: np.ndarray, onto: np.ndarray, mask: np.ndarray, edge: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, alpha) to lay `new` over `onto` inside a 0/1 mask: 'poisson', or 'alpha' with an edge of `edge` px."""
    if method == "poisson":
        return poisson(new, onto, mask), feather(mask, max(2.0, edge / 3))
    return new, feather(mask, edge)


def elastic(mask: np.ndarray, grid: np.ndarray, reach: float) -> np.ndarray:
    """A mask (h, w) bent by a coarse grid (n, n, 2) of shifts in [-1, 1], times `reach` px."""
    height, width = mask.shape
    shift = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(reach)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(mask, x + shift[..., 0], y + shift[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def frequency(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """Fewer or more high frequencies, amount in 0..1: 'blur', 'sharpen', 'resample' (down and up), or 'none'."""
    height, width = image.shape[:2]
    if kind == "blur":
        return blur(image, 0.5 + 1.3 * amount)
    if kind == "sharpen":
        return np.clip(image + (0.3 + amount) * (image - blur(image, 1.5)), 0, 255)
    if kind == "resample":
        scale = 0.85 - 0.4 * amount
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return image
