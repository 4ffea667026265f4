import numpy as np
import pytest

from ffaa.data.forge.self_blend import blob_mask, self_blend


@pytest.fixture(scope="module")
def face(tiny_crops):
    return tiny_crops[0]


@pytest.fixture(scope="module")
def forged(face):
    return [self_blend(face, np.random.default_rng(seed)) for seed in range(40)]


def test_the_same_generator_gives_the_same_forgery(face, forged):
    again, mask = self_blend(face, np.random.default_rng(5))
    assert np.array_equal(again, forged[5][0])
    assert np.array_equal(mask, forged[5][1])
    assert not np.array_equal(forged[5][0], forged[6][0])


def test_shapes_and_ranges(face, forged):
    before = face.copy()
    for image, mask in forged:
        assert image.shape == face.shape
        assert image.dtype == np.uint8
        assert mask.shape == face.shape[:2]
        assert mask.dtype == np.float32
        assert mask.min() >= 0
        assert 0.5 < mask.max() <= 1 + 1e-5
        assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.01  # never the corners
        assert 0.02 < (mask > 0.3).mean() < 0.7
    assert np.array_equal(face, before)


def test_outside_the_mask_either_nothing_or_the_whole_copy_is_changed(face, forged):
    """Half of the time the head is untouched and the face changed; else the other way round."""
    untouched = 0
    for image, mask in forged:
        outside = np.abs(image.astype(int) - face)[mask == 0]
        if outside.max() == 0:
            untouched += 1
            assert np.abs(image.astype(int) - face)[mask > 0.3].mean() > 0.5
        else:  # the copy as a whole was recoloured
            assert (outside.max(-1) > 0).mean() > 0.5
    assert 10 <= untouched <= 30


def test_the_seam_is_feathered(forged):
    for _, mask in forged:
        top = mask.max()
        between = (mask > 0.05 * top) & (mask < 0.95 * top)
        assert between.any()
        assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.6 * top


@pytest.mark.parametrize(("height", "width"), [(40, 40), (300, 200), (64, 200)])
def test_any_size(height, width):
    rng = np.random.default_rng(0)
    face = rng.integers(0, 256, (height, width, 3), np.uint8)
    image, mask = self_blend(face, rng)
    assert image.shape == face.shape
    assert mask.shape == (height, width)
    assert blob_mask(height, width, rng).shape == (height, width)
