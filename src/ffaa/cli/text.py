"""A verdict in plain words: 80 columns, no colour needed, and never surer than the numbers are."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from ffaa.types import Difficulty, ForgeryType, Label, Support, UnparsedAnswer, Verdict

if TYPE_CHECKING:
    from ffaa.types import Answer, EvidenceItem, EvidenceRecord, JudgedSentence, Source

WIDTH = 80
WEAK = 0.7  # below this match score an answer is not said as a finding
STRONG = 0.9
UNUSUAL = 5  # measured items that are listed

_MARGIN = 4
_COLUMN = 16


def is_uncertain(verdict: Verdict) -> bool:
    """A hard case, or a chosen answer that matches the image badly."""
    return verdict.difficulty is Difficulty.HARD or verdict.match_score < WEAK


def headline(verdict: Verdict) -> str:
    """The verdict in a few words."""
    fake = verdict.label is Label.FAKE
    kind = "" if verdict.forgery_type in (None, ForgeryType.REAL) else verdict.forgery_type.value.lower()
    if is_uncertain(verdict):
        return f"leans {verdict.label.value}, uncertain" + (f" (if forged: perhaps {kind})" if fake and kind else "")
    return f"FAKE - {kind or 'type not stated'}" if fake else "REAL - no sign of forgery was found"


def describe_source(source: Source) -> list[str]:
    """The lines above the faces of one photo."""
    lines = [printable(source.path)]
    lines += [fill(printable(n), WIDTH, initial_indent="  note: ", subsequent_indent="    ") for n in source.notes]
    return lines


def describe(verdict: Verdict, answers: bool = False) -> str:
    """One face: verdict, scores, the chosen answer's texts and what speaks for caution; with all three answers."""
    uncertain = is_uncertain(verdict)
    box = verdict.box
    place = "whole image" if verdict.crop.whole_image else "box"
    strength = "weak" if verdict.match_score < WEAK else "moderate" if verdict.match_score < STRONG else "strong"
    agree = "all three answers agree" if verdict.difficulty is Difficulty.EASY else "the three answers disagree"
    rows = [
        f"  Face {verdict.face_index + 1} of {verdict.face_count}, {place} {box.left},{box.top} to "
        f"{box.right},{box.bottom} ({box.width} x {box.height} px)",
        _row("Verdict", headline(verdict)),
        _row("Match score", f"{verdict.match_score:.2f}, {strength} (how well the chosen answer fits the face)"),
        _row("Forgery score", f"{verdict.forgery_score:.2f} (0 real, 1 fake)"),
        _row("Difficulty", f"{verdict.difficulty.value} ({agree})"),
        _row("Description", verdict.description),
        _row("Reasoning", ("[one reading among others, not a finding] " if uncertain else "") + verdict.reasoning),
    ]
    if verdict.examined is not None:
        rows.append(_row("Sentences", "of the answer, held against what was measured on the face:"))
        rows += [_sentence(sentence, verdict.examined) for sentence in verdict.sentences]
        rows.append(_row("Unusual", "what was measured and is rarest among faces:"))
        rows += [_item(item) for item in most_unusual(verdict.examined)]
    rows += [_row("Caution", caution) for caution in verdict.cautions]
    if verdict.heatmap:
        rows.append(f"{' ' * _MARGIN}{'Heatmap':{_COLUMN}}{printable(verdict.heatmap)}")
    if answers:
        for index, answer in enumerate(verdict.answers):
            rows += _answer(answer, verdict.match_scores[index], index == verdict.chosen_index)
    return "\n".join(rows)


def most_unusual(record: EvidenceRecord) -> list[EvidenceItem]:
    """The measured items with the greatest strength, strongest first."""
    measured = [item for item in record.items.values() if item.value is not None and item.strength > 0]
    return sorted(measured, key=lambda item: (-item.strength, item.name))[:UNUSUAL]


def _sentence(sentence: JudgedSentence, record: EvidenceRecord) -> str:
    if sentence.support is not Support.CONTRADICTED:
        return _row(f" {sentence.support.value}", sentence.text)
    found = "; ".join(f"{_plain(record.items[name])} {word}" for name, word in sentence.measured.items())
    return _row(f" {sentence.support.value.upper()}", f"{sentence.text} (measured: {found})")


def _item(item: EvidenceItem) -> str:
    return _row("", f"{_plain(item)}: {item.word}, {item.value:.3g} {item.unit} ({item.region})")


def _plain(item: EvidenceItem) -> str:
    return item.name.split(":")[-1].replace("_", " ")


def _answer(answer: Answer | UnparsedAnswer, score: float | None, chosen: bool) -> list[str]:
    rows = [f"{' ' * _MARGIN}{answer.role.value.capitalize()} answer{' (chosen)' if chosen else ''}"]
    rows.append(_row("  Asked", answer.prompt))
    if isinstance(answer, UnparsedAnswer):
        return [*rows, _row("  Not readable", answer.reason), _row("  Raw text", answer.raw)]
    kind = f", {answer.forgery_type.value.lower()}" if answer.forgery_type else ""
    stated = "" if answer.probability is None else f", states probability {answer.probability:.2f}"
    rows.append(_row("  Says", f"{answer.result.value}{kind}{stated}"))
    rows.append(_row("  Match score", "none" if score is None else f"{score:.2f}"))
    rows.append(_row("  Description", answer.description))
    rows.append(_row("  Reasoning", answer.reasoning))
    return rows + [_row("  Contradiction", flag) for flag in answer.flags]


def _row(name: str, text: str) -> str:
    return fill(
        printable(text) or "-",
        WIDTH,
        initial_indent=f"{' ' * _MARGIN}{name:{_COLUMN}}",
        subsequent_indent=" " * (_MARGIN + _COLUMN),
    )


def printable(text: str) -> str:
    """`text` on one line, without control characters: what a model writes must not steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
