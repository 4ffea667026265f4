"""Highlights and irises of the two eyes, and the teeth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ffaa.data.landmarks import INNER_MOUTH, polygon_mask
from ffaa.evidence.expression import eyes_open, mouth_open
from ffaa.evidence.look import EPSILON, Look
from ffaa.evidence.record import Measure, NotMeasurableError

EYES = {"picture_left": (33, 133, 159, 145), "picture_right": (362, 263, 386, 374)}
MIN_WIDTH = 24.0  # pixels of the image; in smaller eyes an iris is a handful of pixels
MIN_OPENING = 0.2
TURNED = 20.0
SHINE = 45.0  # grey levels that a highlight stands above the iris
IRIS = 0.21  # radius in widths of the eye's opening
ZOOM = 3


@dataclass(frozen=True)
class Eye:
    """An eye's opening enlarged ZOOM times. centre and radius: of its iris, in those pixels."""

    gray: np.ndarray
    lab: np.ndarray
    centre: np.ndarray
    radius: float


def _eye(look: Look, name: str) -> Eye:
    return look.once(("eye", name), lambda: _find(look, name))


def _find(look: Look, name: str) -> Eye:
    if abs(look.pose[0]) > TURNED:
        raise NotMeasurableError("the head is turned too far to compare the eyes")
    outer, inner, upper, lower = (look.points[i, :2] for i in EYES[name])
    width = float(np.linalg.norm(outer - inner))
    if width < MIN_WIDTH:
        raise NotMeasurableError("the eyes are too small in this image")
    if eyes_open(look) < MIN_OPENING:
        raise NotMeasurableError("the eyes are nearly closed")
    middle = (outer + inner + upper + lower) / 4
    half = np.ceil(0.6 * width)
    left, top = np.floor(middle - half).astype(int)
    side = int(2 * half)
    if left < 0 or top < 0 or left + side > look.gray.shape[1] or top + side > look.gray.shape[0]:
        raise NotMeasurableError("an eye lies at the image's border")
    part = look.image[top : top + side, left : left + side]
    part = cv2.resize(part, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lab = cv2.cvtColor(part.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    radius = IRIS * width * ZOOM
    # The iris is the darkest disc whose middle lies near the axis of the opening.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(radius) + 1,) * 2).astype(np.float32)
    mean = cv2.filter2D(np.minimum(gray, np.median(gray)), -1, disc / disc.sum())
    allowed = np.full(gray.shape, np.inf, np.float32)
    y, x = np.indices(gray.shape)
    axis = (inner - outer) / width
    offset = np.dstack([x, y]) / ZOOM + (left, top) - middle
    near = (np.abs(offset @ axis) < 0.22 * width) & (np.abs(offset @ np.array([-axis[1], axis[0]])) < 0.07 * width)
    allowed[near] = mean[near]
    row, column = np.unravel_index(int(allowed.argmin()), gray.shape)
    return Eye(gray, lab, np.array([column, row], float), radius)


def _within(eye: Eye, factor: float) -> np.ndarray:
    y, x = np.indices(eye.gray.shape)
    return np.asarray(np.hypot(x - eye.centre[0], y - eye.centre[1]) < factor * eye.radius)


def _highlight(eye: Eye) -> np.ndarray | None:
    """Place of the brightest spot on the iris, in iris radii from its middle; None without one."""
    disc = _within(eye, 0.7)
    smooth = cv2.GaussianBlur(eye.gray, (0, 0), ZOOM * 0.5)
    level = float(np.percentile(smooth[disc], 30))
    bright = np.where(disc, smooth, 0)
    peak = float(bright.max())
    if peak < level + SHINE:
        return None
    spot = bright > (level + peak) / 2
    if spot.sum() > 0.35 * disc.sum():  # no spot: the white of the eye, or a reflection over all of it
        return None
    y, x = np.nonzero(spot)
    return (np.array([x.mean(), y.mean()]) - eye.centre) / eye.radius


def highlights(look: Look) -> float:
    """How many eyes show a highlight."""
    return float(sum(_highlight(_eye(look, name)) is not None for name in EYES))


def highlight_offset(look: Look) -> float:
    places = [_highlight(_eye(look, name)) for name in EYES]
    if places[0] is None or places[1] is None:
        raise NotMeasurableError("not both eyes show a highlight")
    return float(np.linalg.norm(places[0] - places[1]))


def iris_detail(look: Look) -> float:
    """Contrast of fine structure in the irises, mean of both."""
    details = []
    for name in EYES:
        eye = _eye(look, name)
        fine = eye.gray - cv2.GaussianBlur(eye.gray, (0, 0), ZOOM * 1.5)
        details.append(fine[_within(eye, 0.9)].std())
    return float(np.log2(np.mean(details) + EPSILON))


def iris_match(look: Look) -> float:
    """Colour distance of the two irises."""
    tones = [np.median(eye.lab[_within(eye, 0.8)], axis=0) for eye in (_eye(look, name) for name in EYES)]
    return float(np.linalg.norm((tones[0] - tones[1]) * (0.5, 1, 1)))


def _mouth(look: Look) -> np.ndarray:
    if mouth_open(look) < 0.045:
        raise NotMeasurableError("the mouth is closed or nearly so")
    mask = polygon_mask(look.points[list(INNER_MOUTH), :2], look.image.shape) > 0
    if mask.sum() < 60:
        raise NotMeasurableError("the mouth is too small in this image")
    return mask


def teeth(look: Look) -> float:
    """Share of the mouth's opening that is as light and colourless as teeth, percent."""
    lab = look.lab[_mouth(look)]
    skin = look.lab[look.skin]
    white = (lab[:, 0] > 0.85 * np.median(skin[:, 0])) & (lab[:, 1] < np.median(skin[:, 1]) - 1)
    return float(white.mean() * 100)


def teeth_detail(look: Look) -> float:
    """Slopes along the row of teeth against those on the cheeks: gaps between teeth."""
    if teeth(look) < 20:
        raise NotMeasurableError("no teeth are seen")
    across = look.points[291, :2] - look.points[61, :2]
    across = across / np.linalg.norm(across)
    slope = np.abs(look.gradient @ across.astype(np.float32))
    mouth = cv2.erode(_mouth(look).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if mouth.sum() < 30:
        raise NotMeasurableError("the mouth is too small in this image")
    return float(np.log2(slope[mouth].mean() + EPSILON))


MEASURES: dict[str, Measure] = {
    "highlights": Measure(highlights, "eyes", "irises", "bright spot on a dark iris",
                          (0.5, 1.5), ("none", "one", "both")),
    "highlight_offset": Measure(highlight_offset, "iris radii", "irises", "distance of the spots' places",
                                (0.2, 0.5), ("same place", "near", "apart")),
    "iris_detail": Measure(iris_detail, "log2", "irises", "spread of fine structure", (2.4, 4.0),
                           ("faint", "ordinary", "rich")),
    "iris_match": Measure(iris_match, "colour distance", "irises", "distance of median L*a*b*",
                          (1.8, 5.3), ("matching", "near", "different")),
    "teeth": Measure(teeth, "percent", "mouth", "light, colourless share of the opening",
                     (10.0, 55.0), ("none", "some", "row")),
    "teeth_detail": Measure(teeth_detail, "log2", "mouth", "slopes along the row of teeth",
                            (2.1, 2.75), ("merged", "ordinary", "separate")),
}  # fmt: skip
