"""What an evaluation of a run folder found: per photo, per set and pooled, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ffaa.eval import bootstrap
from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.findings import Findings, findings
from ffaa.eval.metrics import SetMetrics, sacc, set_metrics
from ffaa.eval.run import Outcome
from ffaa.mids.decide import difficulty
from ffaa.types import Difficulty, Label, Record

Judged = Literal["ffaa", "anchor"]
POOLS = ("in domain", "ALL")


class Hard(Record):
    """ACC on Hard photos, and what MIDS gains over the anchor alone and over a majority vote, with 95 % intervals."""

    count: int
    mids: bootstrap.Estimate
    anchor: bootstrap.Estimate
    majority: bootstrap.Estimate
    over_anchor: bootstrap.Paired
    over_majority: bootstrap.Paired


class Figures(Record):
    """Of a set or a pool. rows: 'anchor only', 'tower' (its linear head), with MIDS 'ffaa' and 'majority', and 'towers'
    (the heads of both) where it has a second one. An answer that cannot be read is wrong. easy, easy_acc, hard: None
    without MIDS or without such photos. findings: None without MIDS, and in files of an older ffaa.
    type_acc: forgery type, of all photos and of the forged ones alone. unparsed: answers."""

    rows: dict[str, SetMetrics]
    easy: int
    easy_acc: float | None
    hard: Hard | None
    findings: Findings | None = None
    type_acc: float
    type_acc_of_fakes: float | None
    unparsed: int


class Evaluation(Record):
    """`evaluation.json`. judged: 'anchor' where there is no MIDS and the anchor answer alone was asked for.

    pools: 'in domain', and 'ALL' of the open world. sacc: of every row, over the open-world sets and 'in domain'.
    """

    recipe: dict[str, Any]
    bench: BenchRecipe
    judged: Judged
    command: str
    seed: int
    versions: dict[str, str]
    hashes: dict[str, str]
    sample_sha256: str
    photos: int
    sets: dict[str, Figures]
    pools: dict[str, Figures]
    sacc: dict[str, float]


def main_row(judged: Judged) -> str:
    """The row of `Figures.rows` that the model is judged by."""
    return "ffaa" if judged == "ffaa" else "anchor only"


def figures(found: Sequence[Outcome], judged: Judged, seed: int) -> Figures:
    """The figures of some photos, at least one; seed: of the bootstrap."""
    rows = {row: _row(found, row) for row in found[0].says}
    own = main_row(judged)
    fakes = [j for j in found if j.label is Label.FAKE]
    easy = [j for j in found if difficulty(j.results) is Difficulty.EASY]
    hard = [j for j in found if difficulty(j.results) is Difficulty.HARD]
    with_mids = judged == "ffaa"
    return Figures(
        rows=rows,
        easy=len(easy) if with_mids else 0,
        easy_acc=float(np.mean([right(j, own) for j in easy])) if easy and with_mids else None,
        hard=_hard(hard, seed) if hard and with_mids else None,
        findings=_findings(found, seed) if with_mids else None,
        type_acc=float(np.mean([j.said_type is j.forgery_type for j in found])),
        type_acc_of_fakes=float(np.mean([j.said_type is j.forgery_type for j in fakes])) if fakes else None,
        unparsed=sum(j.results.count(None) for j in found),
    )


def right(j: Outcome, row: str) -> bool:
    """Whether what a row says of a photo is true; what could not be read is not."""
    return j.says[row].label is j.label


def _row(found: Sequence[Outcome], row: str) -> SetMetrics:
    says = [j.says[row] for j in found]
    return set_metrics(
        [j.label is Label.FAKE for j in found],
        [None if s.label is None else s.label is Label.FAKE for s in says],
        [s.score for s in says],
    )


def resampled(found: Sequence[Outcome], seed: int) -> bootstrap.Weights:
    """How often each photo is drawn in each resample; every set and label keeps its number of photos."""
    return bootstrap.weights([(j.test_set, j.label) for j in found], range(len(found)), seed=seed)


def _hard(found: Sequence[Outcome], seed: int) -> Hard:
    drawn = resampled(found, seed)
    hits = {
        name: np.array([right(j, row) for j in found])
        for name, row in (("mids", "ffaa"), ("anchor", "anchor only"), ("majority", "majority"))
    }
    acc = {name: float(values.mean()) for name, values in hits.items()}
    draws = {name: bootstrap.means(values, drawn) for name, values in hits.items()}
    over = {
        f"over_{name}": bootstrap.paired(acc["mids"], acc[name], draws["mids"], draws[name])
        for name in ("anchor", "majority")
    }
    return Hard(count=len(found), **{name: bootstrap.estimate(acc[name], draws[name]) for name in hits}, **over)


def _findings(found: Sequence[Outcome], seed: int) -> Findings:
    said = np.array([bool(j.finding) for j in found])
    hits = np.array([right(j, "ffaa") for j in found])
    return findings(said, hits, np.array([j.label is Label.FAKE for j in found]), resampled(found, seed))


def summarise(found: Sequence[Outcome], bench: BenchRecipe, judged: Judged) -> dict[str, Any]:
    """sets, pools and sacc of an `Evaluation`. In-domain sets are named 'in domain/NAME'."""
    sets: dict[str, list[Outcome]] = {}
    pools: dict[str, list[Outcome]] = {}
    for j in found:
        inside = j.split == bench.in_domain
        sets.setdefault(f"in domain/{j.test_set}" if inside else j.test_set, []).append(j)
        pools.setdefault("in domain" if inside else "ALL", []).append(j)
    of_sets = {name: figures(part, judged, bench.seed) for name, part in sets.items()}
    of_pools = {name: figures(pools[name], judged, bench.seed) for name in POOLS if name in pools}
    spread = [of for name, of in of_sets.items() if not name.startswith("in domain/")]
    spread += [of_pools["in domain"]] if "in domain" in of_pools else []
    rows = list(next(iter(of_sets.values())).rows)
    return {
        "sets": of_sets, "pools": of_pools, "sacc": {row: sacc([of.rows[row].acc for of in spread]) for row in rows}
    }  # fmt: skip


def table(found: Evaluation) -> str:
    """GitHub tables: every set and pool; with MIDS the Hard photos too."""
    named = {**found.sets, **found.pools}
    rows = list(next(iter(named.values())).rows)
    head = ["set", "real / fake", *(f"{row}: ACC, AUC" for row in rows), "type ACC", "easy: n, ACC", "findings: n, ACC"]
    body = []
    for name, of in named.items():
        first = of.rows[rows[0]]
        shown = [f"{show(of.rows[row].acc)}, {show(of.rows[row].auc)}" for row in rows]
        said = f"{of.findings.count}, {show(of.findings.acc.value)}" if of.findings else "-"
        easy = f"{of.easy}, {show(of.easy_acc)}"
        body.append([name, f"{first.real} / {first.fake}", *shown, show(of.type_acc), easy, said])
    parts = [grid(head, body)]
    hard = [(name, of.hard) for name, of in named.items() if of.hard]
    if hard:
        head = ["Hard photos", "n", "MIDS", "anchor", "majority", "MIDS - anchor", "MIDS - majority"]
        parts.append(grid(head, [
            [name, str(h.count), *(f"{show(e.value)} {between(e.low, e.high)}" for e in (h.mids, h.anchor, h.majority)),
             *(f"{p.difference:+.3f} {between(p.low, p.high)}" for p in (h.over_anchor, h.over_majority))]
            for name, h in hard
        ]))  # fmt: skip
    unread = sum(of.unparsed for of in found.pools.values())
    spread = ", ".join(f"{row} {show(value)}" for row, value in found.sacc.items())
    parts.append(
        f"sACC: {spread}. {found.photos} photos, {unread} answers unread. In brackets: 95 % bootstrap intervals."
    )
    return "\n\n".join(parts)


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A GitHub table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])
