"""A video's verdict in plain words, by the rules of ffaa.wording: never surer than the numbers are."""

from __future__ import annotations

from textwrap import fill

from ffaa import wording
from ffaa.cli import text
from ffaa.types_clip import ClipVerdict, FrameScore, PersonVerdict, TellingFrame

_MARGIN, _COLUMN = 4, 16


def describe(clip: ClipVerdict, answers: bool = False) -> str:
    """The whole video: facts, what was not looked at, and each person; with all three answers of telling frames."""
    lines = [text.printable(clip.source.path), *(f"  {text.printable(fact)}" for fact in wording.clip_facts(clip))]
    lines += [_filled(caution, "  note: ", 4) for caution in clip.cautions]
    for person in clip.people:
        lines += _person(person, len(clip.people), clip.source.frames_read, answers)
    if not clip.people:
        lines.append(_filled(clip.message, "  ", 2))
    if clip.timeline:
        lines.append(f"  Timeline          {text.printable(clip.timeline)}")
    return "\n".join([*lines, ""])


def _person(person: PersonVerdict, people: int, looked: int, answers: bool) -> list[str]:
    frames = person.frames
    rows = [
        f"  Person {person.person} of {people}, {wording.person_seen(person, looked)}",
        _row("Verdict", wording.person_headline(person)),
        _row("Forgery score", wording.person_score(person)),
    ]
    if spread := wording.person_spread(person):
        rows.append(_row("Frame scores", spread))
    rows.append(_row("Difficulty", f"{person.difficulty.value} ({wording.person_agreement(person)})"))
    rows += [_row("Caution", caution) for caution in person.cautions]
    for place, one in enumerate(person.telling):
        rows += _telling(person, one, frames[one.frame], place == 0)
        if answers or one.verdict.examined is not None:
            rows.append(_row("", "This frame on its own, as a photo; what counts is the verdict on the person above:"))
            rows.append(text.describe(one.verdict, answers))
    return rows


def _telling(person: PersonVerdict, one: TellingFrame, frame: FrameScore, with_texts: bool) -> list[str]:
    """What one telling frame says; its texts are given for the first one."""
    verdict = one.verdict
    said = f"at {frame.time:.2f} s says {frame.label.value}, match {frame.match_score:.2f}, forgery score "
    rows = [_row("Telling frame", f"{said}{frame.forgery_score:.2f}, {frame.difficulty.value}")]
    if with_texts:
        rows.append(_row("  Description", verdict.description))
        rows.append(_row("  Reasoning", wording.frame_reasoning(person, verdict)))
    if verdict.heatmap:
        rows.append(f"{' ' * _MARGIN}{'  Heatmap':{_COLUMN}}{text.printable(verdict.heatmap)}")
    return rows


def _row(name: str, words: str) -> str:
    return _filled(words, f"{' ' * _MARGIN}{name:{_COLUMN}}", _MARGIN + _COLUMN)


def _filled(words: str, first: str, indent: int) -> str:
    return fill(text.printable(words) or "-", text.WIDTH, initial_indent=first, subsequent_indent=" " * indent)
