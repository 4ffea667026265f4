"""The result file of `ffaa bench run`: what it holds, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ffaa.errors import InputError
from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.bootstrap import Estimate
from ffaa.eval.detectors import About, Judgement
from ffaa.eval.findings import Findings
from ffaa.eval.metrics import SetMetrics
from ffaa.types import Record

FORMAT = "ffaa-bench-2"
R = TypeVar("R", bound=Record)
Score = Annotated[float, Field(ge=0, le=1)]


class Says(Record):
    """One row's view of all photos, in the run's order: fake None where nothing could be read. refused: whether it
    declined; [] where it never did."""

    fake: list[bool | None]
    score: list[Score]
    refused: list[bool] = Field(default_factory=list)


class Answers(Record):
    """Of a detector that answers, per photo: easy; whether it is said as a finding, None in files of an older ffaa; the
    type that the chosen answer names; how many answers could not be read."""

    easy: list[bool]
    finding: list[bool] | None = None
    said_type: list[str | None]
    unread: list[int]


class Photos(Record):
    """All photos of the run, a list per column. set: the name that its figures stand under. pool: 'ALL', the in-domain
    one's name, or 'validation'. video: a number per video, -1 for photos that stand alone. attributes: the
    recipe's."""

    set: list[str]
    pool: list[str]
    fake: list[bool]
    forgery_type: list[str]
    video: list[int]
    whole_image: list[bool]
    says: dict[str, Says]
    answers: dict[str, Answers]
    attributes: dict[str, list[str]] = Field(default_factory=dict)


class VideoFigures(Record):
    """Of mean scores per video, fake where the mean is at least 0.5; photos that stand alone count as one each."""

    videos: int
    acc: Score
    auc: float | None


class RowFigures(SetMetrics):
    """A row's figures in one set or pool. interval: 95 %, bootstrap; auc's is None where AUC is not defined."""

    acc_interval: tuple[float, float]
    auc_interval: tuple[float, float] | None
    unread: int = Field(description="photos of which nothing could be read; they count as wrong")
    refused: int = Field(0, description="photos on which it declined to answer; they count as wrong, not as unread")
    acc_answered: float | None = Field(None, description="ACC without those; None where there are none, or only those")
    video: VideoFigures | None = Field(description="only where a video has several frames")


class Level(Record):
    """Easy or Hard photos (Fig. 6): how many, their share, ACC of the anchor answer (before), the majority of the three
    determinations, and MIDS (after); and what MIDS gains over the other two on the same photos."""

    count: int
    share: Estimate
    anchor: Estimate
    majority: Estimate
    mids: Estimate
    gain_over_anchor: Estimate
    gain_over_majority: Estimate


class AnswerFigures(Record):
    """Of a detector that answers. type_acc: the type named is the true one, of all photos, of the fakes, and of the
    fakes that were caught. confusion: true type -> type named ('none') -> photos."""

    easy: Level
    hard: Level
    findings: Findings | None = None
    type_acc: float
    type_acc_of_fakes: float | None
    type_acc_of_caught: float | None
    confusion: dict[str, dict[str, int]]
    unparsed_answers: int


class GroupFigures(Record):
    """One set or pool."""

    real: int
    fake: int
    whole_image: int = Field(description="photos in which no face was found")
    rows: dict[str, RowFigures]
    answers: dict[str, AnswerFigures]


class DetectorFigures(About):
    """A detector, its rows, and its speed: model time only, the median batch."""

    rows: list[str]
    images_per_second: float


class Bootstrap(Record):
    resamples: int
    seed: int


class Figures(Record):
    """All figures. sacc: per row. thresholds: per row, '0.5', 'validation' (the detector's own), 'pooled' (best ACC on
    the benchmark's validation split), 'oracle' (best ACC on ALL itself: what no threshold can exceed)."""

    sets: dict[str, GroupFigures]
    pools: dict[str, GroupFigures]
    sacc: dict[str, Estimate]
    thresholds: dict[str, dict[str, float]]


class Result(Figures):
    """Everything a result file holds."""

    format: Literal["ffaa-bench-2"]
    recipe: BenchRecipe
    sample_sha256: str
    detectors: dict[str, DetectorFigures]
    versions: dict[str, str]
    command: str
    batch: int
    bootstrap: Bootstrap
    photos: Photos

    @property
    def groups(self) -> dict[str, GroupFigures]:
        """Sets, then pools."""
        return self.sets | self.pools

    @property
    def row_names(self) -> list[str]:
        """All detectors' rows."""
        return [row for found in self.detectors.values() for row in found.rows]


def images_per_second(judged: Sequence[Judgement]) -> float:
    """Model time only, of the median photo."""
    return 1 / max(median(one.seconds for one in judged), 1e-9)


def write_result(path: Path, found: Record) -> None:
    """Write the file at once: one line per top-level key, so that two results compare well."""
    content = found.model_dump(mode="json")
    lines = [f"{json.dumps(key)}: {json.dumps(_rounded(value))}" for key, value in content.items()]
    part = path.with_name(path.name + ".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    part.replace(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value


def read_result(path: Path) -> Result:
    """A result file of `ffaa bench run`. Raises InputError when it is none, or of an older ffaa."""
    return read_as(path, Result, FORMAT, "ffaa bench run")


def format_of(path: Path) -> str:
    """What the file says of its format; '' where it does not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("format", "")) if isinstance(content, dict) else ""


def read_as(path: Path, kind: type[R], expected: str, command: str) -> R:
    """A result file of one kind. expected: its format; command: what writes it. Raises InputError."""
    content: Any = None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return kind.model_validate(content)
    except (OSError, ValueError) as error:
        given = content.get("format") if isinstance(content, dict) else None
        if kind is Result and isinstance(content, dict) and {"sets", "pools"} <= content.keys() and given != expected:
            raise InputError(f"{path}: a result of another version of ffaa; run its `{command}` again") from error
        why = ""
        if isinstance(error, ValidationError) and given == expected:
            first = error.errors()[0]
            why = f" ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise InputError(f"{path}: not a result of `{command}`{why}") from error
