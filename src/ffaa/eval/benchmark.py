"""A benchmark: a manifest's photos, one Verdict each, figures per test set, in domain and pooled."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ffaa.assistant import Assistant
from ffaa.data import manifest
from ffaa.data.build import rows_of_csv
from ffaa.data.crops import read_photo
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.eval.metrics import SetMetrics, sacc, set_metrics
from ffaa.settings import load_yaml
from ffaa.types import Analysis, Answer, Difficulty, ForgeryType, Label, Record, Verdict
from ffaa.vqa.conversation import resume_jsonl

log = logging.getLogger(__name__)


class BenchRecipe(BaseModel):
    """Which photos of a manifest, and how they are grouped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    manifest: str = "manifest.csv"
    in_domain: str = Field("test", description="the split reported as in domain")
    open_world: str = Field("bench", description="the split whose sets are pooled as ALL")
    per_class: int | None = Field(None, ge=1, description="at most this many photos per open-world set and label")
    in_domain_per_class: int | None = Field(None, ge=1, description="the same for every in-domain set and label")
    seed: int = 0


class Outcome(Record):
    """One photo: what is true, what the assistant and the tower alone say."""

    path: str
    sha256: str
    split: str
    test_set: str
    label: Label
    forgery_type: ForgeryType
    said: Label
    said_type: ForgeryType | None
    forgery_score: float
    match_score: float
    difficulty: Difficulty
    anchor: Label | None
    tower_score: float | None
    tower_type: ForgeryType | None
    whole_image: bool
    unparsed: int


def load_bench(path: Path) -> BenchRecipe:
    """Read a benchmark recipe; UsageError names what is wrong."""
    return load_yaml(path, BenchRecipe)


def sample(recipe: BenchRecipe, rows: Sequence[Row]) -> list[Row]:
    """The rows to analyse: all in-domain ones, and a seeded draw per open-world set and label."""
    limits = {recipe.in_domain: recipe.in_domain_per_class, recipe.open_world: recipe.per_class}
    chosen = [r for r in rows if r.split == recipe.in_domain and limits[r.split] is None]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.split == recipe.open_world or (row.split == recipe.in_domain and limits[row.split] is not None):
            groups.setdefault((row.test_set, row.label.value, row.split), []).append(row)
    for key in sorted(groups):
        rng = np.random.default_rng((recipe.seed, *key[0].encode(), *key[1].encode()))
        group = groups[key]
        order = rng.permutation(len(group))[: limits[key[2]] or len(group)]
        chosen += [group[i] for i in sorted(order)]
    return chosen


@torch.inference_mode()
def _tower(assistant: Assistant, analysis: Analysis) -> tuple[float | None, ForgeryType | None]:
    heads = assistant.engine.heads
    if heads is None:
        return None, None
    last, previous = assistant.engine.encode(analysis.faces[0].image).layers
    scores, kinds = heads.opinion((previous.cpu(), last.cpu()))
    return scores[0], kinds[0]


def run(recipe: BenchRecipe, data: Path, assistant: Assistant, records: Path) -> list[Outcome]:
    """Analyse every sampled photo; `records` (JSON Lines) keeps them, so a killed run goes on where it stopped.

    A photo without a face is analysed as a whole image, as a user would after the message. Raises InputError when a
    photo cannot be read.
    """
    file = data / recipe.manifest
    todo = sample(recipe, rows_of_csv(file) if file.suffix == ".csv" else manifest.read(file))
    done = resume_jsonl(records, Outcome)
    if [o.path for o in done] != [r.path for r in todo[: len(done)]]:
        raise InputError(f"{records}: holds another run; remove it or name another file")
    rest = todo[len(done) :]
    records.parent.mkdir(parents=True, exist_ok=True)
    root = file if file.is_dir() else file.parent
    with records.open("a", encoding="utf-8") as log_file:
        for row, analysis in zip(rest, _analyses(assistant, root, rest), strict=True):
            verdict = analysis.verdicts[0]
            tower = _tower(assistant, analysis)
            outcome = _outcome(row, verdict, *tower)
            done.append(outcome)
            log_file.write(outcome.model_dump_json() + "\n")
            log_file.flush()
            if len(done) % 100 == 0:
                log.info("%d of %d photos", len(done), len(todo))
    return done


def _analyses(assistant: Assistant, root: Path, rows: Sequence[Row]) -> Iterator[Analysis]:
    """Photos go through detection; rows that are face crops already are taken whole."""
    if any(row.size for row in rows):
        for row in rows:
            yield assistant.analyze(read_photo(root, row), whole_image=bool(row.size))
        return
    paths = [str(root / row.path) for row in rows]
    for path, found in zip(paths, assistant.analyze_many(paths), strict=True):
        if not isinstance(found, Analysis):
            raise InputError(found.message)
        yield found if found.verdicts else assistant.analyze(path, whole_image=True)


def _outcome(row: Row, verdict: Verdict, score: float | None, kind: ForgeryType | None) -> Outcome:
    anchor = verdict.answers[0]
    return Outcome(
        path=row.path, sha256=verdict.source.sha256 or row.sha256, split=row.split, test_set=row.test_set,
        label=row.label,
        forgery_type=row.forgery_type, said=verdict.label, said_type=verdict.forgery_type,
        forgery_score=verdict.forgery_score, match_score=verdict.match_score, difficulty=verdict.difficulty,
        anchor=anchor.result if isinstance(anchor, Answer) else None, tower_score=score, tower_type=kind,
        whole_image=verdict.crop.whole_image, unparsed=sum(not isinstance(a, Answer) for a in verdict.answers),
    )  # fmt: skip


def summarise(recipe: BenchRecipe, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures per set: {'sets': {name: {...}}, 'pools': {'in domain', 'ALL'}, 'sacc': {...}, 'sample': hash}."""
    sets: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        prefix = "in domain/" if outcome.split == recipe.in_domain else ""
        sets.setdefault(prefix + outcome.test_set, []).append(outcome)
    pools = {
        "in domain": [o for o in outcomes if o.split == recipe.in_domain],
        "ALL": [o for o in outcomes if o.split == recipe.open_world],
    }
    pools = {name: found for name, found in pools.items() if found}
    figures = {name: _figures(found) for name, found in (*sets.items(), *pools.items())}
    spread = [name for name in sets if not name.startswith("in domain/")] + ["in domain"] * ("in domain" in pools)
    return {
        "sets": {name: figures[name] for name in sets},
        "pools": {name: figures[name] for name in pools},
        "sacc": {row: sacc([figures[name][row].acc for name in spread]) for row in figures[spread[0]] if row in ROWS},
        "sample_sha256": hashlib.sha256("\n".join(o.sha256 for o in outcomes).encode()).hexdigest(),
    }


ROWS = ("ffaa", "anchor only", "tower")


def _figures(found: Sequence[Outcome]) -> dict[str, Any]:
    truth = [o.label is Label.FAKE for o in found]
    figures: dict[str, Any] = {
        "ffaa": set_metrics(truth, [o.said is Label.FAKE for o in found], [o.forgery_score for o in found])
    }
    anchored = [o for o in found if o.anchor is not None]
    if anchored:
        says = [o.anchor is Label.FAKE for o in anchored]
        figures["anchor only"] = set_metrics([o.label is Label.FAKE for o in anchored], says, [float(s) for s in says])
    towered = [o for o in found if o.tower_score is not None]
    if towered:
        scores = [o.tower_score or 0.0 for o in towered]
        figures["tower"] = set_metrics([o.label is Label.FAKE for o in towered], [s > 0.5 for s in scores], scores)
    for level in Difficulty:
        part = [o for o in found if o.difficulty is level]
        figures[level.value] = {
            "count": len(part),
            "acc": float(np.mean([o.said is o.label for o in part])) if part else None,
            "anchor_acc": float(np.mean([o.anchor is o.label for o in part])) if part else None,
        }
    caught = [o for o in found if o.label is Label.FAKE and o.said is Label.FAKE]
    fakes = [o for o in found if o.label is Label.FAKE]
    figures["type_acc"] = float(np.mean([o.said_type is o.forgery_type for o in found]))
    figures["type_acc_of_fakes"] = float(np.mean([o.said_type is o.forgery_type for o in fakes])) if fakes else None
    figures["type_acc_of_caught"] = float(np.mean([o.said_type is o.forgery_type for o in caught])) if caught else None
    figures["confusion"] = {f"{a} -> {b}": n for (a, b), n in sorted(Counter(
        (o.forgery_type.value, o.said_type.value if o.said_type else "none") for o in found).items())}  # fmt: skip
    figures["whole_image"] = sum(o.whole_image for o in found)
    figures["unparsed_answers"] = sum(o.unparsed for o in found)
    return figures


def result(
    recipe: BenchRecipe, outcomes: Sequence[Outcome], assistant: Assistant, command: str, started: float
) -> dict:
    """Everything a result file holds: figures, seeds, versions, weight hashes and the command."""
    plain = summarise(recipe, outcomes)
    return {
        "recipe": recipe.model_dump(), "model": assistant.engine.name, "weights": assistant.engine.hashes,
        "versions": assistant.versions, "seed": assistant.seed, "command": command, "photos": len(outcomes),
        "seconds": round(time.time() - started, 1), **_plain(plain),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, SetMetrics):
        return _plain(value.model_dump())
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def write_csv(path: Path, figures: dict[str, Any]) -> None:
    """One line per set and row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "row", "real", "fake", "acc", "auc", "ap", "ece"])
        for name, found in {**figures["sets"], **figures["pools"]}.items():
            for row in ROWS:
                if row in found:
                    m = found[row]
                    writer.writerow([name, row, m["real"], m["fake"], m["acc"], m["auc"], m["ap"], m["ece"]])


def markdown(figures: dict[str, Any]) -> str:
    """The table of a result, GitHub style."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    lines = ["| set | real / fake | ACC | AUC | AP | tower ACC | tower AUC | type ACC | easy: n, ACC | hard: n, ACC |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, found in {**figures["sets"], **figures["pools"]}.items():
        own, tower = found["ffaa"], found.get("tower", {})
        lines.append(
            f"| {name} | {own['real']} / {own['fake']} | {show(own['acc'])} | {show(own['auc'])} | {show(own['ap'])} "
            f"| {show(tower.get('acc'))} | {show(tower.get('auc'))} | {show(found['type_acc'])} "
            f"| {found['easy']['count']}, {show(found['easy']['acc'])} "
            f"| {found['hard']['count']}, {show(found['hard']['acc'])} |"
        )
    return "\n".join(lines)


def read_result(path: Path) -> dict[str, Any]:
    """A result file. Raises InputError when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {"sets", "pools"} <= found.keys():
            return dict(found)
    except (OSError, ValueError, AttributeError):
        pass
    raise InputError(f"{path}: not a result of `ffaa bench run`")
