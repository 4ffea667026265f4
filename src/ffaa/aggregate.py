"""The frames of one person -> one verdict. Plain means and shares; the rules are those of docs/video.md.

Frames of one video are no independent looks at a face: nothing here gets surer because there are many of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ffaa.assistant import SMALL_FACE
from ffaa.types import Difficulty, ForgeryType, Label
from ffaa.types_clip import FrameScore, PersonVerdict, TellingFrame
from ffaa.wording import WEAK

FEW = 4  # below that many frames nothing can be said on whether they agree
MOST = 0.75  # share of the frames that must be easy, and have the person's label, for an easy case


def label_of(frames: Sequence[FrameScore]) -> tuple[Label, float]:
    """A person's label and forgery score, the mean of the frames': fake from 0.5 on, as in the benchmark's videos."""
    mean = min(1.0, max(0.0, float(np.mean([frame.forgery_score for frame in frames]))))
    return (Label.FAKE if mean >= 0.5 else Label.REAL), mean


def person_verdict(
    person: int, frames: Sequence[FrameScore], unread: int, telling: Sequence[TellingFrame], model: Sequence[str] = ()
) -> PersonVerdict:
    """One person's frames, ascending in time and at least one -> the verdict. model: what it says against itself.

    difficulty: easy when there are at least 4 frames, and of them at least three quarters are easy and at least three
    quarters have the person's label; else hard.
    """
    label, mean = label_of(frames)
    scores, count = [frame.forgery_score for frame in frames], len(frames)
    fake = sum(frame.label is Label.FAKE for frame in frames)
    hard = sum(frame.difficulty is Difficulty.HARD for frame in frames)
    agreement = (fake if label is Label.FAKE else count - fake) / count
    easy = count >= FEW and 1 - hard / count >= MOST and agreement >= MOST
    match = mean if label is Label.FAKE else 1 - mean
    low, high = np.quantile(scores, (0.25, 0.75)).tolist()
    cautions = []
    if count < FEW:
        cautions.append(
            f"seen in {_frames(count)} only: too few to show whether frames agree; it may be no face, or somebody who "
            "is counted already"
        )
    if agreement < 0.5:
        cautions.append(f"most frames say {label.opposite.value}, while their scores lean to {label.value}")
    if 0 < fake < count:
        cautions.append(f"the frames disagree: {fake} of {count} say fake, {count - fake} say real")
    if hard:
        cautions.append(f"hard case in {hard} of {_frames(count)}: the three answers do not agree")
    if match < WEAK:
        cautions.append(f"the score is not near 0 or 1 ({mean:.2f}): the decision is uncertain")
    if small := sum(frame.box.width < SMALL_FACE for frame in frames):
        cautions.append(
            f"the face is less than {SMALL_FACE} px wide in {small} of {_frames(count)}; traces of forgery may be lost "
            "at this size"
        )
    if lacking := sum(frame.lacks_detail for frame in frames):
        cautions.append(
            f"the face lacks fine detail (blurred or enlarged) in {lacking} of {_frames(count)}; verdicts on such "
            "faces are often wrong"
        )
    if unread:
        cautions.append(f"{_frames(unread)} more left out: none of the three answers could be read")
    return PersonVerdict(
        person=person,
        frames=list(frames),
        unread=unread,
        label=label,
        forgery_type=_type(frames) if label is Label.FAKE else ForgeryType.REAL,
        forgery_score=mean,
        match_score=match,
        median=float(np.median(scores)),
        quartiles=(low, high),
        share_fake=fake / count,
        share_hard=hard / count,
        share_lacking=lacking / count,
        agreement=agreement,
        difficulty=Difficulty.EASY if easy else Difficulty.HARD,
        cautions=[*cautions, *model],
        telling=list(telling),
    )


def _type(frames: Sequence[FrameScore]) -> ForgeryType | None:
    """The type that more than half of the fake frames name."""
    named = [frame.forgery_type for frame in frames if frame.label is Label.FAKE]
    kind, times = Counter(named).most_common(1)[0] if named else (None, 0)
    return kind if 2 * times > len(named) and kind is not ForgeryType.REAL else None


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"
