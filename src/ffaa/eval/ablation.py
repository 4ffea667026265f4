"""Ablations: one recipe with some settings changed, a run for each, and their figures beside the paper's."""

from __future__ import annotations

import difflib
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ffaa.errors import UsageError
from ffaa.eval import bootstrap
from ffaa.eval.benchmark import BenchRecipe, load_bench
from ffaa.eval.cached import JUDGEMENTS, RESULT, evaluate, read_evaluation
from ffaa.eval.evaluation import Evaluation, Judged, grid, main_row, resampled, right
from ffaa.eval.run import Outcome
from ffaa.mids.train import TEXTS
from ffaa.recipe import Recipe, load_recipe
from ffaa.settings import load_yaml
from ffaa.stages import Stages
from ffaa.types import Record
from ffaa.vqa.conversation import read_jsonl

log = logging.getLogger(__name__)

RowName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]  # a folder's name
Settings = dict[str, Any]  # 'mids.masked' -> value
COLUMNS = ("ACC", "AUC", "AP", "sACC")


class Paper(BaseModel):
    """What the paper says of the same rows. values: row -> figures in percent, in the order of `columns`.

    claims: pairs (lower, higher) of rows of which it claims a higher ACC without giving figures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    columns: list[str] = Field(default_factory=list)
    values: dict[RowName, list[float]] = Field(default_factory=dict)
    claims: list[tuple[RowName, RowName]] = Field(default_factory=list)


class AblationRecipe(BaseModel):
    """Rows that differ in some settings of a base recipe. base and bench: files, relative to this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: RowName
    about: str
    base: Path
    bench: Path
    judged: Judged = Field("ffaa", description="'anchor': no MIDS is trained, the anchor answer alone decides")
    common: Settings = Field(default_factory=dict, description="settings of all rows")
    rows: dict[RowName, Settings] = Field(min_length=2)
    paper: Paper

    @model_validator(mode="after")
    def _known_rows(self) -> AblationRecipe:
        named = {*self.paper.values, *(row for claim in self.paper.claims for row in claim)}
        if strange := sorted(named - set(self.rows)):
            raise ValueError(f"paper speaks of the row '{strange[0]}', which is none of {', '.join(self.rows)}")
        if any(len(of) != len(self.paper.columns) for of in self.paper.values.values()):
            raise ValueError("paper.values gives a figure for every one of paper.columns")
        if strange := [name for name in self.paper.columns if name not in COLUMNS]:
            raise ValueError(f"paper.columns: '{strange[0]}' is none of {', '.join(COLUMNS)}")
        return self


class Compared(Record):
    """Two rows: ACC of the second minus the first's on the same open-world photos, with its 95 % interval; `paper`: the
    sign that the paper gives it (None: it says nothing), `holds`: whether ours has it too."""

    first: str
    second: str
    ours: bootstrap.Paired
    paper: float | None
    holds: bool | None


class AblationResult(Record):
    """What `ffaa ablate` writes: row -> its evaluation, and neighbouring rows compared."""

    name: str
    about: str
    command: str
    common: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    paper: Paper
    rows: dict[str, Evaluation]
    compared: list[Compared]


class Ablation:
    """A recipe with what it names: the recipe of every row, and the benchmark. Raises UsageError for settings that the
    base recipe does not have, before anything runs."""

    def __init__(self, file: Path):
        self.recipe = load_yaml(file, AblationRecipe)
        base = load_recipe(file.parent / self.recipe.base)
        self.bench: BenchRecipe = load_bench(file.parent / self.recipe.bench)
        self.rows = {
            name: changed(base, self.recipe.common | settings, f"{file}: {name}")
            for name, settings in self.recipe.rows.items()
        }

    def run(self, data: Path, run: Path, only: Sequence[str] = ()) -> AblationResult:
        """Train and evaluate the rows in `run`/ablations/NAME/ROW, and write NAME.json and NAME.md beside them.

        only: these rows; others are in the table where they are up to date. A stage that `run` or another row has done
        with the same inputs is taken from there; MIDS's text features stay in `run`/ablations for the next ablation. A
        killed run goes on. Raises UsageError for an unknown row.
        """
        if strange := [name for name in only if name not in self.rows]:
            raise UsageError(f"{self.recipe.name} has no row '{strange[0]}'; its rows: {', '.join(self.rows)}")
        place = run / "ablations" / self.recipe.name
        made = {}
        for name in only or self.rows:
            log.info("%s, row %s", self.recipe.name, name)
            noted = sorted(file.parent for file in place.parent.glob("*/*/stages.json"))  # of other ablations too
            others = [run, *(row for row in noted if row != place / name)]
            stages = Stages(self.rows[name], data, place / name, others, place.parent / TEXTS)
            if self.recipe.judged == "ffaa":
                stages.mids()
            else:
                stages.mllm()
            made[name] = evaluate(stages, self.bench, self.recipe.judged)
        sample = next(iter(made.values())).sample_sha256
        kept = {name: self._kept(place / name, self.rows[name], sample) for name in self.rows if name not in made}
        rows = {name: made.get(name) or kept.get(name) for name in self.rows}
        found = {name: evaluation for name, evaluation in rows.items() if evaluation}
        result = AblationResult(
            name=self.recipe.name, about=self.recipe.about, command=shlex.join(["ffaa", *sys.argv[1:]]),
            common=self.recipe.common, settings=self.recipe.rows, paper=self.recipe.paper, rows=found,
            compared=compare(self.recipe, found, place, self.bench),
        )  # fmt: skip
        place.with_suffix(".json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        place.with_suffix(".md").write_text(table(result) + "\n", encoding="utf-8")
        return result

    def _kept(self, folder: Path, settings: Recipe, sample: str) -> Evaluation | None:
        """The evaluation of a row that does not run now; None where there is none of these settings and photos."""
        if not (folder / RESULT).is_file():
            return None
        found = read_evaluation(folder)
        asked = (settings.model_dump(mode="json", exclude={"evaluate"}), self.bench, self.recipe.judged, sample)
        return found if (found.recipe, found.bench, found.judged, found.sample_sha256) == asked else None


def changed(base: Recipe, settings: Settings, where: str) -> Recipe:
    """`base` with some settings replaced. Raises UsageError, beginning with `where`, naming the nearest known one."""
    plain = base.model_dump()
    for name, value in settings.items():
        *path, last = name.split(".")
        place: Any = plain
        for part in (*path, last):
            if not isinstance(place, dict) or part not in place:
                near = difflib.get_close_matches(part, place if isinstance(place, dict) else [], 1)
                raise UsageError(f"{where}: no setting '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
            holder, place = place, place[part]
        holder[last] = value
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def compare(recipe: AblationRecipe, found: dict[str, Evaluation], place: Path, bench: BenchRecipe) -> list[Compared]:
    """Neighbouring rows, and pairs of which the paper claims something, on the same photos of the open world."""
    pairs = [*pairwise(name for name in recipe.rows if name in found)]
    pairs += [c for c in recipe.paper.claims if c not in pairs and set(c) <= set(found)]
    judged = {name: _open_world(place / name, bench) for name in found}
    return [_compared(recipe, a, b, judged, bench.seed) for a, b in pairs]


def _open_world(folder: Path, bench: BenchRecipe) -> list[Outcome]:
    found = list(read_jsonl(folder / JUDGEMENTS, Outcome))
    return [j for j in found if j.split == bench.open_world] or found


def _compared(recipe: AblationRecipe, a: str, b: str, judged: dict[str, list[Outcome]], seed: int) -> Compared:
    drawn = resampled(judged[a], seed)
    row = main_row(recipe.judged)
    first, second = (np.array([right(j, row) for j in judged[name]]) for name in (a, b))
    draws = [bootstrap.means(hits, drawn) for hits in (second, first)]
    ours = bootstrap.paired(float(second.mean()), float(first.mean()), *draws)
    said = _paper_difference(recipe.paper, a, b)
    holds = None if said is None else bool(np.sign(round(ours.difference, 9)) == np.sign(said))
    return Compared(first=a, second=b, ours=ours, paper=said, holds=holds)


def _paper_difference(paper: Paper, a: str, b: str) -> float | None:
    """In percent; of a claim without figures only the sign, as 1 or -1."""
    if "ACC" in paper.columns and a in paper.values and b in paper.values:
        place = paper.columns.index("ACC")
        return round(paper.values[b][place] - paper.values[a][place], 2)
    return 1.0 if (a, b) in paper.claims else -1.0 if (b, a) in paper.claims else None


def table(result: AblationResult) -> str:
    """GitHub tables: our figures of the open world in percent, the paper's beside them, and what holds."""
    paper = result.paper
    head = ["row", "settings", *COLUMNS, "in domain ACC", "Hard: n, ACC", *(f"paper {name}" for name in paper.columns)]
    body = []
    for name, found in result.rows.items():
        pool = found.pools.get("ALL") or found.pools["in domain"]
        row = main_row(found.judged)
        own = pool.rows[row]
        inside = found.pools["in domain"].rows[row].acc if "in domain" in found.pools else None
        figures = [own.acc, own.auc, own.ap, found.sacc[row], inside]
        hard = f"{pool.hard.count}, {_percent(pool.hard.mids.value)}" if pool.hard else "-"
        said = [f"{value:.1f}" for value in paper.values.get(name, [])] or ["-"] * len(paper.columns)
        body.append([name, _told(result.settings[name]), *map(_percent, figures), hard, *said])
    first = next(iter(result.rows.values()))
    lines = [f"**{result.name}**: {result.about}", "", grid(head, body), ""]
    if result.common:
        lines.append(f"All rows: {_told(result.common)}.")
    lines.append(
        f"{first.photos} photos of '{first.bench.name}' (sample {first.sample_sha256[:8]}), seed {first.seed}; "
        f"judged by {'MIDS' if first.judged == 'ffaa' else 'the anchor answer alone'}. Paper: {paper.source}."
    )
    missing = [name for name in result.settings if name not in result.rows]
    lines += [f"Not run: {', '.join(missing)}."] if missing else []
    lines += ["", *(f"- {_sentence(c)}" for c in result.compared), "", f"`{result.command}`"]
    return "\n".join(lines)


def _sentence(c: Compared) -> str:
    low, high = (100 * v for v in (c.ours.low, c.ours.high))
    ours = f"{c.first} -> {c.second}: ACC {100 * c.ours.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    if c.paper is None:
        return f"{ours}; the paper compares no such rows"
    said = "up" if c.paper > 0 else "down" if c.paper < 0 else "no change"
    sure = "" if low > 0 or high < 0 else ", within what another draw of photos would give"
    return f"{ours}; paper: {said}: {'holds' if c.holds else 'does not hold'}{sure}"


def _told(settings: Settings) -> str:
    plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return ", ".join(f"{name} {value}" for name, value in plain.items()) or "as the base"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
