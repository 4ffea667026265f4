"""What the API answers with: the same records as `ffaa analyze --json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ffaa.serve.problems import Problem
from ffaa.types import Analysis, NoFace, Verdict
from ffaa.types_clip import ClipVerdict

Result = Annotated[Verdict | NoFace, Field(discriminator="kind")]
JobResult = Annotated[Verdict | NoFace | ClipVerdict, Field(discriminator="kind")]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnalyzeReply(_Reply):
    """One record per face, largest face first; a photo without a usable face gives one of kind `no_face`."""

    results: list[Result]


class Accepted(_Reply):
    """A job that will end, whatever happens to the server."""

    id: str
    url: str = Field(description="where to ask for it")


class JobFile(_Reply):
    """A file of a job. Done: it has results, or an error of its own."""

    name: str
    state: Literal["queued", "running", "done"]
    results: list[JobResult] | None = None
    error: Problem | None = None


class JobReply(_Reply):
    """A job; times are seconds since 1970. Done when each of its files is."""

    id: str
    state: Literal["queued", "running", "done"]
    created: float
    ended: float | None = None
    files: list[JobFile]


class Health(_Reply):
    """ready: photos are taken."""

    status: Literal["ready", "loading", "draining"]


def records(analysis: Analysis) -> list[Verdict | NoFace]:
    """The records of one photo."""
    if analysis.verdicts:
        return list(analysis.verdicts)
    message = analysis.message.replace("use --whole-image", "set whole_image")  # as it is called here
    return [NoFace(source=analysis.source, message=message)]
