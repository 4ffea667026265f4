"""Near-duplicate texts in one pass: MinHash of 3-word shingles (Broder 1997), banded."""

from __future__ import annotations

import zlib

import numpy as np

from ffaa.vqa.words import words

SHINGLE = 3
BANDS, ROWS = 16, 6  # a pair of Jaccard index 0.9 shares a band with probability 0.99999, one of 0.5 with 0.22
_rng = np.random.default_rng(0)
_FACTORS = _rng.integers(1, 2**63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_SHIFTS = _rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)


def signature(text: str) -> np.ndarray:
    """uint32 (96,): the share of equal places of two signatures estimates the Jaccard index of the texts' shingles."""
    spelt = words(text)
    shingles = {" ".join(spelt[i : i + SHINGLE]) for i in range(max(len(spelt) - SHINGLE + 1, 1))}
    hashed = np.array([zlib.crc32(s.encode()) for s in shingles], np.uint64)
    mixed = (hashed[:, None] * _FACTORS + _SHIFTS) >> np.uint64(32)  # wraps at 2^64: multiply-shift hashing
    return mixed.min(0).astype(np.uint32)


class NearDuplicates:
    """Remembers kept texts: about 3.5 kB each."""

    def __init__(self, threshold: float):
        """threshold: from this Jaccard index on (0..1), two texts are near-duplicates."""
        self._threshold = threshold
        self._texts: list[tuple[str, np.ndarray]] = []
        self._bands: dict[tuple[int, bytes], int] = {}
        self._last: tuple[str, np.ndarray] | None = None

    def find(self, name: str, text: str) -> str:
        """What an earlier, kept text has in common with `text`, in words; '' where there is none. Empty text: ''."""
        self._last = (name, signature(text)) if words(text) else None
        if self._last is None:
            return ""
        mine = self._last[1]
        for place in sorted({self._bands[key] for key in _keys(mine) if key in self._bands}):
            other, theirs = self._texts[place]
            alike = float((mine == theirs).mean())
            if alike >= self._threshold:
                return f"{alike:.0%} like {other}"
        return ""

    def keep(self) -> None:
        """Remember the text that `find` saw last."""
        if self._last is None:
            return
        for key in _keys(self._last[1]):
            self._bands.setdefault(key, len(self._texts))
        self._texts.append(self._last)


def _keys(signed: np.ndarray) -> list[tuple[int, bytes]]:
    """One per band, and one for the whole, so that equal texts always meet."""
    bands = [(i, signed[i * ROWS : (i + 1) * ROWS].tobytes()) for i in range(BANDS)]
    return [*bands, (BANDS, zlib.crc32(signed.tobytes()).to_bytes(4, "big"))]
