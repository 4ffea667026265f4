from itertools import pairwise

import cv2
import numpy as np
import pytest

from ffaa.eval.corruptions import CORRUPTIONS, View, corrupt
from ffaa.types import Box

SIZE = 224


@pytest.fixture(scope="module")
def view(hopper):
    """The portrait's face with room around."""
    region = Box(left=150, top=110, right=390, bottom=350)
    part = hopper[region.top : region.bottom, region.left : region.right]
    return View(hopper, region, cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


@pytest.fixture(scope="module")
def slope():
    """A photo that tells by its colours where it was cut; detail would not: far away is not more different."""
    y, x = np.mgrid[:400, :400]
    photo = np.stack([x * 0.6, y * 0.6, (x - 200) ** 2 / 200 + 20], 2).astype(np.uint8)
    region = Box(left=100, top=100, right=300, bottom=300)
    return View(photo, region, cv2.resize(photo[100:300, 100:300], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))


def gap(a, b):
    return float(np.abs(a.astype(int) - b).mean())


def each(test):
    return pytest.mark.parametrize("name", CORRUPTIONS)(test)


@each
def test_without_strength_nothing_changes(name, view):
    assert (corrupt(name, None, view, 0, "p") == view.image).all()


@each
@pytest.mark.parametrize("photo", ["p", "q", "r"])
def test_stronger_changes_more(name, view, slope, photo):
    gaps, view = [], slope if name in ("shift", "scale") else view
    for strength in CORRUPTIONS[name].strengths:
        image = corrupt(name, strength, view, 0, photo)
        assert image.shape == view.image.shape
        assert image.dtype == np.uint8
        gaps.append(gap(image, view.image))
    assert gaps[0] > 0
    assert all(weak < strong for weak, strong in pairwise(gaps)), gaps


@each
def test_the_same_photo_gives_the_same_and_inputs_stay(name, view):
    before, strength = view.image.copy(), CORRUPTIONS[name].strengths[2]
    assert (corrupt(name, strength, view, 3, "p") == corrupt(name, strength, view, 3, "p")).all()
    assert (view.image == before).all()


def test_photos_and_seeds_draw_differently(view):
    for name in ("noise", "brightness", "saturation", "hue", "shift", "scale"):
        strength = CORRUPTIONS[name].strengths[3]
        drawn = [corrupt(name, strength, view, seed, photo) for seed, photo in ((0, "p"), (1, "p"), *((0, str(i)) for i
                 in range(8)))]  # fmt: skip
        assert len({image.tobytes() for image in drawn}) > 1, name


def test_what_each_does(view):
    def strong(name):
        return [corrupt(name, CORRUPTIONS[name].strengths[-1], view, 0, str(i)) for i in range(12)]

    detail = [cv2.Laplacian(i, cv2.CV_64F).std() for i in (view.image, strong("blur")[0], strong("noise")[0])]
    assert detail[1] < 0.3 * detail[0] < 0.3 * detail[2]
    light = [image.mean() / view.image.mean() for image in strong("brightness")]
    assert min(light) == pytest.approx(0.4, abs=0.02)
    assert max(light) > 1.2
    spread = [np.ptp(image.astype(int), axis=2).mean() for image in strong("saturation")]
    assert min(spread) < 1  # grey
    assert max(spread) > 1.5 * np.ptp(view.image.astype(int), axis=2).mean()
    value = [image.max(2).astype(int) for image in strong("hue")]
    assert all(gap(of, view.image.max(2)) < 1 for of in value)  # hue alone: V stays


def test_shift_and_scale_show_what_lies_around_the_crop(view):
    """Not the crop moved over an empty border: pixels of the photo."""
    for name in ("shift", "scale"):
        blank = view._replace(photo=np.zeros_like(view.photo))
        found = corrupt(name, CORRUPTIONS[name].strengths[-1], blank, 0, "p")
        assert not found.any()
    cuts = [corrupt("scale", 0.4, view, 0, str(i)) for i in range(12)]
    inner = [cv2.resize(cut[32:192, 32:192], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for cut in cuts]
    assert min(gap(image, view.image) for image in inner) < 6  # the wider cuts hold the crop in their middle


def test_beyond_the_border_the_photo_is_mirrored(view):
    whole = view._replace(photo=view.image, region=Box(left=0, top=0, right=SIZE, bottom=SIZE))
    for i in range(6):
        for name in ("shift", "scale"):
            found = corrupt(name, CORRUPTIONS[name].strengths[-1], whole, 0, str(i))
            assert found.shape == view.image.shape
            assert found.std() > 0.5 * view.image.std()


def test_odd_sizes(view):
    odd = view._replace(image=np.ascontiguousarray(view.image[:201, :201]))
    for name, found in CORRUPTIONS.items():
        assert corrupt(name, found.strengths[0], odd, 0, "p").shape == (201, 201, 3)
