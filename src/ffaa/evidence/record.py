"""What is known of a face image after it was examined: named items, each a value, a word for it, and how unusual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from ffaa.types import Record

if TYPE_CHECKING:
    from ffaa.evidence.look import Look

VERSION = "1"


class EvidenceItem(Record):
    """One measured quantity. value: in `unit`, None where it cannot be measured on this image (`reason` says why).

    word: the value in words ('' without a value). strength: how unusual it is among training faces, 0 (the median) to
    1 (beyond 99.5 % of them); 0 without a value.
    """

    name: str
    value: float | None
    unit: str
    method: str
    region: str
    word: str = ""
    strength: float = Field(0.0, ge=0, le=1)
    reason: str = ""


class EvidenceRecord(Record):
    """All items of one face image by name, and the versions of what measured them."""

    items: dict[str, EvidenceItem]
    versions: dict[str, str]

    def word(self, name: str) -> str:
        """The word of an item; '' where it was not measurable or is unknown."""
        return self.items[name].word if name in self.items else ""

    @property
    def words(self) -> dict[str, str]:
        """name -> word of all items that could be measured."""
        return {name: item.word for name, item in self.items.items() if item.word}


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
