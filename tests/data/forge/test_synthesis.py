"""Replicas in the spectrum where an up-sampling decoder leaves them, and nowhere else."""

import cv2
import numpy as np
import pytest

from ffaa.data.forge.operations import forge
from ffaa.data.forge.synthesis import DECODERS, decode, draw

SIDE = 504  # a multiple of 8 and of 3: grids of both periods fall onto exact frequencies


def peak(photo, period):
    """How far the spectrum of the photo's fine grain stands out at multiples of 1/period: times the median around.

    The strongest of the colours and of the frequencies (i, j) / period that no coarser period shares is taken.
    """
    pixels = photo[:SIDE, :SIDE].astype(np.float32)
    grain = np.clip(pixels - cv2.GaussianBlur(pixels, (0, 0), 4), -4, 4)  # clipped: edges do not count
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))[..., None]
    spectra = np.abs(np.fft.fft2((grain - grain.mean((0, 1))) * window, axes=(0, 1)))
    step, found = SIDE // period, []
    for i in range(period):
        for j in range(period):
            if i % 2 == 0 and j % 2 == 0:  # belongs to period / 2
                continue
            around = np.roll(spectra, (20 - i * step, 20 - j * step), (0, 1))[:41, :41]
            found.append(around[19:22, 19:22].max((0, 1)) / np.median(around, (0, 1)))
    return np.max(found)


@pytest.fixture(scope="module")
def originals(hopper, astronaut):
    return [hopper, astronaut]


def made(decoder, octaves, photo):
    rng = np.random.default_rng(DECODERS.index(decoder))
    while True:
        params = draw(rng)
        if params.decoder == decoder and params.octaves == octaves:
            return np.clip(decode(params, photo) + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_originals_have_no_grid(originals, period):
    assert max(peak(photo, period) for photo in originals) < 6


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_of_three_octaves_leaves_replicas_at_halves_quarters_and_eighths(originals, decoder):
    for photo in originals:
        forged = made(decoder, 3, photo)
        for period in (2, 4, 8):
            assert peak(forged, period) > max(7, 2 * peak(photo, period)), period
        assert peak(forged, 3) < 6  # no grid of another period


@pytest.mark.parametrize("decoder", ["transposed", "zero", "nearest"])
def test_two_octaves_leave_nothing_at_eighths(originals, decoder):
    for photo in originals:
        forged = made(decoder, 2, photo)
        assert min(peak(forged, 2), peak(forged, 4)) > 7
        assert peak(forged, 8) < 6


def test_the_photo_keeps_its_look(faces):
    for seed in range(12):
        for face in faces:
            forged = forge("synthesis", seed, [face]).image.astype(np.float32)
            error = np.sqrt(((forged - face.photo) ** 2).mean())
            assert 1 < error < 10, seed
            thumbs = [
                cv2.resize(i.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) for i in (forged, face.photo)
            ]
            assert np.abs(thumbs[0] - thumbs[1]).max() < 8, seed


def test_a_perfect_decoder_would_change_nothing(hopper):
    """What is left is only what the kernels, the gains and the lost details do."""
    for decoder in DECODERS:
        rng = np.random.default_rng(1)
        params = draw(rng)
        while params.decoder != decoder:
            params = draw(rng)
        perfect = params.model_copy(
            update={
                "kernels": (0 * np.array(params.kernels)).tolist(),
                "phases": (0 * np.array(params.phases)).tolist(),
                "details": [1.0] * params.octaves,
                "denoise": 0.0,
            }
        )
        assert np.abs(decode(perfect, hopper) - cv2.GaussianBlur(hopper.astype(np.float32), (0, 0), 0.3)).max() < 1e-2


@pytest.mark.parametrize("shape", [(101, 67), (64, 64), (33, 90)])
def test_any_size(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert decode(draw(np.random.default_rng(2)), photo).shape == photo.shape
