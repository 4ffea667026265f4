"""Video -> sampled frames -> faces -> people -> a verdict per person.

The frames are read twice: once to find the faces and who is who, which keeps boxes only, and once to cut and judge the
faces of the largest people. So one frame is in memory at a time, and of each person a few face images.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ffaa.aggregate import label_of, person_verdict
from ffaa.data.faces import Detection
from ffaa.data.images import shown
from ffaa.data.stream import VideoLimits, opened
from ffaa.data.tracks import Tracker
from ffaa.data.video import frames_at, probe, sample_times
from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.evidence.examine import require_mesh
from ffaa.types import Face, Label, Placed, Source, Verdict
from ffaa.types_clip import (
    MAX_CLIP_FRAMES,
    MAX_CLIP_PEOPLE,
    MAX_TELLING,
    ClipAnalysis,
    ClipSource,
    ClipTimings,
    ClipVerdict,
    FrameScore,
    TellingFrame,
)

if TYPE_CHECKING:
    from ffaa.assistant import Assistant

FACES_AT_ONCE = 8
UNMEASURED = "the model has not been measured on videos as a whole; a video's compression removes traces of forgery"
FACES_PER_FRAME = 32  # larger ones first; a frame of a crowd may hold hundreds


@dataclass(frozen=True)
class ClipLimits:
    """What may be spent on a video. video: on reading it. people: judged, at most MAX_CLIP_PEOPLE.

    seconds: in all, checked between frames and between batches of faces; at most half of it goes into finding faces.
    """

    video: VideoLimits = field(default_factory=VideoLimits)
    people: int = 8
    seconds: float = 600


DEFAULT = ClipLimits()


def analyze_clip(
    assistant: Assistant,
    path: str | Path,
    frames: int = 16,
    sampling: Literal["even", "scene"] = "even",
    evidence: bool = False,
    limits: ClipLimits = DEFAULT,
) -> ClipAnalysis:
    """All people of a video whose faces are in the sampled frames, largest on the screen first.

    frames: how many are looked at, 1 to MAX_CLIP_FRAMES. sampling: see `sample_times`. evidence: the most telling
    frames' verdicts get what can be measured on the face. A frame's face gets the verdict it would get as a photo. What
    is broken, or was cut off by a limit, is said in the verdict's cautions. Raises UsageError for numbers out of range,
    InputError for a file that is no readable video or when the time is up before any face was judged, FFAAError when no
    answer could be read.
    """
    started = time.monotonic()
    if not 1 <= frames <= MAX_CLIP_FRAMES or not 1 <= limits.people <= MAX_CLIP_PEOPLE:
        raise UsageError(
            f"a video cannot be analysed so; take 1 to {MAX_CLIP_FRAMES} frames and 1 to {MAX_CLIP_PEOPLE} people"
        )
    if evidence:
        require_mesh()
    name, info = shown(path), probe(path, limits.video)
    with opened(path, limits.video) as video:
        digest = video.sha256()
    times = sample_times(path, frames, sampling, limits.video)
    found = _find(assistant, path, times, limits, started + limits.seconds / 2)
    spent = time.monotonic() - started
    chosen = sorted(found.areas, key=lambda track: (-found.areas[track], track))[: limits.people]
    people = {track: _Person() for track in chosen}
    source = Source(path=name, sha256=digest, width=info.width, height=info.height)
    judged = _judge(assistant, path, found, people, source, limits, started + limits.seconds)
    seen = [person for person in people.values() if person.frames]
    if people and not seen:
        if judged.until is None:
            raise FFAAError(f"{name}: none of the answers about its faces could be read")
        raise InputError(
            f"{name}: {limits.seconds:g} s were not enough to judge a face; take fewer frames, or allow more time"
        )
    verdicts, faces = [], []
    for number, person in enumerate(seen, 1):
        telling = person.telling(label_of(person.frames)[0])
        shown_frames = [
            TellingFrame(frame=place, verdict=assistant.examine(face, verdict) if evidence else verdict)
            for place, verdict, face in telling
        ]
        model = assistant.engine.cautions
        verdicts.append(person_verdict(number, person.frames, person.unread, shown_frames, model))
        faces.append([face for _, _, face in telling])
    broken = found.broken or judged.broken or info.broken
    unjudged = len(found.areas) - len(chosen)
    verdict = ClipVerdict(
        source=ClipSource(
            path=name,
            sha256=digest,
            bytes=info.bytes,
            width=info.width,
            height=info.height,
            seconds=info.seconds,
            fps=info.fps,
            frames=info.frames,
            codec=info.codec,
            sampling=sampling,
            frames_asked=frames,
            frames_read=len(found.frames),
            broken=broken,
        ),
        people=verdicts,
        people_left_out=len(found.areas) - len(seen),
        message="" if verdicts else _nobody(found, assistant.min_face),
        cautions=_cautions(found, judged, unjudged, len(chosen) - len(seen), broken, limits),
        model=assistant.engine.name,
        weights=assistant.engine.hashes,
        versions=assistant.versions,
        seed=assistant.seed,
        timings=ClipTimings(find=spent, judge=judged.seconds, total=time.monotonic() - started),
    )
    return ClipAnalysis(verdict, faces)


@dataclass(frozen=True)
class _Frame:
    """What is kept of a frame. faces: (track, place among the frame's `count` usable faces, box)."""

    time: float
    shape: tuple[int, ...]
    faces: list[tuple[int, int, Detection]]
    count: int
    detect: float


@dataclass
class _Found:
    """areas: track -> summed area of its boxes. small: width of the widest face that was too small, pixels."""

    frames: list[_Frame] = field(default_factory=list)
    areas: dict[int, float] = field(default_factory=dict)
    small: int = 0
    broken: str | None = None
    late: bool = False


def _find(assistant: Assistant, path: str | Path, times: list[float], limits: ClipLimits, until: float) -> _Found:
    found, tracker = _Found(), Tracker()
    frames = frames_at(path, times, limits.video)
    for frame in frames:
        if found.frames and time.monotonic() > until:
            found.late = True
            break
        before = time.monotonic()
        usable, small = assistant.detect(frame.pixels)
        spent = (time.monotonic() - before) / max(1, len(usable))
        kept = usable[:FACES_PER_FRAME]
        tracks = tracker.add(frame.index, kept, frame.pixels)
        faces = [(track, place, face) for place, (track, face) in enumerate(zip(tracks, kept, strict=True))]
        found.frames.append(_Frame(frame.time, frame.pixels.shape, faces, len(usable), spent))
        found.small = max([found.small, *(face.box.width for face in small)])
    found.areas, found.broken = tracker.areas, frames.broken
    return found


@dataclass
class _Person:
    """The scores of one person's frames, and of the strongest frames for each label the face and the whole verdict."""

    frames: list[FrameScore] = field(default_factory=list)
    unread: int = 0
    strongest: dict[Label, list[tuple[float, int, Verdict, Face]]] = field(default_factory=dict)

    def add(self, seconds: float, face: Face, verdict: Verdict | None) -> None:
        if verdict is None:
            self.unread += 1
            return
        fields = set(FrameScore.model_fields) - {"time"}
        heap = self.strongest.setdefault(verdict.label, [])
        # The number settles ties, for the earlier frame: verdicts cannot be compared.
        heapq.heappush(heap, (verdict.match_score, -len(self.frames), verdict, face))
        if len(heap) > MAX_TELLING:
            heapq.heappop(heap)
        self.frames.append(FrameScore(time=seconds, **{name: getattr(verdict, name) for name in fields}))

    def telling(self, label: Label) -> list[tuple[int, Verdict, Face]]:
        """(place in `frames`, verdict, face): the strongest for the label, last the strongest against it."""
        own, other = (sorted(self.strongest.get(one, []), reverse=True) for one in (label, label.opposite))
        chosen = own[: MAX_TELLING - len(other[:1])] + other[:1]
        return [(-place, verdict, face) for _, place, verdict, face in chosen]


@dataclass
class _Judged:
    """seconds: spent in the models. until: where in the video the time was up, seconds; None when it was not."""

    seconds: float = 0.0
    until: float | None = None
    broken: str | None = None


def _judge(
    assistant: Assistant,
    path: str | Path,
    found: _Found,
    people: dict[int, _Person],
    source: Source,
    limits: ClipLimits,
    until: float,
) -> _Judged:
    """Fills `people`, whose keys are tracks."""
    wanted = [frame for frame in found.frames if any(track in people for track, _, _ in frame.faces)]
    judged = _Judged()
    waiting: list[tuple[_Person, float, Placed]] = []

    def judge_waiting() -> None:
        before = time.monotonic()
        verdicts = assistant.verdicts_of([placed for _, _, placed in waiting])
        for (person, seconds, placed), verdict in zip(waiting, verdicts, strict=True):
            person.add(seconds, placed.face, verdict)
        judged.seconds += time.monotonic() - before
        waiting.clear()

    frames = frames_at(path, [frame.time for frame in wanted], limits.video)
    for frame in frames if wanted else ():
        known = wanted[frame.index]
        if known.shape != frame.pixels.shape:
            raise InputError(f"{source.path}: was changed while it was read; run again when it is whole")
        here = source.model_copy(update={"notes": [f"frame at {frame.time:.2f} s of a video"]})
        for track, place, detection in known.faces:
            if track not in people:
                continue
            if time.monotonic() > until:
                judged.until = waiting[0][1] if waiting else frame.time
                return judged
            face = assistant.cut(frame.pixels, detection)
            waiting.append((people[track], frame.time, Placed(face, here, place, known.count, known.detect)))
            if len(waiting) == FACES_AT_ONCE:
                judge_waiting()
    if waiting:
        judge_waiting()
    judged.broken = frames.broken
    return judged


def _nobody(found: _Found, min_face: int) -> str:
    looked = f"in {len(found.frames)} frames"
    if found.small:
        return (
            f"no usable face {looked}: the largest face found is {found.small} px wide, at least {min_face} px are "
            "needed; use a larger version of the video"
        )
    return f"no face found {looked} (frontal faces only); more frames may help (--frames)"


def _cautions(
    found: _Found, judged: _Judged, unjudged: int, people: int, broken: str | None, limits: ClipLimits
) -> list[str]:
    """What was not looked at, and what holds for every video.

    unjudged: people beyond the limit. people: those without a verdict for another reason.
    """
    said = [f"the video is not whole: {broken}"] if broken else []
    if unjudged:
        said.append(
            f"{unjudged} more people were found and not judged: only the {limits.people} largest on the screen are"
        )
    if people:
        said.append(f"{people} more people were found and could not be judged")
    limit = f"the time limit of {limits.seconds:g} s"
    if found.late:
        said.append(f"half of {limit} was up: no face was looked for after {found.frames[-1].time:.1f} s")
    if judged.until is not None:
        said.append(f"{limit} was reached: faces from {judged.until:.1f} s of the video on were not judged")
    return [*said, UNMEASURED]
