"""Verdicts as one HTML file that needs nothing beside it: no script, no outside resource, pictures inside."""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ffaa import wording
from ffaa.data.facts import FileFacts
from ffaa.errors import UsageError
from ffaa.serve.pictures import FACE_SIDE, data_uri, heat_picture, where, with_boxes
from ffaa.types import Analysis, Credentials, Failure, Label, Verdict
from ffaa.types_clip import ClipAnalysis, PersonVerdict

SUFFIXES = (".html", ".htm")
SHOWN_FACES = 32  # of one photo, the largest; of the others a line each
_CHUNK = 2**16


@dataclass(frozen=True)
class Reported:
    """One photo for a report.

    result: its analysis, or why there is none. pixels: the photo, upright, uint8 RGB (H, W, 3), in the pixels of the
    verdicts' boxes; None where it could not be read. heats: float (S, S) in [0, 1], one per face up to SHOWN_FACES, as
    `Assistant.heat`; [] leaves heatmaps out. facts, credentials: of its file, None where there is none.
    """

    result: Analysis | Failure
    pixels: np.ndarray | None = None
    heats: list[np.ndarray] = field(default_factory=list, repr=False)
    facts: FileFacts | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True)
class ReportedClip:
    """One video for a report; its timelines need matplotlib (extra `data`, as reading videos does).

    result: its analysis, or why there is none. heats: heats[i][k] float (S, S) in [0, 1] is of people[i].telling[k], as
    `Assistant.heat`; [] leaves heatmaps out. facts: of a file that could not be analysed; of others the analysis knows
    them. credentials: of its file, None where they were not read.
    """

    result: ClipAnalysis | Failure
    heats: list[list[np.ndarray]] = field(default_factory=list, repr=False)
    facts: FileFacts | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True)
class About:
    """How the verdicts of a report were made. weights: file name -> sha256. not_measured: why without evidence."""

    model: str
    weights: dict[str, str]
    versions: dict[str, str]
    seed: int
    command: str
    made: datetime
    not_measured: str = ""


@dataclass(frozen=True)
class Counts:
    """How much a report holds. without_face, failed: of photos and videos. people: judged in videos. said: headline
    class ('fake', 'real', 'uncertain') -> faces and people."""

    photos: int
    faces: int
    without_face: int
    failed: int
    said: dict[str, int]
    clips: int = 0
    people: int = 0


def build_report(results: Iterable[Reported | ReportedClip], about: About) -> str:
    """The report as text: see `write_report`."""
    file = io.StringIO()
    write_report(results, about, file)
    return file.getvalue()


def write_report(results: Iterable[Reported | ReportedClip], about: About, file: TextIO) -> Counts:
    """Writes the HTML of all results, in order. Holds one photo or video at a time, however many there are.

    All texts are escaped; names, EXIF and credentials come from strangers.
    """
    env = _environment()
    counted, lines = Counter[str](), []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as body:
        for number, reported in enumerate(results, 1):
            body.write(_section(env, reported, about, number))
            lines.append(_line(reported, counted))
        counts = Counts(
            counted["photos"], counted["faces"], counted["without"], counted["failed"],
            {name: counted[name] for name in ("fake", "real", "uncertain")}, counted["clips"], counted["people"],
        )  # fmt: skip
        body.seek(0)
        page = env.get_template("page.html")
        for part in page.generate(
            about=about, lines=lines, counts=counts, judged=_judged(counts), sections=_parts(body)
        ):
            file.write(part)
    return counts


def build_section(reported: Reported | ReportedClip, about: About) -> str:
    """What a report says of one photo or video, an <article>, for a page that shows one result."""
    return _section(_environment(), reported, about, 1)


def _section(env: Environment, reported: Reported | ReportedClip, about: About, number: int) -> str:
    if isinstance(reported, ReportedClip):
        return env.get_template("clip.html").render(number=number, about=about, clip=_clip_view(reported))
    return env.get_template("photo.html").render(number=number, about=about, photo=_view(reported))


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises UsageError for a name that is not of an HTML file, so that no photo is overwritten, and for a folder that
    cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a report is an HTML file; give a name that ends in .html")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        file = part.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason}); give another --out") from error
    try:
        with file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _environment() -> Environment:
    """Everything is escaped, and control characters are taken out of all that is not ours."""
    env = Environment(
        loader=PackageLoader("ffaa", "assets/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    env.globals["say"] = wording
    return env


def _clean(value: Any) -> Any:
    """Control characters of texts become '?'; markup is our own."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c.isspace() else "?" for c in value)


def _parts(body: TextIO) -> Iterator[Markup]:
    while part := body.read(_CHUNK):
        yield Markup(part)


def _view(reported: Reported) -> SimpleNamespace:
    """What the template of a photo shows."""
    result, pixels = reported.result, reported.pixels
    view = SimpleNamespace(
        name=_name(reported), failed="", message="", notes=[], size="", picture=None, faces=[], more=[], count=0,
        facts=reported.facts, credentials=reported.credentials, generated=_generated(reported),
    )  # fmt: skip
    if isinstance(result, Failure):
        view.failed = result.message.replace(result.path, _last(result.path))
        return view
    view.message, view.notes = result.message, result.source.notes
    view.count = len(result)
    view.size = f"{result.source.width} x {result.source.height} px"
    if pixels is not None:
        boxes = [verdict.box for verdict in result.verdicts if not verdict.crop.whole_image]
        view.picture = _uri(with_boxes(pixels, boxes))
    for index, verdict in enumerate(result.verdicts[:SHOWN_FACES]):
        heat = reported.heats[index] if reported.heats else None
        view.faces.append(_face(verdict, result.faces[index].image, heat))
    view.more = result.verdicts[SHOWN_FACES:]
    return view


def _face(verdict: Verdict, image: np.ndarray, heat: np.ndarray | None) -> SimpleNamespace:
    """What the template of a face shows. image: uint8 RGB (S, S, 3)."""
    number = verdict.face_index + 1
    return SimpleNamespace(
        verdict=verdict,
        id=str(number),
        title=f"Face {number} of {verdict.face_count}",
        called=f"face {number}",
        place="photo",
        note="",
        kind=_kind(verdict),
        headline=wording.headline(verdict),
        explain=wording.explain(verdict),
        strength=wording.strength(verdict),
        reasoning=wording.reasoning(verdict),
        image=_uri(image, FACE_SIDE),
        has_heat=heat is not None,
        heat=_uri(heat_picture(image, heat), FACE_SIDE) if heat is not None and heat.any() else None,
        where=where(heat) if heat is not None else "",
    )


def _clip_view(reported: ReportedClip) -> SimpleNamespace:
    """What the template of a video shows."""
    result = reported.result
    view = SimpleNamespace(
        name=_name(reported), failed="", message="", said=[], cautions=[], people=[], source=None, facts=reported.facts,
        credentials=reported.credentials, generated=_generated(reported),
    )  # fmt: skip
    if isinstance(result, Failure):
        view.failed = result.message.replace(result.path, _last(result.path))
        return view
    from ffaa.timeline import timeline  # photos alone need no matplotlib

    clip = result.verdict
    view.source, view.message, view.said = clip.source, clip.message, wording.clip_facts(clip)
    view.cautions = [caution.replace(clip.source.path, view.name) for caution in clip.cautions]
    for index, person in enumerate(clip.people):
        heats = reported.heats[index] if reported.heats else []
        images = [face.image for face in result.faces[index]]
        frames = [_frame(person, k, image, heats[k] if heats else None) for k, image in enumerate(images)]
        drawn = clip.model_copy(update={"people": [person]})
        view.people.append(
            SimpleNamespace(
                verdict=person, kind=_person_kind(person), frames=frames, timeline=_uri(timeline(drawn)),
                seen=wording.person_seen(person, clip.source.frames_read),
                telling={one.frame: frame.id for one, frame in zip(person.telling, frames, strict=True)},
            )
        )  # fmt: skip
    return view


def _frame(person: PersonVerdict, place: int, image: np.ndarray, heat: np.ndarray | None) -> SimpleNamespace:
    """The face of a telling frame, which is worded as what it is: one look among others."""
    told = person.telling[place]
    when = f"{person.frames[told.frame].time:.2f} s"
    view = _face(told.verdict, image, heat)
    view.id, view.title, view.called = (
        f"{person.person}-{place + 1}",
        f"Frame at {when}",
        f"person {person.person} at {when}",
    )
    view.place = "frame"
    view.note = (
        "One frame, judged as a photo would be; one of those that speak most strongly. What counts is the verdict on "
        f"person {person.person}, over all frames."
    )
    view.kind = "uncertain" if wording.person_is_uncertain(person) else view.kind
    view.headline = wording.frame_headline(person, told.verdict)
    view.explain = wording.frame_explain(person, told.verdict)
    view.strength = wording.frame_strength(person, told.verdict)
    view.reasoning = wording.frame_reasoning(person, told.verdict)
    return view


def _uri(pixels: np.ndarray, side: int = 10_000) -> Markup:
    return Markup(data_uri(pixels, side))


def _kind(verdict: Verdict) -> str:
    if wording.is_uncertain(verdict):
        return "uncertain"
    return "fake" if verdict.label is Label.FAKE else "real"


def _person_kind(person: PersonVerdict) -> str:
    if wording.person_is_uncertain(person):
        return "uncertain"
    return "fake" if person.label is Label.FAKE else "real"


def _name(reported: Reported | ReportedClip) -> str:
    """The file's name without its folder, which is nobody's business but the user's."""
    result = reported.result
    if isinstance(result, Failure):
        return _last(result.path)
    return _last(result.verdict.source.path if isinstance(result, ClipAnalysis) else result.source.path)


def _generated(reported: Reported | ReportedClip) -> str:
    """What its content credentials say of generative AI: the one statement in them that bears on the verdict."""
    return wording.credentials_generated(reported.credentials) if reported.credentials else ""


def _last(path: str) -> str:
    return Path(path).name or path


def _line(reported: Reported | ReportedClip, counted: Counter[str]) -> SimpleNamespace:
    """A row of the overview; counts it."""
    result = reported.result
    counted["clips" if isinstance(reported, ReportedClip) else "photos"] += 1
    if isinstance(result, ClipAnalysis):
        people = result.verdict.people
        counted["people"] += len(people)
        kinds, said = [_person_kind(one) for one in people], [wording.person_headline(one) for one in people]
    elif isinstance(result, Analysis):
        counted["faces"] += len(result)
        kinds, said = [_kind(one) for one in result], [wording.headline(one) for one in result]
    else:
        counted["failed"] += 1
        kinds, said = [], ["not analysed"]
    counted.update(kinds)
    if not said:
        counted["without"] += 1
        said = ["no usable face"]
    more = len(said) - SHOWN_FACES
    said = [*said[:SHOWN_FACES], f"and {more} more face{'' if more == 1 else 's'}"] if more > 0 else said
    return SimpleNamespace(name=_name(reported), said=said, generated=_generated(reported))


def _judged(counts: Counts) -> str:
    """The counts in a sentence."""
    files = [_many(counts.photos, "photo")] if counts.photos or not counts.clips else []
    found = [_many(counts.faces, "face")] if counts.photos or not counts.clips else []
    if counts.clips:
        files.append(_many(counts.clips, "video"))
        found.append(_many(counts.people, "person", "people"))
    said = counts.said
    lines = [
        f"{' and '.join(files)}, {' and '.join(found)} judged: "
        f"{said['uncertain']} uncertain, {said['fake']} called fake, {said['real']} called real."
    ]
    if counts.without_face:
        lines.append(f"{_many(counts.without_face, 'file' if counts.clips else 'photo')} without a usable face.")
    if counts.failed:
        lines.append(f"{_many(counts.failed, 'file')} could not be analysed.")
    return " ".join(lines)


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
