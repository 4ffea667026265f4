"""What a face image is worth for training: sharpness, light and colour, and how hard its JPEG file was compressed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from ffaa.data.images import shown
from ffaa.errors import InputError

# The luma and chroma tables of ITU-T T.81, annex K, in row order; the Independent JPEG Group's encoder scales them.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 " + "99 " * 32
)
_HEADER = 16 * 2**20  # bytes; tables stand before the picture, after any EXIF block, colour profile and thumbnail


@dataclass(frozen=True)
class Quality:
    """sharpness: variance of the Laplacian / variance of the grey values, 0 (flat) to about 20 (white noise); a change
    of brightness or contrast leaves it nearly as it was. brightness: mean luma (BT.601), red, green, blue: means,
    0..1."""

    sharpness: float
    brightness: float
    red: float
    green: float
    blue: float


def measure_quality(crop: np.ndarray) -> Quality:
    """uint8 RGB (S, S, 3) -> Quality, at the crop's own size: crops of one size can be compared."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    edges = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0]) ** 2
    red, green, blue = (value / 255 for value in cv2.mean(crop)[:3])
    # One grey level of variance is added: a flat picture has no contrast to divide by.
    return Quality(edges / (float(deviation[0, 0]) ** 2 + 1), float(mean[0, 0]) / 255, red, green, blue)


@cache
def _tables() -> np.ndarray:
    """int (100, 2, 64): the luma and chroma tables of the IJG qualities 1..100 (jpeg_quality_scaling, baseline)."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    base = np.array([_LUMA.split(), _CHROMA.split()], int)
    return np.clip((base * scale[:, None, None] + 50) // 100, 1, 255)


def jpeg_quality(data: bytes | Path) -> int | None:
    """The IJG quality, 1..100, whose tables are nearest to a JPEG's; None when it is no JPEG that can be read.

    Only the header is read. Encoders with tables of their own (cameras, Photoshop) get the nearest. Raises InputError
    when `data` is a path and not that of a regular file that may be read.
    """
    header = _header(data) if isinstance(data, Path) else data[:_HEADER]
    try:
        with JpegImageFile(io.BytesIO(header)) as image:
            tables = dict(getattr(image, "quantization", {}))
    except Exception:  # broken headers raise anything: SyntaxError, struct.error, IndexError ...
        return None
    known = [(place, tables[place]) for place in (0, 1) if len(tables.get(place, ())) == 64]
    if not known:
        return None
    off = sum(np.abs(_tables()[:, place] - np.array(table)).sum(axis=1) for place, table in known)
    return int(np.argmin(off)) + 1


def _header(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{shown(path)}: no such file, or no regular one; check the path")
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{shown(path)}: cannot be read ({reason}); check its rights") from None
