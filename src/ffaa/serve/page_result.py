"""What the web page shows of one photo or video: made once, sent to the browser, kept nowhere."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ffaa import wording
from ffaa.data.credentials import read_credentials
from ffaa.data.facts import file_facts
from ffaa.data.images import Limits, load_bytes
from ffaa.serve.report import SHOWN_FACES, About, Reported, ReportedClip, build_report, build_section
from ffaa.serve.reported import reported_clip
from ffaa.serve.results import records
from ffaa.types import Analysis, Record, Verdict
from ffaa.types_clip import ClipAnalysis

COMMAND = "ffaa serve (the web page)"
WHOLE = "The photo is a face crop already"


class Shown(BaseModel):
    """A result as the browser gets it, and as the history keeps it. Nothing else of the file is kept.

    article: the file's part of the report. faces: a headline per face of a photo, per person of a video. boxes: of each
    face left, top, width and height in per cent of the photo; empty where there are none to draw. records: JSON, as
    the API's. report: HTML, a whole page.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    said: str = Field(description="in a few words, for a list")
    kind: str = Field(description="what `faces` holds: Face or Person")
    article: str
    faces: list[str]
    boxes: list[list[float]]
    records: str
    report: str

    @property
    def stem(self) -> str:
        """Of a download's file name: letters, digits, '-' and '_' of the photo's."""
        return re.sub(r"[^\w-]+", "_", Path(self.name).stem).strip("_")[:60] or "photo"

    def for_browser(self) -> dict[str, Any]:
        return self.model_dump(exclude={"said"}) | {"stem": self.stem}


def about_page(assistant: Any, not_measured: str) -> About:
    """How the results of the page are made. not_measured: why without evidence; '' where it is measured."""
    return About(
        model=assistant.engine.name, weights=assistant.engine.hashes, versions=assistant.versions, seed=assistant.seed,
        command=COMMAND, made=datetime.now().astimezone(), not_measured=not_measured,
    )  # fmt: skip


def show_photo(assistant: Any, data: bytes, analysis: Analysis, limits: Limits, not_measured: str) -> Shown:
    """A judged photo: heatmaps, facts and credentials of its file, and the report.

    data: the file. not_measured: see `about_page`. Raises InputError.
    """
    name, told = analysis.source.path, records(analysis)
    here = analysis.message.replace("use --whole-image", f"tick '{WHOLE}' in the options")
    analysis = replace(analysis, message=here)
    largest = list(zip(analysis.faces, analysis, strict=True))[:SHOWN_FACES]
    heats = [assistant.heat(face, verdict) for face, verdict in largest]
    pixels = load_bytes(data, name, limits).pixels
    reported = Reported(analysis, pixels, heats, file_facts(data, name), read_credentials(data))
    boxes = [_percent(verdict) for verdict in analysis if not verdict.crop.whole_image]
    faces = [wording.headline(verdict) for verdict in analysis]
    return _shown(name, "Face", faces, boxes, told, reported, about_page(assistant, not_measured))


def show_clip(assistant: Any, analysis: ClipAnalysis, path: Path, not_measured: str) -> Shown:
    """A judged video: its people with timelines and telling frames, and the report. path: of the file."""
    clip = analysis.verdict
    reported = reported_clip(assistant, analysis, path)
    people = [wording.person_headline(person) for person in clip.people]
    return _shown(clip.source.path, "Person", people, [], [clip], reported, about_page(assistant, not_measured))


def _shown(
    name: str, kind: str, faces: list[str], boxes: list[list[float]], told: list[Any],
    reported: Reported | ReportedClip, about: About,
) -> Shown:  # fmt: skip
    return Shown(
        name=name, said="; ".join(faces) or "no usable face", kind=kind, faces=faces, boxes=boxes, records=_json(told),
        article=build_section(reported, about), report=build_report([reported], about),
    )  # fmt: skip


def _json(told: list[Record]) -> str:
    """As the API's answer."""
    return '{"results": [' + ",\n".join(record.model_dump_json(indent=1) for record in told) + "]}\n"


def _percent(verdict: Verdict) -> list[float]:
    box, width, height = verdict.box, verdict.source.width, verdict.source.height
    parts = (box.left / width, box.top / height, box.width / width, box.height / height)
    return [round(100 * part, 2) for part in parts]
