"""The hash on two portraits and their copies, the links against brute force."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.data.phash import DISTANCE, hash_array, links, phash
from ffaa.errors import UsageError


def bits_apart(a, b):
    return int(np.bitwise_count(hash_array([phash(a)]) ^ hash_array([phash(b)])).sum())


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def brute(hashes, distance):
    found = np.full(len(hashes), -1)
    for i in range(len(hashes)):
        near = np.flatnonzero(np.bitwise_count(hashes[:i] ^ hashes[i]).sum(axis=1) <= distance)
        if len(near):
            found[i] = near[0]
    return found


def flipped(words, places):
    bits = np.unpackbits(words.view(np.uint8))
    bits[places] ^= 1
    return np.packbits(bits).view(np.uint64)


def test_copies_are_near_and_other_photos_far(hopper, astronaut):
    assert len(phash(hopper)) == 32
    for photo in (hopper, astronaut):
        for copy in (
            jpeg(photo, 60),
            cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
            np.clip(photo * 1.1 + 8, 0, 255).astype(np.uint8),
        ):
            assert bits_apart(photo, copy) <= DISTANCE
        assert bits_apart(photo, photo[:, ::-1]) > 60
    assert bits_apart(hopper, astronaut) > 60


def test_half_of_the_bits_are_set(hopper):
    assert 127 <= np.unpackbits(np.frombuffer(phash(hopper), np.uint8)).sum() <= 129


@pytest.mark.parametrize("level", [0, 7, 128, 255])
def test_flat_pictures_of_any_size_have_no_noise(level):
    flat = phash(np.full((50, 70, 3), level, np.uint8))
    assert flat == phash(np.full((224, 224, 3), level, np.uint8))
    assert np.unpackbits(np.frombuffer(flat, np.uint8)).sum() <= 1


@pytest.mark.parametrize("words", [1, 4])
@pytest.mark.parametrize("distance", [0, 1, 3, 7, 16])
def test_links_are_those_of_brute_force(words, distance):
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**64, (40, words), np.uint64)
    hashes = np.array(
        [flipped(centres[rng.integers(40)], rng.integers(0, 64 * words, rng.integers(0, 14))) for _ in range(600)]
    )
    expected = brute(hashes, distance)
    assert 0 < (expected >= 0).sum() < 600
    assert np.array_equal(links(hashes, distance), expected)


def test_links_at_the_very_distance():
    start = np.arange(4, dtype=np.uint64)
    at, beyond = flipped(start, np.arange(0, 256, 16)), flipped(start, np.arange(0, 255, 15)[:17])
    assert links(np.array([start, at]), 16).tolist() == [-1, 0]
    assert links(np.array([start, beyond]), 16).tolist() == [-1, -1]


def test_a_chain_is_linked_to_the_first_that_is_near():
    chain = [np.zeros(4, np.uint64)]
    for step in range(4):
        chain.append(flipped(chain[-1], np.arange(10 * step, 10 * step + 10)))
    assert links(np.array(chain), 16).tolist() == [-1, 0, 1, 2, 3]
    assert links(np.array(chain), 20).tolist() == [-1, 0, 0, 1, 2]


def test_many_equal_hashes_are_linked_to_the_first():
    hashes = np.zeros((200_000, 4), np.uint64)
    hashes[0], hashes[7] = 5, flipped(np.zeros(4, np.uint64), np.arange(30, 36))
    found = links(hashes, 3)  # 2 * 10^10 pairs, were they formed
    assert found[:9].tolist() == [-1, -1, 1, 1, 1, 1, 1, -1, 1]
    assert (found[8:] == 1).all()


def test_few_hashes():
    assert links(np.zeros((0, 4), np.uint64)).tolist() == []
    assert links(hash_array([bytes(32)])).tolist() == [-1]
    assert hash_array([]).shape == (0, 4)


@pytest.mark.parametrize("distance", [-1, 256])
def test_a_distance_that_cannot_be(distance):
    with pytest.raises(UsageError, match="distance"):
        links(np.zeros((2, 4), np.uint64), distance)
