"""A robustness result as tables, CSV and curves."""

from __future__ import annotations

import csv
import io
import re
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from ffaa.data.stats import Table
from ffaa.eval.plots import line_style, plain
from ffaa.eval.robustness import CLEAN, PointFigures, Points, RobustnessResult
from ffaa.eval.tables import number, spread, too_few

Height = Literal["acc", "auc"]
CSV_COLUMNS = (
    "corruption", "strength", "pool", "row", "real", "fake", "acc", "acc_low", "acc_high", "auc", "auc_low", "auc_high",
    "ap", "balanced_acc", "real_acc", "fake_acc", "eer", "tpr_at_1", "tpr_at_5", "ece", "brier", "unread", "changed",
)  # fmt: skip
ACROSS = 4  # panels beside each other


def tables(found: RobustnessResult) -> list[Table]:
    """The areas of all corruptions, and every corruption in detail."""
    return [_areas(found), *(_detail(found, name) for name in found.curves)]


def _areas(found: RobustnessResult) -> Table:
    rows = []
    for pool, clean in found.clean.items():
        for row in found.row_names:
            of = clean[row]
            rows.append([pool, row, CLEAN, _with_interval(of), number(of.auc)])
            for name, curve in found.curves.items():
                area = curve.area[pool][row]
                rows.append([pool, row, name, *(spread(e.value, e.low, e.high) for e in (area.acc, area.auc))])
    notes = [
        f"{found.photos} photos. Normalised area under the curve of a figure over the strengths, the clean photos and "
        "the strengths at equal distances: the mean height of the curve. In brackets 95 % intervals.",
    ]
    notes += too_few(found.least)
    return Table("Area under the curves", ["pool", "", "corruption", "ACC", "AUC"], rows, notes)


def _detail(found: RobustnessResult, name: str) -> Table:
    curve = found.curves[name]
    rows = []
    for pool in found.clean:
        for row in found.row_names:
            for told, points in _along(found, name):
                of = points[pool][row]
                rest = (of.fake_acc, of.real_acc, of.tpr_at_5, of.changed)
                rows.append([pool, row, told, _with_interval(of), number(of.auc), *map(number, rest), str(of.unread)])
    head = ["pool", "", curve.unit, "ACC", "AUC", "fakes found", "reals passed", "TPR at 5 % FPR", "changed", "unread"]
    notes = ["changed: share of determinations that differ from those of the clean photos."]
    return Table(name, head, rows, notes)


def _along(found: RobustnessResult, name: str) -> list[tuple[str, Points]]:
    """(what stands below the point, its figures): the clean photos, then every strength."""
    curve = found.curves[name]
    return [
        (CLEAN, found.clean), *zip((f"{s:g}" for s in curve.strengths), curve.points, strict=True)
    ]  # fmt: skip


def _with_interval(of: PointFigures) -> str:
    return spread(of.acc, *of.acc_interval)


def as_csv(found: RobustnessResult) -> str:
    """One line per corruption, strength, pool and row; the clean photos first, under the corruption 'clean'."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    named = [(CLEAN, "", found.clean)]
    named += [(name, told, points) for name in found.curves for told, points in _along(found, name)[1:]]
    for name, told, points in named:
        for pool, of_rows in points.items():
            for row in found.row_names:
                of = of_rows[row]
                flat = of.model_dump() | {"corruption": name, "strength": told, "pool": pool, "row": row}
                flat |= dict(zip(("acc_low", "acc_high"), of.acc_interval, strict=True))
                flat |= dict(zip(("auc_low", "auc_high"), of.auc_interval or (None, None), strict=True))
                values = [flat[column] for column in CSV_COLUMNS]
                writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def curves(found: RobustnessResult, pool: str, height: Height) -> Figure:
    """A panel per corruption, a line per row; shaded: 95 % intervals."""
    names = list(found.curves)
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.6 * across, 3.1 * down + 0.9), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, names):
        along = _along(found, name)
        at = np.arange(len(along))
        for n, row in enumerate(found.row_names):
            of = [points[pool][row] for _, points in along]
            value = [np.nan if getattr(one, height) is None else getattr(one, height) for one in of]
            bounds = [getattr(one, f"{height}_interval") or (np.nan, np.nan) for one in of]
            axes.plot(at, value, label=plain(row) if axes is panels[0] else None, **line_style(n))
            axes.fill_between(
                at, [b[0] for b in bounds], [b[1] for b in bounds], color=line_style(n)["color"], alpha=0.12
            )
        axes.axhline(0.5, color="0.7", linewidth=0.8)
        axes.set(title=plain(name), xlabel=found.curves[name].unit, ylim=(0, 1.02))
        axes.set_xticks(at, [told for told, _ in along], fontsize=8)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.suptitle(f"{height.upper()}, {plain(pool)}")
    figure.legend(fontsize=8, loc="outside lower center", ncols=4)
    return figure


def figures(found: RobustnessResult) -> dict[str, Figure]:
    """File name -> curves of every pool; AUC only where the pool has both classes."""
    made = {}
    for pool, clean in found.clean.items():
        both = all(of.auc is not None for of in clean.values())
        for height in ("acc", "auc") if both else ("acc",):
            made[f"robustness-{re.sub(r'[^A-Za-z0-9_-]', '-', pool)}-{height}.png"] = curves(found, pool, height)
    return made
