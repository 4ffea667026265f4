"""Sharpness, light and JPEG quality on the two portraits and on made files."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.data.quality import jpeg_quality, measure_quality
from ffaa.errors import InputError


def saved(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def crops(hopper, astronaut):
    return [
        cv2.resize(part, (224, 224), interpolation=cv2.INTER_AREA)
        for part in (hopper[60:420, 90:450], astronaut[0:230, 110:340])
    ]


def test_blur_lowers_sharpness_and_contrast_hardly_changes_it(crops):
    for crop in crops:
        plain = measure_quality(crop).sharpness
        softer = [measure_quality(cv2.GaussianBlur(crop, (0, 0), sigma)).sharpness for sigma in (0.7, 1.5, 3)]
        assert plain > softer[0] > softer[1] > softer[2]
        assert softer[1] < 0.5 * plain
        grey = measure_quality((crop * 0.6 + 40).astype(np.uint8)).sharpness
        assert grey == pytest.approx(plain, rel=0.15)


def test_sharpness_of_noise_and_of_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 1), np.uint8).repeat(3, axis=2)
    assert measure_quality(noise).sharpness == pytest.approx(20, rel=0.05)
    assert measure_quality(np.full((224, 224, 3), 77, np.uint8)).sharpness == 0


def test_light_and_colour():
    found = measure_quality(np.full((64, 64, 3), (255, 102, 0), np.uint8))
    assert (found.red, found.green, found.blue) == pytest.approx((1, 0.4, 0))
    assert found.brightness == pytest.approx(0.299 + 0.587 * 0.4, abs=0.003)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_jpeg_quality_is_the_one_that_was_asked_for(crops, options):
    for quality in (1, 5, 30, 49, 50, 51, 75, 92, 95, 99, 100):
        assert jpeg_quality(saved(crops[0], format="JPEG", quality=quality, **options)) == quality


def test_grey_jpeg_and_path(crops, tmp_path):
    path = tmp_path / "grey.jpg"
    path.write_bytes(saved(crops[0][:, :, 0], format="JPEG", quality=83))
    assert jpeg_quality(path) == 83


def test_other_tables_give_the_nearest_quality(crops):
    flat = [10] * 64  # as large as luma's of 91, as chroma's of 95
    found = jpeg_quality(saved(crops[0], format="JPEG", qtables=[flat, flat]))
    assert 90 <= found <= 96


def test_no_jpeg_no_quality(crops):
    whole = saved(crops[0], format="JPEG", quality=80)
    for data in (b"", b"\xff\xd8", saved(crops[0], format="PNG"), whole[1:], whole[:30], b"\xff\xd8\xff" + bytes(500)):
        assert jpeg_quality(data) is None
    assert jpeg_quality(whole[: len(whole) // 2]) == 80  # the header is whole


def test_damaged_headers_raise_nothing(crops):
    whole = saved(crops[0], format="JPEG", quality=80)
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole[:700])
        for place in rng.integers(2, 700, 6):
            data[place] = rng.integers(256)
        assert jpeg_quality(bytes(data)) in (None, *range(1, 101))


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("", "missing.jpg", "pipe.jpg"):
        with pytest.raises(InputError, match="no regular one"):
            jpeg_quality(tmp_path / name)
