"""A video's verdict in plain words, by the rules of ffaa.wording: never surer than the numbers are."""

from __future__ import annotations

from textwrap import fill

from ffaa import wording
from ffaa.cli import text
from ffaa.types import ClipVerdict, Difficulty, ForgeryType, FrameScore, Label, PersonVerdict, TellingFrame

_MARGIN, _COLUMN = 4, 16


def is_uncertain(person: PersonVerdict) -> bool:
    """A hard case, or a mean score near the middle."""
    return person.difficulty is Difficulty.HARD or person.match_score < wording.WEAK


def headline(person: PersonVerdict) -> str:
    """The verdict on one person in a few words."""
    fake, count = person.label is Label.FAKE, len(person.frames)
    kind = "" if person.forgery_type in (None, ForgeryType.REAL) else person.forgery_type.value.lower()
    if person.agreement < 0.5:
        other = person.label.opposite.value
        return f"undecided: most frames say {other}, their scores lean to {person.label.value}"
    if is_uncertain(person):
        return f"leans {person.label.value}, uncertain" + (f" (if forged: perhaps {kind})" if fake and kind else "")
    where = f"in {round(person.agreement * count)} of {count} frames"
    return f"FAKE {where} - {kind or 'type not stated'}" if fake else f"REAL - no sign of forgery was found {where}"


def describe(clip: ClipVerdict, answers: bool = False) -> str:
    """The whole video: facts, what was not looked at, and each person; with all three answers of telling frames."""
    source = clip.source
    lines = [
        text.printable(source.path),
        f"  video, {source.seconds:.1f} s, {source.width} x {source.height} px, {source.fps:.4g} frames a second, "
        f"{text.printable(source.codec)}",
        f"  {source.frames_read} of {source.frames} frames were looked at",
    ]
    if len(clip.people) > 1:
        lines.append(f"  {len(clip.people)} people, told apart by place and looks; no face is recognised")
    lines += [_filled(caution, "  note: ", 4) for caution in clip.cautions]
    for person in clip.people:
        lines += _person(person, len(clip.people), clip.source.frames_read, answers)
    if not clip.people:
        lines.append(_filled(clip.message, "  ", 2))
    if clip.timeline:
        lines.append(f"  Timeline          {text.printable(clip.timeline)}")
    return "\n".join([*lines, ""])


def _person(person: PersonVerdict, people: int, looked: int, answers: bool) -> list[str]:
    frames, uncertain = person.frames, is_uncertain(person)
    count = len(frames)
    widths = [frame.box.width for frame in frames]
    scores = [frame.forgery_score for frame in frames]
    match = person.match_score
    strength = "weak, " if match < wording.WEAK else "moderate, " if match < wording.STRONG else "strong, "
    if uncertain and match >= wording.WEAK:  # a strong mean of hard or differing frames is no strong finding
        strength = ""
    agree = "the frames agree" if person.difficulty is Difficulty.EASY else "see the cautions"
    when = _range(f"{frames[0].time:.2f} s", f"{frames[-1].time:.2f} s")
    rows = [
        f"  Person {person.person} of {people}, in {count} of {looked} frames, {when}, face "
        f"{_range(str(min(widths)), str(max(widths)))} px wide",
        _row("Verdict", headline(person)),
        _row("Forgery score", f"{person.forgery_score:.2f} ({strength}mean over the frames; 0 real, 1 fake)"),
    ]
    if count > 1:
        spread = _range(f"{min(scores):.2f}", f"{max(scores):.2f}")
        middle = _range(*(f"{one:.2f}" for one in person.quartiles))
        fake, hard = round(person.share_fake * count), round(person.share_hard * count)
        said = f"{spread}, half of them {middle}; {fake} of {count} say fake, {hard} of {count} are hard"
        rows.append(_row("Frame scores", said))
    rows.append(_row("Difficulty", f"{person.difficulty.value} ({agree})"))
    rows += [_row("Caution", caution) for caution in person.cautions]
    for place, one in enumerate(person.telling):
        rows += _telling(one, frames[one.frame], uncertain, place == 0)
        if answers or one.verdict.examined is not None:
            rows.append(_row("", "This frame on its own, as a photo; what counts is the verdict on the person above:"))
            rows.append(text.describe(one.verdict, answers))
    return rows


def _telling(one: TellingFrame, frame: FrameScore, uncertain: bool, with_texts: bool) -> list[str]:
    """What one telling frame says; its texts are given for the first one."""
    verdict = one.verdict
    said = f"at {frame.time:.2f} s says {frame.label.value}, match {frame.match_score:.2f}, forgery score "
    rows = [_row("Telling frame", f"{said}{frame.forgery_score:.2f}, {frame.difficulty.value}")]
    if with_texts:
        doubt = f"[{wording.NOT_A_FINDING}] " if uncertain or wording.is_uncertain(verdict) else ""
        rows.append(_row("  Description", verdict.description))
        rows.append(_row("  Reasoning", doubt + verdict.reasoning))
    if verdict.heatmap:
        rows.append(f"{' ' * _MARGIN}{'  Heatmap':{_COLUMN}}{text.printable(verdict.heatmap)}")
    return rows


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _row(name: str, words: str) -> str:
    return _filled(words, f"{' ' * _MARGIN}{name:{_COLUMN}}", _MARGIN + _COLUMN)


def _filled(words: str, first: str, indent: int) -> str:
    return fill(text.printable(words) or "-", text.WIDTH, initial_indent=first, subsequent_indent=" " * indent)
