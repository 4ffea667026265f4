"""What every teacher takes and gives: asks in, rows of FFA-VQA out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ffaa.data.manifest import Row
from ffaa.types import Answer, Label, UnparsedAnswer
from ffaa.vqa.row import Sentence, VqaRow

# Reads a reply's five lines; `ffaa.mllm.answer.parse_answer` with its role and prompt filled in.
Parse = Callable[[str], Answer | UnparsedAnswer]


@dataclass(frozen=True, eq=False)
class Ask:
    """One row to write. image: the face crop, uint8 RGB (height, width, 3). reference: the same cut of the original,
    uint8 RGB. mask: uint8 (height, width), 255 where pixels were changed. question and hypothesis: of the row; the
    teacher is not asked them. seed: another seed, another answer."""

    row: Row
    image: np.ndarray
    question: str
    hypothesis: Label | None = None
    mask: np.ndarray | None = None
    reference: np.ndarray | None = None
    seed: int = 0


class Teacher(Protocol):
    """`teach` takes asks as they come and gives one row each, in their order.

    cached: replies are kept elsewhere, so that asking again costs nothing, and failed ones are asked anew.
    """

    name: str
    cached: bool

    def teach(self, asks: Iterable[Ask]) -> Iterator[VqaRow]: ...


def sentences(answer: Answer) -> list[Sentence]:
    """The sentences of an answer's two texts, without evidence: nobody told what they rest on."""
    parts: tuple[tuple[Literal["description", "reasoning"], str], ...] = (
        ("description", answer.description),
        ("reasoning", answer.reasoning),
    )
    return [
        Sentence(part=part, text=text)
        for part, whole in parts
        for text in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(“])", whole.strip())
        if text
    ]


def row_of(
    ask: Ask, teacher: str, version: str, raw: str, answer: Answer | None, tokens: tuple[int, int] = (0, 0)
) -> VqaRow:
    """The row of an ask. answer: the reply, parsed; None where it could not be or must not count."""
    row = ask.row
    read: dict[str, Any] = {}
    if answer:
        read = {
            "sentences": sentences(answer),
            "result": answer.result,
            "probability": answer.probability,
            "stated_type": answer.forgery_type,
        }
    return VqaRow(
        image=row.path, sha256=row.sha256, label=row.label, forgery_type=row.forgery_type, method=row.method,
        dataset=row.dataset, split=row.split, group=row.group, regions=row.regions, mask=row.mask,
        reference=row.reference, question=ask.question, hypothesis=ask.hypothesis, teacher=teacher,
        prompt_version=version, seed=ask.seed, raw=raw, tokens=tokens, **read,
    )  # fmt: skip
