"""Makes examples/photos from two public-domain portraits that plain wheels carry.

real: grace_hopper.jpg (US Navy, in matplotlib), astronaut.jpg (NASA, in scikit-image).
forged: one face swapped into the other photo, and a self-blended copy; both made here.
Run: python examples/make_examples.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from matplotlib import cbook
from skimage import data

from ffaa.data.faces import detector
from ffaa.data.forge.self_blend import self_blend
from ffaa.types import Box

OUT = Path(__file__).parent / "photos"
QUALITY = 92
BLEND_SEED = 10


def save(name: str, rgb: np.ndarray) -> None:
    """Write an RGB photo as JPEG."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(OUT / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def face_box(photo: np.ndarray) -> Box:
    """The surest face of a photo."""
    return max(detector()(photo), key=lambda found: found.score).box


def swap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The inner face of `source` blended into `target`: box to box, colours matched, Poisson blending."""
    a, b = face_box(source), face_box(target)
    face = cv2.resize(source[a.top : a.bottom, a.left : a.right], (b.width, b.height), interpolation=cv2.INTER_AREA)
    mask = np.zeros((b.height, b.width), np.uint8)
    cv2.ellipse(
        mask, (b.width // 2, int(b.height * 0.54)), (int(b.width * 0.36), int(b.height * 0.44)), 0, 0, 360, 255, -1
    )
    centre = (b.left + b.width // 2, b.top + int(b.height * 0.54))
    return cv2.seamlessClone(face, target, mask, centre, cv2.NORMAL_CLONE)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    hopper = np.array(
        cv2.cvtColor(cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))), cv2.COLOR_BGR2RGB)
    )
    astronaut = np.ascontiguousarray(data.astronaut())
    save("grace_hopper.jpg", hopper)
    save("astronaut.jpg", astronaut)
    save("forged_swap.jpg", swap(hopper, astronaut))
    box = face_box(hopper)
    forged = hopper.copy()
    # a seed whose draw changes the inside of the mask and leaves the outside as it was
    blended, _ = self_blend(hopper[box.top : box.bottom, box.left : box.right], np.random.default_rng(BLEND_SEED))
    forged[box.top : box.bottom, box.left : box.right] = blended
    save("forged_blend.jpg", forged)


if __name__ == "__main__":
    main()
