"""What holds for every forgery: it can be made again, its mask is exact, and it is what it says."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ffaa.data.forge.base import ForgeFace, covered, pixel_hash
from ffaa.data.forge.operations import OPERATIONS, forge, recreate
from ffaa.data.landmarks import PARTS, region_mask
from ffaa.data.sources.base import TYPES
from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType

SEEDS = range(8)
LOCAL = [name for name in OPERATIONS if name != "synthesis"]
TYPE = {
    "self_blend": ForgeryType.IDENTITY_EXCHANGE,
    "swap": ForgeryType.IDENTITY_EXCHANGE,
    "replace": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "expression": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "retouch": ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    "synthesis": ForgeryType.ENTIRE_FACE_SYNTHESIS,
}


def chosen(name, faces, seed):
    """Hopper's photo for even seeds, the astronaut's for odd ones."""
    return (faces if seed % 2 == 0 else faces[::-1])[: OPERATIONS[name].people]


@pytest.fixture(scope="module")
def forged(faces):
    """(operation, seed) -> (the original photo's face, forgery)."""
    return {
        (name, seed): (chosen(name, faces, seed)[0], forge(name, seed, chosen(name, faces, seed)))
        for name in OPERATIONS
        for seed in SEEDS
    }


def cases(forged, name):
    return [(seed, *forged[name, seed]) for seed in SEEDS]


def test_the_registry():
    assert {name: made.forgery_type for name, made in OPERATIONS.items()} == TYPE
    assert {name for name, made in OPERATIONS.items() if made.people == 2} == {"swap", "replace"}
    assert set(TYPE.values()) == set(TYPES.values()) - {ForgeryType.REAL}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_comes_back(forged, name):
    for _, face, made in cases(forged, name):
        assert made.image.shape == face.photo.shape
        assert made.image.dtype == np.uint8
        assert made.mask.shape == face.photo.shape[:2]
        assert made.mask.dtype == np.float32
        assert made.mask.min() >= 0
        assert 0.4 < made.mask.max() <= 1
        assert np.array_equal(np.round(made.mask * 255).astype(np.uint8) / np.float32(255), made.mask)
        assert made.forgery_type is TYPE[name]
        assert made.regions
        assert set(made.regions) <= {*PARTS, "skin"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_seed_decides(faces, forged, name):
    for seed in (0, 1):
        _, first = forged[name, seed]
        again = forge(name, seed, chosen(name, faces, seed))
        assert again.image.tobytes() == first.image.tobytes()
        assert again.mask.tobytes() == first.mask.tobytes()
        assert again.recipe == first.recipe
        assert not np.array_equal(first.image, forged[name, seed + 2][1].image)


@pytest.mark.parametrize("name", OPERATIONS)
def test_recreated_from_the_recipe_alone(faces, forged, name):
    for seed in (0, 3):
        _, first = forged[name, seed]
        recipe = type(first.recipe).model_validate_json(first.recipe.model_dump_json())
        again = recreate(recipe, [face.photo for face in chosen(name, faces, seed)])
        assert again.image.tobytes() == first.image.tobytes()
        assert again.mask.tobytes() == first.mask.tobytes()
        assert (again.regions, again.recipe) == (first.regions, first.recipe)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_original_is_left_alone(faces, forged, name):
    assert not any(face.photo.flags.writeable for face in faces)
    for _, face, made in cases(forged, name):
        assert pixel_hash(face.photo) == made.recipe.sources[0].sha256


@pytest.mark.parametrize("name", LOCAL)
def test_the_mask_is_exact(forged, name):
    for seed, face, made in cases(forged, name):
        change = np.abs(made.image.astype(int) - face.photo).max(2)
        assert change[made.mask == 0].max() == 0, seed
        strong = change > max(10, np.percentile(change[made.mask > 0], 70))
        assert (strong & (made.mask > 0.3)).sum() > 0.85 * strong.sum(), seed
        touched = cv2.dilate((change > 0).astype(np.uint8), np.ones((5, 5)))
        inside = made.mask > 0.5 * made.mask.max()
        assert (touched[inside] > 0).mean() > 0.9, seed  # not far larger than what changed


@pytest.mark.parametrize("name", OPERATIONS)
def test_something_is_seen(forged, name):
    for seed, face, made in cases(forged, name):
        change = np.abs(made.image.astype(int) - face.photo)[made.mask > 0.3]
        assert change.mean() > (0.8 if name == "synthesis" else 2), seed


@pytest.mark.parametrize("name", LOCAL)
def test_the_mask_stays_in_the_face_and_covers_the_named_parts(forged, name):
    for seed, face, made in cases(forged, name):
        oval = region_mask(face.points, "face_oval", made.mask.shape)
        assert (made.mask * oval).sum() > 0.9 * made.mask.sum(), seed
        for part in made.regions:
            region = region_mask(face.points, part, made.mask.shape)
            share = (made.mask * region).sum() / region.sum()
            assert share > (0.1 if name == "retouch" else 0.3), (seed, part)  # of an eye, retouching takes the iris
        # and what it covers is named: the skin around a part comes with it, and the nose is of skin
        missed = set(covered(made.mask > 0.9, face.points)) - set(made.regions) - {"skin"}
        assert missed <= ({"nose"} if "skin" in made.regions else set()), seed


def test_synthesis_is_everywhere(forged):
    for _, _, made in cases(forged, "synthesis"):
        assert made.mask.min() == 1
        assert set(made.regions) == {*PARTS, "skin"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_bad_faces_are_refused(faces, name):
    good = list(faces[: OPERATIONS[name].people])
    face = good[0]
    for bad, words in (
        (replace(face, points=None), "468 mesh points"),
        (replace(face, points=face.points[:68]), "468 mesh points"),
        (replace(face, points=face.points * np.nan), "468 mesh points"),
        (replace(face, points=face.points + np.float32(300)), "cut off"),
        (replace(face, photo=face.photo.astype(np.float32)), "uint8 RGB"),
        (ForgeFace(face.photo, face.box, face.points * np.float32(0.1)), "smaller than 30 px"),
    ):
        with pytest.raises(InputError, match=words):
            forge(name, 0, [bad, *good[1:]])
    with pytest.raises(UsageError, match=r"needs \d face"):
        forge(name, 0, [*good, face])


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown forgery 'morph'; known: self_blend, swap"):
        forge("morph", 0, [])


def test_a_recipe_is_refused_for_other_photos_or_versions(faces, forged):
    recipe = forged["swap", 0][1].recipe
    hopper, astronaut = (face.photo for face in faces)
    other = astronaut.copy()
    other[0, 0, 0] ^= 1
    for photos, words in (
        ([hopper, other], "photo 2 is not the one"),
        ([astronaut, hopper], "photo 1 is not the one"),
        ([hopper], r"needs 2 photo\(s\), 1 given"),
    ):
        with pytest.raises(InputError, match=words):
            recreate(recipe, photos)
    with pytest.raises(InputError, match="version 99"):
        recreate(recipe.model_copy(update={"version": "99"}), [hopper, astronaut])
    with pytest.raises(InputError, match="changed by hand"):
        recreate(recipe.model_copy(update={"parameters": {"hull": "ear"}}), [hopper, astronaut])


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_any_resolution(faces, factor):
    """The same seed gives the same forgery of a smaller or larger copy, but for its pixels."""
    sized = []
    for face in faces:
        photo = cv2.resize(face.photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        sized.append(ForgeFace(photo, face.box, face.points * np.float32(factor)))
    for name in LOCAL:
        small = forge(name, 4, chosen(name, faces, 4)).mask
        made = forge(name, 4, chosen(name, sized, 4)).mask
        assert np.abs(cv2.resize(made, small.shape[::-1], interpolation=cv2.INTER_AREA) - small).mean() < 0.01, name
