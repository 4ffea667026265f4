"""Answer mining: the three answers of the tuned MLLM to faces it was not tuned on, for MIDS to learn from.

Who answers is a `Route`: a model here, on tower features (`FromFeatures`) or on images (`FromImages`), or one behind a
server (`ffaa.mllm.mine_server`). The records are the same.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.mllm.generate import QUESTIONS, Mllm, assign_roles
from ffaa.mllm.llava_import import prepare_pixels
from ffaa.types import Answer, Label, Record, UnparsedAnswer
from ffaa.vqa.conversation import resume_jsonl, write_jsonl

log = logging.getLogger(__name__)

Three = list[Answer | UnparsedAnswer]


class Target(Record):
    """A face to ask about. row: its number among those that are mined, under which a route finds its pixels."""

    row: int
    image: str
    sha256: str
    label: Label
    dataset: str = ""
    group: str = ""
    variant: int = 0


class Mined(Target):
    """The three answers about a face: anchor, positive, negative."""

    answers: list[Answer | UnparsedAnswer]

    @property
    def results(self) -> list[Label | None]:
        return [a.result if isinstance(a, Answer) else None for a in self.answers]


def targets(rows: Sequence[Row], variants: int = 1, labels: Sequence[Label] | None = None) -> list[Target]:
    """A target for each manifest row, `variants` times over. labels: of each target, where an augmentation may have
    changed the row's (a self-blended photo is a forgery)."""
    told = labels or [row.label for row in rows] * variants
    return [
        Target(row=i, image=row.path, sha256=row.sha256, label=label, dataset=row.dataset, group=row.group,
               variant=i // len(rows))
        for i, (row, label) in enumerate(zip(list(rows) * variants, told, strict=True))
    ]  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the MLLM was tuned on: hashes of images, and groups (a video, a person, near-equal photos)."""

    hashes: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Seen:
        known = list(rows)
        return cls(frozenset(r.sha256 for r in known), frozenset(r.group for r in known if r.group))

    def refuse(self, faces: Iterable[Target]) -> None:
        """Raises InputError where one of the faces, or another frame of its group, was tuned on."""
        asked = list(faces)
        same = sorted({t.image for t in asked if t.sha256 in self.hashes})
        if same:
            raise InputError(f"{len(same)} images to mine were used to tune the MLLM, e.g. {same[0]}; split them")
        near = sorted({t.group for t in asked if t.group in self.groups})
        if near:
            raise InputError(
                f"{len(near)} groups to mine hold images that tuned the MLLM, e.g. {near[0]}; no split may cut a group"
            )


class Batch(NamedTuple):
    """Rows that get the same three questions at once."""

    rows: tuple[int, ...]
    anchor: str

    @property
    def questions(self) -> tuple[str, str, str]:
        """(anchor, hypothesis 'real', hypothesis 'fake')."""
        return (self.anchor, *QUESTIONS[1:])


class Route(Protocol):
    """Answers batches in their order: per row (anchor, positive, negative), or None for a batch that got no reply and
    is asked again in the next run. batch: rows that are asked at once."""

    batch: int

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[Three] | None]: ...


class FromFeatures:
    """The MLLM here, on what its vision tower gave for every row.

    features: (N, 2, tokens, C), the last of the two layers is read. words: row -> measured words.
    """

    def __init__(self, mllm: Mllm, features: np.ndarray, words: Callable[[int], Mapping[str, str]], batch: int = 32):
        self.mllm, self.features, self.words, self.batch = mllm, features, words, batch

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[Three]]:
        for one in batches:
            hidden = torch.from_numpy(np.array(self.features[list(one.rows), -1])).float()
            seen = self.mllm.project(hidden.to(self.mllm.model.device))
            raws = self.mllm.generate(seen, [dict(self.words(i)) for i in one.rows], one.questions)
            yield [assign_roles(raw, one.questions) for raw in raws]


class FromImages:
    """A LLaVA here, on images. image: row -> uint8 RGB; it is padded to a square of `size` px."""

    def __init__(self, mllm: Mllm, image: Callable[[int], np.ndarray], size: int, batch: int = 8):
        self.mllm, self.image, self.size, self.batch = mllm, image, size, batch

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[Three]]:
        model = self.mllm.model
        for one in batches:
            pixels = torch.cat([prepare_pixels(self.image(i), self.size) for i in one.rows])
            seen = self.mllm.image_features(pixels.to(model.device, model.dtype))
            raws = self.mllm.generate(seen, [{}] * len(one.rows), one.questions)
            yield [assign_roles(raw, one.questions) for raw in raws]


def draw_anchor(anchors: Sequence[str], seed: int, row: int) -> str:
    """The non-hypothetical prompt of a row. It follows from seed and row alone, so the batch size changes nothing."""
    return anchors[int(np.random.default_rng((seed, 4, row)).integers(len(anchors)))]


def plan(faces: Sequence[Target], anchors: Sequence[str], seed: int, batch: int) -> list[Batch]:
    """Every face once, those with the same anchor prompt together."""
    by_anchor: dict[str, list[int]] = defaultdict(list)
    for face in faces:
        by_anchor[draw_anchor(anchors, seed, face.row)].append(face.row)
    return [
        Batch(tuple(rows[start : start + batch]), anchor)
        for anchor, rows in by_anchor.items()
        for start in range(0, len(rows), batch)
    ]


def mine(
    route: Route, faces: Sequence[Target], out: Path, seen: Seen, anchors: Sequence[str], seed: int
) -> list[Mined]:
    """The answers about every face, in `out` and returned, by row. A killed run goes on where it stopped: whole batches
    are kept, others made again, so that it ends with the same records.

    anchors: non-hypothetical prompts, one drawn per face. Raises InputError, before anything is asked, for a face that
    the MLLM was tuned on (see `Seen`) and for an `out` of other faces or prompts; and at the end, where faces got no
    reply.
    """
    seen.refuse(faces)
    by_row = {face.row: face for face in faces}
    batches = plan(faces, anchors, seed, route.batch)
    done, lines = _resume(out, by_row, {row: b.anchor for b in batches for row in b.rows})
    todo = [b for b in batches if any(row not in done for row in b.rows)]
    for row in [row for b in todo for row in b.rows]:
        done.pop(row, None)
    if len(done) != lines:
        write_jsonl(out, done.values())
    silent = 0
    with out.open("a", encoding="utf-8") as file:
        for number, (one, answered) in enumerate(zip(todo, route.answer(todo), strict=True)):
            if answered is None:
                silent += len(one.rows)
                continue
            for row, answers in zip(one.rows, answered, strict=True):
                done[row] = Mined(**by_row[row].model_dump(), answers=answers)
                file.write(done[row].model_dump_json() + "\n")
            file.flush()
            if number % 5 == 0:
                log.info("mined %d of %d", len(done), len(faces))
    found = [done[row] for row in sorted(done)]
    if todo or list(done) != sorted(done):
        write_jsonl(out, found)
    if silent:
        raise InputError(f"{out}: {silent} of {len(faces)} faces got no reply; run again, the others are kept")
    return found


def _resume(out: Path, faces: Mapping[int, Target], anchors: Mapping[int, str]) -> tuple[dict[int, Mined], int]:
    """(row -> record, records in the file) of what a killed run left."""
    found = resume_jsonl(out, Mined)
    for m in found:
        known = faces.get(m.row)
        same = known and (known.sha256, known.label, known.variant) == (m.sha256, m.label, m.variant)
        if not same or m.answers[0].prompt != anchors[m.row]:
            raise InputError(f"{out}: was mined from other faces or with other prompts; remove it")
    return {m.row: m for m in found}, len(found)
