"""Videos in: a file -> what it is, the times worth looking at, and upright frames at given times, one after the other.

Times are seconds from the first frame. Every call reads the packets once before it decodes what is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ffaa.data.scenes import even, is_cut, scene_histogram, share
from ffaa.data.stream import DEFAULT, Scan, Video, VideoLimits, opened
from ffaa.errors import InputError, UsageError

# Containers that round to a millisecond give the same frame of two videos times this far apart.
_SLACK = Fraction(3, 2000)
_LOOK_EVERY, _LOOKS = 0.25, 400


@dataclass(frozen=True)
class Frame:
    """index: place of its time in the asked ones. time: seconds from the first frame. pixels: uint8 RGB (H, W, 3),
    upright (rotation and mirroring of the container applied), pixels as stored where they are not square."""

    index: int
    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class VideoInfo:
    """width, height: of the upright frames. seconds, frames: what can be read. fps: frames / seconds. bytes: the file.
    bits_per_pixel: of the video stream, 8 x its bytes / (width x height x frames). broken: what is missing, or None."""

    width: int
    height: int
    seconds: float
    frames: int
    fps: float
    bytes: int
    bits_per_pixel: float
    codec: str
    broken: str | None = None


def probe(path: str | Path, limits: VideoLimits = DEFAULT) -> VideoInfo:
    """Size, length and compression of a video. Raises InputError: no video, no frame in it, or above a limit."""
    with opened(path, limits) as video:
        scan = video.scan()
        first = next(video.walk(scan, scan.times[:1]), None)
        if first is None:
            raise InputError(f"{video.name}: no frame can be decoded; fetch or export it again")
        height, width = first[1].shape[:2]
        seconds, count = float(scan.seconds), len(scan.times)
        bits = 8 * scan.bytes / (width * height * count)
        return VideoInfo(width, height, seconds, count, count / seconds, video.size, bits, scan.codec, scan.broken)


def sample_times(
    path: str | Path, n: int, how: Literal["even", "scene"] = "even", limits: VideoLimits = DEFAULT
) -> list[float]:
    """Times of n different frames, ascending; of all frames when there are fewer.

    even: the first frame at or after each (i + 0.5) / n of the length. scene: shared out over the scenes by their
    length, at least one each while n lasts, and even within each. Cuts are looked for every 0.25 s (at most 400
    times), so a slow fade is none. Raises UsageError for another `how` or n < 1, InputError as `probe`.
    """
    if how not in ("even", "scene") or n < 1:
        raise UsageError(f"cannot take {n} frames '{how}'; give a number from 1 on and 'even' or 'scene'")
    with opened(path, limits) as video:
        scan = video.scan()
        bounds = [0, len(scan.times)] if how == "even" else _scenes(video, scan)
        ends = [float(scan.unit * (t - scan.times[0])) for t in scan.times] + [float(scan.seconds)]
        lengths = [ends[b] - ends[a] for a, b in pairwise(bounds)]
        counts = share(n, lengths, [b - a for a, b in pairwise(bounds)])
        chosen = [i for a, b, count in zip(bounds, bounds[1:], counts) for i in even(ends, a, b, count)]
        return [ends[i] for i in chosen]


def frames_at(path: str | Path, times: Sequence[float], limits: VideoLimits = DEFAULT) -> Frames:
    """The first frame at or after each time (seconds, ascending, 1.5 ms of rounding allowed), each frame once.

    The times of a video's frames give the matching frames of its mask video. Raises UsageError for times that do not
    ascend and, at the first frame, InputError as `probe`; what breaks later is told by `Frames.broken`.
    """
    if any(not a <= b < math.inf for a, b in zip([0.0, *times], times)):
        raise UsageError("times of frames must ascend from 0 on; sort them")
    return Frames(path, list(times), limits)


class Frames:
    """Iterator over `Frame`s, one in memory at a time. After its end, `broken` is None or says, in one line, which
    frames are missing and why. From an error of the decoder to the next key frame none is given; damage that decodes
    without an error (in VP9 most, in H.264 some) is not seen."""

    def __init__(self, path: str | Path, times: list[float], limits: VideoLimits) -> None:
        self.broken: str | None = None
        self._frames = _read(path, times, limits)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        try:
            return next(self._frames)
        except StopIteration as end:
            self.broken = self.broken or end.value
            raise


def _read(path: str | Path, times: list[float], limits: VideoLimits) -> Generator[Frame, None, str | None]:
    """The frames; returns what `Frames.broken` says."""
    given = late = 0
    with opened(path, limits) as video:
        scan = video.scan()
        wanted: dict[int, int] = {}  # time of a frame -> the first place that asks for it
        for index, seconds in enumerate(times):
            place = bisect_left(scan.times, scan.times[0] + (Fraction(seconds) - _SLACK) / scan.unit)
            if place < len(scan.times):
                wanted.setdefault(scan.times[place], index)
            else:
                late += 1
        stamps = list(wanted)
        why = scan.broken or f"{video.name}: damaged, or shorter than the asked times"
        try:
            for stamp, pixels in video.walk(scan, stamps):
                index = wanted[stamps[bisect_right(stamps, stamp) - 1]]
                video.clock.pause()
                yield Frame(index, float(scan.unit * (stamp - scan.times[0])), pixels)
                video.clock.resume()
                given += 1
        except InputError as error:
            if not given:
                raise
            why = str(error)
        if times and not given:
            raise InputError(f"{why}; no frame can be given, fetch or export it again")
        missing = len(wanted) + late - given
        return f"{why}; {missing} of {len(wanted) + late} frames are missing" if missing else scan.broken


def _scenes(video: Video, scan: Scan) -> list[int]:
    """Places of the first frame of every scene, and the number of frames."""
    step = max(_LOOK_EVERY, float(scan.seconds) / _LOOKS) / float(scan.unit)
    looks, due = [], float(scan.times[0])
    for stamp in scan.times:
        if stamp >= due:
            looks.append(stamp)
            due = stamp + step
    bounds, before = [0], None
    for stamp, pixels in video.walk(scan, looks):
        histogram = scene_histogram(pixels)
        if before is not None and is_cut(before, histogram):
            bounds.append(bisect_left(scan.times, stamp))
        before = histogram
    return [*bounds, len(scan.times)]
