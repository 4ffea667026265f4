"""A face image with its mesh, and the planes, areas and contours that several measures share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import cv2
import numpy as np

from ffaa.data.landmarks import REGIONS, face_size, pose, region_mask
from ffaa.evidence.record import NotMeasurableError

T = TypeVar("T")
EPSILON = 1e-3
# Centres of skin patches as means of mesh points; 'picture_left' is the person's right cheek.
PATCHES: dict[str, tuple[int, ...]] = {
    "picture_left": (50, 205, 101),
    "picture_right": (280, 425, 330),
    "forehead": (9, 151),
    "chin": (18, 200),
    "nose": (5, 4),
}
RADIUS = 0.09  # of a patch, in face sizes
SEEN = 0.6  # share of an area that must lie inside the image
SEEN_LINE = 0.35  # the same for a contour: crops often cut the chin off
MIN_AREA = 300  # pixels around the face for a comparison with it
STEPS = 160  # points on a contour


def ratio(a: float, b: float) -> float:
    """log2(a / b), kept finite."""
    return float(np.log2((a + EPSILON) / (b + EPSILON)))


@dataclass(frozen=True)
class Look:
    """image: uint8 RGB (S, S, 3). mesh: float32 (468, 3) in its pixels, or None. scale: image pixels per pixel of the
    photo it was cut from, None where unknown."""

    image: np.ndarray
    mesh: np.ndarray | None
    scale: float | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once for this face."""
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    @property
    def points(self) -> np.ndarray:
        """The mesh; raises NotMeasurableError without one."""
        if self.mesh is None:
            raise NotMeasurableError("no face mesh was found")
        return self.mesh

    @cached_property
    def gray(self) -> np.ndarray:
        """float32 (S, S), 0..255."""
        return cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY).astype(np.float32)

    @cached_property
    def lab(self) -> np.ndarray:
        """float32 (S, S, 3) CIE L*a*b*, L 0..100."""
        return cv2.cvtColor(self.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    @cached_property
    def residual(self) -> np.ndarray:
        """float32 (S, S, 3): the image minus its 3 x 3 median, what no edge explains."""
        return self.image.astype(np.float32) - cv2.medianBlur(self.image, 3).astype(np.float32)

    @cached_property
    def noise(self) -> np.ndarray:
        """float32 (S, S): absolute residual of the luminance."""
        return np.abs(self.residual @ np.array([0.299, 0.587, 0.114], np.float32))

    @cached_property
    def edges(self) -> np.ndarray:
        """float32 (S, S): absolute Laplacian of the luminance."""
        return np.abs(cv2.Laplacian(self.gray, cv2.CV_32F))

    @cached_property
    def gradient(self) -> np.ndarray:
        """float32 (S, S, 2): derivatives of the slightly smoothed luminance in x and y, grey levels per pixel."""
        smooth = cv2.GaussianBlur(self.gray, (0, 0), 1.0)
        return np.dstack([cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1)]) / 32

    @cached_property
    def size(self) -> float:
        """The face's size, pixels."""
        return face_size(self.points)

    @cached_property
    def pose(self) -> tuple[float, float, float]:
        """(yaw, pitch, roll) in degrees."""
        return pose(self.points)

    @cached_property
    def oval(self) -> np.ndarray:
        """float32 (36, 2): the face's outline."""
        return self.points[list(REGIONS["face_oval"]), :2]

    @cached_property
    def skin(self) -> np.ndarray:
        """bool (S, S): the oval, a little smaller, without eyes, brows and mouth."""
        mask = region_mask(self.points, "skin", self.image.shape)
        reach = max(1, round(0.03 * self.size))
        return self._enough(cv2.erode(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0)

    def filled(self, factor: float) -> np.ndarray:
        """bool (S, S): inside of the oval scaled by `factor` about its middle."""
        centre = self.oval.mean(0)
        mask: np.ndarray = np.zeros(self.gray.shape, np.uint8)
        cv2.fillPoly(mask, [np.round((centre + factor * (self.oval - centre)) * 16).astype(np.int32)], 1, shift=4)
        return mask > 0

    @cached_property
    def inside(self) -> np.ndarray:
        """bool (S, S): the face without its rim."""
        return self._enough(self.filled(0.88))

    @cached_property
    def around(self) -> np.ndarray:
        """bool (S, S): what is near the face outside its outline: hair, neck, background."""
        return self._enough(self.filled(1.5) & ~self.filled(1.1))

    def _enough(self, mask: np.ndarray) -> np.ndarray:
        if mask.sum() < MIN_AREA:
            raise NotMeasurableError("too little of that area lies inside the image")
        return mask

    def _share_seen(self, points: np.ndarray) -> float:
        side = np.array(self.gray.shape[::-1])
        return float(((points >= 0) & (points < side)).all(1).mean())

    def disc(self, centre: np.ndarray, radius: float) -> np.ndarray:
        """bool (S, S). Raises NotMeasurableError where most of it lies outside the image."""
        mask: np.ndarray = np.zeros(self.gray.shape, np.uint8)
        x, y = (round(float(v) * 16) for v in centre)
        cv2.circle(mask, (x, y), round(radius * 16), 1, -1, shift=4)
        if mask.sum() < SEEN * np.pi * radius**2 or mask.sum() < 12:
            raise NotMeasurableError("that part of the face lies outside the image or is too small")
        return mask > 0

    def patch(self, name: str) -> np.ndarray:
        """bool (S, S): a skin patch of PATCHES."""
        centre = self.points[list(PATCHES[name]), :2].mean(0)
        return self.once(("patch", name), lambda: self.disc(centre, RADIUS * self.size))

    def region(self, name: str, grow: float = 0.0) -> np.ndarray:
        """bool (S, S): a region of the mesh, grown by `grow` face sizes."""
        return self.once(("region", name, grow), lambda: self._region(name, grow))

    def _region(self, name: str, grow: float) -> np.ndarray:
        if self._share_seen(self.points[list(REGIONS[name]), :2]) < SEEN:
            raise NotMeasurableError("that part of the face lies outside the image")
        mask = region_mask(self.points, name, self.image.shape)
        if grow:
            reach = max(1, round(grow * self.size))
            mask = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        if mask.sum() < 12:
            raise NotMeasurableError("that part of the face is too small here")
        return mask > 0

    def contour(self, factor: float, first: int, last: int) -> np.ndarray:
        """float32 (n, 2): points of the outline from its point `first` to `last` (of 36, clockwise from the top),
        scaled by `factor` about the face's middle; those outside the image are left out."""
        centre = self.oval.mean(0)
        line = centre + factor * (self.oval[first : last + 1] - centre)
        at = np.linspace(0, len(line) - 1, STEPS * len(line) // 36)
        low = np.minimum(at.astype(int), len(line) - 2)
        part = (at - low)[:, None]
        return (line[low] * (1 - part) + line[low + 1] * part).astype(np.float32)

    def along(self, plane: np.ndarray, line: np.ndarray) -> np.ndarray:
        """The values of `plane` on `line`. Raises NotMeasurableError where much of it lies outside the image."""
        seen = ((line >= 0) & (line <= self.gray.shape[0] - 1)).all(1)
        if seen.mean() < SEEN_LINE:
            raise NotMeasurableError("the outline lies outside the image")
        at = line[seen]
        values = cv2.remap(plane, at[None, :, 0].copy(), at[None, :, 1].copy(), cv2.INTER_LINEAR)[0]
        return np.asarray(values)
