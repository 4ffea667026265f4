"""A video file as FFmpeg (PyAV) may see it: an open regular file, under limits, its packets and its decoded frames.

FFmpeg gets no name and can reach no other file and no address; containers and decoders are those of a list. A pass over
the packets, without decoding, tells every frame's time. AVI and raw streams state no times of display: their frames
are counted, at the stated rate.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from ffaa.data.images import shown
from ffaa.errors import InputError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,m4v,h264,hevc"
CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4v2,msmpeg4,h263,mjpeg,prores,ffv1,huffyuv,"
    "ffvhuff,utvideo,dvvideo,png,rawvideo"
)
_COUNTED = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo"})
_SOUGHT = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # their key frames are reached exactly
_WORTH = 16  # frames to pass over, from which on seeking pays


@dataclass(frozen=True)
class VideoLimits:
    """What a video may be. max_bytes: of the file. max_pixels: per frame. max_seconds: length. max_frames: in it.
    max_wall: seconds spent on reading and decoding in one call, the caller's own time between frames not counted."""

    max_bytes: int = 4 * 2**30
    max_pixels: int = 8192 * 4320
    max_seconds: float = 3600
    max_frames: int = 200_000
    max_wall: float = 120


DEFAULT = VideoLimits()


@dataclass(frozen=True)
class Scan:
    """times: of all frames, ascending, in `unit` seconds; their places, where `counted`. keys: those of key frames.
    seconds: length, the last frame's own included. bytes: of the video stream."""

    times: list[int]
    keys: list[int]
    unit: Fraction
    seconds: Fraction
    bytes: int
    codec: str
    counted: bool
    broken: str | None


class _Clock:
    """Raises InputError when more than `limit` seconds were spent, pauses left out."""

    def __init__(self, limit: float, name: str) -> None:
        self.limit, self.name, self.spent, self.since = limit, name, 0.0, time.monotonic()

    def pause(self) -> None:
        self.spent += time.monotonic() - self.since

    def resume(self) -> None:
        self.since = time.monotonic()

    def check(self) -> None:
        if self.spent + time.monotonic() - self.since > self.limit:
            raise InputError(f"{self.name}: reading takes longer than {self.limit:g} s; give a shorter or smaller copy")


class _File:
    """What FFmpeg sees of the file: no name, and nothing once the time is up."""

    def __init__(self, file: BinaryIO, clock: _Clock) -> None:
        self._file, self._clock = file, clock
        self.tell = file.tell
        self.seek = file.seek

    def read(self, count: int) -> bytes:
        self._clock.check()
        return self._file.read(count)


@dataclass(frozen=True)
class Video:
    """An open file. `scan` and `walk` each read it from the start."""

    file: BinaryIO
    name: str
    size: int
    limits: VideoLimits
    clock: _Clock

    @contextmanager
    def stream(self) -> Iterator[tuple[Any, Any]]:
        """(container, its first video stream that is no cover picture). FFmpeg's errors become InputErrors."""
        self.file.seek(0)
        room = str(2 * self.limits.max_pixels + 2**17)  # decoders count borders too; `check_size` is exact
        try:
            with av.open(
                _File(self.file, self.clock),
                metadata_errors="replace",
                options={"max_pixels": room},
                container_options={
                    "format_whitelist": FORMATS,
                    "codec_whitelist": CODECS,
                    "protocol_whitelist": "none",
                },
            ) as container:
                cover = av.stream.Disposition.attached_pic
                streams = [s for s in container.streams.video if not s.disposition & cover]
                if not streams:
                    raise InputError(f"{self.name}: has no video stream, or its end is missing; give a whole video")
                context = streams[0].codec_context
                if context is None or context.name not in CODECS.split(","):
                    codec = context.name if context else "unknown"
                    raise InputError(f"{self.name}: its codec ({codec}) is not one of those read; convert it to H.264")
                self.check_size(context.width, context.height)
                context.thread_count = 1  # the same pictures from damaged streams too; builds run in many processes
                context.options = {"max_pixels": room, "err_detect": "explode"}  # no patched-up pictures
                yield container, streams[0]
        except InputError:
            raise
        except Exception as error:  # hostile files make PyAV raise more than its own errors
            reason = " ".join((getattr(error, "strerror", None) or str(error)).split())[:120] or type(error).__name__
            raise InputError(
                f"{self.name}: no video that can be read, or a broken one ({reason.lower()}); fetch or export it again"
            ) from error

    def sha256(self) -> str:
        """Of the file's bytes; the file then stands at its start. Raises InputError when that takes too long."""
        digest = hashlib.sha256()
        self.file.seek(0)
        while part := self.file.read(2**20):
            self.clock.check()
            digest.update(part)
        self.file.seek(0)
        return digest.hexdigest()

    def check_size(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise InputError(
                f"{self.name}: frames of {width:,} x {height:,} px are above the limit of "
                f"{self.limits.max_pixels / 1e6:,.0f} million pixels; give a smaller copy"
            )

    def scan(self) -> Scan:
        """Reads all packets, without decoding."""
        stamps: list[tuple[int | None, bool]] = []  # time of display, and whether it is a key frame
        places: list[int] = []
        count, size, span, failed = 0, 0, 0, ""
        with self.stream() as (container, stream):
            unit, codec = stream.time_base, stream.codec_context.name
            stated = stream.duration * unit if stream.duration else Fraction(container.duration or 0, 10**6)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            counted = container.format.name in _COUNTED
            if counted and stream.frames:  # FFmpeg shortens the length of a truncated AVI to fit its bytes
                stated = stream.frames / rate
            try:
                for packet in container.demux(stream):
                    self.clock.check()
                    if not packet.size or packet.is_discard:
                        continue
                    count += 1
                    if count > self.limits.max_frames:
                        raise InputError(f"{self.name}: above the limit of {self.limits.max_frames:,} frames; cut it")
                    if packet.is_corrupt:
                        failed = "damaged packets"
                        continue
                    places.append(count - 1)
                    stamps.append((packet.pts, packet.is_keyframe))
                    size, span = size + packet.size, packet.duration or span
            except av.FFmpegError as error:
                failed = (error.strerror or str(error)).lower()
        if not stamps:
            raise InputError(f"{self.name}: the video holds no frame; fetch or export it again")
        times = sorted({t for t, _ in stamps if t is not None})
        keys = sorted({t for t, is_key in stamps if is_key and t is not None})
        counted = counted or any(t is None for t, _ in stamps)
        if counted:
            times, keys, unit, span = places, [], 1 / rate, 1
        span = span or round((times[-1] - times[0]) / max(1, len(times) - 1)) or max(1, round(1 / rate / unit))
        seconds = unit * (times[-1] - times[0] + span)
        if seconds > self.limits.max_seconds:
            raise InputError(
                f"{self.name}: {float(seconds):,.0f} s long, the limit is {self.limits.max_seconds:,.0f} s; cut it"
            )
        if not failed and stated > seconds * Fraction(21, 20) + Fraction(3, 10):
            failed = f"{float(stated):.1f} s are stated"
        broken = f"{self.name}: what can be read ends after {float(seconds):.1f} s ({failed})" if failed else None
        return Scan(times, keys, unit, seconds, size, codec, counted, broken)

    def walk(self, scan: Scan, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(time, upright pixels) of the first frame at or after each of the ascending times; each frame once."""
        k, start, seek, again = 0, 0, True, True
        while again:  # after damage with a new decoder: the old one's next pictures may be wrong without an error
            again, here, moved = False, scan.times[0], False
            with self.stream() as (container, stream):
                seek = seek and container.format.name in _SOUGHT and bool(scan.keys)
                frames = self.decoded(scan, container, stream, start)
                while k < len(wanted) and not again:
                    key = scan.keys[max(0, bisect_right(scan.keys, wanted[k]) - 1)] if seek else here
                    sought = bisect_left(scan.times, key) - bisect_left(scan.times, here) > _WORTH
                    if sought:
                        container.seek(key, stream=stream)
                        frames, moved = self.decoded(scan, container, stream, key=key), True
                    for here, frame in frames:
                        if frame is None or (sought and here > wanted[k]):
                            # After seeking it need not be damage: the pictures may build on others before.
                            again, start, seek = True, 0 if moved else here, False
                            break
                        sought = False
                        if here >= wanted[k]:
                            yield here, _upright(frame)
                            k = bisect_right(wanted, here)
                            break
                    else:
                        return

    def decoded(
        self, scan: Scan, container: Any, stream: Any, start: int = 0, key: int | None = None
    ) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """(time, frame) from where the container stands, ascending, up to the end or the first damage.

        start: so many packets, and those up to a key frame, are passed over. key: the time of the key frame that was
        sought. Damage gives (number of packets up to it, None).
        """
        count, before, ready = 0, scan.times[0] - 1, start == 0
        for number, packet in enumerate(container.demux(stream), 1):
            self.clock.check()
            if not ready and number > start and packet.is_keyframe:
                ready, key = True, packet.pts
            if packet.size and not ready:
                count += 1
                continue
            if key is not None and packet.pts is not None and packet.pts < key:
                continue  # comes after the key frame and is shown before it: may build on what was not decoded
            damaged = bool(packet.size) and packet.is_corrupt
            try:
                frames = stream.codec_context.decode(None if damaged else packet)  # None: what the decoder held back
            except av.FFmpegError:
                frames, damaged = [], True
            for frame in frames:
                self.check_size(frame.width, frame.height)
                stamp = count if scan.counted else frame.pts
                count += 1
                if stamp is not None and stamp > before and not frame.is_corrupt:
                    before = stamp
                    yield stamp, frame
            if damaged:
                yield number, None
                return


@contextmanager
def opened(path: str | Path, limits: VideoLimits) -> Iterator[Video]:
    """A regular file within the limit, opened without ever waiting on a pipe or a device."""
    name = shown(path)
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = open(os.open(path, flags), "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        what = "addresses are not fetched; download the video" if "://" in name else "no such file; check the path"
        raise InputError(f"{name}: {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be read ({reason.lower()}); check the path and its rights") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name}: is no regular file; give a video file")
        if not status.st_size:
            raise InputError(f"{name}: the file is empty (zero bytes); fetch or copy it again")
        if status.st_size > limits.max_bytes:
            raise InputError(
                f"{name}: the file has {status.st_size / 2**20:,.1f} MB, the limit is "
                f"{limits.max_bytes / 2**20:,.1f} MB; give a smaller copy"
            )
        yield Video(file, name, status.st_size, limits, _Clock(limits.max_wall, name))


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB (H, W, 3), turned by the display matrix [a b u; c d v; x y w]: (p, q) -> (a p + c q, b p + d q)."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(matrix)[:20], np.int32))
        turned = abs(b) > abs(a)
        right, down = (c, b) if turned else (a, d)
        pixels = pixels.transpose(1, 0, 2) if turned else pixels
        pixels = pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(pixels)
