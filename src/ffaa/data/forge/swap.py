"""Face swap between two people: the donor's face is warped onto the target's landmarks, recoloured and blended in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, covered, lay, surroundings
from ffaa.data.forge.hull_blend import hull_mask
from ffaa.data.forge.warp import donor_at_scale, insert, match_colour, mesh_map, read_at, similarity
from ffaa.data.landmarks import REGIONS, face_size
from ffaa.types import Record


class Swap(Record):
    """colour: share of the way to the target's colours. edge: feather, share of the face's size.

    own: how much of the donor's shape stays in the middle of the face; the outline is always the target's.
    """

    hull: Literal["oval", "jaw", "centre"]
    own: float
    colour: float
    method: Literal["poisson", "alpha"]
    edge: float


def draw(rng: np.random.Generator) -> Swap:
    """Whole faces, or brows to chin, or the inner face only."""
    return Swap(
        hull=rng.choice(["oval", "jaw", "jaw", "centre"]),
        own=rng.uniform(0.5, 1.0),
        colour=rng.uniform(0.75, 1.0),
        method=rng.choice(["poisson", "alpha"]),
        edge=rng.uniform(0.06, 0.14),
    )


def _shape(target: np.ndarray, donor: np.ndarray, own: float) -> np.ndarray:
    """Points (468, 2) between the target's and the donor's, turned and scaled onto the target: a closed mouth that is
    pulled over an open one would tear."""
    move = similarity(donor, target)
    outline = target[list(REGIONS["face_oval"])]
    depth = np.linalg.norm(target[:, None] - outline, axis=2).min(1)
    weight = own * np.clip(depth / (0.5 * depth.max()), 0, 1)[:, None]
    return target + weight * (donor @ move[:, :2].T + move[:, 2] - target)


def render(params: Swap, faces: Sequence[ForgeFace]) -> Painted:
    """The first face's photo with the second's face, warped triangle by triangle (Delaunay)."""
    target, donor = faces
    rows, columns, points = surroundings(target)
    original = target.photo[rows, columns].astype(np.float32)
    size = face_size(points)
    photo, there = donor_at_scale(donor, size)
    place, mesh = mesh_map(_shape(points[:, :2], there, params.own), there, original.shape)
    warped = read_at(photo, place) * mesh[..., None] + original * (1 - mesh[..., None])
    mask = hull_mask(points, params.hull, original.shape) * mesh
    inner = hull_mask(points, "centre", original.shape)  # of the oval, hair and glasses would join in
    matched = match_colour(warped, original, inner, params.colour)
    pixels, alpha = insert(matched, original, mask, params.edge * size, params.method)
    image, whole = lay(target, (rows, columns), pixels, alpha)
    return Painted(image, whole, covered(whole > 0.25, target.points))
