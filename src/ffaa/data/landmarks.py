"""MediaPipe's 468-point face mesh (Kartynnik et al. 2019), run without MediaPipe, and what is read off its points.

"Left" and "right" are the person's: the left eye lies on the right of a photo taken from the front.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import cv2
import numpy as np

from ffaa import weights
from ffaa.errors import InputError
from ffaa.types import Box

POINTS = 468
SIDE = 192
# MediaPipe's: the square around detection or points is enlarged by 1.5, and a face must score 0.5 (logit 0).
ENLARGE = 1.5
MIN_LOGIT = 0.0
RIGHT_EYE_OUTER, LEFT_EYE_OUTER, FOREHEAD, CHIN, RIGHT_EAR, LEFT_EAR = 33, 263, 10, 152, 234, 454

# Closed outlines, in order (mediapipe/python/solutions/face_mesh_connections.py; the nose's is traced on the mesh).
REGIONS: dict[str, tuple[int, ...]] = {
    "face_oval": (
        10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
    ),
    "left_eye": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    "right_eye": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "left_brow": (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
    "right_brow": (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
    "nose": (168, 351, 412, 420, 279, 358, 327, 326, 2, 97, 98, 129, 49, 198, 188, 122),
    "mouth": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
}  # fmt: skip
INNER_MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
PARTS = ("left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth")


class _Mesh:
    """One interpreter, one thread, one caller at a time."""

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        model = weights.part_folder("face-mesh") / "face_landmark.tflite"
        self._net: Any = Interpreter(str(model), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._points, self._score = (detail["index"] for detail in self._net.get_output_details())
        self._lock = threading.Lock()

    def __call__(self, view: np.ndarray) -> tuple[np.ndarray, float]:
        """uint8 RGB (192, 192, 3) -> ((468, 3) in its pixels, logit)."""
        with self._lock:
            self._net.set_tensor(self._input, view[None].astype(np.float32) / 255)
            self._net.invoke()
            points, logit = (self._net.get_tensor(index).reshape(-1) for index in (self._points, self._score))
        return points.reshape(POINTS, 3), float(logit[0])


_MAKING = threading.Lock()


@cache
def _made() -> _Mesh:
    return _Mesh()


def _mesh() -> _Mesh:
    with _MAKING:  # functools.cache may run its function twice when two threads ask first
        return _made()


def _look(photo: np.ndarray, centre: np.ndarray, side: float, angle: float) -> tuple[np.ndarray, float]:
    """Points in photo pixels, and the logit, from a square of `side` px, turned by `angle` radians (clockwise)."""
    scale = SIDE / side
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])  # photo axes -> axes of the square
    move = np.hstack([scale * turn, (SIDE / 2 - scale * turn @ centre)[:, None]])
    if scale < 0.5:  # warpAffine has no area averaging: without it, large faces alias
        factor = 2 * scale
        left, top = np.maximum(np.floor(centre - side), 0).astype(int)
        right, bottom = np.ceil(centre + side).astype(int)
        part = photo[top:bottom, left:right]
        part = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        ratio = np.array(part.shape[1::-1]) / (min(right, photo.shape[1]) - left, min(bottom, photo.shape[0]) - top)
        inner = move.copy()
        inner[:, 2] += move[:, :2] @ (np.array([left, top]) - (0.5 - 0.5 / ratio))
        inner[:, :2] /= ratio
        view = cv2.warpAffine(part, inner, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    else:
        view = cv2.warpAffine(photo, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    found, logit = _mesh()(view)
    points = np.empty((POINTS, 3), np.float32)
    points[:, :2] = (found[:, :2] - SIDE / 2) @ turn / scale + centre
    points[:, 2] = found[:, 2] / scale
    return points, logit


def landmarks(photo: np.ndarray, box: Box, once: bool = False) -> np.ndarray | None:
    """uint8 RGB (H, W, 3) and a face's box -> float32 (468, 3) in photo pixels, or None when no face is seen there.

    z has the scale of x and y and grows away from the camera. The mesh runs on a square around the box, then on a
    square around the first points, turned so that the eyes are level. once: without the second look, in half the time.
    Raises WeightsError when the part 'face-mesh' is not installed, InputError for an array that is no photo.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise InputError(f"a {photo.dtype} array of shape {photo.shape} is no photo; give uint8 RGB (H, W, 3)")
    centre = np.array([box.left + box.right, box.top + box.bottom]) / 2
    points, logit = _look(photo, centre, ENLARGE * max(box.width, box.height), 0.0)
    if once:
        return points if logit > MIN_LOGIT else None
    eyes = points[LEFT_EYE_OUTER, :2] - points[RIGHT_EYE_OUTER, :2]
    angle = float(np.arctan2(eyes[1], eyes[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    level = points[:, :2] @ turn.T
    low, high = level.min(0), level.max(0)
    points, logit = _look(photo, (low + high) / 2 @ turn, ENLARGE * float((high - low).max()), angle)
    return points if logit > MIN_LOGIT else None


def pose(points: np.ndarray) -> tuple[float, float, float]:
    """(468, 3) -> (yaw, pitch, roll) in degrees, all about 0 for a face that looks straight into the camera.

    yaw > 0: turned to the person's left (the nose moves to the right of the photo); pitch > 0: looking up (it reads
    low: the median over 122 portraits is -7); roll > 0: tilted clockwise in the photo (the person's left eye is the
    lower one).
    """
    across = (points[LEFT_EYE_OUTER] - points[RIGHT_EYE_OUTER]) + (points[LEFT_EAR] - points[RIGHT_EAR])
    across = across.astype(np.float64) / np.linalg.norm(across)
    down = (points[CHIN] - points[FOREHEAD]).astype(np.float64)
    down -= across * (down @ across)
    down /= np.linalg.norm(down)
    back = np.cross(across, down)  # x right, y down, z away from the camera
    yaw = np.degrees(np.arcsin(np.clip(-back[0], -1, 1)))
    pitch = np.degrees(np.arctan2(back[1], back[2]))
    roll = np.degrees(np.arctan2(across[1], down[1]))
    return float(yaw), float(pitch), float(roll)


def face_size(points: np.ndarray) -> float:
    """The size of the face in pixels that hardly changes with expression or pose: root of the oval's area."""
    return float(np.sqrt(cv2.contourArea(points[list(REGIONS["face_oval"]), :2].astype(np.float32))))


def polygon_mask(outline: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Outline (n, 2) in pixels -> float32 (H, W) of 0 and 1."""
    mask: np.ndarray = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(np.float32)


def region_mask(points: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inside of a region of `REGIONS`, or 'skin' (the oval without eyes, brows and mouth): float32 (H, W), 0 or 1.

    shape: of the photo. Raises KeyError for an unknown name.
    """
    if name != "skin":
        return polygon_mask(points[list(REGIONS[name]), :2], shape)
    mask = region_mask(points, "face_oval", shape)
    for part in PARTS:
        if part != "nose":
            mask *= 1 - region_mask(points, part, shape)
    return mask
