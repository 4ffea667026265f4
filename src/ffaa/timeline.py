"""The timeline of a video: each person's forgery score over time, one below the other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ffaa.types import Difficulty, Label
from ffaa.types_clip import ClipVerdict, PersonVerdict

COLOURS = {Label.REAL: "#1b6ca8", Label.FAKE: "#d1495b"}
_SHAPES = {Label.REAL: "o", Label.FAKE: "^"}  # told apart in grey too
_DPI = 100


def timeline(clip: ClipVerdict) -> np.ndarray:
    """uint8 RGB (H, W, 3), 900 px wide. A mark per frame: red triangle says fake, blue dot real, hollow is a hard case;
    a ring marks a telling frame. The band holds the middle half of the scores, the dashed line is their mean, the
    person's score.
    """
    people = clip.people
    figure = Figure(figsize=(9, 0.8 + 1.5 * max(1, len(people))), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(max(1, len(people)), squeeze=False, sharex=True)[:, 0]
    if not people:
        grid[0].text(0.5, 0.5, "nobody was judged", ha="center", va="center", transform=grid[0].transAxes)
    for axes, person in zip(grid, people, strict=False):
        _draw(axes, person)
    for axes in grid:
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([0, 0.5, 1], ["real 0", "0.5", "fake 1"])
    grid[-1].set_xlim(0, max(clip.source.seconds, 1e-3))
    grid[-1].set_xlabel("seconds - red triangle: says fake, blue dot: real, hollow: hard case, ring: a telling frame")
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def _draw(axes: Axes, person: PersonVerdict) -> None:
    times = [frame.time for frame in person.frames]
    scores = [frame.forgery_score for frame in person.frames]
    axes.axhspan(*person.quartiles, color="0.92", zorder=0)
    axes.axhline(0.5, color="0.7", linewidth=0.8, zorder=1)
    axes.axhline(person.forgery_score, color="0.3", linewidth=1, linestyle="--", zorder=1)
    axes.plot(times, scores, color="0.6", linewidth=0.8, zorder=2)
    for label, shape in _SHAPES.items():
        own = [k for k, frame in enumerate(person.frames) if frame.label is label]
        inside = ["white" if person.frames[k].difficulty is Difficulty.HARD else COLOURS[label] for k in own]
        at = [times[k] for k in own], [scores[k] for k in own]
        axes.scatter(*at, 36, c=inside, edgecolors=COLOURS[label], marker=shape, linewidths=1.4, zorder=3)
    marked = [one.frame for one in person.telling]
    axes.scatter(
        [times[k] for k in marked], [scores[k] for k in marked], 130, facecolors="none", edgecolors="0.2", zorder=4
    )
    fake = sum(frame.label is Label.FAKE for frame in person.frames)
    axes.set_title(
        f"Person {person.person}: mean {person.forgery_score:.2f}, {person.difficulty.value}, "
        f"{fake} of {len(times)} frames say fake",
        fontsize=9,
        loc="left",
    )
