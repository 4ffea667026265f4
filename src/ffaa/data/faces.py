"""Faces out of a photo: detectors behind one interface, and the paper's crop rule.

Crop rule (paper, appendix A, and `FFAA` inference): the detector's box, padded by up to 40 px, limited by
the nearest photo border so that the padding is the same on all sides, resized to a square.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import cv2
import numpy as np

from ffaa.errors import UsageError
from ffaa.types import Box, Crop, Face

PADDING = 40
MIN_FACE = 40
# dlib's frontal detector finds faces from about 80 px on: small photos are enlarged for it, and beyond 1,024 px
# it only costs time.
DETECT_MIN_SIDE = 512
DETECT_MAX_SIDE = 1024
# False hits on enlarged photos score below this; of 394 training faces 1.8 % do.
MIN_SCORE = 0.1


@dataclass(frozen=True)
class Detection:
    """A face box in photo pixels and the detector's score (higher is surer; no probability)."""

    box: Box
    score: float


class Detector(Protocol):
    """Finds faces in a uint8 RGB (H, W, 3) photo; boxes lie inside the photo."""

    name: str

    def __call__(self, photo: np.ndarray) -> list[Detection]: ...


class DlibDetector:
    """dlib's frontal HOG detector (the `dlib-bin` wheel; needs no model file)."""

    name = "dlib-frontal"

    def __init__(self) -> None:
        import dlib

        self._detect: Any = dlib.get_frontal_face_detector()  # type: ignore[attr-defined]
        self._lock = threading.Lock()  # it keeps the photo that it scans

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        height, width = photo.shape[:2]
        side = max(height, width)
        scale = min(max(side, DETECT_MIN_SIDE), DETECT_MAX_SIDE) / side
        view = photo
        if scale != 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            view = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        with self._lock:
            boxes, scores, _ = self._detect.run(np.ascontiguousarray(view), 0, MIN_SCORE)
        found = []
        for rect, score in zip(boxes, scores, strict=True):
            box = Box(
                left=min(max(round(rect.left() / scale), 0), width - 1),
                top=min(max(round(rect.top() / scale), 0), height - 1),
                right=max(min(round((rect.right() + 1) / scale), width), 1),
                bottom=max(min(round((rect.bottom() + 1) / scale), height), 1),
            )
            if box.width > 0 and box.height > 0:
                found.append(Detection(box, float(score)))
        return found


DETECTORS: dict[str, type[Detector]] = {DlibDetector.name: DlibDetector}


@cache
def detector(name: str = DlibDetector.name) -> Detector:
    """The detector called `name`, made once per process. Raises UsageError for an unknown name."""
    if name not in DETECTORS:
        raise UsageError(f"unknown face detector '{name}'; known: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[name]()


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> (size, size, 3): area averaging when it shrinks, bicubic when it grows."""
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    shrinks = min(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def crop_region(box: Box, width: int, height: int, padding: int = PADDING) -> tuple[Box, int]:
    """The padded region of a `width` x `height` photo and the padding used on every side, in pixels."""
    pad = max(0, min(padding, box.left, box.top, width - box.right, height - box.bottom))
    return Box(left=box.left - pad, top=box.top - pad, right=box.right + pad, bottom=box.bottom + pad), pad


def cut(photo: np.ndarray, detection: Detection, size: int, name: str, padding: int = PADDING) -> Face:
    """One face image by the crop rule."""
    region, pad = crop_region(detection.box, photo.shape[1], photo.shape[0], padding)
    pixels = photo[region.top : region.bottom, region.left : region.right]
    return Face(
        image=resize_square(pixels, size),
        box=detection.box,
        crop=Crop(region=region, padding=pad, size=size),
        detector=name,
        score=detection.score,
    )


def whole_image(photo: np.ndarray, size: int) -> Face:
    """The photo taken as a face crop already: its centre square, resized."""
    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    region = Box(left=left, top=top, right=left + side, bottom=top + side)
    pixels = photo[top : top + side, left : left + side]
    return Face(
        resize_square(pixels, size), region, Crop(region=region, padding=0, size=size, whole_image=True), "none"
    )


def face_rect(crop: Crop, box: Box) -> tuple[int, int, int, int]:
    """The detector's box in pixels of the face image; the middle 70 % when no detector ran."""
    size = crop.size
    if crop.whole_image:
        return (int(0.15 * size), int(0.15 * size), int(0.85 * size), int(0.85 * size))
    x, y = size / crop.region.width, size / crop.region.height
    return (
        max(0, round((box.left - crop.region.left) * x)),
        max(0, round((box.top - crop.region.top) * y)),
        min(size, round((box.right - crop.region.left) * x)),
        min(size, round((box.bottom - crop.region.top) * y)),
    )


def split_by_size(found: Sequence[Detection], min_face: int = MIN_FACE) -> tuple[list[Detection], list[Detection]]:
    """(usable, too small), each largest first. A face is usable when its box is at least `min_face` px wide."""
    ordered = sorted(found, key=lambda d: (-d.box.width * d.box.height, d.box.left, d.box.top))
    usable = [d for d in ordered if d.box.width >= min_face]
    return usable, [d for d in ordered if d.box.width < min_face]
