"""Parts of a face taken from another person: eyes, nose, mouth or brows, aligned by landmarks and blended in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, grow, lay_blended, surroundings
from ffaa.data.forge.warp import donor_at_scale, insert, match_colour, read_at, similarity
from ffaa.data.landmarks import face_size, region_mask
from ffaa.types import Record

CHOICES = (
    ("left_eye", "right_eye"),
    ("nose",),
    ("mouth",),
    ("left_brow", "right_brow"),
    ("left_eye", "right_eye", "left_brow", "right_brow"),
    ("nose", "mouth"),
)
# How far the patch reaches beyond the part's outline, share of the face's size.
REACH = {"left_eye": 0.07, "right_eye": 0.07, "left_brow": 0.05, "right_brow": 0.05, "nose": 0.06, "mouth": 0.07}


class Replace(Record):
    """parts: of the donor. colour: share of the way to the target's colours. edge: share of the patch's reach."""

    parts: tuple[str, ...]
    colour: float
    method: Literal["poisson", "alpha"]
    edge: float


def draw(rng: np.random.Generator) -> Replace:
    """One of `CHOICES`."""
    return Replace(
        parts=CHOICES[rng.integers(len(CHOICES))],
        colour=rng.uniform(0.85, 1.0),
        method=rng.choice(["poisson", "alpha"]),
        edge=rng.uniform(0.7, 1.3),
    )


def render(params: Replace, faces: Sequence[ForgeFace]) -> Painted:
    """The first face's photo with parts of the second's face; each keeps its shape and is turned and scaled only."""
    target, donor = faces
    rows, columns, points = surroundings(target)
    original = target.photo[rows, columns].astype(np.float32)
    size = face_size(points)
    photo, there = donor_at_scale(donor, size)
    y, x = np.mgrid[: original.shape[0], : original.shape[1]].astype(np.float32)
    pixels = original.copy()
    alpha = np.zeros(original.shape[:2], np.float32)
    for part in params.parts:
        region = region_mask(points, part, original.shape)
        patch = grow(region, REACH[part] * size)
        column, row = np.clip(points[:, :2].round().astype(int), 0, np.array(patch.shape[::-1]) - 1).T
        near = patch[row, column] > 0
        move = similarity(points[near, :2], there[near]).astype(np.float32)
        new = read_at(photo, np.stack([x, y], 2) @ move[:, :2].T + move[:, 2])
        new = match_colour(new, original, patch * (1 - region), params.colour)
        new, weight = insert(new, pixels, patch, params.edge * REACH[part] * size, params.method)
        pixels = new * weight[..., None] + pixels * (1 - weight[..., None])
        alpha = np.maximum(alpha, weight)
    image, mask = lay_blended(target, (rows, columns), pixels, alpha)
    return Painted(image, mask, params.parts)
