"""Photo or video: by what the file begins with, else by its name."""

from __future__ import annotations

import os
import stat

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})

# Brands of the photos that live in the same boxes as MP4: HEIC, AVIF and Canon's raw.
_PHOTO_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis", b"crx "}
)
_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})  # older QuickTime begins with one of these
_HEADS = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")  # Matroska and WebM, MPEG streams
_PACKET = 188  # bytes, of an MPEG transport stream


def is_clip(path: str | os.PathLike[str]) -> bool:
    """Whether a file is to be read as a video. Animated photos (GIF, WebP, PNG, AVIF) are none.

    A file that cannot be read is judged by its name; whoever reads it says what is wrong.
    """
    head = _head(path)
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PHOTO_BRANDS
    if head[4:8] in _BOXES or head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if len(head) > 2 * _PACKET and {head[0], head[_PACKET], head[2 * _PACKET]} == {0x47}:
        return True
    return os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES


def _head(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file, else none. Never waits on a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            return file.read(2 * _PACKET + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return b""
