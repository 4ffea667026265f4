import warnings

import cv2
import numpy as np
import pytest

from ffaa.data.faces import Detection, cut, face_rect, whole_image
from ffaa.evidence.measure import MEASURES, Measure, View, measure, view
from ffaa.types import Box, Crop
from ffaa.vqa.grounded import phrases

RECT = (40, 40, 184, 184)


def box(left, top, right, bottom):
    return Box(left=left, top=top, right=right, bottom=bottom)


def values(image, rect=RECT):
    return {e.name: e.value for e in measure(View(np.ascontiguousarray(image), rect))}


@pytest.fixture(params=["hopper", "astronaut"])
def face(request, tiny_crops):
    return tiny_crops[("hopper", "astronaut").index(request.param)]


def inside(image, change):
    """The image with `change` applied to the face rectangle alone."""
    out = image.copy()
    out[RECT[1] : RECT[3], RECT[0] : RECT[2]] = change(image)[RECT[1] : RECT[3], RECT[0] : RECT[2]]
    return out


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), 2)


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def scaled(image, factor, shift=0.0):
    return np.clip(image.astype(float) * factor + shift, 0, 255).astype(np.uint8)


def test_blur_and_noise(face):
    plain, soft, rough = values(face), values(blurred(face)), values(noisy(face))
    assert soft["sharpness"] < plain["sharpness"] - 0.5
    assert rough["sharpness"] > plain["sharpness"]
    assert soft["skin"] < plain["skin"] < rough["skin"]
    assert soft["rolloff"] < plain["rolloff"] < rough["rolloff"]


def test_gaps_compare_the_face_with_what_is_around_it(face):
    plain = values(face)
    soft_face, rough_face = values(inside(face, blurred)), values(inside(face, noisy))
    assert soft_face["sharpness_gap"] < plain["sharpness_gap"] - 0.5 < rough_face["sharpness_gap"]
    assert soft_face["noise_gap"] < plain["noise_gap"] < rough_face["noise_gap"]
    everywhere = values(noisy(noisy(face)))
    assert abs(everywhere["noise_gap"]) < 0.5  # the same noise on both sides


def test_light_and_tone(face):
    plain = values(face)
    assert values(scaled(face, 0.6))["brightness"] < plain["brightness"] < values(scaled(face, 1, 40))["brightness"]
    assert values(scaled(face, 0.5, 60))["contrast"] < 0.6 * plain["contrast"]
    ramp = np.linspace(1.5, 0.5, 224)[None, :, None]
    left, right = (scaled(face, r) for r in (ramp, ramp[:, ::-1]))
    assert values(left)["light"] > plain["light"] > values(right)["light"]
    even = np.full((224, 224, 3), 120, np.uint8)
    assert values(scaled(even, ramp))["light"] > 6 > -6 > values(scaled(even, ramp[:, ::-1]))["light"]
    assert abs(values(even)["light"]) < 0.01
    assert values(face[:, ::-1])["light"] == pytest.approx(-plain["light"], abs=1.5)


def test_colour(face):
    plain = values(face)
    warm = np.clip(face + np.array([25, 0, -25]), 0, 255).astype(np.uint8)
    cool = np.clip(face + np.array([-25, 0, 25]), 0, 255).astype(np.uint8)
    assert values(cool)["warmth"] < plain["warmth"] < values(warm)["warmth"]
    grey = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    assert values(grey)["saturation"] < 1 < plain["saturation"]
    red_chin = face.copy()
    red_chin[165:184] = (200, 60, 60)
    assert values(red_chin)["skin_colour"] > plain["skin_colour"] + 5


def test_symmetry_and_eyes(face):
    plain = values(face)
    mirrored = face.copy()
    mirrored[:, 112:] = mirrored[:, :112][:, ::-1]
    assert values(mirrored)["symmetry"] > max(0.98, plain["symmetry"])
    no_eyes = face.copy()
    no_eyes[60:110] = blurred(blurred(face))[60:110]
    assert values(no_eyes)["eyes_mouth"] < plain["eyes_mouth"]


def test_every_record_is_complete(face):
    found = measure(View(face, RECT))
    assert [e.name for e in found] == list(MEASURES)
    for e in found:
        m = MEASURES[e.name]
        assert (e.unit, e.region, e.method) == (m.unit, m.region, m.method)
        assert all((e.unit, e.region, e.method))
        assert e.word in m.words
        assert np.isfinite(e.value)


@pytest.mark.parametrize("name", MEASURES)
def test_every_word_can_come_out_and_has_sentences(name, monkeypatch):
    m = MEASURES[name]
    assert list(m.cuts) == sorted(set(m.cuts))
    assert len(m.words) == len(m.cuts) + 1 == len(set(m.words))
    edges = [m.cuts[0] - 1, *[(a + b) / 2 for a, b in zip(m.cuts, m.cuts[1:], strict=False)], m.cuts[-1] + 1]
    words = []
    for value in edges:
        fixed = Measure(lambda v, value=value: value, m.unit, m.region, m.method, m.cuts, m.words)
        monkeypatch.setitem(MEASURES, name, fixed)
        found = {e.name: e for e in measure(View(np.full((64, 64, 3), 99, np.uint8), (10, 10, 54, 54)))}
        words.append(found[name].word)
    assert tuple(words) == m.words
    sentences = phrases()["describe"].get(name) or phrases()["reason"].get(name)
    assert set(sentences) == set(m.words)


@pytest.mark.parametrize("rect", [(0, 0, 224, 224), (0, 0, 60, 224), (180, 180, 224, 224), (100, 100, 102, 102)])
def test_odd_rectangles_and_flat_images_give_finite_values(face, rect):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(np.isfinite(v) for v in values(face, rect).values())
        flat = values(np.full((224, 224, 3), 128, np.uint8), rect)
    assert all(np.isfinite(v) for v in flat.values())


def test_outside_is_the_frame_where_the_face_fills_the_image():
    plane = np.zeros((64, 64), np.float32)
    plane[4:60, 4:60] = 1
    v = View(np.zeros((64, 64, 3), np.uint8), (0, 0, 64, 64))
    assert v.outside(plane).max() == 0
    assert v.outside(plane).size == 64 * 64 - 56 * 56
    v = View(v.image, (16, 16, 48, 48))
    assert v.outside(plane).size == 64 * 64 - 32 * 32
    assert v.outside(plane).max() == 1


def test_part_is_in_fractions_of_the_rectangle():
    plane = np.arange(100)[None, :] + np.zeros((100, 1))
    v = View(np.zeros((100, 100, 3), np.uint8), (20, 40, 60, 80))
    found = v.part(plane, 0.25, 0.5, 0.75, 1.0)
    assert found.shape == (20, 20)
    assert (found[0, 0], found[0, -1]) == (30, 49)


# --- the face rectangle ----------------------------------------------------------------------------------------------


def test_face_rect_maps_the_box_into_the_crop():
    crop = Crop(region=box(60, 60, 240, 240), padding=40, size=224)
    assert face_rect(crop, box(100, 100, 200, 200)) == (50, 50, 174, 174)
    assert face_rect(crop, box(0, 0, 400, 400)) == (0, 0, 224, 224)  # never outside
    assert face_rect(Crop(region=box(0, 0, 300, 150), padding=0, size=100), box(30, 30, 150, 60)) == (10, 20, 50, 40)


def test_view_uses_the_faces_own_box():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[100:200, 100:200] = 200
    face = cut(photo, Detection(box(100, 100, 200, 200), 1.0), 180, "test")
    v = view(face)
    assert v.rect == (40, 40, 140, 140)
    assert v.image is face.image
    assert v.gray[40:140, 40:140].min() > 150
    assert view(whole_image(photo, 200)).rect == (30, 30, 170, 170)
