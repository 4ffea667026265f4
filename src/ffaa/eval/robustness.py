"""Robustness: the same photos as they are and corrupted, to every detector; curves over the strengths and their areas.

Faces are found once, on the photo as it is: measured is the detector, not the search for faces.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample, sample_hash, thin
from ffaa.eval.bootstrap import RESAMPLES, Estimate, aucs, estimate, means
from ffaa.eval.corruptions import CORRUPTIONS, View, corrupt
from ffaa.eval.detectors import Detector
from ffaa.eval.figures import groups_of, photos, resampled, right, row_figures
from ffaa.eval.result import Bootstrap, DetectorFigures, RowFigures, images_per_second
from ffaa.eval.run import Outcome, claim, outcome_of, photo_and_face, resumed, run_of, versions
from ffaa.types import Box, Face, Record

log = logging.getLogger(__name__)

FORMAT = "ffaa-robustness-1"
CLEAN = "clean"


class Condition(NamedTuple):
    """strength None: the photos as they are."""

    corruption: str
    strength: float | None


class Seen(Outcome):
    """One photo under one condition: what is true, and what one detector says."""

    corruption: str
    strength: float | None


class PointFigures(RowFigures):
    """A row's figures in one pool under one condition. changed: share of its determinations that differ from those of
    the photos as they are."""

    changed: float


class Area(Record):
    """Mean height of the curves of ACC and AUC, with 95 % intervals: the normalised area under them, where the clean
    photos and the strengths stand at equal distances."""

    acc: Estimate
    auc: Estimate


Points = dict[str, dict[str, PointFigures]]  # pool -> row -> figures


class Curve(Record):
    """One corruption. points: one per strength, in order."""

    unit: str
    strengths: list[float]
    points: list[Points]
    area: dict[str, dict[str, Area]] = Field(description="pool -> row -> area")


class RobustnessResult(Record):
    """What `ffaa bench robustness` writes."""

    format: Literal["ffaa-robustness-1"]
    recipe: BenchRecipe
    sample_sha256: str
    detectors: dict[str, DetectorFigures]
    versions: dict[str, str]
    command: str
    batch: int
    bootstrap: Bootstrap
    photos: int
    least: int = Field(description="photos of the smallest set and label")
    clean: Points
    curves: dict[str, Curve]

    @property
    def row_names(self) -> list[str]:
        """All detectors' rows."""
        return [row for found in self.detectors.values() for row in found.rows]


def conditions(recipe: BenchRecipe) -> list[Condition]:
    """The photos as they are, then every corruption at every strength."""
    chosen = recipe.robustness.chosen
    return [Condition(CLEAN, None), *(Condition(name, s) for name, strengths in chosen.items() for s in strengths)]


def chosen_rows(recipe: BenchRecipe, data: Path) -> list[Row]:
    """The photos of the recipe's sample, without those of validation, as many as `robustness.per_class` allows."""
    return thin(recipe, sample(recipe, read_rows(recipe, data)), recipe.robustness.per_class)


def run(
    recipe: BenchRecipe, data: Path, detectors: Sequence[Detector], records: Path, batch: int
) -> dict[str, list[Seen]]:
    """Detector's name -> its records: a batch of photos under every condition, then the next batch.

    records: as for `ffaa.eval.run.run`. A killed run goes on with the step (batch and condition) it stopped in. Raises
    InputError as that does.
    """
    todo, every = chosen_rows(recipe, data), conditions(recipe)
    if not todo:
        raise InputError(f"no photo of split '{recipe.in_domain}' or '{recipe.open_world}' in {data}")
    steps = [(start, place) for start in range(0, len(todo), batch) for place in range(len(every))]
    ends = list(accumulate(min(batch, len(todo) - start) for start, _ in steps))
    plain = recipe.model_dump(mode="json", exclude={"attributes"})
    lines = {d.name: claim(records, d, run_of(plain, todo, d, batch)) for d in detectors}
    done = {d.name: resumed(lines[d.name], Seen, ends) for d in detectors}
    files = {name: path.open("a", encoding="utf-8") for name, path in lines.items()}
    views: list[tuple[View, Face, str]] = []
    seen = -1
    try:
        for (start, place), end in zip(steps, ends, strict=True):
            waiting = [d for d in detectors if len(done[d.name]) < end]
            if not waiting:
                continue
            rows, condition = todo[start : start + batch], every[place]
            if seen != start:
                views, seen = [_view(data, row, recipe.size) for row in rows], start
                log.info("photo %d of %d", start + 1, len(todo))
            faces = [_corrupted(*found, condition, recipe.seed) for found in views]
            for one in waiting:
                judged = one.judge([face for face, _ in faces])
                some = [
                    Seen(**outcome_of(row, said, sha256, face.crop.whole_image).model_dump(), **condition._asdict())
                    for row, (face, sha256), said in zip(rows, faces, judged, strict=True)
                ]
                done[one.name] += some
                files[one.name].write("".join(record.model_dump_json() + "\n" for record in some))
                files[one.name].flush()
    finally:
        for file in files.values():
            file.close()
    return done


def _view(data: Path, row: Row, size: int) -> tuple[View, Face, str]:
    photo, face, sha256 = photo_and_face(data, row, size)
    height, width = photo.shape[:2]
    region = Box(left=0, top=0, right=width, bottom=height) if row.crop is not None else face.crop.region
    # What the strongest shift or scale can reach: photos of a batch wait in memory.
    left, top = max(0, region.left - region.width), max(0, region.top - region.height)
    part = photo[top : region.bottom + region.height, left : region.right + region.width].copy()
    moved = Box(left=region.left - left, top=region.top - top, right=region.right - left, bottom=region.bottom - top)
    return View(part, moved, face.image), face, sha256


def _corrupted(view: View, face: Face, sha256: str, condition: Condition, seed: int) -> tuple[Face, str]:
    return replace(face, image=corrupt(condition.corruption, condition.strength, view, seed, sha256)), sha256


def make_result(
    recipe: BenchRecipe,
    seen: Mapping[str, Sequence[Seen]],
    detectors: Sequence[Detector],
    command: str,
    batch: int,
    count: int = RESAMPLES,
) -> RobustnessResult:
    """The figures of a run and all that it takes to repeat it."""
    first = [s for s in seen[detectors[0].name] if s.strength is None]
    under = _Under(recipe, seen, count)
    curves = {
        name: Curve(
            unit=CORRUPTIONS[name].unit,
            strengths=list(strengths),
            points=[under.points(Condition(name, s)) for s in strengths],
            area=under.areas([Condition(CLEAN, None), *(Condition(name, s) for s in strengths)]),
        )
        for name, strengths in recipe.robustness.chosen.items()
    }
    return RobustnessResult(
        format=FORMAT,
        recipe=recipe,
        sample_sha256=sample_hash([s.sha256 for s in first]),
        detectors={
            d.name: DetectorFigures(
                **d.about.model_dump(), rows=list(d.rows), images_per_second=images_per_second(seen[d.name])
            )
            for d in detectors
        },
        versions=versions(),
        command=command,
        batch=batch,
        bootstrap=Bootstrap(resamples=count, seed=recipe.seed),
        photos=len(first),
        least=min(Counter((s.split, s.test_set, s.label) for s in first).values()),
        clean=under.points(Condition(CLEAN, None)),
        curves=curves,
    )


class _Under:
    """The photos' columns under every condition, and the resamples that all share."""

    def __init__(self, recipe: BenchRecipe, seen: Mapping[str, Sequence[Seen]], count: int):
        sorted_out: dict[Condition, dict[str, list[Seen]]] = {}
        for name, of in seen.items():
            for one in of:
                sorted_out.setdefault(Condition(one.corruption, one.strength), {}).setdefault(name, []).append(one)
        self._found = {condition: photos(recipe, of) for condition, of in sorted_out.items()}
        self._clean = self._found[Condition(CLEAN, None)]
        self._drawn = resampled(self._clean, count, recipe.seed)
        self._pools = groups_of(self._clean)[1]

    def points(self, condition: Condition) -> Points:
        found = self._found[condition]
        return {
            pool: {row: self._point(condition, row, inside) for row in found.says}
            for pool, inside in self._pools.items()
        }

    def _point(self, condition: Condition, row: str, inside: NDArray[np.bool_]) -> PointFigures:
        found = self._found[condition]
        of = row_figures(found, row, inside, self._drawn[:, inside], {})
        pairs = zip(found.says[row].fake, self._clean.says[row].fake, strict=True)
        differs = np.array([now != then for now, then in pairs])[inside]
        return PointFigures(**of.model_dump(), changed=float(differs.mean()))

    def areas(self, along: Sequence[Condition]) -> dict[str, dict[str, Area]]:
        return {
            pool: {row: self._area(along, row, inside) for row in self._clean.says}
            for pool, inside in self._pools.items()
        }

    def _area(self, along: Sequence[Condition], row: str, inside: NDArray[np.bool_]) -> Area:
        drawn, fake = self._drawn[:, inside], np.array(self._clean.fake)[inside]
        once = np.ones((1, int(inside.sum())), np.float32)  # every photo once: the figure itself
        acc, auc = [], []
        for weights in (drawn, once):
            hits = [right(self._found[c].says[row], self._clean.fake)[inside] for c in along]
            scores = [np.array(self._found[c].says[row].score)[inside] for c in along]
            acc.append(area([means(hit, weights) for hit in hits]))
            auc.append(area([aucs(fake, score, weights) for score in scores]))
        return Area(acc=estimate(acc[1].item(), acc[0]), auc=estimate(auc[1].item(), auc[0]))


def area(heights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of curves whose points stand at equal distances on [0, 1]: the area under them, by the trapezoid rule.

    heights: of every point, (R,) for R curves.
    """
    return np.trapezoid(np.stack(heights), dx=1 / (len(heights) - 1), axis=0)
