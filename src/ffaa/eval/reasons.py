"""What explanations are worth in all: figures of scored explanations, as a result file, tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ffaa.data.stats import Table
from ffaa.eval.benchmark import BenchRecipe, sample_hash
from ffaa.eval.bootstrap import RESAMPLES, Estimate, estimate, weights
from ffaa.eval.detectors import About, Detector
from ffaa.eval.explain import Areas, Explained, HeatTruth
from ffaa.eval.likeness import Likeness
from ffaa.eval.localise import HeatScore, Overlap
from ffaa.eval.result import Bootstrap
from ffaa.eval.run import versions
from ffaa.eval.tables import spread
from ffaa.types import Label, Record, Support
from ffaa.vqa.areas import AREAS

FORMAT = "ffaa-explain-1"
FEW = 30
Figures = dict[str, Estimate]
NOTHING = Estimate(value=None, low=None, high=None)


class HeatFigures(Record):
    """Means over photos. figures: hit, iou, energy of the heatmap, the same of the map of the middle (`middle_`), and
    what chance gives (`chance_`). flat: photos whose heatmap is zero everywhere."""

    photos: int
    flat: int
    figures: Figures


class AreaFigures(Record):
    """precision: of all areas named, those that are true; recall: of all true ones, those named; chance: the precision
    of naming at random. silent: photos where none is named."""

    photos: int
    silent: int
    precision: Estimate
    recall: Estimate
    chance: Estimate


class PeopleFigures(Record):
    """rouge, cosine: found, control and people, see `Likeness`. areas: against those that people doubt."""

    photos: int
    rouge: Figures
    cosine: Figures
    areas: AreaFigures


class DetectorFigures(Record):
    """Of one detector. unread: share of answers that could not be read; contradicting: of the others, the share that
    contradicts its own result; of chosen answers: chosen_contradicting. sentences: part -> support -> count; supported:
    among supported and contradicted ones. heat: 'forged, called fake', 'all forged'; only of photos with a mask.
    region_heat: the same of photos without one, against the places of the regions that the manifest names."""

    photos: int
    unread: Estimate
    contradicting: Estimate
    chosen_contradicting: Estimate
    sentences: dict[str, dict[str, int]]
    supported: Estimate
    not_measurable: Estimate
    heat: dict[str, HeatFigures]
    region_heat: dict[str, HeatFigures] = Field(default_factory=dict)
    areas: AreaFigures
    people: PeopleFigures


class ExplainResult(Record):
    """What `ffaa bench explain` writes. photos: of the recipe; frames: of DD-VQA. texts: the embedding's hash."""

    format: Literal["ffaa-explain-1"]
    recipe: BenchRecipe
    sample_sha256: str
    detectors: dict[str, About]
    versions: dict[str, str]
    command: str
    bootstrap: Bootstrap
    photos: int
    frames: int
    figures: dict[str, DetectorFigures] = Field(description="detector -> figures")


def make_result(
    recipe: BenchRecipe,
    found: Mapping[str, Sequence[Explained]],
    detectors: Sequence[Detector],
    command: str,
    count: int = RESAMPLES,
) -> ExplainResult:
    """The figures of a run and all that it takes to repeat it."""
    first = found[detectors[0].name]
    frames = sum(one.test_set == "people" for one in first)
    return ExplainResult(
        format=FORMAT, recipe=recipe, sample_sha256=sample_hash([one.sha256 for one in first]),
        detectors={d.name: d.about for d in detectors}, versions=versions(), command=command,
        bootstrap=Bootstrap(resamples=count, seed=recipe.seed), photos=len(first) - frames, frames=frames,
        figures={name: summarise(of, count, recipe.seed) for name, of in found.items()},
    )  # fmt: skip


def summarise(found: Sequence[Explained], count: int = RESAMPLES, seed: int = 0) -> DetectorFigures:
    """The figures of one detector's records, at least one."""

    def ratio(
        of: Sequence[Explained], part: Callable[[Explained], float], whole: Callable[[Explained], float]
    ) -> Estimate:
        """Sum of `part` over sum of `whole`. Photos are drawn over all sets: a set may have one such photo alone."""
        if not of or not sum(map(whole, of)):
            return NOTHING
        drawn = weights([0] * len(of), range(len(of)), count, seed).astype(np.float64)
        above, below = (np.array([float(f(one)) for one in of]) for f in (part, whole))
        with np.errstate(invalid="ignore", divide="ignore"):
            return estimate(float(above.sum() / below.sum()), (drawn @ above) / (drawn @ below))

    def mean(of: Sequence[Explained], value: Callable[[Explained], float]) -> Estimate:
        return ratio(of, value, lambda one: 1)

    def heat(of: Sequence[Explained]) -> HeatFigures:
        def scored(one: Explained) -> HeatScore:
            assert one.heat is not None
            return one.heat

        def figure(name: str, which: Callable[[HeatScore], Overlap]) -> Estimate:
            return mean(of, lambda one: getattr(which(scored(one)), name))

        figures = {name: figure(name, lambda h: h.found) for name in Overlap.model_fields}
        figures |= {f"middle_{name}": figure(name, lambda h: h.middle) for name in Overlap.model_fields}
        figures["chance_area"] = mean(of, lambda one: scored(one).area)
        figures["chance_iou"] = mean(of, lambda one: scored(one).chance_iou)
        return HeatFigures(photos=len(of), flat=sum(scored(one).flat for one in of), figures=figures)

    def heats(truth: HeatTruth) -> dict[str, HeatFigures]:
        forged = [one for one in found if one.heat is not None and one.heat_truth == truth]
        caught = [one for one in forged if one.says is Label.FAKE]
        return {name: heat(of) for name, of in (("forged, called fake", caught), ("all forged", forged)) if of}

    def areas(of: Sequence[Explained], which: Callable[[Explained], Areas | None]) -> AreaFigures:
        of = [one for one in of if which(one) is not None]

        def size(part: Callable[[Areas], int]) -> Callable[[Explained], float]:
            return lambda one: part(which(one) or Areas(named=[], true=[]))

        both, named, true = (
            size(lambda a: len({*a.named} & {*a.true})), size(lambda a: len(a.named)), size(lambda a: len(a.true))
        )  # fmt: skip
        return AreaFigures(
            photos=len(of), silent=sum(not named(one) for one in of), precision=ratio(of, both, named),
            recall=ratio(of, both, true), chance=mean(of, lambda one: true(one) / len(AREAS)),
        )  # fmt: skip

    def alike(of: Sequence[Explained], which: Callable[[Explained], Likeness]) -> Figures:
        two = [one for one in of if which(one).people is not None]
        return {
            "found": mean(of, lambda one: which(one).found),
            "control": mean(of, lambda one: which(one).control),
            "people": mean(two, lambda one: which(one).people or 0.0),
        }

    def told(one: Explained, *supports: Support) -> int:
        return sum(part.get(support.value, 0) for part in one.sentences.values() for support in supports)

    sentences: dict[str, dict[str, int]] = {}
    for one in found:
        for part, counts in one.sentences.items():
            for support, number in counts.items():
                sentences.setdefault(part, dict.fromkeys((s.value for s in Support), 0))[support] += number
    judged = (Support.SUPPORTED, Support.CONTRADICTED)
    met = [one for one in found if one.people is not None]
    chosen = [one for one in found if one.says is not None]
    return DetectorFigures(
        photos=len(found),
        unread=ratio(found, lambda one: one.unread, lambda one: one.answers),
        contradicting=ratio(found, lambda one: one.contradicting, lambda one: one.answers - one.unread),
        chosen_contradicting=mean(chosen, lambda one: bool(one.flags)),
        sentences=sentences,
        supported=ratio(found, lambda one: told(one, Support.SUPPORTED), lambda one: told(one, *judged)),
        not_measurable=ratio(found, lambda one: told(one, Support.NOT_MEASURABLE), lambda one: told(one, *Support)),
        heat=heats("mask"),
        region_heat=heats("regions"),
        areas=areas(found, lambda one: one.areas),
        people=PeopleFigures(
            photos=len(met),
            rouge=alike(met, lambda one: one.people.rouge),  # type: ignore[union-attr]
            cosine=alike(met, lambda one: one.people.cosine),  # type: ignore[union-attr]
            areas=areas(met, lambda one: one.people.areas if one.people else None),
        ),
    )  # fmt: skip


def lines(found: ExplainResult) -> list[tuple[str, str, str, int, Estimate]]:
    """(detector, table, figure, photos it rests on, figure) of all."""
    out = []
    for name, of in found.figures.items():
        plain = {"unread": of.unread, "contradicting": of.contradicting, "supported": of.supported,
                 "chosen contradicting": of.chosen_contradicting, "not measurable": of.not_measurable}  # fmt: skip
        out += [(name, "answers", figure, of.photos, value) for figure, value in plain.items()]
        for start, heats in (("heatmap", of.heat), ("heatmap by regions", of.region_heat)):
            for which, heat in heats.items():
                out += [(name, f"{start}, {which}", figure, heat.photos, e) for figure, e in heat.figures.items()]
        for which, areas in (("areas, changed", of.areas), ("areas, doubted by people", of.people.areas)):
            named = {"precision": areas.precision, "recall": areas.recall, "chance precision": areas.chance}
            out += [(name, which, figure, areas.photos, value) for figure, value in named.items() if areas.photos]
        for which, alike in (("ROUGE-L to people", of.people.rouge), ("cosine to people", of.people.cosine)):
            out += [(name, which, figure, of.people.photos, v) for figure, v in alike.items() if of.people.photos]
    return out


def tables(found: ExplainResult) -> list[Table]:
    """Answers and sentences; heatmaps; areas; people. Only those that have a line."""
    every = lines(found)
    made = [_answers(found)]
    for title, start, notes in _TITLES:
        rows = [[name, which.partition(", ")[2] or which, figure, _count(photos), spread(e.value, e.low, e.high)]
                for name, which, figure, photos, e in every if which.startswith(start)]  # fmt: skip
        if rows:
            few = [_FEW] if any("(!)" in row[3] for row in rows) else []
            made.append(Table(title, ["detector", "of", "figure", "photos", "value"], rows, [*notes, *few]))
    return made


def _count(photos: int) -> str:
    return f"{photos} (!)" if photos < FEW else str(photos)


_FEW = f"(!) fewer than {FEW} photos: read nothing into such a line, its interval may be far too narrow."
_TITLES: tuple[tuple[str, str, list[str]], ...] = (
    ("Heatmaps against masks", "heatmap,", [
        "hit: the highest pixel lies in the mask; iou: of the mask and as many highest pixels; energy: share of the "
        "map in the mask. middle_: the same of a map that only looks at the middle of the crop; chance_area: what "
        "chance gives for hit and energy, chance_iou for iou. A heatmap no better than the middle has found nothing."]),
    ("Heatmaps against named regions", "heatmap by regions,", [
        "The same for photos without a mask whose changed regions are named: their outlines on the face mesh, enlarged "
        "by a twelfth of the face's size, stand for the mask. It is rougher than a mask: what was pasted may be larger "
        "or smaller. Not with photos of which one eye or brow is named without the other."]),
    ("Areas named", "areas", [
        "Of forged photos called fake: eyes, brows, nose, mouth and skin that the reasoning names (without sentences "
        "that deny) against those that were changed, or that most people doubt. chance precision: naming at random."]),
    ("Words of people", "ROUGE-L", [
        "found: to what people wrote about the frame; control: about another frame with the same label; people: of one "
        "person to the others. Not above the control: it says nothing of this frame."]),
    ("Sense of people's words", "cosine", ["The same with sentence embeddings (MiniLM-L6)."]),
)  # fmt: skip


def _answers(found: ExplainResult) -> Table:
    head = ["detector", "photos", "answers unread", "contradict themselves", "chosen ones", "description", "reasoning",
            "supported"]  # fmt: skip
    rows = []
    for name, of in found.figures.items():
        shares = [spread(e.value, e.low, e.high) for e in (of.unread, of.contradicting, of.chosen_contradicting)]
        counts = [" / ".join(str(of.sentences.get(part, {}).get(s.value, 0)) for s in Support)
                  for part in ("description", "reasoning")]  # fmt: skip
        supported = spread(of.supported.value, of.supported.low, of.supported.high)
        rows.append([name, str(of.photos), *shares, *counts, supported])
    notes = [
        "description, reasoning: sentences of the chosen answers supported / contradicted / not measurable by what was "
        "measured on the face. supported: among supported and contradicted. It holds for what a sentence says of the "
        "photo, not for what it concludes. In brackets bootstrap 95 % intervals."
    ]
    return Table("Answers and sentences", head, rows, notes)


def as_csv(found: ExplainResult) -> str:
    """One line per detector and figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("detector", "table", "figure", "photos", "value", "low", "high"))
    for *told, e in lines(found):
        writer.writerow([*told, *("" if v is None else f"{v:.4f}" for v in (e.value, e.low, e.high))])
    return text.getvalue()
