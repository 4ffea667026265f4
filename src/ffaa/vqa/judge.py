"""Does a text say what was measured? The inverse of the sentence file: text -> claims -> checked against a record."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache

import numpy as np

from ffaa.evidence.record import EvidenceRecord
from ffaa.vqa.sentences import Claim, claims, plain

ALIKE = 0.8  # share of a wording's weight that free text must hold to count as the same claim
CLEARLY = 0.1  # by which it must beat the nearest wording of another claim
_STOP = frozenset(
    plain("the a an of is are be it its as in on at to and or so by with than that this from for").split()
)
_NEGATIVE = frozenset(
    plain("no not hardly scarcely barely neither nor never without nothing none little lacks next").split()
)


class Support(StrEnum):
    """supported, contradicted: the record says so. not measurable: no claim on an item, or the item has no value."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_MEASURABLE = "not measurable"


def find_claims(sentence: str) -> list[Claim]:
    """What a sentence states of measured items, in order; [] when nothing is recognised.

    First the wordings of the sentence file (a longer one hides those inside it), then, where none is found, the one
    claim whose wording shares most content words with the sentence.
    """
    text = f" {plain(sentence)} "
    spans: list[tuple[int, int, Claim]] = []
    for wording in _longest_first():
        needle = f" {wording} "
        at = text.find(needle)
        if at >= 0 and not any(start < at + len(needle) - 1 and at + 1 < end for start, end, _ in spans):
            spans.append((at + 1, at + len(needle) - 1, claims()[wording]))
    if spans:
        return [claim for _, _, claim in sorted(spans, key=lambda span: span[0])]
    nearest = _nearest(sentence)
    return [nearest] if nearest else []


def judge(sentence: str | Claim, record: EvidenceRecord) -> Support:
    """A sentence or claim against a record. One contradicted claim makes the whole sentence so."""
    stated = [sentence] if isinstance(sentence, Claim) else find_claims(sentence)
    known = [record.word(claim.item) == claim.word for claim in stated if record.word(claim.item)]
    if not known:
        return Support.NOT_MEASURABLE
    return Support.SUPPORTED if all(known) else Support.CONTRADICTED


def judge_text(text: str, record: EvidenceRecord) -> list[tuple[str, Support, list[str]]]:
    """(sentence, verdict, items it speaks of) for every sentence of a text."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
    return [(part, judge(part, record), [claim.item for claim in find_claims(part)]) for part in sentences]


@cache
def _longest_first() -> tuple[str, ...]:
    return tuple(sorted(claims(), key=lambda wording: (-len(wording), wording)))


def _stems(text: str) -> frozenset[str]:
    """Content words without their commonest endings."""
    words = (word for word in plain(text).split() if word not in _STOP and word not in _NEGATIVE)
    return frozenset(re.sub(r"(?:ing|ed|es|s|ly|er|est)$", "", word) if len(word) > 4 else word for word in words)


def _negated(text: str) -> bool:
    return any(word in _NEGATIVE or (word.endswith("nt") and word[:-2] in _AUXILIARY) for word in plain(text).split())


_AUXILIARY = frozenset(["is", "are", "does", "do", "did", "was", "were", "has", "have", "can", "could", "would"])


@cache
def _catalogue() -> tuple[tuple[frozenset[str], bool, Claim], ...]:
    return tuple(dict.fromkeys((_stems(wording), _negated(wording), claim) for wording, claim in claims().items()))


@cache
def _weights() -> dict[str, float]:
    """Rarer words weigh more."""
    bags = [stems for stems, _, _ in _catalogue()]
    return {stem: float(np.log(1 + len(bags) / sum(stem in bag for bag in bags))) for stem in frozenset().union(*bags)}


def _nearest(sentence: str) -> Claim | None:
    weights = _weights()
    best: dict[Claim, float] = {}
    # A clause at a time: what is said of two things in one sentence must not be mixed.
    for clause in re.split(r"[,;:]|\b(?:and|while|but|whereas|which)\b", sentence):
        stems, negated = _stems(clause), _negated(clause)
        for wanted, negative, claim in _catalogue():
            if len(wanted) >= 2 and negative == negated:
                share = sum(weights[s] for s in wanted & stems) / sum(weights[s] for s in wanted)
                best[claim] = max(best.get(claim, 0.0), share)
    ranked = sorted(best.items(), key=lambda pair: -pair[1])
    if not ranked or ranked[0][1] < ALIKE or (len(ranked) > 1 and ranked[0][1] - ranked[1][1] < CLEARLY):
        return None
    return ranked[0][0]
