"""The forgeries by name, how one is made, and how it is made again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from ffaa.data.forge import expression, hull_blend, replace, retouch, swap, synthesis
from ffaa.data.forge.base import (
    VERSION,
    Forged,
    ForgeFace,
    ForgeRecipe,
    ForgeSource,
    Operation,
    check,
    find_points,
    pixel_hash,
)
from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType, Record

_IDENTITY, _ATTRIBUTE = ForgeryType.IDENTITY_EXCHANGE, ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION

OPERATIONS: dict[str, Operation] = {
    "self_blend": Operation(
        "the face blended with a changed copy of itself", _IDENTITY, 1, hull_blend.HullBlend, hull_blend.draw,
        hull_blend.render,
    ),
    "swap": Operation("another person's face", _IDENTITY, 2, swap.Swap, swap.draw, swap.render),
    "replace": Operation(
        "another person's eyes, nose, mouth or brows", _ATTRIBUTE, 2, replace.Replace, replace.draw, replace.render
    ),
    "expression": Operation(
        "another expression", _ATTRIBUTE, 1, expression.Expression, expression.draw, expression.render
    ),
    "retouch": Operation(
        "smooth skin; other colours of lips, irises, skin or brows", _ATTRIBUTE, 1, retouch.Retouch, retouch.draw,
        retouch.render,
    ),
    "synthesis": Operation(
        "the traces of an up-sampling decoder on the whole photo", ForgeryType.ENTIRE_FACE_SYNTHESIS, 1,
        synthesis.Synthesis, synthesis.draw, synthesis.render,
    ),
}  # fmt: skip


def operation(name: str) -> Operation:
    """Raises UsageError for an unknown name."""
    if name not in OPERATIONS:
        raise UsageError(f"unknown forgery '{name}'; known: {', '.join(OPERATIONS)}")
    return OPERATIONS[name]


def forge(name: str, seed: int, faces: Sequence[ForgeFace]) -> Forged:
    """A forgery of the first face; operations between two people take the second as donor.

    The same name, seed and faces give the same pixels. Raises UsageError for an unknown name or another number of
    faces, InputError for a face without points, cut off, or too small, or when nothing would change.
    """
    drawn = operation(name).draw(np.random.default_rng(seed))
    return _render(name, seed, drawn, faces)


def recreate(recipe: ForgeRecipe, photos: Sequence[np.ndarray]) -> Forged:
    """The forgery of a recipe from its photos (uint8 RGB, in the order of `recipe.sources`).

    Raises InputError for photos with other pixels, or a recipe of another version or with other parameters.
    """
    if recipe.version != VERSION:
        raise InputError(f"a forgery recipe of version {recipe.version}; this ffaa makes version {VERSION}, forge anew")
    if len(photos) != len(recipe.sources):
        raise InputError(f"the recipe needs {len(recipe.sources)} photo(s), {len(photos)} given")
    for number, (photo, source) in enumerate(zip(photos, recipe.sources, strict=True), 1):
        if pixel_hash(photo) != source.sha256:
            raise InputError(f"photo {number} is not the one of the recipe (its pixels differ); give the original")
    try:
        parameters = operation(recipe.operation).parameters.model_validate(recipe.parameters)
    except ValidationError as error:
        raise InputError(f"the recipe's parameters are no {recipe.operation}'s; was it changed by hand?") from error
    faces = [find_points(photo, source.box) for photo, source in zip(photos, recipe.sources, strict=True)]
    return _render(recipe.operation, recipe.seed, parameters, faces)


def _render(name: str, seed: int, parameters: Record, faces: Sequence[ForgeFace]) -> Forged:
    made = operation(name)
    if len(faces) != made.people:
        raise UsageError(f"the forgery '{name}' needs {made.people} face(s), {len(faces)} given")
    for face in faces:
        check(face)
    painted = made.render(parameters, faces)
    recipe = ForgeRecipe(
        version=VERSION,
        operation=name,
        seed=seed,
        parameters=parameters.model_dump(mode="json"),
        sources=tuple(ForgeSource(sha256=pixel_hash(face.photo), box=face.box) for face in faces),
    )
    return Forged(painted.image, painted.mask, made.forgery_type, painted.regions, recipe)
