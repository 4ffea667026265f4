"""What happens to photos on their way: compression, scaling, blur, noise, light, colour, video, another cut.

Every function takes a face crop, uint8 RGB (S, S, 3), in the size that all detectors see, and gives another, so that a
strength means the same for every photo, whatever its size. `shift` and `scale` cut the face anew from the photo. Random
numbers are drawn once per photo, whatever the strength: a stronger corruption does more of the same.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from PIL import Image

from ffaa.data.faces import resize_square
from ffaa.types import Box


class View(NamedTuple):
    """A face crop and where it was cut. photo: uint8 RGB (H, W, 3); of a built set its crop, beyond which nothing is
    known. region: of `photo`. image: the crop, (S, S, 3)."""

    photo: np.ndarray
    region: Box
    image: np.ndarray


def jpeg(view: View, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Saved as JPEG, colours at half size. quality: Pillow's, 1 to 95."""
    return _saved(view.image, format="JPEG", quality=round(quality), subsampling="4:2:0")


def webp(view: View, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Saved as lossy WebP. quality: 0 to 100."""
    return _saved(view.image, format="WEBP", quality=round(quality))


def _saved(image: np.ndarray, **options: Any) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return np.array(Image.open(file).convert("RGB"))


def h264(view: View, crf: float, rng: np.random.Generator) -> np.ndarray:
    """One key frame of H.264 (libx264, 4:2:0), as of a video. crf: 0 to 51, higher is worse."""
    height, width = view.image.shape[:2]
    even = cv2.copyMakeBorder(view.image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1  # the same bytes on any number of cores
    encoder.options = {"crf": str(round(crf)), "preset": "medium", "x264-params": "log-level=none"}
    pixels = np.ascontiguousarray(even, dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    decoder: Any = av.CodecContext.create("h264", "r")
    frames = [f for packet in [*encoder.encode(frame), *encoder.encode(None), None] for f in decoder.decode(packet)]
    return frames[0].to_ndarray(format="rgb24")[:height, :width]


def resize(view: View, share: float, rng: np.random.Generator) -> np.ndarray:
    """Made smaller (area averaging) and enlarged again (bicubic). share: of the side, 0 to 1."""
    side = max(2, round(share * view.image.shape[0]))
    return resize_square(resize_square(view.image, side), view.image.shape[0])


def blur(view: View, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur. sigma: pixels of the crop."""
    return cv2.GaussianBlur(view.image, (0, 0), sigma)


def noise(view: View, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, another for every channel. deviation: grey levels of 255."""
    return _levels(view.image + deviation * rng.standard_normal(view.image.shape, np.float32))


def brightness(view: View, change: float, rng: np.random.Generator) -> np.ndarray:
    """Lighter or darker, for half of the photos each. change: share of the brightness."""
    return _levels(view.image * np.float32(1 + change * _sign(rng)))


def saturation(view: View, change: float, rng: np.random.Generator) -> np.ndarray:
    """Colours stronger or weaker, for half of the photos each. change: share of the distance from grey; 1 weaker is
    grey."""
    grey = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return _levels(grey + (view.image - grey) * np.float32(1 + change * _sign(rng)))


def hue(view: View, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """All hues turned, either way for half of the photos. degrees: of the colour circle."""
    hsv = cv2.cvtColor(view.image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + degrees * _sign(rng)) % 360
    return _levels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)


def shift(view: View, share: float, rng: np.random.Generator) -> np.ndarray:
    """The face cut beside its place, in any direction. share: how far, of the crop's side."""
    angle = rng.uniform(0, 2 * np.pi)
    return _cut(view, share * np.cos(angle), share * np.sin(angle), 1.0)


def scale(view: View, change: float, rng: np.random.Generator) -> np.ndarray:
    """The face cut closer or wider, for half of the photos each. change: share of the crop's side."""
    return _cut(view, 0.0, 0.0, 1 + change * _sign(rng))


def _cut(view: View, right: float, down: float, factor: float) -> np.ndarray:
    """The region moved and scaled about its centre; beyond the photo's border the photo is mirrored."""
    size, box = view.image.shape[0], view.region
    width, height = factor * box.width, factor * box.height
    left = (box.left + box.right - width) / 2 + right * box.width
    top = (box.top + box.bottom - height) / 2 + down * box.height
    x, y = round(left), round(top)
    w, h = max(2, round(width)), max(2, round(height))
    rows, columns = (_mirrored(np.arange(at, at + n), limit) for at, n, limit in
                     ((y, h, view.photo.shape[0]), (x, w, view.photo.shape[1])))  # fmt: skip
    return resize_square(view.photo[rows][:, columns], size)


def _mirrored(places: np.ndarray, limit: int) -> np.ndarray:
    """Places on a line of pixels that is mirrored at both ends, the outermost pixel once."""
    period = max(1, 2 * limit - 2)
    folded = places % period
    return np.where(folded < limit, folded, period - folded)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Corruption(NamedTuple):
    """strengths: the usual ones, from weak to strong. unit: of a strength. limits: the least and greatest number."""

    apply: Callable[[View, float, np.random.Generator], np.ndarray]
    strengths: tuple[float, ...]
    unit: str
    limits: tuple[float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "jpeg": Corruption(jpeg, (90, 70, 50, 30, 10), "quality", (1, 95)),
    "webp": Corruption(webp, (90, 70, 50, 30, 10), "quality", (0, 100)),
    "h264": Corruption(h264, (18, 23, 28, 34, 40), "CRF", (0, 51)),
    "resize": Corruption(resize, (0.75, 0.5, 0.35, 0.25, 0.15), "share of the side", (0.01, 1)),
    "blur": Corruption(blur, (0.5, 1, 1.5, 2.5, 4), "sigma, px", (0.1, 50)),
    "noise": Corruption(noise, (2, 5, 10, 20, 30), "deviation of 255", (0, 255)),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.45, 0.6), "share, either way", (0, 1)),
    "saturation": Corruption(saturation, (0.2, 0.4, 0.6, 0.8, 1), "share, either way", (0, 1)),
    "hue": Corruption(hue, (5, 10, 20, 40, 80), "degrees, either way", (0, 180)),
    "shift": Corruption(shift, (0.02, 0.05, 0.1, 0.15, 0.25), "share of the side", (0, 1)),
    "scale": Corruption(scale, (0.05, 0.1, 0.2, 0.3, 0.4), "share, either way", (0, 0.9)),
}


def corrupt(name: str, strength: float | None, view: View, seed: int, photo: str) -> np.ndarray:
    """The corrupted crop of a view, uint8 RGB (S, S, 3); strength None: the crop as it is.

    name: of CORRUPTIONS. photo: what names the photo (its sha256, or path); with it, `seed` and `name` the result is
    always the same.
    """
    if strength is None:
        return view.image
    digest = hashlib.sha256(f"{seed}:{name}:{photo}".encode()).digest()
    changed = CORRUPTIONS[name].apply(view, strength, np.random.default_rng(list(digest)))
    return np.ascontiguousarray(changed)
