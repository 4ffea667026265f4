"""A reviewer's decision about a row, and what several of them make of it: the rules, without storage."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np
from pydantic import field_validator

from ffaa.errors import UsageError
from ffaa.types import ForgeryType, Label, Record
from ffaa.vqa.row import Sentence, VqaRow


class Choice(StrEnum):
    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"


class Text(Record):
    """The three parts a reviewer reads and edits. result: 'fake, 0.92, Identity exchange', '?' for what could not be
    read. White space is collapsed: each part is one line."""

    description: str
    reasoning: str
    result: str

    @field_validator("*")
    @classmethod
    def _one_line(cls, text: str) -> str:
        return one_line(text)


class Decision(Record):
    """One entry of the audit log. time: ISO 8601, UTC. informed: the reviewer saw what others had decided."""

    row: int
    reviewer: str
    decision: Choice
    note: str
    time: str
    before: Text
    after: Text
    informed: bool


class Reviewed(Record):
    """A row and what was decided about it, the last decision of each reviewer."""

    row: VqaRow
    decisions: list[Decision]


class Agreement(Record):
    """Two reviewers on the rows both decided unseen by each other. counts[i][j]: rows that `first` gave choice i and
    `second` choice j, in Choice's order. kappa: on the three choices; kappa_keep: on keeping or rejecting."""

    first: str
    second: str
    counts: list[list[int]]
    kappa: float | None
    kappa_keep: float | None


def settle(decisions: Sequence[Decision], reviews: int) -> str:
    """open, contested, kept or rejected: what a row's last decisions come to; the rule stands in `ffaa.vqa.review`."""
    kept = [d for d in decisions if d.decision is not Choice.REJECT]
    if len(decisions) < reviews:
        return "open"
    if len(decisions) == reviews:
        edits = {d.after for d in kept if d.decision is Choice.EDIT}
        contested = 0 < len(kept) < len(decisions) or len(edits) > 1
    else:
        contested = 2 * len(kept) == len(decisions)
    if contested:
        return "contested"
    return "kept" if 2 * len(kept) > len(decisions) else "rejected"


def cohen_kappa(counts: np.ndarray) -> float | None:
    """Agreement beyond chance of two raters (Cohen 1960) from their (n, n) table; None where chance alone is sure."""
    total = counts.sum()
    if not total:
        return None
    observed = np.trace(counts) / total
    chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    return None if chance == 1 else float((observed - chance) / (1 - chance))


def text_of(row: VqaRow) -> Text:
    """The three parts as the teacher wrote them."""
    probability = None if row.probability is None else f"{row.probability:.2f}"
    result = ", ".join(part or "?" for part in (row.result, probability, row.stated_type))
    return Text(description=row.description, reasoning=row.reasoning, result=result)


def read_result(line: str) -> tuple[Label, float, ForgeryType]:
    """The analysis result line, parsed. Raises UsageError saying how it is written."""
    parts = [one_line(part).casefold() for part in line.split(",")]
    kinds = {kind.value.casefold(): kind for kind in ForgeryType}
    if len(parts) == 3 and parts[0] in set(Label) and parts[2] in kinds and re.fullmatch(r"[01](\.\d+)?", parts[1]):
        probability = float(parts[1])
        if probability <= 1:
            return Label(parts[0]), probability, kinds[parts[2]]
    raise UsageError(f"analysis result '{line}': write it as 'fake, 0.92, Identity exchange'")


def check(row: VqaRow, text: Text) -> None:
    """Raises UsageError where a text may not be learnt from: an empty part, a result that is not the truth."""
    if not text.description.strip() or not text.reasoning.strip():
        raise UsageError("image description and forgery reasoning need words; write them, or reject the row")
    label, _, kind = read_result(text.result)
    if (label, kind) != (row.label, row.forgery_type):
        truth = f"{row.label.value}, {row.forgery_type.value}"
        raise UsageError(f"the result says {label.value}, {kind.value}, the truth is {truth}; correct or reject it")


def revised(row: VqaRow, text: Text) -> VqaRow:
    """The row with a person's text. Sentences left as they were keep their evidence, new ones have none; raw stays."""
    label, probability, kind = read_result(text.result)
    sentences = [
        *_sentences("description", text.description, row.sentences),
        *_sentences("reasoning", text.reasoning, row.sentences),
    ]
    found = {"sentences": sentences, "result": label, "probability": probability, "stated_type": kind}
    return row.model_copy(update=found)


def one_line(text: str) -> str:
    return " ".join(text.split())


def _sentences(part: str, text: str, old: list[Sentence]) -> Iterator[Sentence]:
    known = {one_line(s.text): s for s in old if s.part == part}
    rest = one_line(text)
    while rest:
        kept = max((k for k in known if rest == k or rest.startswith(k + " ")), key=len, default="")
        if kept:
            yield known[kept]
        else:
            match = re.match(r".*?[.!?][\"')\]]*(?= |$)|.+", rest)
            kept = match.group() if match else rest
            yield Sentence.model_validate({"part": part, "text": kept})
        rest = rest[len(kept) :].lstrip()


def final(reviewed: Reviewed) -> VqaRow:
    """A kept row as people left it, `reviewed_by` those who kept it."""
    names = [d.reviewer for d in reviewed.decisions if d.decision is not Choice.REJECT]
    original = text_of(reviewed.row)
    text = agreed(original, reviewed.decisions)
    row = reviewed.row if text == original else revised(reviewed.row, text)
    return row.model_copy(update={"reviewed_by": names})


def agreed(original: Text, decisions: Sequence[Decision]) -> Text:
    """The text that stands: the last edit, or the last that was accepted in sight of the others'; else the original."""
    kept = [d for d in decisions if d.decision is not Choice.REJECT]
    chosen = [d.after for d in kept if d.decision is Choice.EDIT or d.informed or d.after != original]
    return chosen[-1] if chosen else original
