"""What the vision tower alone makes of a face, in words that the language model reads beside the evidence.

A small language model learns to weigh a few words sooner than the tower's hundreds of numbers.
"""

from __future__ import annotations

import numpy as np

from ffaa.types import ForgeryType

CUTS = (0.05, 0.15, 0.35, 0.5, 0.65, 0.85, 0.95)
TRACES = ("none", "minimal", "faint", "slight", "some", "clear", "marked", "strong")
KINDS = {
    ForgeryType.REAL: "real",
    ForgeryType.IDENTITY_EXCHANGE: "exchange",
    ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION: "attribute",
    ForgeryType.ENTIRE_FACE_SYNTHESIS: "synthesis",
}


def tower_words(score: float, kind: ForgeryType) -> dict[str, str]:
    """{'trace': how much of a forgery the tower's linear head sees (score in [0, 1]), 'kind': the type it names}."""
    return {"trace": TRACES[int(np.searchsorted(CUTS, score, side="right"))], "kind": KINDS[kind]}


def all_words() -> list[tuple[str, str]]:
    """Every (name, word) that `tower_words` can give."""
    return [*(("trace", word) for word in TRACES), *(("kind", word) for word in KINDS.values())]
