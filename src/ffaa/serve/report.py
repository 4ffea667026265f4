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

SUFFIXES = (".html", ".htm")
_CHUNK = 2**16


@dataclass(frozen=True)
class Reported:
    """One photo for a report.

    result: its analysis, or why there is none. pixels: the photo, upright, uint8 RGB (H, W, 3), in the pixels of the
    verdicts' boxes; None where it could not be read. heats: float (S, S) in [0, 1], one per face, as
    `Assistant.heat`; [] leaves heatmaps out. facts, credentials: of its file, None where there is none.
    """

    result: Analysis | Failure
    pixels: np.ndarray | None = None
    heats: list[np.ndarray] = field(default_factory=list, repr=False)
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
    """How many photos and faces a report holds. said: headline class ('fake', 'real', 'uncertain') -> faces."""

    photos: int
    faces: int
    without_face: int
    failed: int
    said: dict[str, int]


def build_report(results: Iterable[Reported], about: About) -> str:
    """The report as text: see `write_report`."""
    file = io.StringIO()
    write_report(results, about, file)
    return file.getvalue()


def write_report(results: Iterable[Reported], about: About, file: TextIO) -> Counts:
    """Writes the HTML of all results, in order. Holds one photo at a time, however many there are.

    All texts are escaped; names, EXIF and credentials come from strangers.
    """
    env = _environment()
    section, counted, lines = env.get_template("photo.html"), Counter[str](), []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as body:
        for number, reported in enumerate(results, 1):
            body.write(section.render(number=number, photo=_view(reported), about=about))
            lines.append(_line(reported, counted))
        counts = Counts(
            len(lines), counted["faces"], counted["without"], counted["failed"],
            {name: counted[name] for name in ("fake", "real", "uncertain")},
        )  # fmt: skip
        body.seek(0)
        page = env.get_template("page.html")
        for part in page.generate(about=about, lines=lines, counts=counts, sections=_parts(body)):
            file.write(part)
    return counts


def photo_section(reported: Reported, about: About) -> str:
    """One photo's part of the report, an <article>, for a page that shows one result."""
    return _environment().get_template("photo.html").render(number=1, photo=_view(reported), about=about)


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
        name=_name(reported), failed="", message="", notes=[], size="", picture=None, faces=[],
        facts=reported.facts, credentials=reported.credentials, generated=_generated(reported),
    )  # fmt: skip
    if isinstance(result, Failure):
        view.failed = result.message.replace(result.path, _last(result.path))
        return view
    view.message, view.notes = result.message, result.source.notes
    view.size = f"{result.source.width} x {result.source.height} px"
    if pixels is not None:
        boxes = [verdict.box for verdict in result.verdicts if not verdict.crop.whole_image]
        view.picture = _uri(with_boxes(pixels, boxes))
    for index, verdict in enumerate(result.verdicts):
        heat = reported.heats[index] if reported.heats else None
        view.faces.append(_face(verdict, result.faces[index].image, heat))
    return view


def _face(verdict: Verdict, image: np.ndarray, heat: np.ndarray | None) -> SimpleNamespace:
    return SimpleNamespace(
        verdict=verdict,
        kind=_kind(verdict),
        image=_uri(image, FACE_SIDE),
        has_heat=heat is not None,
        heat=_uri(heat_picture(image, heat), FACE_SIDE) if heat is not None and heat.any() else None,
        where=where(heat) if heat is not None else "",
    )


def _uri(pixels: np.ndarray, side: int = 10_000) -> Markup:
    return Markup(data_uri(pixels, side))


def _kind(verdict: Verdict) -> str:
    if wording.is_uncertain(verdict):
        return "uncertain"
    return "fake" if verdict.label is Label.FAKE else "real"


def _name(reported: Reported) -> str:
    """The file's name without its folder, which is nobody's business but the user's."""
    result = reported.result
    return _last(result.path if isinstance(result, Failure) else result.source.path)


def _generated(reported: Reported) -> str:
    """What its content credentials say of generative AI: the one statement in them that bears on the verdict."""
    return wording.credentials_generated(reported.credentials) if reported.credentials else ""


def _last(path: str) -> str:
    return Path(path).name or path


def _line(reported: Reported, counted: Counter[str]) -> SimpleNamespace:
    """A row of the overview; counts it."""
    result = reported.result
    if isinstance(result, Failure):
        counted["failed"] += 1
        said = ["not analysed"]
    elif not result.verdicts:
        counted["without"] += 1
        said = ["no usable face"]
    else:
        counted["faces"] += len(result.verdicts)
        counted.update(_kind(verdict) for verdict in result.verdicts)
        said = [wording.headline(verdict) for verdict in result.verdicts]
    return SimpleNamespace(name=_name(reported), said=said, generated=_generated(reported))
