"""Each measure moves the way its name says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matplotlib import cbook

from ffaa.data.faces import face_rect
from ffaa.evidence.measure import MEASURES, View, measure
from ffaa.types import Box, Crop


@pytest.fixture(scope="module")
def portrait():
    photo = cv2.cvtColor(cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))), cv2.COLOR_BGR2RGB)
    return cv2.resize(photo[40:340, 120:420], (224, 224), interpolation=cv2.INTER_AREA)


RECT = (50, 50, 174, 190)


def value(image, name):
    return next(e for e in measure(View(np.ascontiguousarray(image), RECT)) if e.name == name).value


def test_all_measures_come_in_order_with_a_documented_word(portrait):
    found = measure(View(portrait, RECT))
    assert [e.name for e in found] == list(MEASURES)
    for evidence in found:
        assert np.isfinite(evidence.value)
        assert evidence.word in MEASURES[evidence.name].words
        assert evidence.unit == MEASURES[evidence.name].unit


def test_cuts_and_words_fit():
    for name, m in MEASURES.items():
        assert len(m.words) == len(m.cuts) + 1, name
        assert list(m.cuts) == sorted(m.cuts), name


def test_blur_lowers_sharpness_and_high_frequencies(portrait):
    blurred = cv2.GaussianBlur(portrait, (0, 0), 2)
    for name in ("sharpness", "skin", "rolloff"):
        assert value(blurred, name) < value(portrait, name) - 0.5, name


def test_brightness_and_contrast(portrait):
    brighter = np.clip(portrait.astype(int) + 40, 0, 255).astype(np.uint8)
    flatter = (portrait * 0.5 + 64).astype(np.uint8)
    assert value(brighter, "brightness") > value(portrait, "brightness") + 5
    assert value(flatter, "contrast") < 0.7 * value(portrait, "contrast")


def test_light_direction_turns_with_the_picture(portrait):
    ramp = np.linspace(1.2, 0.6, 224)[None, :, None]
    lit_left = np.clip(np.full((224, 224, 3), 128) * ramp, 0, 255).astype(np.uint8)
    assert value(lit_left, "light") > 6
    assert value(lit_left[:, ::-1], "light") < -6
    words = {e.name: e.word for e in measure(View(lit_left, RECT))}
    assert words["light"] == "left"


def test_a_softened_face_is_softer_and_cleaner_than_its_surroundings():
    rng = np.random.default_rng(0)
    noisy = rng.integers(90, 160, (224, 224, 3)).astype(np.uint8)
    left, top, right, bottom = RECT
    noisy[top:bottom, left:right] = cv2.GaussianBlur(noisy[top:bottom, left:right], (0, 0), 3)
    words = {e.name: e.word for e in measure(View(noisy, RECT))}
    assert words["sharpness_gap"] == "softer"
    assert words["noise_gap"] == "cleaner"


def test_grey_has_no_colour_and_a_mirrored_face_is_symmetric(portrait):
    grey = cv2.cvtColor(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert value(grey, "saturation") < 0.5
    x0, _, x1, _ = RECT
    mirrored = portrait.copy()
    half = (x1 - x0) // 2
    mirrored[:, x1 - half : x1] = mirrored[:, x0 : x0 + half][:, ::-1]
    assert value(mirrored, "symmetry") > 0.98


def test_a_flat_picture_gives_finite_values():
    assert all(np.isfinite(e.value) for e in measure(View(np.zeros((224, 224, 3), np.uint8), RECT)))


def test_the_face_rectangle_in_crop_pixels():
    region = Box(left=100, top=50, right=300, bottom=250)
    crop = Crop(region=region, padding=20, size=100)
    assert face_rect(crop, Box(left=120, top=70, right=280, bottom=230)) == (10, 10, 90, 90)
    whole = Crop(region=region, padding=0, size=100, whole_image=True)
    assert face_rect(whole, region) == (15, 15, 85, 85)
