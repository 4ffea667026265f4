"""Photos in: any file, array or PIL image -> uint8 RGB pixels, or one InputError line that says what to do.

Files are read once, under a byte limit; the pixel limit is checked on the header, before anything is decoded.
"""

from __future__ import annotations

import glob
import hashlib
import io
import math
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ffaa.errors import InputError, TooLargeError
from ffaa.types import Source

# Decoders of photos only: Pillow also opens formats that run other programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic"}
    | {".heif", ".hif", ".avif", ".jp2", ".ppm", ".pgm"}
)
MEMORY = "<array>"

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION = 0x0112
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not a stuffed byte, filling or restart
_SCAN, _END = 0xDA, 0xD9
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW = threading.RLock()


@dataclass(frozen=True)
class Limits:
    """What a photo may be.

    max_bytes: size of the file. max_pixels: width x height in the header. work_pixels: larger photos are scaled
    down to it. min_side: the smaller side, pixels. max_scans: of a progressive JPEG; each is a pass over all pixels, so
    that a small file with thousands would take minutes. Encoders write about 10.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000
    work_pixels: int = 50_000_000
    min_side: int = 16
    max_scans: int = 64


DEFAULT = Limits()


@dataclass(frozen=True)
class Photo:
    """pixels: uint8 RGB (H, W, 3), upright. source: where it came from, its size as in `pixels`, what was unusual."""

    pixels: np.ndarray
    source: Source


def load_photo(source: str | Path | np.ndarray | Image.Image, limits: Limits = DEFAULT) -> Photo:
    """A file, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or uint16, or a PIL image -> Photo.

    Orientation (EXIF) is applied, transparency laid on white, 16 bits scaled to 8, of an animation the first frame
    taken, a very large photo scaled down; each is noted. Raises InputError, one line, when that cannot be done.
    """
    notes: list[str] = []
    if isinstance(source, (str, os.PathLike)):
        return load_bytes(read_bytes(source, limits), shown(source), limits)
    image = _from_array(source, notes) if isinstance(source, np.ndarray) else source
    if not isinstance(image, Image.Image):
        kind = type(source).__name__
        raise InputError(f"a {kind} is not a photo; give a path, a uint8 RGB array (H, W, 3) or a PIL image")
    _check_size(image.size, MEMORY, limits)
    with _pillow(MEMORY):
        pixels = _to_pixels(image, MEMORY, limits, notes)
    height, width = pixels.shape[:2]
    return Photo(pixels, Source(path=MEMORY, sha256=None, width=width, height=height, notes=notes))


def load_bytes(data: bytes, name: str, limits: Limits = DEFAULT) -> Photo:
    """The same of a file's content; `name` is only what it is called in the result and in errors. Raises InputError."""
    notes: list[str] = []
    if len(data) > limits.max_bytes:
        raise TooLargeError(_too_many_bytes(name, len(data), limits))
    if not data:
        raise InputError(f"{name}: the file is empty (zero bytes); fetch or copy it again")
    if data[:2] == b"\xff\xd8" and _scans(data, limits.max_scans + 1) > limits.max_scans:
        raise InputError(f"{name}: a JPEG of more than {limits.max_scans} scans; save it again as an ordinary JPEG")
    with opened(data, name) as image:
        _check_size(image.size, name, limits)
        if getattr(image, "is_animated", False):
            animation = image.format in {"GIF", "WEBP", "PNG", "AVIF"}
            notes.append("animated: first frame used" if animation else "holds several images: first one used")
        pixels = _to_pixels(image, name, limits, notes, own=True)
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(data).hexdigest()
    return Photo(pixels, Source(path=name, sha256=digest, width=width, height=height, notes=notes))


def read_bytes(source: str | os.PathLike[str], limits: Limits = DEFAULT) -> bytes:
    """The bytes of a regular file of at most `limits.max_bytes`, one at least. Raises InputError."""
    return _read(source, shown(source), limits)


@contextmanager
def opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image in the bytes, of which only the header is read. What a decoder raises inside becomes an InputError."""
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        formats = ("AVIF", _heif(name))  # "mif1" may be either
    with _pillow(name), Image.open(io.BytesIO(data), formats=formats) as image:
        yield image


def shown(path: str | os.PathLike[str]) -> str:
    """`path` as one printable line of valid Unicode: control characters and undecodable bytes are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expand_paths(
    args: Iterable[str], on_empty: Callable[[str], None] | None = None, suffixes: frozenset[str] = SUFFIXES
) -> Iterator[str]:
    """What the user named -> paths, one after the other, in a fixed order.

    A folder gives the files in it and below (by `suffixes`, sorted, hidden ones left out), a pattern what it matches
    (sorted), '-' the lines of standard input. Other names pass through unchecked. A folder or pattern that gives
    nothing is handed to `on_empty`.
    """
    for arg in args:
        if arg == "-":
            for line in sys.stdin.buffer:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield from _expand(name, on_empty, suffixes)
        else:
            yield from _expand(arg, on_empty, suffixes)


def _expand(arg: str, on_empty: Callable[[str], None] | None, suffixes: frozenset[str]) -> Iterator[str]:
    if os.path.isdir(arg):
        found = _walk(arg, suffixes)
    elif glob.has_magic(arg) and not os.path.lexists(arg):
        found = _match(arg, suffixes)
    else:
        yield arg
        return
    empty = True
    for path in found:
        empty = False
        yield path
    if empty and on_empty is not None:
        on_empty(arg)


def _walk(folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder  # so that it is reported as a file that cannot be read
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):  # links could lead round in circles
            yield from _walk(entry.path, suffixes)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
            yield entry.path


def _match(pattern: str, suffixes: frozenset[str]) -> Iterator[str]:
    seen = set()
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
            if "**" not in pattern:  # which lists what is in the folder itself
                yield from _walk(path, suffixes)
        elif (real := os.path.realpath(path)) not in seen:  # '**' follows links, in circles too
            seen.add(real)
            yield path


def _read(source: str | os.PathLike[str], path: str, limits: Limits) -> bytes:
    """The bytes of a regular file of at most `limits.max_bytes`. Never waits on a pipe or a device."""
    try:
        _check_file(os.stat(source), source, limits)
        # Non-blocking, and checked again on the open file: what stands at the path may have changed since.
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _check_file(os.fstat(descriptor), source, limits)
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        if os.path.islink(source):
            raise InputError(f"{path}: a link whose target is missing; give the photo itself") from None
        if "://" in path:
            raise InputError(f"{path}: addresses are not fetched; download the photo and give the file") from None
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change its rights (chmod u+r) or copy it") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason.lower()}); check the path") from None
    return data


def _check_file(status: os.stat_result, source: str | os.PathLike[str], limits: Limits) -> None:
    path = shown(source)
    if stat.S_ISDIR(status.st_mode):
        if not os.access(source, os.R_OK | os.X_OK):
            raise InputError(f"{path}: no permission to read this folder; change its rights (chmod u+rx)")
        raise InputError(f"{path}: is a folder, not a photo; give the photos in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is a pipe or device, not a regular file; save the photo as a file")
    if status.st_size > limits.max_bytes:
        raise TooLargeError(_too_many_bytes(path, status.st_size, limits))


def _too_many_bytes(path: str, size: int, limits: Limits) -> str:
    megabytes = 2**20
    return (
        f"{path}: the file has {size / megabytes:,.1f} MB, the limit is {limits.max_bytes / megabytes:,.1f} MB; "
        "save a smaller copy"
    )


def _check_size(size: tuple[int, int], path: str, limits: Limits) -> None:
    width, height = size
    if min(size) < limits.min_side:
        raise InputError(
            f"{path}: {width} x {height} px is too small; each side needs at least {limits.min_side} px, "
            "give a larger photo"
        )
    if width * height > limits.max_pixels:
        raise TooLargeError(
            f"{path}: {width:,} x {height:,} px is above the limit of {limits.max_pixels / 1e6:,.0f} million pixels; "
            "save a smaller copy"
        )


def _scans(data: bytes, enough: int) -> int:
    """How many scans a JPEG has, counted up to `enough`; what follows its end (a motion photo's clip) is not read."""
    found, place = 0, 2
    while found < enough and (marker := _MARKER.search(data, place)):
        kind, place = data[marker.end() - 1], marker.end()
        if kind == _END:
            break
        found += kind == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")  # the segment; a scan's pixels are behind it
    return found


def _heif(path: str) -> str:
    """Registers Pillow's HEIF reader, on the first file that needs it, and returns its format name."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(f"{path}: HEIC photos need pillow-heif; pip install pillow-heif") from None
    register_heif_opener(thumbnails=False)
    return "HEIF"


@contextmanager
def _pillow(path: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one InputError, silences its warnings, and lifts Pillow's own bomb limit,
    as ours is checked on the header. Both are settings of the process, hence the lock."""
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        except InputError:
            raise
        except UnidentifiedImageError:
            raise InputError(
                f"{path}: the content is no image that can be read, whatever its name says; "
                "give a JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF photo"
            ) from None
        except MemoryError:
            raise InputError(f"{path}: not enough memory to decode it; save a smaller copy") from None
        except Exception as error:  # decoders of broken files raise anything: struct.error, KeyError, SyntaxError ...
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(
                f"{path}: truncated or damaged, it cannot be decoded ({reason}); fetch or export it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _from_array(array: np.ndarray, notes: list[str]) -> Image.Image:
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"an array of {array.dtype} has no agreed range (0..1 or 0..255?); give uint8 RGB, 0..255, (H, W, 3)"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise InputError(f"an array of shape {array.shape} is no photo; give (H, W) or (H, W, 3), channels last, RGB")
    if array.dtype == np.uint16:
        array = _eight_bits(array, notes)
    if 0 in array.shape:
        raise InputError(f"an array of shape {array.shape} holds no pixels; give uint8 RGB, (H, W, 3)")
    return Image.fromarray(np.ascontiguousarray(array))


def _eight_bits(array: np.ndarray, notes: list[str]) -> np.ndarray:
    """0..65535 -> 0..255, rounded."""
    notes.append("16 bits a channel: scaled to 8")
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_pixels(image: Image.Image, path: str, limits: Limits, notes: list[str], own: bool = False) -> np.ndarray:
    """Decodes and brings to upright uint8 RGB of at most `limits.work_pixels`. Only an `own` image may be changed."""
    width, height = image.size
    factor = math.sqrt(limits.work_pixels / (width * height))
    target = (max(1, int(width * factor)), max(1, int(height * factor)))
    if own and factor < 1 and image.format in {"JPEG", "MPO"}:
        # Decodes at 1/2, 1/4 or 1/8, down to a little below the target: less time and memory.
        image.draft(None, (int(target[0] * 0.7), int(target[1] * 0.7)))
    image.load()
    orientation = _orientation(image, notes)
    image = _simple_mode(image, path, notes)
    if factor < 1:
        if image.width > target[0]:
            image = image.resize(target, Image.Resampling.BOX)
        notes.append(f"scaled down from {width} x {height} px; sizes and boxes are those of the smaller copy")
    image = _to_rgb(image, notes)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
        notes.append("turned upright by its EXIF orientation")
    _check_size(image.size, path, limits)
    return np.array(image)


def _orientation(image: Image.Image, notes: list[str]) -> Any:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF blocks are often damaged, in as many ways as files are; the picture is good without
        notes.append("its EXIF block cannot be read: taken as upright")
        return 1


def _simple_mode(image: Image.Image, path: str, notes: list[str]) -> Image.Image:
    """L, LA, RGB, RGBA or CMYK of 8 bits: modes that can be resized."""
    if image.mode.startswith("I;16") or image.mode == "I":
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise InputError(f"{path}: 32-bit grey values have no agreed range; save it with 8 or 16 bits")
        return Image.fromarray(_eight_bits(array, notes))
    if image.mode == "F":
        raise InputError(f"{path}: floating-point grey values have no agreed range; save it with 8 or 16 bits")
    if "transparency" in image.info or image.mode in {"PA", "La", "RGBa", "RGBX"}:
        return image.convert("RGBA") if image.mode != "RGBX" else image.convert("RGB")
    if image.mode in {"L", "LA", "RGB", "RGBA", "CMYK"}:
        return image
    if image.mode == "LAB":
        raise InputError(f"{path}: the colour mode LAB is not supported; save it as RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode in {"LA", "RGBA"}:
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] != 255:
            notes.append("transparent: laid on white")
            white = Image.new("RGB", image.size, "white")
            white.paste(image.convert("RGB"), mask=alpha)
            return white
    if image.mode == "CMYK":
        notes.append("CMYK: converted to RGB without its colour profile")
    return image.convert("RGB")
