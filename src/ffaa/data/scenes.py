"""Where a video's shots end, and which of its frames to take: even over the length or over the shots."""

from __future__ import annotations

from bisect import bisect_left

import cv2
import numpy as np

# Of 292 pairs of frames of one shot, seconds apart, none is above (the most: 0.24); of pairs of different shots 97 %.
CUT = 0.3


def scene_histogram(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) -> float32 (320,), sum 1: luma (16 bins) and chroma (32 each) of the picture's quarters."""
    small = cv2.cvtColor(cv2.resize(pixels, (64, 36), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    parts = [
        np.bincount(quarter[:, :, k].ravel() // (256 // bins), minlength=bins)
        for half in np.split(small, 2)
        for quarter in np.split(half, 2, axis=1)
        for k, bins in ((0, 16), (1, 32), (2, 32))
    ]
    return (np.concatenate(parts) / (3 * 64 * 36)).astype(np.float32)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two `scene_histogram`s are of different shots: half their L1 distance (0..1) is above CUT."""
    return bool(0.5 * np.abs(before - after).sum() > CUT)


def share(n: int, lengths: list[float], frames: list[int]) -> list[int]:
    """n over scenes of these lengths and numbers of frames: one each, the longest first, then always to the scene with
    the most length per frame taken."""
    if n >= sum(frames):
        return frames
    counts = [0] * len(lengths)
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))[:n]:
        counts[place] = 1
    for _ in range(n - sum(counts)):
        open_ = [i for i in range(len(counts)) if counts[i] < frames[i]]
        counts[max(open_, key=lambda i: (lengths[i] / (counts[i] + 0.5), -i))] += 1
    return counts


def even(ends: list[float], start: int, stop: int, n: int) -> list[int]:
    """n different places in start..stop: the first frame at or after (i + 0.5) / n of the way. ends: the frames' times,
    seconds, and the end of the last; stop - start is at least n."""
    chosen: list[int] = []
    for i in range(n):
        due = ends[start] + (i + 0.5) / n * (ends[stop] - ends[start]) - 1e-6
        low = chosen[-1] + 1 if chosen else start
        chosen.append(min(max(bisect_left(ends, due), low), stop - (n - i)))
    return chosen
