"""A verdict in plain words: 80 columns, no colour needed, and never surer than the numbers are."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from ffaa.types import Support, UnparsedAnswer, Verdict
from ffaa.wording import (
    agreement,
    credentials,
    headline,
    item_name,
    item_value,
    mark,
    most_unusual,
    printable,
    reasoning,
    stated,
    strength,
)

if TYPE_CHECKING:
    from ffaa.types import Answer, EvidenceRecord, JudgedSentence, Source

WIDTH = 80

_MARGIN = 4
_COLUMN = 16


def describe_source(source: Source) -> list[str]:
    """The lines above the faces of one photo."""
    lines = [printable(source.path)]
    lines += [fill(printable(n), WIDTH, initial_indent="  note: ", subsequent_indent="    ") for n in source.notes]
    if source.credentials is not None:
        told = credentials(source.credentials)
        lines += [fill(line, WIDTH, initial_indent="  credentials: ", subsequent_indent="    ") for line in told]
    return lines


def describe(verdict: Verdict, answers: bool = False) -> str:
    """One face: verdict, scores, the chosen answer's texts and what speaks for caution; with all three answers."""
    box, score = verdict.box, f"{verdict.match_score:.2f}, {strength(verdict)}"
    place = "whole image" if verdict.crop.whole_image else "box"
    rows = [
        f"  Face {verdict.face_index + 1} of {verdict.face_count}, {place} {box.left},{box.top} to "
        f"{box.right},{box.bottom} ({box.width} x {box.height} px)",
        _row("Verdict", headline(verdict)),
        _row("Match score", f"{score} (how well the chosen answer fits the face)"),
        _row("Forgery score", f"{verdict.forgery_score:.2f} (0 real, 1 fake)"),
        _row("Difficulty", f"{verdict.difficulty.value} ({agreement(verdict)})"),
        _row("Description", verdict.description),
        _row("Reasoning", reasoning(verdict)),
    ]
    if verdict.examined is not None:
        rows.append(_row("Sentences", "of the answer, held against what was measured on the face:"))
        rows += [_sentence(sentence, verdict.examined) for sentence in verdict.sentences]
        rows.append(_row("Unusual", "what was measured and is rarest among faces:"))
        rows += [_row("", f"{item_name(i.name)}: {item_value(i)}") for i in most_unusual(verdict.examined)]
    rows += [_row("Caution", caution) for caution in verdict.cautions]
    if verdict.heatmap:
        rows.append(f"{' ' * _MARGIN}{'Heatmap':{_COLUMN}}{printable(verdict.heatmap)}")
    if answers:
        for index, answer in enumerate(verdict.answers):
            rows += _answer(answer, verdict.match_scores[index], index == verdict.chosen_index)
    return "\n".join(rows)


def _sentence(sentence: JudgedSentence, record: EvidenceRecord) -> str:
    text = sentence.text
    if sentence.support is Support.CONTRADICTED:
        found = "; ".join(f"{item_name(record.items[name].name)} {word}" for name, word in sentence.measured.items())
        text += f" (measured: {found})"
    return _row(f" {mark(sentence)}", text)


def _answer(answer: Answer | UnparsedAnswer, score: float | None, chosen: bool) -> list[str]:
    rows = [f"{' ' * _MARGIN}{answer.role.value.capitalize()} answer{' (chosen)' if chosen else ''}"]
    rows.append(_row("  Asked", answer.prompt))
    if isinstance(answer, UnparsedAnswer):
        return [*rows, _row("  Not readable", answer.reason), _row("  Raw text", answer.raw)]
    rows.append(_row("  Says", stated(answer)))
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
