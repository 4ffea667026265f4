"""Face crops of a manifest as training and test images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffaa.data.faces import Detection, cut, face_rect, resize_square, whole_image
from ffaa.data.forge import synthesis
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


def seed_each(transform: Any, rng: np.random.Generator) -> None:
    """Give an albumentations transform and all inside it seeds of their own.

    Its `set_random_seed` gives the same one to all inside, and then they are applied together or not at all.
    """
    transform.set_random_seed(int(rng.integers(2**31)))
    for inner in getattr(transform, "transforms", ()):
        seed_each(inner, rng)


def borrow_colours(image: np.ndarray, other: np.ndarray, weight: float) -> np.ndarray:
    """uint8 RGB `image` with means and deviations of `other` in CIE Lab, by `weight` in [0, 1] (Reinhard et al. 2001).

    Two photos of one collection often share a look; an image with the look of another says nothing by it.
    """
    own, wanted = (cv2.cvtColor(i.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for i in (image, other))
    mean, deviation = own.mean((0, 1)), own.std((0, 1)) + 1e-3
    gain = np.clip(wanted.std((0, 1)) / deviation, 0.5, 2.0)
    moved = (own - mean) * gain + wanted.mean((0, 1))
    mixed = (own + weight * (moved - own)).astype(np.float32)
    return np.clip(np.round(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB) * 255), 0, 255).astype(np.uint8)


def blur_out(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> the same size out of focus (a Gaussian of 0.3 to 1.5 % of the width), or enlarged from 15
    to 50 % of it.

    Nearly all of what up-sampling and blending leave behind is gone after that; so it is in a bad photo of a real face.
    """
    height, width = face.shape[:2]
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(face, (0, 0), rng.uniform(0.003, 0.015) * width))
    share = rng.uniform(0.15, 0.5)
    few = cv2.resize(face, (max(1, round(share * width)), max(1, round(share * height))), interpolation=cv2.INTER_AREA)
    way = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return np.asarray(cv2.resize(few, (width, height), interpolation=way))


def _known_mask(root: Path, row: Row, shape: tuple[int, ...]) -> np.ndarray | None:
    """float32 (H, W): the share of the forgery in every pixel of the row's file; None where it is not known."""
    if row.label is Label.REAL:
        return np.zeros(shape[:2], np.float32)
    if row.forgery_type is ForgeryType.ENTIRE_FACE_SYNTHESIS:
        return np.ones(shape[:2], np.float32)
    if not row.mask:
        return None
    mask = cv2.imread(str(root / row.mask), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != shape[:2]:
        raise InputError(f"{root / row.mask}: missing, or of another size than its photo; build the data again")
    return mask.astype(np.float32) / 255


def train_sample(
    root: Path,
    row: Row,
    size: int,
    rng: np.random.Generator,
    blend: float = 0.0,
    decode: float = 0.0,
    colours: Row | None = None,
    strength: float = 1.0,
    together: bool = False,
    blurred: float = 0.0,
) -> Sample:
    """An augmented training crop.

    blend, decode: the shares of real photos that become forgeries, self-blended or with the traces of a decoder.
    colours: a row whose look the crop takes on, more or less. strength: see `augmentation`. together: one draw
    decides which augmentations apply, so that half of the samples get none and a few get all. blurred: the share of
    crops, real and forged alike, that `blur_out` takes the fine detail from.
    """
    photo = read_photo(root, row)
    region = _train_region(row, rng)
    face = photo[region.top : region.bottom, region.left : region.right]
    left, top, right, bottom = face_rect(
        Crop(region=region, padding=0, size=size, whole_image=row.box is None), row.file_box or region
    )
    label, kind = row.label, row.forgery_type
    mask = _known_mask(root, row, photo.shape)
    if mask is not None:
        mask = mask[region.top : region.bottom, region.left : region.right]
    if label is Label.REAL:
        drawn = rng.random()
        if drawn < blend:
            face, mask = self_blend(face, rng)
            label, kind = Label.FAKE, ForgeryType.IDENTITY_EXCHANGE
        elif drawn < blend + decode:
            face = np.clip(np.round(synthesis.decode(synthesis.draw(rng), face)), 0, 255).astype(np.uint8)
            mask = np.ones(face.shape[:2], np.float32)
            label, kind = Label.FAKE, ForgeryType.ENTIRE_FACE_SYNTHESIS
    if colours is not None:
        face = borrow_colours(face, read_photo(root, colours), rng.uniform(0.4, 1.0))
    if blurred and rng.random() < blurred:
        face = blur_out(face, rng)
    if rng.random() < 0.5:
        face, mask = face[:, ::-1], None if mask is None else mask[:, ::-1]
        left, right = size - right, size - left
    transform = augmentation(size, strength)
    if together:
        transform.set_random_seed(int(rng.integers(2**31)))
    else:
        seed_each(transform, rng)
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
