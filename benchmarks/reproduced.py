"""Whether a second run of a recipe gives the figures of the first, on the same photos.

    python benchmarks/reproduced.py results/nano-recipe.json RUN/evaluation.json

Both are `evaluation.json` files of `ffaa train all`. Prints for every pool and set the first run's figure with its 95 %
interval, the second run's, and whether it lies inside. The intervals are of the photos drawn, not of the run: ACC's is
Wilson's, AUC's is Hanley and McNeil's (1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from ffaa.eval.evaluation import Evaluation, Figures, main_row
from ffaa.eval.metrics import SetMetrics

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]


def wilson(share: float, count: int) -> tuple[float, float]:
    found = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def hanley_mcneil(auc: float, fake: int, real: int) -> tuple[float, float]:
    over, under = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (fake - 1) * (over - auc**2) + (real - 1) * (under - auc**2)
    reach = 1.96 * math.sqrt(variance / (fake * real))
    return auc - reach, min(1.0, auc + reach)


def figures(one: Figures, other: Figures, row: str) -> Iterator[tuple[str, float, tuple[float, float], float]]:
    """(Name, the first's value, its interval, the second's value)"""
    a: SetMetrics = one.rows[row]
    b: SetMetrics = other.rows[row]
    if a.acc is not None and b.acc is not None:
        yield "ACC", a.acc, wilson(a.acc, a.real + a.fake), b.acc
    if a.auc is not None and b.auc is not None:
        yield "AUC", a.auc, hanley_mcneil(a.auc, a.fake, a.real), b.auc
    yield "type", one.type_acc, wilson(one.type_acc, a.real + a.fake), other.type_acc


def main(first: File, second: File) -> None:
    one, other = (Evaluation.model_validate_json(file.read_text(encoding="utf-8")) for file in (first, second))
    if one.sample_sha256 != other.sample_sha256:
        raise SystemExit(f"{first} and {second} are of different photos; evaluate both with one benchmark")
    table = Table("", "figure", "first", "interval", "second", "")
    inside = []
    for name, a in (one.pools | one.sets).items():
        b = (other.pools | other.sets)[name]
        for figure, value, (low, high), again in figures(a, b, main_row(one.judged)):
            inside.append(low <= again <= high)
            place = "inside" if inside[-1] else "below" if again < low else "above"
            table.add_row(name, figure, f"{value:.3f}", f"[{low:.3f}, {high:.3f}]", f"{again:.3f}", place)
        for file, found in ((first, a.hard), (second, b.hard)):
            if found is not None:  # each run has its own Hard photos
                gain = found.over_anchor
                of = f"{found.count} Hard: MIDS - anchor, {file.stem}"
                table.add_row(name, of, f"{gain.difference:.3f}", f"[{gain.low:.3f}, {gain.high:.3f}]", "", "")
    Console(width=120).print(table)
    print(f"{sum(inside)} of {len(inside)} inside")


if __name__ == "__main__":
    typer.run(main)
