"""Makes docs/forge: one sheet per forgery, from the two public-domain portraits of examples/photos.

Each row: original, forged, mask, and the difference, made five times stronger; two rows side by side.
Run: python examples/make_forge_sheets.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from matplotlib import cbook
from skimage import data

from ffaa.data.faces import detector
from ffaa.data.forge.base import ForgeFace, find_points
from ffaa.data.forge.operations import OPERATIONS, forge

OUT = Path(__file__).parent.parent / "docs" / "forge"
SIDE = 190
# Draws that show each operation's kinds; even places are Hopper's photo, odd ones the astronaut's.
SEEDS = {
    "self_blend": (0, 1, 4, 3, 8, 7),
    "swap": (0, 1, 2, 3, 4, 5),
    "replace": (0, 1, 12, 3, 14, 15),
    "expression": (0, 1, 12, 5, 14, 11),
    "retouch": (0, 1, 2, 3, 4, 5),
    "synthesis": (0, 1, 14, 5, 8, 11),
}


def faces() -> list[ForgeFace]:
    """Hopper's face and the astronaut's."""
    hopper = cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    found = []
    for photo in (cv2.cvtColor(hopper, cv2.COLOR_BGR2RGB), np.ascontiguousarray(data.astronaut())):
        found.append(find_points(photo, max(detector()(photo), key=lambda d: d.score).box))
    return found


def view(image: np.ndarray, face: ForgeFace) -> np.ndarray:
    """The face and what is around it, SIDE x SIDE."""
    flat = face.points[:, :2]
    low, high = flat.min(0), flat.max(0)
    half = 0.68 * float((high - low).max())
    left, top = np.maximum((low + high) / 2 - half, 0).astype(int)
    part = image[top : top + int(2 * half), left : left + int(2 * half)]
    shrinks = part.shape[0] > SIDE
    return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def spectrum(image: np.ndarray) -> np.ndarray:
    """What stands out of the fine grain's spectrum, grey as RGB; frequency zero is in the middle."""
    grey = image[:504, :504].astype(np.float32).mean(2)
    grain = np.clip(grey - cv2.GaussianBlur(grey, (0, 0), 4), -4, 4)
    power = np.abs(np.fft.fft2(grain * np.outer(np.hanning(504), np.hanning(504))))
    power = np.log2(np.roll(power, (256, 256), (0, 1)) + 1).astype(np.float32)  # the highest frequency is inside, too
    ratio = power - cv2.medianBlur(np.round(power * 16).astype(np.uint8), 31) / np.float32(16)
    wide = cv2.dilate(np.clip((ratio - 1) / 4, 0, 1), np.ones((7, 7)))  # a peak is one bin wide
    return np.repeat(np.round(wide * 255).astype(np.uint8)[..., None], 3, 2)


def row(name: str, seed: int, both: list[ForgeFace]) -> np.ndarray:
    """Original, forged, mask, difference; for synthesis, whose mask is white, the two spectra instead of mask."""
    face = both[0]
    made = forge(name, seed, both[: OPERATIONS[name].people])
    difference = np.clip(np.abs(made.image.astype(int) - face.photo) * 5, 0, 255).astype(np.uint8)
    cells = [view(face.photo, face), view(made.image, face)]
    if name == "synthesis":
        cells += [
            cv2.resize(spectrum(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for image in (face.photo, made.image)
        ]
    else:
        mask = np.repeat(np.round(made.mask * 255).astype(np.uint8)[..., None], 3, 2)
        cells += [view(mask, face), view(difference, face)]
    return np.hstack(cells)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    hopper, astronaut = faces()
    for name, seeds in SEEDS.items():
        rows = [
            row(name, seed, [hopper, astronaut] if place % 2 == 0 else [astronaut, hopper])
            for place, seed in enumerate(seeds)
        ]
        sheet = np.vstack([np.hstack(rows[i : i + 2]) for i in range(0, len(rows), 2)])
        cv2.imwrite(str(OUT / f"{name}.jpg"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
