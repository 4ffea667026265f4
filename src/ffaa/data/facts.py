"""What a photo's file says of itself: bytes, hash, kind, size, and EXIF in short. Anybody can write or remove these."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any

from ffaa.data.images import DEFAULT, opened, shown
from ffaa.errors import InputError
from ffaa.types import Record
from ffaa.wording import printable

MAX_TEXT = 120
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _SOFTWARE, _CHANGED, _TAKEN, _ORIENTATION = 0x010F, 0x0110, 0x0131, 0x0132, 0x9003, 0x0112
_TURNS = {
    1: "upright", 2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored and turned by 180 degrees",
    5: "mirrored and turned by 90 degrees", 6: "turned by 90 degrees", 7: "mirrored and turned by 270 degrees",
    8: "turned by 270 degrees",
}  # fmt: skip


class FileFacts(Record):
    """Facts of one file. Texts from its EXIF block are on one line and cut to 120 characters; '' where it has none."""

    name: str
    sha256: str
    bytes: int
    kind: str = ""
    width: int = 0
    height: int = 0
    camera: str = ""
    software: str = ""
    taken: str = ""
    changed: str = ""
    orientation: str = ""
    has_place: bool = False
    note: str = ""


def file_facts(data: bytes, path: str) -> FileFacts:
    """The facts of a file from its bytes. Of the path only the name is kept, of a GPS position only that there is one.

    width, height: pixels as stored, before EXIF orientation. Never raises for a bad file: then only name, bytes and
    hash are known, and `note` says why.
    """
    known: dict[str, Any] = {
        "name": shown(PurePath(path).name or path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    try:
        with opened(data, "file") as image:
            known |= {"kind": image.format or "", "width": image.width, "height": image.height}
            if image.width * image.height > DEFAULT.max_pixels:  # some readers decode the picture to find EXIF
                return FileFacts(**known, note="too many pixels: its EXIF block was not read")
            known |= _exif(image.getexif())
    except InputError:
        known["note"] = "its EXIF block cannot be read" if "kind" in known else "the content is no image"
    return FileFacts(**known)


def _exif(exif: Any) -> dict[str, Any]:
    if not exif:
        return {}
    inner = exif.get_ifd(_EXIF_IFD)
    turn = exif.get(_ORIENTATION)
    return {
        "camera": _text(exif.get(_MAKE), exif.get(_MODEL)),
        "software": _text(exif.get(_SOFTWARE)),
        "taken": _text(inner.get(_TAKEN)),
        "changed": _text(exif.get(_CHANGED)),
        "orientation": _TURNS.get(turn, "") if isinstance(turn, int) else "",
        "has_place": bool(exif.get_ifd(_GPS_IFD)),
    }


def _text(*values: Any) -> str:
    """The texts among the values, on one line."""
    parts = [printable(value[: 4 * MAX_TEXT].strip("\0 ")) for value in values if isinstance(value, str)]
    line = " ".join(dict.fromkeys(part for part in parts if part))
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."
