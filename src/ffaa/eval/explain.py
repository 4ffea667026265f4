"""Explanations, scored: heatmaps against masks, named areas against changed ones, sentences against what was measured,
words against people's."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from ffaa.data import manifest
from ffaa.data.faces import face_rect, resize_square
from ffaa.data.landmarks import landmarks
from ffaa.data.manifest import Row
from ffaa.errors import InputError, UsageError
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample, thin
from ffaa.eval.detectors import Detector, Explainer, Explanation
from ffaa.eval.likeness import Embedded, Likeness, likeness, rouge_l
from ffaa.eval.localise import HeatScore, score
from ffaa.eval.run import claim, photo_and_face, run_of
from ffaa.evidence.examine import require_mesh
from ffaa.types import Answer, Box, Face, ForgeryType, Label, Record
from ffaa.vqa import ddvqa
from ffaa.vqa.areas import AREAS, changed_areas, doubted_areas, named_areas, regions_mask
from ffaa.vqa.conversation import resume_jsonl

log = logging.getLogger(__name__)

HeatTruth = Literal["mask", "regions"]


class Areas(Record):
    """named: by the answer's reasoning. true: changed ones, or those that people doubt."""

    named: list[str]
    true: list[str]


class People(Record):
    """Against what people wrote about the frame. areas: None where people doubt none, or the answer says real."""

    areas: Areas | None
    rouge: Likeness
    cosine: Likeness


class Explained(Record):
    """One photo and what one detector's explanation is worth. says: None where no answer could be read.

    flags: what in the chosen answer contradicts its own result. sentences: part of the answer -> support -> count.
    heat: of forged photos with a mask that is neither empty nor everything; heat_truth: where that mask comes from, the
    data or, drawn on the face mesh, the manifest's regions. areas: of forged photos called fake, where
    it is known which areas were changed, and not all were. people: of frames of DD-VQA.
    """

    path: str
    sha256: str
    test_set: str
    label: Label
    forgery_type: ForgeryType
    says: Label | None
    answers: int
    unread: int
    contradicting: int
    flags: list[str]
    description: str
    reasoning: str
    sentences: dict[str, dict[str, int]]
    heat: HeatScore | None
    heat_truth: HeatTruth | None = None
    areas: Areas | None
    people: People | None


@dataclass(frozen=True)
class Job:
    """A photo to explain. root: that the row's paths are relative to. said: what people wrote, other: about another
    frame with the same label."""

    root: Path
    row: Row
    said: ddvqa.HumanRecord | None = None
    other: ddvqa.HumanRecord | None = None


def recipe_of(given: Path, data: Path | None) -> tuple[BenchRecipe, Path]:
    """(recipe, folder of its manifests) from a recipe and --data, or from a set of `ffaa data build` alone."""
    if given.is_dir():
        if not (given / manifest.NAME).is_file():
            raise InputError(f"{given}: no {manifest.NAME} in it; give a set of `ffaa data build`, or a recipe")
        return BenchRecipe(name=given.resolve().name, manifest="."), given
    if data is None:
        raise UsageError("a recipe needs --data: the folder that its manifests lie in")
    from ffaa.eval.benchmark import load_bench

    return load_bench(given), data


def jobs(recipe: BenchRecipe | None, data: Path, people: Path | None, limit: int | None) -> list[Job]:
    """The photos of the recipe's sample, without those of validation, and the frames of DD-VQA that people wrote about.

    limit: at most so many per set and label, and as many frames per label; a seeded draw.
    """
    found = []
    if recipe is not None:
        found = [Job(data, row) for row in thin(recipe, sample(recipe, read_rows(recipe, data)), limit)]
    if people is not None:
        found += list(_frames(people, limit, 0 if recipe is None else recipe.seed))
    if not found:
        raise InputError(f"{data}: no photo of the splits that the recipe names; see its in_domain and open_world")
    return found


def _frames(people: Path, limit: int | None, seed: int) -> Iterator[Job]:
    records = [record for record in ddvqa.read(people) if record.said.get(ddvqa.WHOLE)]
    for label in Label:
        of = [record for record in records if record.label is label]
        order = np.random.default_rng((seed, 9, *label.value.encode())).permutation(len(of))[:limit]
        if len(order) == 1:
            raise InputError(f"{people}: one {label.value} frame alone; another is needed to compare its words with")
        for place, i in enumerate(order):
            row = Row(path=of[i].image, label=label, forgery_type=of[i].forgery_type, method=of[i].method,
                      dataset="people", split="people")  # fmt: skip
            yield Job(people, row, of[i], of[order[(place + 1) % len(order)]])


def explainers(found: Sequence[Detector]) -> list[Explainer]:
    """Raises UsageError for a detector that gives no reasons, MissingExtraError or WeightsError without face mesh."""
    require_mesh()
    for one in found:
        if not isinstance(one, Explainer):
            raise UsageError(f"{one.name} gives no explanation, a score alone; leave it out")
    return [one for one in found if isinstance(one, Explainer)]


def run(
    settings: dict[str, Any], todo: Sequence[Job], size: int, detectors: Sequence[Explainer], records: Path
) -> dict[str, list[Explained]]:
    """Detector's name -> a record per job, in order, kept in `records` as a run's are; a killed run goes on with the
    photo it stopped at. settings: what else names the run. size: of the face crop, pixels."""
    rows = [job.row for job in todo]
    lines = {d.name: claim(records, d, run_of(settings, rows, d, 1)) for d in detectors}
    done = {d.name: resume_jsonl(lines[d.name], Explained) for d in detectors}
    embedded = Embedded() if any(job.said for job in todo) else None
    for place, job in enumerate(todo):
        waiting = [d for d in detectors if len(done[d.name]) <= place]
        if not waiting:
            continue
        photo, face, sha256 = photo_and_face(job.root, job.row, size)
        truth = Truth(job, photo, face)
        for one in waiting:
            record = explained(job, sha256, one.explain(face), truth, embedded)
            done[one.name].append(record)
            with lines[one.name].open("a", encoding="utf-8") as file:
                file.write(record.model_dump_json() + "\n")
        if place % 50 == 49:
            log.info("%d of %d photos", place + 1, len(todo))
    return done


class Truth:
    """Of a photo: mask float32 (S, S) in [0, 1] over the face crop, where it comes from, and the changed areas; None
    where not known."""

    def __init__(self, job: Job, photo: np.ndarray, face: Face):
        row, size = job.row, face.image.shape[0]
        self.mask: np.ndarray | None = None
        self.source: HeatTruth | None = None
        self.areas: set[str] | None = None
        if row.label is Label.REAL or row.forgery_type is ForgeryType.ENTIRE_FACE_SYNTHESIS:
            return
        if row.mask:
            self.mask, self.source = _mask(job.root / row.mask, row, photo, face, size), "mask"
        points = None
        if bool(row.mask) != bool(row.regions):  # what the one does not tell, the mesh reads off the other
            left, top, right, bottom = face_rect(face.crop, face.box)
            points = landmarks(face.image, Box(left=left, top=top, right=right, bottom=bottom))
        self.areas = changed_areas(row.regions, self.mask, points)
        if self.mask is None and points is not None:
            self.mask, self.source = regions_mask(row.regions, points, (size, size)), "regions"


def _mask(path: Path, row: Row, photo: np.ndarray, face: Face, size: int) -> np.ndarray:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != photo.shape[:2]:
        raise InputError(f"{path}: missing, no picture, or of another size than its photo; build the data again")
    region = face.crop.region
    if row.crop is None:  # the file is the photo, else it is the crop already
        mask = mask[region.top : region.bottom, region.left : region.right]
    return resize_square(mask, size).astype(np.float32) / 255


def explained(job: Job, sha256: str, found: Explanation, truth: Truth, embedded: Embedded | None) -> Explained:
    """The record of one explanation."""
    row, chosen = job.row, found.chosen
    reasoning = chosen.reasoning if chosen else ""
    counts: dict[str, Counter[str]] = {}
    for sentence in found.sentences:
        counts.setdefault(sentence.part, Counter())[sentence.support.value] += 1
    read = [a for a in found.answers if isinstance(a, Answer)]
    accused = found.label is Label.FAKE
    areas = truth.areas if accused and truth.areas and truth.areas != set(AREAS) else None
    heat = None
    if found.heat is not None and truth.mask is not None:
        heat = score(resize_square(found.heat, truth.mask.shape[0]), truth.mask)
    return Explained(
        path=row.path, sha256=sha256, test_set=row.test_set, label=row.label, forgery_type=row.forgery_type,
        says=found.label, answers=len(found.answers), unread=len(found.answers) - len(read),
        contradicting=sum(bool(a.flags) for a in read), flags=chosen.flags if chosen else [],
        description=chosen.description if chosen else "", reasoning=reasoning,
        sentences={part: dict(of) for part, of in counts.items()}, heat=heat, heat_truth=truth.source if heat else None,
        areas=_areas(reasoning, areas) if areas else None,
        people=_people(job, found, reasoning, embedded) if job.said and embedded and reasoning else None,
    )  # fmt: skip


def _areas(reasoning: str, true: set[str]) -> Areas:
    return Areas(named=sorted(named_areas(reasoning)), true=sorted(true))


def _people(job: Job, found: Explanation, reasoning: str, embedded: Embedded) -> People:
    assert job.said is not None
    assert job.other is not None
    doubted = doubted_areas(job.said) if job.row.label is Label.FAKE and found.label is Label.FAKE else set()
    own, others = ([said.text for said in record.said[ddvqa.WHOLE]] for record in (job.said, job.other))
    return People(
        areas=_areas(reasoning, doubted) if doubted else None,
        rouge=likeness(reasoning, own, others, rouge_l),
        cosine=likeness(reasoning, own, others, embedded),
    )


def settings_of(recipe: BenchRecipe | None, people: Path | None, limit: int | None) -> dict[str, Any]:
    """What names a run beside its photos and detector."""
    plain = None if recipe is None else recipe.model_dump(mode="json", exclude={"robustness", "attributes"})
    told = {"recipe": plain, "people": people is not None, "limit": limit, "heat": get_args(HeatTruth)}
    return json.loads(json.dumps(told))
