"""The traces that up-sampling decoders leave, put on a whole photo: a stand-in for entire face synthesis.

The photo is taken apart into octaves and put together again the way a decoder does it, each octave up-sampled by a
learned, imperfect kernel. The photo keeps its look; what is between two pixels of a coarser grid leaves replicas of the
spectrum at multiples of 1/2, 1/4 and 1/8 of the sampling rate (Odena et al. 2016; Durall et al. 2020; Corvi et al.
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from ffaa.data.forge.base import ForgeFace, Painted, blur, lay
from ffaa.types import Record

DECODERS = ("transposed", "zero", "nearest", "latent")
_REGIONS = ("left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth", "skin")


class Synthesis(Record):
    """decoder: 'transposed' (4 x 4, stride 2), 'zero' (insertion, then 3 x 3), 'nearest' (then 3 x 3), 'latent' (the
    same over an 8 x 8 grid, as the VAE decoders of diffusion models).

    octaves: how often the decoder doubles. kernels: per octave, (n, n) errors of the learned kernel's weights.
    phases: per octave and colour, the gains of the four pixels of a 2 x 2 cell. details: per octave, the share of the
    photo's details that the decoder brings back. denoise: sigma of the grain that it does not, in pixels.
    """

    decoder: Literal["transposed", "zero", "nearest", "latent"]
    octaves: int
    kernels: list[list[list[float]]]
    phases: list[list[list[float]]]
    details: list[float]
    denoise: float


def draw(rng: np.random.Generator) -> Synthesis:
    """Two or three octaves, three for a latent grid; kernels off by some per cent."""
    decoder = str(rng.choice(DECODERS))
    octaves = 3 if decoder == "latent" else int(rng.integers(2, 4))
    side = 4 if decoder == "transposed" else 3
    # where zeros were inserted, an error of the kernel weighs on one pixel in four alone
    error = 0.03 if decoder in ("nearest", "latent") else 0.012
    return Synthesis(
        decoder=decoder,  # type: ignore[arg-type]
        octaves=octaves,
        kernels=rng.normal(0, error, (octaves, side, side)).tolist(),
        # a coarse grid has to outlast the smoothing of the finer octaves
        phases=[_gains(rng, 0.003 * 3**octave).tolist() for octave in range(octaves)],
        details=rng.uniform(0.8, 1.0, octaves).tolist(),
        denoise=rng.uniform(0.4, 0.7),
    )


def _gains(rng: np.random.Generator, spread: float) -> np.ndarray:
    """(3, 4): nearly the same for the three colours, as they come from the same features."""
    common = rng.normal(size=4)
    common -= common.mean()
    return spread * (common / common.std() + rng.normal(0, 0.3, (3, 4)))


def _double(image: np.ndarray, decoder: str, errors: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """float32 (h, w, 3) -> (2h, 2w, 3) by one layer of the decoder."""
    height, width = image.shape[:2]
    if decoder in ("nearest", "latent"):
        large = np.repeat(np.repeat(image, 2, 0), 2, 1)
        kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    else:
        large = np.zeros((2 * height, 2 * width, 3), np.float32)
        large[::2, ::2] = image
        line = [0.25, 0.75, 0.75, 0.25] if decoder == "transposed" else [0.5, 1.0, 0.5]
        kernel = np.outer(line, line)
    kernel = kernel * (1 + errors)
    kernel *= (1 if decoder in ("nearest", "latent") else 4) / kernel.sum()
    large = cv2.filter2D(large, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)
    gains = (1 + phases - phases.mean(1, keepdims=True)).reshape(3, 2, 2).transpose(1, 2, 0)
    return large * np.tile(gains, (height, width, 1)).astype(np.float32)


def decode(params: Synthesis, photo: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> float32 (H, W, 3): the photo as the decoder would have given it."""
    height, width = photo.shape[:2]
    cell = 2**params.octaves
    padded = cv2.copyMakeBorder(photo, 0, -height % cell, 0, -width % cell, cv2.BORDER_REFLECT)
    levels = [blur(padded.astype(np.float32), params.denoise)]
    for _ in range(params.octaves):
        # zero insertion keeps every second pixel in its place; the others keep the centres of 2 x 2 cells
        coarse = (
            cv2.pyrDown(levels[-1])
            if params.decoder == "zero"
            else cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        )
        levels.append(coarse)
    image = levels[-1]
    for octave in reversed(range(params.octaves)):
        kernel, phases = np.array(params.kernels[octave]), np.array(params.phases[octave])
        details = levels[octave] - _double(levels[octave + 1], params.decoder, 0 * kernel, 0 * phases)
        image = _double(image, params.decoder, kernel, phases) + params.details[octave] * details
    return image[:height, :width]


def render(params: Synthesis, faces: Sequence[ForgeFace]) -> Painted:
    """The whole photo anew; its mask is 1 everywhere."""
    face = faces[0]
    everywhere = (slice(0, face.photo.shape[0]), slice(0, face.photo.shape[1]))
    alpha = np.ones(face.photo.shape[:2], np.float32)
    image, mask = lay(face, everywhere, decode(params, face.photo), alpha)
    return Painted(image, mask, _REGIONS)
