"""The offline teacher: measures the face first, then writes only what was measured or what the manifest holds."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import numpy as np

from ffaa.data.faces import resize_square
from ffaa.data.landmarks import landmarks
from ffaa.data.manifest import Row
from ffaa.data.processes import ProcessPool
from ffaa.evidence.examine import examine
from ffaa.types import Box, EvidenceRecord, ForgeryType, Label
from ffaa.vqa.row import Sentence, VqaRow
from ffaa.vqa.sentences import file_version
from ffaa.vqa.teachers.base import Ask
from ffaa.vqa.writer import balance, write

SIZE = 224
QUEUED = 8
# (description, reasoning, result, probability, forgery type) -> the five lines; `ffaa.mllm.answer.format_answer`.
Format = Callable[[str, str, Label, float, ForgeryType], str]
# How sure an answer states to be, by what all its evidence says: lowest and highest probability.
STATED = {
    "strong": (0.9, 0.99), "medium": (0.78, 0.92), "weak": (0.66, 0.8), "open": (0.6, 0.7), "against": (0.55, 0.62),
}  # fmt: skip


def record_of(row: Row, image: np.ndarray) -> EvidenceRecord:
    """The evidence on a face crop, uint8 RGB (S, S, 3), of a manifest row."""
    face = resize_square(image, SIZE)
    crop, box = row.crop, row.file_box
    points, scale = None, None
    if crop is not None and box is not None:
        by = SIZE / crop.size
        points = landmarks(face, Box(**{side: round(value * by) for side, value in box.model_dump().items()}))
        scale = SIZE / crop.region.width
    return examine(face, points, scale)


def _teach(ask: Ask, formatter: Format) -> VqaRow:
    row = ask.row
    rng = np.random.default_rng((ask.seed, 7, int(row.sha256[:12] or "0", 16)))
    record = record_of(row, ask.image)
    sentences = write(record, row, rng)
    probability = round(float(rng.uniform(*STATED[balance(record, row)])), 2)
    texts = [_text(sentences, part) for part in ("description", "reasoning")]
    return VqaRow(
        image=row.path, sha256=row.sha256, label=row.label, forgery_type=row.forgery_type, method=row.method,
        dataset=row.dataset, split=row.split, group=row.group, regions=row.regions, mask=row.mask,
        reference=row.reference, question=ask.question, hypothesis=ask.hypothesis, teacher=GroundedTeacher.name,
        prompt_version=file_version(), seed=ask.seed, sentences=sentences, result=row.label, probability=probability,
        stated_type=row.forgery_type,
        raw=formatter(texts[0], texts[1], row.label, probability, row.forgery_type),
    )  # fmt: skip


def _text(sentences: list[Sentence], part: str) -> str:
    return " ".join(s.text for s in sentences if s.part == part)


class GroundedTeacher:
    """Teaches in `workers` processes (0: in this one); the same rows in the same order, whatever their number."""

    name = "grounded"
    cached = False

    def __init__(self, formatter: Format, workers: int | None = None):
        self._format = formatter
        self._workers = (os.cpu_count() or 1) if workers is None else workers

    def teach(self, asks: Iterable[Ask]) -> Iterator[VqaRow]:
        if self._workers == 0:
            yield from (_teach(ask, self._format) for ask in asks)
            return
        waiting: deque[Future[VqaRow]] = deque()
        with ProcessPool(self._workers) as pool:
            todo = iter(asks)
            while True:
                for ask in itertools.islice(todo, QUEUED * self._workers - len(waiting)):
                    waiting.append(pool.submit(_teach, ask, self._format))
                if not waiting:
                    return
                yield waiting.popleft().result()
