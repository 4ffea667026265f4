"""What the web page shows of one photo or video: made once, sent to the browser, kept nowhere."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from ffaa import wording
from ffaa.data.credentials import read_credentials
from ffaa.data.facts import file_facts
from ffaa.data.images import Limits, load_bytes
from ffaa.serve.pictures import FACE_SIDE, PHOTO_SIDE, data_uri, heat_picture, where
from ffaa.serve.report import About, Reported, build_report, photo_section
from ffaa.serve.results import AnalyzeReply, records
from ffaa.timeline import timeline
from ffaa.types import Analysis, ClipAnalysis, Verdict

COMMAND = "ffaa serve (the web page)"


class Shown(BaseModel):
    """A result as the browser gets it, and as the history keeps it. Nothing else of the file is kept.

    article: HTML, escaped, its pictures inside. faces: a headline per face. boxes: of each face left, top, width and
    height in per cent of the photo; empty where there are none to draw. records: JSON. report: HTML; '' for a video.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    said: str = Field(description="in a few words, for a list")
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
    name, about = analysis.source.path, about_page(assistant, not_measured)
    credentials = read_credentials(data)
    heats = [assistant.heat(face, verdict) for face, verdict in zip(analysis.faces, analysis, strict=True)]
    pixels = load_bytes(data, name, limits).pixels
    reported = Reported(analysis, pixels, heats, file_facts(data, name), credentials)
    faces = [wording.headline(verdict) for verdict in analysis]
    return Shown(
        name=name,
        said="; ".join(faces) or "no usable face",
        article=photo_section(reported, about),
        faces=faces,
        boxes=[_percent(verdict) for verdict in analysis if not verdict.crop.whole_image],
        records=AnalyzeReply(results=records(analysis)).model_dump_json(indent=1),
        report=build_report([reported], about),
    )


def _percent(verdict: Verdict) -> list[float]:
    box, width, height = verdict.box, verdict.source.width, verdict.source.height
    parts = (box.left / width, box.top / height, box.width / width, box.height / height)
    return [round(100 * part, 2) for part in parts]


def show_clip(assistant: Any, analysis: ClipAnalysis) -> Shown:
    """A judged video: its people, the timeline, the telling frames with their heatmaps."""
    clip = analysis.verdict
    env = Environment(loader=PackageLoader("ffaa", "assets/page"), autoescape=True, undefined=StrictUndefined)
    env.globals["say"] = wording
    people = []
    for person, faces in zip(clip.people, analysis.faces, strict=True):
        frames = []
        for one, face in zip(person.telling, faces, strict=True):
            heat = assistant.heat(face, one.verdict)
            picture = Markup(data_uri(heat_picture(face.image, heat), FACE_SIDE)) if heat.any() else None
            image = Markup(data_uri(face.image, FACE_SIDE))
            frames.append({"one": one, "image": image, "heat": picture, "where": where(heat)})
        people.append({"person": person, "frames": frames})
    plot = Markup(data_uri(timeline(clip), PHOTO_SIDE * 2)) if clip.people else None
    return Shown(
        name=clip.source.path,
        said=f"video, {len(clip.people)} people" if len(clip.people) != 1 else "video, 1 person",
        article=env.get_template("clip.html").render(clip=clip, people=people, plot=plot),
        faces=[],
        boxes=[],
        records='{"results": [' + clip.model_dump_json(indent=1) + "]}",
        report="",
    )
