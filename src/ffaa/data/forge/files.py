"""Files of a run that may be killed: whole or not there, and line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import cv2
import numpy as np

from ffaa.files import write
from ffaa.types import Record

R = TypeVar("R", bound=Record)


def png(image: np.ndarray) -> bytes:
    """uint8 RGB (H, W, 3) or grey (H, W) -> a PNG file, always by the same encoder with the same settings."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()


def append(lines: TextIO, record: Record) -> None:
    """Adds a record to an open JSON Lines file, at once."""
    lines.write(record.model_dump_json() + "\n")
    lines.flush()


def read(path: Path, kind: type[R]) -> list[R]:
    """The records of a JSON Lines file, none where there is no file. A last line that was cut off is removed."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write(path, whole)
    return [kind.model_validate_json(line) for line in whole.splitlines()]


def table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> bytes:
    """A CSV file; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
