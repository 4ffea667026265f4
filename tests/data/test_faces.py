"""The crop rule in numbers, and dlib's detector on two public-domain portraits."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import skimage
from PIL import Image

from ffaa.data.faces import (
    DETECT_MAX_SIDE,
    Detection,
    DlibDetector,
    crop_region,
    cut,
    detector,
    resize_square,
    split_by_size,
    whole_image,
)
from ffaa.errors import UsageError
from ffaa.types import Box

HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"


def box(left, top, right, bottom):
    return Box(left=left, top=top, right=right, bottom=bottom)


def pixels(path):
    return np.array(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def dlib_detector():
    pytest.importorskip("dlib")
    return detector()


@pytest.mark.parametrize(
    ("face", "padding"),
    [
        (box(100, 100, 200, 200), 40),  # room on every side: the full 40 px
        (box(12, 100, 200, 200), 12),  # left border
        (box(100, 7, 200, 200), 7),  # top
        (box(100, 100, 385, 200), 15),  # right: 400 - 385
        (box(100, 100, 200, 299), 1),  # bottom: 300 - 299
        (box(0, 100, 100, 200), 0),  # on the border
        (box(0, 0, 400, 300), 0),  # the whole photo
    ],
)
def test_padding_is_limited_by_the_nearest_border_on_all_sides(face, padding):
    region, used = crop_region(face, 400, 300)
    assert used == padding
    assert region == box(face.left - padding, face.top - padding, face.right + padding, face.bottom + padding)
    assert region.left >= 0
    assert region.top >= 0
    assert region.right <= 400
    assert region.bottom <= 300


def test_padding_can_be_chosen():
    assert crop_region(box(100, 100, 200, 200), 400, 300, padding=25)[1] == 25


def test_cut_takes_those_pixels():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[60:240, 60:240] = (10, 20, 30)
    face = cut(photo, Detection(box(100, 100, 200, 200), 1.5), 224, "test")
    assert face.image.shape == (224, 224, 3)
    assert np.array_equal(np.unique(face.image.reshape(-1, 3), axis=0), [[10, 20, 30]])
    assert (face.crop.padding, face.crop.size, face.crop.whole_image) == (40, 224, False)
    assert (face.box, face.detector, face.score) == (box(100, 100, 200, 200), "test", 1.5)


def test_whole_image_is_the_centre_square():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[:, :50] = 255
    face = whole_image(photo, 224)
    assert face.crop.whole_image
    assert face.crop.region == face.box == box(50, 0, 350, 300)
    assert face.image.max() == 0


@pytest.mark.parametrize("shape", [(500, 300), (40, 60), (224, 224)])
def test_resize_square(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    assert np.array_equal(resize_square(image, 224), np.full((224, 224, 3), 77, np.uint8))


def test_largest_first_and_too_small_set_aside():
    found = [Detection(box(0, 0, size, size), 1.0) for size in (39, 120, 40, 10, 200)]
    usable, small = split_by_size(found)
    assert [d.box.width for d in usable] == [200, 120, 40]
    assert [d.box.width for d in small] == [39, 10]
    assert split_by_size(found, min_face=150)[0][0].box.width == 200
    assert split_by_size([]) == ([], [])


def test_equal_sizes_keep_one_order():
    one, two = Detection(box(50, 0, 90, 40), 1.0), Detection(box(5, 0, 45, 40), 1.0)
    assert split_by_size([one, two])[0] == split_by_size([two, one])[0] == [two, one]


def test_unknown_detector():
    with pytest.raises(UsageError, match="unknown face detector 'none'; known: dlib-frontal"):
        detector("none")


@pytest.mark.parametrize(("path", "middle"), [(HOPPER, (257, 217)), (ASTRONAUT, (224, 114))])
def test_public_domain_portraits(dlib_detector, path, middle):
    photo = pixels(path)
    (found,) = dlib_detector(photo)
    assert found.box.left < middle[0] < found.box.right
    assert found.box.top < middle[1] < found.box.bottom
    assert 80 < found.box.width < 260
    assert dlib_detector(photo)[0] == found


@pytest.mark.parametrize("factor", [0.4, 3])
def test_boxes_are_in_photo_pixels_at_any_size(dlib_detector, factor):
    photo = Image.open(ASTRONAUT).convert("RGB")
    (want,) = dlib_detector(np.array(photo))
    scaled = np.array(photo.resize((round(photo.width * factor), round(photo.height * factor))))
    assert max(scaled.shape) < 512 or max(scaled.shape) > DETECT_MAX_SIDE
    found = max(dlib_detector(scaled), key=lambda d: d.score)  # enlarged, dlib also sees a false face (score 0.04)
    for side in ("left", "top", "right", "bottom"):
        assert getattr(found.box, side) / factor == pytest.approx(getattr(want.box, side), abs=25)


def test_two_faces_in_one_photo(dlib_detector):
    astronaut, hopper = pixels(ASTRONAUT), pixels(HOPPER)
    photo = np.zeros((606, 1024, 3), np.uint8)
    photo[:512, :512] = astronaut
    photo[:600, 512:1024] = hopper[:600, :512]
    usable, _ = split_by_size([found for found in dlib_detector(photo) if found.score > 0.5])
    assert len(usable) == 2
    assert usable[0].box.width >= usable[1].box.width
    assert {d.box.left >= 512 for d in usable} == {True, False}


def test_a_photo_without_a_face(dlib_detector):
    assert dlib_detector(np.full((300, 300, 3), 128, np.uint8)) == []


def test_boxes_stay_inside_the_photo(dlib_detector):
    photo = pixels(ASTRONAUT)[60:190, 150:290]  # the face fills the photo
    for found in DlibDetector()(np.ascontiguousarray(photo)):
        assert 0 <= found.box.left < found.box.right <= photo.shape[1]
        assert 0 <= found.box.top < found.box.bottom <= photo.shape[0]
