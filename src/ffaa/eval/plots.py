"""Plots of a result: ROC, reliability, Easy and Hard, ACC per set. Colours are told apart by the colour-blind, lines
and bars also in greyscale, by dashes, markers and hatches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from ffaa.errors import InputError
from ffaa.eval.figures import groups_of
from ffaa.eval.result import Result

# Okabe and Ito's palette without its yellow, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
BINS = 10


def line_style(n: int) -> dict[str, Any]:
    """Of the n-th line. After seven the dashes move on by one, so that the pairs stay different."""
    return {
        "color": COLOURS[n % 7], "linestyle": DASHES[(n + n // 7) % 7], "marker": MARKERS[(n + n // 7) % 7],
        "markersize": 4, "linewidth": 1.6,
    }  # fmt: skip


def plain(text: str) -> str:
    """matplotlib reads formulas between dollars, and hides labels that begin with an underscore."""
    return "\u200b" * text.startswith("_") + text.replace("$", r"\$")


def roc(found: Result) -> Figure:
    """A panel per pool, a line per row."""
    _, pools = groups_of(found.photos)
    pools = {name: inside for name, inside in pools.items() if found.pools[name].real and found.pools[name].fake}
    figure = Figure(figsize=(5.2 * max(1, len(pools)), 5.6), layout="constrained")
    fake = np.array(found.photos.fake)
    for axes, (name, inside) in zip(figure.subplots(1, max(1, len(pools)), squeeze=False)[0], pools.items()):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for n, row in enumerate(found.row_names):
            fpr, tpr, _ = roc_curve(fake[inside], np.array(found.photos.says[row].score)[inside])
            label = f"{plain(row)} ({found.pools[name].rows[row].auc:.3f})"
            axes.plot(fpr, tpr, label=label, markevery=max(1, len(fpr) // 8), **line_style(n))
        axes.set(title=plain(name), xlabel="real photos accused", ylabel="fakes found", aspect="equal")
        axes.legend(fontsize=8, title="AUC", loc="lower right")
    return figure


def reliability(found: Result) -> Figure:
    """Share of fakes over the mean score, ten bins, of the last pool (ALL where there is one)."""
    name, inside = list(groups_of(found.photos)[1].items())[-1]
    figure = Figure(figsize=(5.6, 5.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    fake = np.array(found.photos.fake)[inside]
    for n, row in enumerate(found.row_names):
        score = np.array(found.photos.says[row].score)[inside]
        place = np.minimum((score * BINS).astype(int), BINS - 1)
        there = np.unique(place)
        label = f"{plain(row)} ({found.pools[name].rows[row].ece:.3f})"
        axes.plot(
            [score[place == b].mean() for b in there],
            [fake[place == b].mean() for b in there],
            label=label,
            **line_style(n),
        )
    axes.set(title=plain(name), xlabel="mean forgery score", ylabel="share of fakes", aspect="equal")
    axes.legend(fontsize=8, title="ECE", loc="upper left")
    return figure


def levels(found: Result, detector: str) -> Figure:
    """Fig. 6: the share of Hard photos per set, and ACC on Easy and Hard before (anchor) and after (MIDS)."""
    groups = {name: group.answers[detector] for name, group in found.groups.items()}
    names, at = [plain(name) for name in groups], np.arange(len(groups))
    figure = Figure(figsize=(3 + 0.75 * len(names), 7), layout="constrained")
    share, acc = figure.subplots(2, 1, sharex=True)
    easy = np.array([of.easy.share.value or 0 for of in groups.values()])
    share.bar(at, easy, 0.7, color="#56B4E9", edgecolor="black", label="easy")
    share.bar(at, 1 - easy, 0.7, bottom=easy, color="#D55E00", edgecolor="black", hatch="///", label="hard")
    share.set(ylabel="share of photos", title=plain(detector))
    bars = (("easy", "anchor", "#C6E3F5", ""), ("easy", "mids", "#0072B2", ""), ("hard", "anchor", "#F5CBB0", "///"),
            ("hard", "mids", "#D55E00", "///"))  # fmt: skip
    for place, (level, part, colour, hatch) in enumerate(bars):
        found_here = [getattr(getattr(of, level), part) for of in groups.values()]
        value = np.array([np.nan if e.value is None else e.value for e in found_here])
        low = np.array([0 if e.low is None else e.value - e.low for e in found_here])
        high = np.array([0 if e.high is None else e.high - e.value for e in found_here])
        label = f"{level}, {'before (anchor)' if part == 'anchor' else 'after (MIDS)'}"
        acc.bar(
            at + (place - 1.5) * 0.2, value, 0.2, yerr=(low.clip(0), high.clip(0)), color=colour, edgecolor="black",
            hatch=hatch, label=label, error_kw={"linewidth": 0.8},
        )  # fmt: skip
    acc.set(ylabel="ACC", ylim=(0, 1.05))
    acc.set_xticks(at, names, rotation=40, ha="right", fontsize=8)
    for axes in (share, acc):
        axes.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    return figure


def radar(found: Result) -> Figure:
    """ACC per set, an axis each."""
    names = list(found.sets)
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    figure = Figure(figsize=(7.5, 7.5), layout="constrained")
    axes = figure.subplots(subplot_kw={"projection": "polar"})
    for n, row in enumerate(found.row_names):
        values = [found.sets[name].rows[row].acc for name in names]
        axes.plot([*angles, angles[0]], [*values, values[0]], label=plain(row), **line_style(n))
    axes.set_xticks(angles, [plain(name) for name in names], fontsize=8)
    axes.tick_params(axis="x", pad=14)
    axes.set(ylim=(0, 1), title="ACC per set")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure


def figures(found: Result) -> dict[str, Figure]:
    """File name -> plot. ROC only where a pool has both classes."""
    made = {"reliability.png": reliability(found), "radar.png": radar(found)}
    if any(group.real and group.fake for group in found.pools.values()):
        made = {"roc.png": roc(found)} | made
    answering = next(iter(found.pools.values())).answers
    return made | {f"easy-hard-{name}.png": levels(found, name) for name in answering}


def provenance(found: Any) -> dict[str, str]:
    """What stands in a picture's file beside its pixels: command, seeds, hashes of the sample and all weights.

    found: a result of this room.
    """
    weights = {name: of.files for name, of in found.detectors.items()}
    told = {
        "command": found.command, "seed": found.recipe.seed, "bootstrap": found.bootstrap.model_dump(),
        "sample_sha256": found.sample_sha256, "weights_sha256": weights, "versions": found.versions,
    }  # fmt: skip
    return {"Title": f"ffaa bench {found.recipe.name}", "Description": json.dumps(told)}


def write_png(figure: Figure, to: Path | BinaryIO, about: Mapping[str, str]) -> None:
    """about: of `provenance`. Without matplotlib's version inside: the same bytes again."""
    figure.savefig(to, format="png", dpi=110, metadata={"Software": None, **about})


def save(made: Mapping[str, Figure], found: Any, out: Path) -> list[Path]:
    """Write plots of a result into `out`; returns their paths. Raises InputError where that cannot be."""
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in made.items():
            paths.append(out / name)
            write_png(figure, paths[-1], provenance(found))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    return paths
