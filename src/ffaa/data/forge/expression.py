"""Another expression by a smooth warp of the face's own pixels: mouth corners, brows and eyelids are moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, blur, covered, lay, surroundings
from ffaa.data.forge.warp import mesh_map, read_at
from ffaa.data.landmarks import LEFT_EYE_OUTER, REGIONS, RIGHT_EYE_OUTER, face_size
from ffaa.types import Record

KINDS = ("smile", "frown", "raise_brows", "lower_brows", "close_eyes", "widen_eyes")
_UPPER = (246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398)
_LOWER = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)
_CORNERS = (33, 133, 263, 362)
_BROWS = REGIONS["right_brow"] + REGIONS["left_brow"]
# The skin between lid and brow follows over a shorter way than a cheek.
_REACH = {"smile": 0.11, "frown": 0.11, "raise_brows": 0.1, "lower_brows": 0.1, "close_eyes": 0.05, "widen_eyes": 0.05}
_PARTS = {
    "smile": ("mouth",),
    "frown": ("mouth",),
    "raise_brows": ("left_brow", "right_brow"),
    "lower_brows": ("left_brow", "right_brow"),
    "close_eyes": ("left_eye", "right_eye"),
    "widen_eyes": ("left_eye", "right_eye"),
}


class Expression(Record):
    """strength: 1 is a strong expression. right, left: its share on each side of the face."""

    kind: Literal["smile", "frown", "raise_brows", "lower_brows", "close_eyes", "widen_eyes"]
    strength: float
    right: float
    left: float


def draw(rng: np.random.Generator) -> Expression:
    """One of `KINDS`, nearly the same on both sides."""
    return Expression(
        kind=rng.choice(KINDS), strength=rng.uniform(0.6, 1.0), right=rng.uniform(0.8, 1), left=rng.uniform(0.8, 1)
    )


def _moves(kind: str, points: np.ndarray) -> dict[int, np.ndarray]:
    """Point -> shift (across, down) in face sizes, across from the person's right to the left."""
    if kind == "smile":
        shifts = {61: (-0.045, -0.065), 40: (-0.012, -0.02), 91: (-0.015, -0.03), 50: (0, -0.025), 0: (0, 0)}
        twins = {61: 291, 40: 270, 91: 321, 50: 280}
    elif kind == "frown":
        shifts = {61: (0.01, 0.065), 40: (0, 0.02), 91: (0, 0.03), 0: (0, -0.01), 17: (0, -0.015)}
        twins = {61: 291, 40: 270, 91: 321}
    elif kind in ("raise_brows", "lower_brows"):
        down = {"raise_brows": -0.07, "lower_brows": 0.045}[kind]
        return {i: np.array([0, down]) for i in _BROWS}
    else:
        return {}
    moves = {i: np.array(shift, float) for i, shift in shifts.items()}
    return moves | {twins[i]: moves[i] * (-1, 1) for i in twins}


def shifts(params: Expression, points: np.ndarray) -> np.ndarray:
    """How far every mesh point (468, 2) moves, in pixels."""
    flat, size = points[:, :2].astype(np.float64), face_size(points)
    across = flat[LEFT_EYE_OUTER] - flat[RIGHT_EYE_OUTER]
    across /= np.linalg.norm(across)
    axes = np.array([across, [-across[1], across[0]]])
    if params.kind in ("close_eyes", "widen_eyes"):
        gap = flat[list(_LOWER)] - flat[list(_UPPER)]
        share = 0.95 if params.kind == "close_eyes" else -0.5
        moves = {i: share * g for i, g in zip(_UPPER, gap, strict=True)}
        fixed = [*_LOWER, *_CORNERS]
    else:
        moves = {i: shift * size @ axes for i, shift in _moves(params.kind, points).items()}
        fixed = []
    middle = flat[[168, 2, 152]].mean(0)
    names = list(moves)
    side = np.where((flat[names] - middle) @ across < 0, params.right, params.left)
    way = np.array(list(moves.values())) * (params.strength * side)[:, None]
    reach = _REACH[params.kind] * size
    near = np.exp(-((flat[:, None] - flat[names]) ** 2).sum(2) / (2 * reach**2))
    shift = near @ way / np.maximum(near.sum(1), 1e-9)[:, None] * near.max(1)[:, None]
    shift[names] = way
    shift[fixed] = 0
    outline = points[list(REGIONS["face_oval"]), :2].astype(np.float32)
    depth = np.array([cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in flat])
    return shift * np.clip(depth / (0.08 * size), 0, 1)[:, None]  # the outline of the head stays


def render(params: Expression, faces: Sequence[ForgeFace]) -> Painted:
    """The photo with the face's mesh moved; the mask is where pixels were."""
    face = faces[0]
    rows, columns, points = surroundings(face)
    original = face.photo[rows, columns]
    height, width = original.shape[:2]
    edge = np.array([(x, y) for x in (0, width - 1) for y in (0, height - 1)])
    before = np.vstack([points[:, :2], edge])
    after = before.copy()
    after[: len(points)] += shifts(params, points)
    place, mesh = mesh_map(after, before, original.shape)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    size = face_size(points)
    way = blur((place - np.stack([x, y], 2)) * mesh[..., None], 0.01 * size)  # rounds off the triangles' kinks
    length = np.linalg.norm(way, axis=2)
    far = float(length.max())
    alpha = np.clip((length - 0.03 * far) / max(0.12 * far, 1e-9), 0, 1)
    image, mask = lay(face, (rows, columns), read_at(original, np.stack([x, y], 2) + way), alpha)
    moved = covered(mask[rows, columns] > 0.5, points)
    return Painted(image, mask, tuple(dict.fromkeys((*_PARTS[params.kind], *moved))))
