"""Which conversations are fit to learn from, and every reason why the others are not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field

from ffaa.errors import InputError
from ffaa.types import Record
from ffaa.vqa.claims import denied, stance
from ffaa.vqa.conversation import read_jsonl
from ffaa.vqa.duplicates import NearDuplicates
from ffaa.vqa.row import VqaRow
from ffaa.vqa.words import words

Pieces = Callable[[str], int]
Changed = Callable[[VqaRow], frozenset[str] | None]


class FilterArgs(BaseModel):
    """What a row must hold to be kept. The paper names format, result and probability, and no number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: tuple[str, ...] = Field(("description", "reasoning"), description="texts that must be there")
    min_probability: float = Field(0.55, ge=0, le=1, description="stated for the result; below: not sure enough")
    min_words: int = Field(60, ge=1, description="of description and reasoning, split at white space")
    max_words: int = Field(400, ge=1)
    max_pieces: int = Field(512, ge=1, description="of the whole reply, where a tokenizer is given")
    min_english: float = Field(0.1, ge=0, le=1, description="share of English function words among the words")
    max_foreign: float = Field(0.01, ge=0, le=1, description="share of letters that are not Latin")
    near_duplicate: float = Field(0.9, gt=0, le=1, description="Jaccard index of 3-word shingles, from which on")


class Rejected(Record):
    """A row that was left out. reasons: name of the check -> what it found."""

    row: VqaRow
    reasons: dict[str, str]


class FilterCounts(Record):
    """reasons: name of the check -> rows that it rejected; a row may have several."""

    read: int
    kept: int
    rejected: int
    reasons: dict[str, int]


_FUNCTION_WORD = re.compile(
    r"a|an|the|and|or|but|if|as|of|in|on|at|to|from|for|with|by|into|than|that|this|these|those|it|its|they|their|there|"
    r"is|are|was|were|be|been|has|have|had|do|does|not|no|so|such|which|who|while|where|when|both|one|all"
)
_REFUSAL = re.compile(
    r"\b(?:i['’]?m|i am) (?:very |really |so )?(?:sorry|unable|not able)\b"
    r"|\bi (?:can(?:['’]t|not| not)|could not|couldn['’]t|won['’]t|will not) "
    r"(?:help|assist|comply|provide|identify|analy[sz]e|determine|discuss|fulfil|do that|process|view|see)"
    r"|\bas an ai\b|\b(?:my|the) (?:content |safety )?polic(?:y|ies)\b|\bunable to (?:assist|help|comply|fulfil)",
    re.IGNORECASE,
)


def wrong_format(row: VqaRow, args: FilterArgs) -> str:
    """The reply was not read, or one of its five lines is missing."""
    missing = [part for part in args.parts if not getattr(row, part)]
    values = {"result": row.result, "probability": row.probability, "type": row.stated_type}
    missing += [name for name, value in values.items() if value is None]
    return f"no {', no '.join(missing)}" if missing else ""


def refusal(row: VqaRow, args: FilterArgs) -> str:
    """The teacher would not answer."""
    found = _REFUSAL.search(row.raw) or _REFUSAL.search(_text(row))
    return found.group() if found else ""


def wrong_result(row: VqaRow, args: FilterArgs) -> str:
    """The result is not the label."""
    return f"says {row.result}, is {row.label}" if row.result not in (None, row.label) else ""


def wrong_type(row: VqaRow, args: FilterArgs) -> str:
    """The forgery type is not the true one."""
    wrong = row.stated_type not in (None, row.forgery_type)
    return f"says {row.stated_type}, is {row.forgery_type}" if wrong else ""


def unsure(row: VqaRow, args: FilterArgs) -> str:
    """The stated probability is low."""
    low = row.probability is not None and row.probability < args.min_probability
    return f"{row.probability} is below {args.min_probability}" if low else ""


def contradiction(row: VqaRow, args: FilterArgs) -> str:
    """The reasoning speaks against the result."""
    if row.result is None:
        return ""
    taken, phrase = stance(row.reasoning)
    return f"reasoning speaks for {taken}: {phrase!r}" if taken not in (None, row.result) else ""


def unfounded(row: VqaRow, args: FilterArgs, changed: frozenset[str] | None) -> str:
    """A sentence rests on nothing, though the teacher gives what its sentences rest on; or it names a region, method or
    type that the manifest (or the mask) denies. Rows that a person has gone through are taken at that person's word.
    """
    if row.reviewed_by:
        return ""
    if any(sentence.evidence for sentence in row.sentences):
        return next((f"rests on nothing: {s.text!r}" for s in row.sentences if not s.evidence), "")
    found = (denied(s.text, row, changed) for s in row.sentences if s.part == "reasoning")
    return next((why for why in found if why), "")


def wrong_language(row: VqaRow, args: FilterArgs) -> str:
    """Not English, by function words and letters: a light check that tells English from other languages, not more."""
    text = _text(row)
    letters = [c for c in text if c.isalpha()]
    spelt = words(text)
    if not spelt:
        return ""
    foreign = sum(ord(c) > 0x24F for c in letters) / len(letters)
    if foreign > args.max_foreign:
        return f"{foreign:.0%} of the letters are not Latin"
    english = sum(bool(_FUNCTION_WORD.fullmatch(word)) for word in spelt) / len(spelt)
    return f"{english:.0%} English function words" if english < args.min_english else ""


def wrong_length(row: VqaRow, args: FilterArgs, pieces: Pieces | None) -> str:
    """Too short or too long."""
    count = len(_text(row).split())
    if count < args.min_words:
        return f"{count} words, fewer than {args.min_words}"
    if count > args.max_words:
        return f"{count} words, more than {args.max_words}"
    if pieces is not None and (size := pieces(row.raw)) > args.max_pieces:
        return f"{size} tokens, more than {args.max_pieces}"
    return ""


def _text(row: VqaRow) -> str:
    return f"{row.description} {row.reasoning}".strip()


class Filter:
    """Judges rows one after the other.

    pieces: how many tokens a text has for the model that is to learn it. changed: the changed parts of a row's face
    (by default what the manifest says; `claims.mask_regions` reads the mask), None where they are not known.
    """

    def __init__(self, args: FilterArgs, pieces: Pieces | None = None, changed: Changed | None = None):
        self._args, self._pieces = args, pieces
        self._changed = changed or (lambda row: frozenset(row.regions) or None)
        self._kept = NearDuplicates(args.near_duplicate)

    def judge(self, row: VqaRow) -> dict[str, str]:
        """All reasons against a row, strictest first; empty: it is kept, and later rows must differ from it."""
        args = self._args
        found = {
            "format": wrong_format(row, args),
            "refusal": refusal(row, args),
            "result": wrong_result(row, args),
            "type": wrong_type(row, args),
            "probability": unsure(row, args),
            "contradiction": contradiction(row, args),
            "evidence": unfounded(row, args, self._changed(row)),
            "language": wrong_language(row, args),
            "length": wrong_length(row, args, self._pieces),
            "duplicate": self._kept.find(row.image, _text(row)),
        }
        reasons = {name: why for name, why in found.items() if why}
        if not reasons:
            self._kept.keep()
        return reasons


def filter_rows(rows: Iterable[VqaRow], judge: Filter) -> Iterator[VqaRow | Rejected]:
    """Every row, kept or rejected, in order."""
    for row in rows:
        reasons = judge.judge(row)
        yield Rejected(row=row, reasons=reasons) if reasons else row


def filter_file(source: Path, kept: Path, rejected: Path, judge: Filter) -> FilterCounts:
    """Filter JSON Lines of VqaRow into two files that appear, whole, at the end; rejected: lines of `Rejected`.

    Raises InputError when `source` is missing or a line is no VqaRow.
    """
    if len({p.resolve() for p in (source, kept, rejected)}) < 3:
        raise InputError(f"{kept}: source, kept and rejected rows need three files; choose other names")
    counts, reasons = Counter[str](), Counter[str]()
    parts = {path: path.with_suffix(path.suffix + ".part") for path in (kept, rejected)}
    with parts[kept].open("w", encoding="utf-8") as good, parts[rejected].open("w", encoding="utf-8") as bad:
        for outcome in filter_rows(read_jsonl(source, VqaRow), judge):
            file: TextIO = good
            if isinstance(outcome, Rejected):
                file = bad
                reasons.update(outcome.reasons.keys())
            counts["rejected" if file is bad else "kept"] += 1
            file.write(outcome.model_dump_json() + "\n")
    for path, part in parts.items():
        part.replace(path)
    return FilterCounts(
        read=counts.total(), kept=counts["kept"], rejected=counts["rejected"], reasons=dict(reasons.most_common())
    )
