"""Which faces of a video's sampled frames are the same person's: tracks over frames that may lie seconds apart.

No face is recognised. Within a shot a face goes on by place, size and looks, after a cut by its looks alone, and these
are a 16 x 16 picture and the colours of the face and what is around it: someone who comes back in other clothes or
light gets a new track, and two people who look alike at that size and trade places between two frames trade tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ffaa.data.faces import Detection
from ffaa.data.scenes import is_cut, scene_histogram
from ffaa.errors import UsageError
from ffaa.types import Box

# Looks of one face in 99 pairs of frames of a still shot: at most 0.12; of two people of different videos: 99.9 % above
# 0.13, 90 % above 0.24. A face may turn: of 133 pairs of frames of a shot, livelier ones too, all cost less than GATE.
# A face width away costs 0.1, as does a size 2.7 times as large, both together at most AWAY, and so does a cut: from
# there on looks must be nearer than 0.12.
GATE, PLACE, SIZE, AWAY = 0.25, 0.1, 0.1, 0.13
# The detector's box jumps by a fifth of its size on one and the same face, and its looks with it: a face that overlaps
# the last one of a track by half, in one shot, may look that much different.
OVERLAP, STAYED = 0.5, 0.35
_AROUND = 0.2  # of the box, on every side: hair and collar tell people apart
_KEPT = 0.7  # of a track's looks, when it is seen again
_NEVER = 1e6


@dataclass
class _Track:
    box: Box
    picture: np.ndarray
    colours: np.ndarray
    shot: int
    area: float = 0.0


class Tracker:
    """Gives every face of every frame a track id: 0, 1, ... in the order in which people come.

    Keeps a few hundred numbers per track, no pixels.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._shot, self._frame = 0, -1
        self._histogram: np.ndarray | None = None

    def add(self, frame_index: int, detections: Sequence[Detection], pixels: np.ndarray) -> list[int]:
        """Track ids of a frame's detections, all different. pixels: the frame, uint8 RGB (H, W, 3).

        Frames are added in the order of time; raises UsageError when `frame_index` does not grow.
        """
        if frame_index <= self._frame:
            raise UsageError(f"frame {frame_index} was added after frame {self._frame}; add frames in order, each once")
        self._frame = frame_index
        histogram = scene_histogram(pixels)
        if self._histogram is not None and is_cut(self._histogram, histogram):
            self._shot += 1
        self._histogram = histogram
        seen = [_Track(d.box, *_looks(pixels, d.box), self._shot) for d in detections]
        costs = np.array([[_cost(track, face) for face in seen] for track in self._tracks])
        known: dict[int, int] = {}
        if costs.size:
            known = {int(f): int(t) for t, f in zip(*linear_sum_assignment(costs)) if costs[t, f] < _NEVER}
        ids = []
        for place, face in enumerate(seen):
            if place in known:
                track = self._tracks[known[place]]
                track.picture = _unit(_KEPT * track.picture + (1 - _KEPT) * face.picture)
                track.colours = _KEPT * track.colours + (1 - _KEPT) * face.colours
                track.box, track.shot = face.box, self._shot
            else:
                self._tracks.append(face)
                known[place] = len(self._tracks) - 1
            self._tracks[known[place]].area += face.box.width * face.box.height
            ids.append(known[place])
        return ids

    @property
    def areas(self) -> dict[int, float]:
        """Track id -> sum of its boxes' areas, square pixels."""
        return {number: track.area for number, track in enumerate(self._tracks)}


def largest(areas: Mapping[int, float]) -> int | None:
    """The track of the largest summed area (`Tracker.areas`), the earlier of two equal ones; None without any."""
    return max(areas, key=lambda number: (areas[number], -number), default=None)


def _unit(picture: np.ndarray) -> np.ndarray:
    return picture / max(float(np.linalg.norm(picture)), 1e-6)


def _looks(pixels: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """float32 (256,), mean 0, norm 1: the luma of the face and a little around; float32 (72,), sum 1: its colours."""
    x, y = round(_AROUND * box.width), round(_AROUND * box.height)
    part = pixels[max(0, box.top - y) : box.bottom + y, max(0, box.left - x) : box.right + x]
    small = cv2.cvtColor(cv2.resize(part, (16, 16), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    luma = small[:, :, 0].astype(np.float32).ravel()
    counts = [np.bincount(small[:, :, k].ravel() // (256 // n), minlength=n) for k, n in ((0, 8), (1, 32), (2, 32))]
    return _unit(luma - luma.mean()), (np.concatenate(counts) / (3 * 256)).astype(np.float32)


def _cost(track: _Track, face: _Track) -> float:
    """How unlike a track and a face are; _NEVER above the gate. Looks are 0..1, place is in face widths."""
    pictures = 0.5 * (1 - float(track.picture @ face.picture))
    colours = 0.5 * float(np.abs(track.colours - face.colours).sum())
    away = AWAY
    if track.shot == face.shot:
        a, b = track.box, face.box
        across, down = a.left + a.right - b.left - b.right, a.top + a.bottom - b.top - b.bottom
        place, size = float(np.hypot(across, down)) / (a.width + b.width), abs(float(np.log(a.width / b.width)))
        away = min(AWAY, PLACE * place + SIZE * size)
    cost = 0.5 * (pictures + colours) + away
    here = track.shot == face.shot and _overlap(track.box, face.box) >= OVERLAP
    return cost if cost < (STAYED if here else GATE) else _NEVER


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across = min(a.right, b.right) - max(a.left, b.left)
    down = min(a.bottom, b.bottom) - max(a.top, b.top)
    both = max(across, 0) * max(down, 0)
    return both / (a.width * a.height + b.width * b.height - both)
