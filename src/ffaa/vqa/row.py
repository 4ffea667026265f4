"""One row of FFA-VQA: a face of a manifest, what a teacher wrote about it, and what became of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ffaa.types import ForgeryType, Label, Record


class Sentence(Record):
    """A sentence of the answer's text and what it rests on.

    part: which of the answer's free lines it belongs to. evidence: names of evidence items; '' sources such as
    'manifest:method', 'mask' or 'frame' for what was not measured. Empty: the teacher (a model, a person) gave none.
    """

    part: Literal["description", "reasoning"]
    text: str
    evidence: list[str] = Field(default_factory=list)


class VqaRow(Record):
    """A conversation with everything that is known of it.

    image, mask, reference: as in the manifest, relative to its folder. label, forgery_type: the truth. raw: the
    teacher's reply, whole. sentences, result, probability, stated_type: the reply, parsed; None where it could not be.
    question: what is asked; hypothesis: what it presumes, None for a non-hypothetical prompt. prompt_version: of the
    files that the prompts came from. tokens: (prompt, completion) as the teacher counted them; (0, 0) for free ones.
    """

    image: str
    sha256: str
    label: Label
    forgery_type: ForgeryType
    method: str = ""
    dataset: str = ""
    split: str = ""
    group: str = ""
    regions: tuple[str, ...] = ()
    mask: str = ""
    reference: str = ""
    question: str
    hypothesis: Label | None = None
    teacher: str
    prompt_version: str
    seed: int
    raw: str
    sentences: list[Sentence] = Field(default_factory=list)
    result: Label | None = None
    probability: float | None = None
    stated_type: ForgeryType | None = None
    tokens: tuple[int, int] = (0, 0)
    reviewed_by: list[str] = Field(default_factory=list, description="people who accepted or edited it")

    @property
    def description(self) -> str:
        """The answer's first line, without its key."""
        return " ".join(s.text for s in self.sentences if s.part == "description")

    @property
    def reasoning(self) -> str:
        """The answer's second line, without its key."""
        return " ".join(s.text for s in self.sentences if s.part == "reasoning")
