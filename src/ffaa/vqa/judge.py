"""Does a text say what was measured? The inverse of the sentence file: text -> claims -> checked against a record."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from ffaa.types import EvidenceRecord, JudgedSentence, Support
from ffaa.vqa.sentences import Claim, claims, plain
from ffaa.vqa.synonyms import free_claims, is_supposed

UNDECIDED = "unsure"  # the word of a measure that leaves the matter open


def find_claims(sentence: str) -> list[Claim]:
    """What a sentence states of measured items, in order; [] when nothing is recognised.

    The wordings of the sentence file go first (a longer one hides those inside it), then, where none is found, the
    phrases of the synonyms.
    """
    text = f" {plain(sentence)} "
    spans: list[tuple[int, int, Claim]] = []
    for wording in _longest_first():
        needle = f" {wording} "
        at = text.find(needle)
        if at < 0 or is_supposed(text[:at]):
            continue
        if not any(start < at + len(needle) - 1 and at + 1 < end for start, end, _ in spans):
            spans.append((at + 1, at + len(needle) - 1, claims()[wording]))
    if spans:
        return [claim for _, _, claim in sorted(spans, key=lambda span: span[0])]
    return free_claims(sentence)


def judge(sentence: str | Claim, record: EvidenceRecord) -> Support:
    """A sentence or claim against a record. One contradicted claim makes the whole sentence so."""
    return _support([sentence] if isinstance(sentence, Claim) else find_claims(sentence), record)


def judge_text(text: str, record: EvidenceRecord, part: Literal["description", "reasoning"]) -> list[JudgedSentence]:
    """Every sentence of a text (a part of an answer) against a record."""
    judged = []
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        stated = find_claims(sentence)
        if sentence:
            judged.append(
                JudgedSentence(
                    part=part,
                    text=sentence,
                    support=_support(stated, record),
                    items=list(dict.fromkeys(claim.item for claim in stated)),
                    measured={c.item: record.word(c.item) for c in stated if _holds(c, record) is False},
                )
            )
    return judged


def _support(stated: list[Claim], record: EvidenceRecord) -> Support:
    known = [holds for claim in stated if (holds := _holds(claim, record)) is not None]
    if not known:
        return Support.NOT_MEASURABLE
    return Support.SUPPORTED if all(known) else Support.CONTRADICTED


def _holds(claim: Claim, record: EvidenceRecord) -> bool | None:
    """None: the item was not measurable, or its measure leaves the matter open."""
    word = record.word(claim.item)
    if not word or (word == UNDECIDED and UNDECIDED not in claim.words):
        return None
    return word in claim.words


@cache
def _longest_first() -> tuple[str, ...]:
    return tuple(sorted(claims(), key=lambda wording: (-len(wording), wording)))
