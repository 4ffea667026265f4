"""The rule of one evidence item. What is known of a face image afterwards is an `ffaa.types.EvidenceRecord`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffaa.evidence.look import Look

VERSION = "1"


class NotMeasurableError(Exception):
    """Raised by a measure when this image cannot tell; the text is the item's reason."""


@dataclass(frozen=True)
class Measure:
    """One item's rule: words[i] stands for values between cuts[i - 1] and cuts[i]."""

    function: Callable[[Look], float]
    unit: str
    region: str
    method: str
    cuts: tuple[float, ...]
    words: tuple[str, ...]
