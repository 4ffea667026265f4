"""What was mined: the four classes of Eq. 3, Easy and Hard, per collection and in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import Field

from ffaa.mids.balance import class_counts, pair_labels
from ffaa.mids.decide import difficulty
from ffaa.mllm.mine import Mined
from ffaa.types import Difficulty, Label, Record, UnparsedAnswer

CLASSES = ("real, says real", "real, says fake", "fake, says real", "fake, says fake")


class Counts(Record):
    """Of some faces. classes: pairs of MIDS's training data per class; all_classes: of all faces, Easy ones too.

    easy_right: Easy faces whose determination is true. unparsed: answers; unread: faces with one of them, which MIDS
    does not learn from. kept: faces that it does.
    """

    faces: int
    real: int
    fake: int
    easy: int
    easy_right: int
    hard: int
    unparsed: int
    unread: int
    kept: int
    classes: list[int] = Field(min_length=4, max_length=4)
    all_classes: list[int] = Field(min_length=4, max_length=4)


class MiningReport(Record):
    """keep_easy: whether Easy faces count as kept. reasons: why answers could not be read -> how often."""

    keep_easy: bool
    all: Counts
    collections: dict[str, Counts]
    reasons: dict[str, int]


def learnt(mined: Iterable[Mined], keep_easy: bool, one_answer: bool = False) -> list[Mined]:
    """The faces that MIDS learns from: all answers were read, and, unless keep_easy, they do not agree. With the anchor
    alone there is nothing to agree."""
    if one_answer:
        return [m for m in mined if m.results[0] is not None]
    read = (m for m in mined if None not in m.results)
    return [m for m in read if keep_easy or difficulty(m.results) is Difficulty.HARD]


def count(mined: Sequence[Mined], keep_easy: bool) -> Counts:
    """The counts of some faces."""
    easy = [m for m in mined if difficulty(m.results) is Difficulty.EASY]
    kept = learnt(mined, keep_easy)
    unparsed = [sum(isinstance(a, UnparsedAnswer) for a in m.answers) for m in mined]
    return Counts(
        faces=len(mined),
        real=sum(m.label is Label.REAL for m in mined), fake=sum(m.label is Label.FAKE for m in mined),
        easy=len(easy), easy_right=sum(m.results[0] is m.label for m in easy), hard=len(mined) - len(easy),
        unparsed=sum(unparsed), unread=sum(n > 0 for n in unparsed), kept=len(kept),
        classes=class_counts([pair_labels(m) for m in kept]),
        all_classes=class_counts([pair_labels(m) for m in mined]),
    )  # fmt: skip


def report(mined: Sequence[Mined], keep_easy: bool = False) -> MiningReport:
    """All counts, in all and per collection, and the reasons of unread answers."""
    parts: dict[str, list[Mined]] = defaultdict(list)
    reasons: dict[str, int] = defaultdict(int)
    for m in mined:
        parts[m.dataset].append(m)
        for answer in m.answers:
            if isinstance(answer, UnparsedAnswer):
                reasons[answer.reason] += 1
    return MiningReport(
        keep_easy=keep_easy, all=count(mined, keep_easy),
        collections={name or "(no collection)": count(part, keep_easy) for name, part in sorted(parts.items())},
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
    )  # fmt: skip


def table(found: MiningReport) -> str:
    """The report as Markdown."""
    head = ["", "faces", "easy (right)", "hard", "unread", "kept", *CLASSES]
    rows = [head, ["---"] * len(head)]
    for name, c in [*found.collections.items(), ("all", found.all)]:
        total = max(1, sum(c.classes))
        shares = [f"{n} ({n / total:.0%})" for n in c.classes]
        rows.append(
            [name, str(c.faces), f"{c.easy} ({c.easy_right})", str(c.hard), str(c.unread), str(c.kept), *shares]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rest = "Easy faces count as kept." if found.keep_easy else "Easy faces are left out."
    reasons = "; ".join(f"{n} x {why}" for why, n in list(found.reasons.items())[:5])
    return "\n".join([*lines, rest + (f" {found.all.unparsed} answers unread: {reasons}." if reasons else "")])
