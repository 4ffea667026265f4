"""What can be measured on a face image without a label or a model.

Every measure takes a `View` and returns one float; `MEASURES` names its unit, region, method and the words its
value is put in. The cuts between words lie near the quantiles of
the training crops, so 'soft' means soft among photos of that kind, not among all photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from ffaa.data.faces import face_rect
from ffaa.types import Evidence, Face

EPSILON = 1e-3


@dataclass(frozen=True)
class View:
    """A face image, uint8 RGB (S, S, 3), and its face rectangle in crop pixels (left, top, right, bottom)."""

    image: np.ndarray
    rect: tuple[int, int, int, int]

    @cached_property
    def gray(self) -> np.ndarray:
        """float32 (S, S), 0..255."""
        return cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY).astype(np.float32)

    @cached_property
    def lab(self) -> np.ndarray:
        """float32 (S, S, 3) CIE L*a*b*, L 0..100."""
        return cv2.cvtColor(self.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    @cached_property
    def edges(self) -> np.ndarray:
        """Absolute Laplacian of the luminance."""
        return np.abs(cv2.Laplacian(self.gray, cv2.CV_32F))

    @cached_property
    def noise(self) -> np.ndarray:
        """Absolute difference to the 3 x 3 median: what no edge explains."""
        return np.abs(self.gray - cv2.medianBlur(self.image, 3).astype(np.float32) @ [0.299, 0.587, 0.114])

    def part(self, plane: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """The part of `plane` between fractions (0..1) of the face rectangle."""
        x0, y0, x1, y1 = self.rect
        width, height = x1 - x0, y1 - y0
        xs = slice(int(x0 + left * width), max(int(x0 + right * width), int(x0 + left * width) + 2))
        ys = slice(int(y0 + top * height), max(int(y0 + bottom * height), int(y0 + top * height) + 2))
        return plane[ys, xs]

    def inside(self, plane: np.ndarray) -> np.ndarray:
        return self.part(plane, 0.1, 0.1, 0.9, 0.9)

    def outside(self, plane: np.ndarray) -> np.ndarray:
        """The values around the face; the outer frame of the image where the face fills it."""
        x0, y0, x1, y1 = self.rect
        mask = np.ones(plane.shape[:2], bool)
        mask[y0:y1, x0:x1] = False
        if mask.mean() < 0.12:
            edge = plane.shape[0] // 16
            mask[:] = True
            mask[edge:-edge, edge:-edge] = False
        return plane[mask]


def view(face: Face) -> View:
    return View(face.image, face_rect(face.crop, face.box))


def _ratio(a: float, b: float) -> float:
    return float(np.log2((a + EPSILON) / (b + EPSILON)))


def _brightness(v: View) -> float:
    return float(v.inside(v.lab[..., 0]).mean())


def _contrast(v: View) -> float:
    low, high = np.percentile(v.inside(v.gray), (5, 95))
    return float(high - low)


def _light(v: View) -> float:
    left = v.part(v.lab[..., 0], 0.1, 0.2, 0.45, 0.85).mean()
    return float(left - v.part(v.lab[..., 0], 0.55, 0.2, 0.9, 0.85).mean())


def _warmth(v: View) -> float:
    return float(v.lab[..., 2].mean())


def _saturation(v: View) -> float:
    return float(np.hypot(v.lab[..., 1], v.lab[..., 2]).mean())


def _sharpness(v: View) -> float:
    return float(np.log2(v.inside(v.edges).mean() + EPSILON))


def _sharpness_gap(v: View) -> float:
    return _ratio(v.inside(v.edges).mean(), v.outside(v.edges).mean())


def _noise_gap(v: View) -> float:
    return _ratio(v.inside(v.noise).mean(), v.outside(v.noise).mean())


def _skin(v: View) -> float:
    cheeks = [v.part(v.noise, 0.12, 0.5, 0.32, 0.72), v.part(v.noise, 0.68, 0.5, 0.88, 0.72)]
    return float(np.log2(np.mean([c.mean() for c in cheeks]) + EPSILON))


def _eyes_mouth(v: View) -> float:
    return _ratio(v.part(v.edges, 0.1, 0.2, 0.9, 0.45).mean(), v.part(v.edges, 0.25, 0.65, 0.75, 0.92).mean())


def _symmetry(v: View) -> float:
    face = cv2.resize(v.part(v.gray, 0.0, 0.0, 1.0, 1.0), (32, 32), interpolation=cv2.INTER_AREA)
    face = cv2.GaussianBlur(face, (0, 0), 1)
    with np.errstate(invalid="ignore"):  # a flat face has no correlation: 0
        return float(np.nan_to_num(np.corrcoef(face.ravel(), face[:, ::-1].ravel())[0, 1]))


def _skin_colour(v: View) -> float:
    upper = v.part(v.lab[..., 1:], 0.3, 0.05, 0.7, 0.2).reshape(-1, 2).mean(0)
    lower = v.part(v.lab[..., 1:], 0.3, 0.88, 0.7, 1.0).reshape(-1, 2).mean(0)
    return float(np.linalg.norm(upper - lower))


def _rolloff(v: View) -> float:
    gray = v.gray - v.gray.mean()
    window = np.outer(np.hanning(gray.shape[0]), np.hanning(gray.shape[1]))
    power = np.abs(np.fft.fftshift(np.fft.fft2(gray * window))) ** 2
    y, x = np.indices(power.shape) - np.array(power.shape)[:, None, None] // 2
    radius = np.hypot(y, x) / (power.shape[0] / 2)
    return _ratio(power[(radius > 0.5) & (radius < 0.9)].mean(), power[(radius > 0.1) & (radius < 0.3)].mean())


@dataclass(frozen=True)
class Measure:
    """words[i] is used for values between cuts[i - 1] and cuts[i]."""

    function: Callable[[View], float]
    unit: str
    region: str
    method: str
    cuts: tuple[float, ...]
    words: tuple[str, ...]


MEASURES: dict[str, Measure] = {
    "brightness": Measure(_brightness, "L*", "face", "mean CIE L*", (44.0, 62.0), ("dark", "medium", "bright")),
    "contrast": Measure(_contrast, "grey levels", "face", "5th to 95th percentile", (95.0, 155.0),
                        ("low", "medium", "high")),
    "light": Measure(_light, "L*", "cheeks", "left minus right mean L*", (-6.0, 6.0), ("right", "even", "left")),
    "warmth": Measure(_warmth, "b*", "image", "mean CIE b*", (7.0, 18.0), ("cool", "neutral", "warm")),
    "saturation": Measure(_saturation, "C*", "image", "mean CIE chroma", (6.0, 14.0, 26.0),
                          ("grey", "muted", "natural", "strong")),
    "sharpness": Measure(_sharpness, "log2", "face", "mean absolute Laplacian", (1.4, 3.0),
                         ("soft", "medium", "sharp")),
    "sharpness_gap": Measure(_sharpness_gap, "log2 ratio", "face against surroundings", "mean absolute Laplacian",
                             (-0.35, 0.4), ("softer", "equal", "sharper")),
    "noise_gap": Measure(_noise_gap, "log2 ratio", "face against surroundings", "mean residual to the 3 x 3 median",
                         (-0.3, 0.45), ("cleaner", "equal", "noisier")),
    "skin": Measure(_skin, "log2", "cheeks", "mean residual to the 3 x 3 median", (-1.4, 0.2),
                    ("smooth", "natural", "rough")),
    "eyes_mouth": Measure(_eyes_mouth, "log2 ratio", "eyes against mouth", "mean absolute Laplacian", (-0.2, 0.5),
                          ("mouth", "balanced", "eyes")),
    "symmetry": Measure(_symmetry, "correlation", "face", "correlation with its mirror image", (0.1, 0.65),
                        ("turned", "slight", "frontal")),
    "skin_colour": Measure(_skin_colour, "a*b* distance", "forehead to chin", "distance of mean a*b*", (2.6, 8.0),
                           ("uniform", "gradual", "shifting")),
    "rolloff": Measure(_rolloff, "log2 ratio", "image", "high against middle spatial frequencies", (-10.0, -6.9),
                       ("early", "regular", "late")),
}  # fmt: skip


def measure(v: View) -> list[Evidence]:
    """All measures of a face image, in the order of MEASURES."""
    found = []
    for name, m in MEASURES.items():
        value = m.function(v)
        word = m.words[int(np.searchsorted(m.cuts, value))]
        found.append(
            Evidence(name=name, value=round(value, 4), unit=m.unit, region=m.region, method=m.method, word=word)
        )
    return found
