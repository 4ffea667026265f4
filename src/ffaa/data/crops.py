"""Face crops of a manifest as training and test images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffaa.data.faces import Detection, cut, face_rect, resize_square, whole_image
from ffaa.data.forge.self_blend import self_blend
from ffaa.data.images import load_photo
from ffaa.data.manifest import Row
from ffaa.data.shards import read_bytes
from ffaa.errors import InputError
from ffaa.types import Box, Crop, Face, ForgeryType, Label


@dataclass(frozen=True)
class Sample:
    """image uint8 RGB (size, size, 3); mask float32 (7, 7) share of changed pixels per cell, or -1 where unknown;
    rect: the face's (left, top, right, bottom) in crop pixels."""

    image: np.ndarray
    label: Label
    forgery_type: ForgeryType
    mask: np.ndarray
    rect: tuple[int, int, int, int]


def read_photo(root: Path, row: Row) -> np.ndarray:
    """uint8 RGB pixels of a manifest row's file. Raises InputError when it cannot be decoded."""
    if not row.size:
        return load_photo(root / row.path).pixels
    data = np.frombuffer(read_bytes(root, row), np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if bgr is None:
        raise InputError(f"{root / row.path}: the crop is damaged; build the data again")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def plain_face(photo: np.ndarray, row: Row, size: int) -> Face:
    """The face image that `analyze` makes: the paper's rule, or the centre square where no face was found.

    photo: what `read_photo` gives; a row's crop is taken as it is.
    """
    if row.crop is not None:
        crop = row.crop.model_copy(update={"size": size})
        return Face(resize_square(photo, size), row.box or crop.region, crop, "", row.score)
    if row.box is None:
        return whole_image(photo, size)
    return cut(photo, Detection(row.box, 0.0), size, "")


def _holds(outer: Box, inner: Box) -> bool:
    return (
        outer.left <= inner.left
        and outer.top <= inner.top
        and inner.right <= outer.right
        and inner.bottom <= outer.bottom
    )


def _train_region(row: Row, rng: np.random.Generator) -> Box:
    """A face region with random padding: 40 px are a wide frame on a small photo, a narrow one on a large one."""
    side = min(row.width, row.height)
    left, top = (row.width - side) // 2, (row.height - side) // 2
    centre = Box(left=left, top=top, right=left + side, bottom=top + side)
    box = row.file_box
    if box is None or (rng.random() < 0.05 and _holds(centre, box)):
        return centre
    pad = rng.uniform(0.02, 0.32, 4) * box.width
    return Box(
        left=max(0, round(box.left - pad[0])),
        top=max(0, round(box.top - pad[1])),
        right=min(row.width, round(box.right + pad[2])),
        bottom=min(row.height, round(box.bottom + pad[3])),
    )


@cache
def augmentation(size: int, strength: float = 1.0) -> Any:
    """The paper's MIDS augmentations and a change of size, with probabilities scaled by `strength`."""
    import albumentations as A

    return A.Compose(
        [
            A.RandomScale((-0.45, -0.05), interpolation=cv2.INTER_AREA, p=0.25 * strength),
            A.OneOf([A.GaussianBlur((3, 5), p=1), A.MotionBlur(3, p=1)], p=0.12 * strength),
            A.RandomBrightnessContrast(0.18, 0.25, p=0.5),
            A.HueSaturationValue(8, 30, 10, p=0.3),
            A.ToGray(p=0.05),
            A.GaussNoise(std_range=(0.005, 0.03), p=0.12 * strength),
            A.ImageCompression(quality_range=(65, 98), p=0.4 * strength),
            A.Resize(size, size, interpolation=cv2.INTER_CUBIC),
        ]
    )


def train_sample(root: Path, row: Row, size: int, rng: np.random.Generator, blend: float = 0.0) -> Sample:
    """An augmented training crop; with probability `blend` a real photo becomes a self-blended forgery."""
    photo = read_photo(root, row)
    region = _train_region(row, rng)
    face = photo[region.top : region.bottom, region.left : region.right]
    left, top, right, bottom = face_rect(
        Crop(region=region, padding=0, size=size, whole_image=row.box is None), row.file_box or region
    )
    label, kind = row.label, row.forgery_type
    mask: np.ndarray | None = np.zeros(face.shape[:2], np.float32) if label is Label.REAL else None
    if kind is ForgeryType.ENTIRE_FACE_SYNTHESIS:
        mask = np.ones(face.shape[:2], np.float32)
    if label is Label.REAL and rng.random() < blend:
        face, mask = self_blend(face, rng)
        label, kind = Label.FAKE, ForgeryType.IDENTITY_EXCHANGE
    if rng.random() < 0.5:
        face, mask = face[:, ::-1], None if mask is None else mask[:, ::-1]
        left, right = size - right, size - left
    transform = augmentation(size)
    transform.set_random_seed(int(rng.integers(2**31)))
    cells: np.ndarray = np.full((7, 7), -1, np.float32)
    if mask is None:
        image = transform(image=np.ascontiguousarray(face))["image"]
    else:
        out = transform(image=np.ascontiguousarray(face), mask=np.ascontiguousarray(mask))
        image, cells = (
            out["image"],
            cv2.resize(np.asarray(out["mask"], np.float32), (7, 7), interpolation=cv2.INTER_AREA),
        )
    return Sample(image, label, kind, cells, (left, top, right, bottom))
