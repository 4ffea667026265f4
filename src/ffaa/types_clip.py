"""What is said of a video: `FrameScore` -> `PersonVerdict` -> `ClipVerdict`, and `ClipAnalysis` with faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from ffaa.types import SCHEMA_VERSION, Box, Difficulty, Face, ForgeryType, Label, Record, Verdict

MAX_CLIP_FRAMES, MAX_CLIP_PEOPLE, MAX_TELLING = 256, 32, 3


class FrameScore(Record):
    """What was found for one person in one frame: the same numbers as in the `Verdict` of that frame as a photo."""

    time: float = Field(ge=0, description="seconds from the first frame")
    box: Box
    label: Label
    forgery_type: ForgeryType | None
    forgery_score: float = Field(ge=0, le=1)
    match_score: float = Field(ge=0, le=1)
    difficulty: Difficulty
    lacks_detail: bool = False


class TellingFrame(Record):
    """One of the frames that speak most strongly, with its whole verdict."""

    frame: int = Field(ge=0, description="place in the person's `frames`")
    verdict: Verdict


class PersonVerdict(Record):
    """One person of a video, over the frames that show the face. How the frames become one: docs/video.md."""

    person: int = Field(ge=1, description="1 is who takes up most of the screen, summed over the frames")
    frames: list[FrameScore] = Field(min_length=1, max_length=MAX_CLIP_FRAMES, description="ascending in time")
    unread: int = Field(ge=0, description="frames left out because none of their three answers could be read")
    label: Label = Field(description="fake where `forgery_score` is at least 0.5")
    forgery_type: ForgeryType | None = Field(description="None when no type is named by most of the fake frames")
    forgery_score: float = Field(ge=0, le=1, description="mean over the frames")
    match_score: float = Field(ge=0, le=1, description="`forgery_score` if the label is fake, else 1 - it")
    median: float = Field(ge=0, le=1, description="of the frames' forgery scores")
    quartiles: tuple[float, float] = Field(description="half of the frames' forgery scores lie between these")
    share_fake: float = Field(ge=0, le=1, description="share of the frames labelled fake")
    share_hard: float = Field(ge=0, le=1, description="share of the frames that are hard cases")
    share_lacking: float = Field(default=0.0, ge=0, le=1, description="share of the frames that lack fine detail")
    agreement: float = Field(ge=0, le=1, description="share of the frames that have the person's label")
    difficulty: Difficulty
    cautions: list[str] = Field(default_factory=list, description="reasons to read this verdict with care")
    telling: list[TellingFrame] = Field(
        min_length=1, max_length=MAX_TELLING, description="strongest for the label first; last the strongest against"
    )


class ClipSource(Record):
    """The video a result belongs to."""

    path: str = Field(description="as given")
    sha256: str = Field(description="of the file's bytes")
    bytes: int
    width: int = Field(description="pixels, upright")
    height: int
    seconds: float = Field(description="length of what can be read")
    fps: float
    frames: int = Field(description="in what can be read")
    codec: str
    sampling: Literal["even", "scene"]
    frames_asked: int = Field(ge=1, description="how many frames were to be looked at")
    frames_read: int = Field(ge=0, description="how many were")
    broken: str | None = Field(default=None, description="what of the video is missing, in words")


class ClipTimings(Record):
    """Seconds. find: reading frames and finding faces; judge: the models, over all faces; total: with all else."""

    find: float = 0.0
    judge: float = 0.0
    heatmap: float = 0.0
    total: float = 0.0


class ClipVerdict(Record):
    """The outcome for one video: a verdict per person, none for the video as a whole."""

    kind: Literal["clip_verdict"] = "clip_verdict"
    schema_version: str = SCHEMA_VERSION
    source: ClipSource
    people: list[PersonVerdict] = Field(max_length=MAX_CLIP_PEOPLE, description="largest on the screen first")
    people_left_out: int = Field(ge=0, description="people who were found and not judged")
    message: str = Field(default="", description="why there is nobody in `people`")
    cautions: list[str] = Field(default_factory=list, description="what was not looked at, and why")
    model: str
    weights: dict[str, str] = Field(description="weight file name -> sha256")
    versions: dict[str, str]
    seed: int
    timings: ClipTimings
    timeline: str | None = Field(default=None, description="path of the timeline PNG, when one was written")


@dataclass(frozen=True)
class ClipAnalysis:
    """The verdict of one video. faces[i][k]: the face image of people[i].telling[k]."""

    verdict: ClipVerdict
    faces: list[list[Face]] = field(default_factory=list, repr=False)
