"""`--out`: names for the files of each face, and writing them."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from ffaa.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel

    from ffaa.types import Verdict
    from ffaa.types_clip import ClipVerdict

MAX_NAME_BYTES = 120  # file systems allow 255, and the endings need room


class OutputFolder:
    """A folder for results; every photo gets a name of its own in it."""

    def __init__(self, path: Path) -> None:
        """Makes the folder. Raises UsageError when it cannot be written."""
        self.path = path
        self._used: set[str] = set()
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".ffaa-writes"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _cannot_write(path, error) from error

    def name_for(self, photo: str) -> str:
        """A safe name from the photo's, not given out before by this object ('a', 'a-2', 'a-3' ...)."""
        base = safe_name(photo)
        name, count = base, 1
        while name.casefold() in self._used:  # some file systems do not tell 'A' from 'a'
            count += 1
            name = f"{base}-{count}"
        self._used.add(name.casefold())
        return name

    def heatmap_path(self, name: str, face: int, with_text: bool = True) -> Path:
        """Where `write_heatmap` puts it."""
        return self.path / f"{name}-face{face}-heatmap{'' if with_text else '-without-text'}.png"

    def write_heatmap(self, path: Path, pixels: np.ndarray) -> None:
        """uint8 RGB (S, S, 3) -> PNG. Raises UsageError when it cannot be written."""
        from PIL import Image

        try:
            Image.fromarray(pixels).save(path)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write_json(self, name: str, verdict: Verdict) -> None:
        """One face's verdict. Raises UsageError when it cannot be written."""
        self._write(self.path / f"{name}-face{verdict.face_index}.json", verdict)

    def write_clip_json(self, name: str, clip: ClipVerdict) -> None:
        """One video's verdict. Raises UsageError when it cannot be written."""
        self._write(self.path / f"{name}-clip.json", clip)

    def timeline_path(self, name: str) -> Path:
        """Where a video's timeline goes; `write_heatmap` writes any picture."""
        return self.path / f"{name}-timeline.png"

    def telling_path(self, name: str, person: int, place: int, with_text: bool = True) -> Path:
        """Where the heatmap of a telling frame goes; person and place from 1 on."""
        return self.path / f"{name}-person{person}-frame{place}-heatmap{'' if with_text else '-without-text'}.png"

    def _write(self, path: Path, record: BaseModel) -> None:
        try:
            path.write_text(record.model_dump_json(indent=2) + "\n", "utf-8")
        except OSError as error:
            raise _cannot_write(path, error) from error


def safe_name(photo: str) -> str:
    """The photo's name without its suffix: letters and digits of any script, '-', '_' and '.', at most 120 bytes."""
    full = unicodedata.normalize("NFC", Path(photo).name)
    stem = Path(full).stem
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem).strip(".-_") or "photo"
    if len(name.encode()) > MAX_NAME_BYTES:
        digest = hashlib.sha256(full.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = name.encode()[: MAX_NAME_BYTES - 9].decode("utf-8", "ignore") + "-" + digest
    return name


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written ({(error.strerror or str(error)).lower()}); choose another --out")
