"""Conversations from measured faces, by the grounded teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ffaa.types import Evidence, ForgeryType, Label, Record
from ffaa.vqa.conversation import Conversation
from ffaa.vqa.grounded import NAME, phrases, write_answer
from ffaa.vqa.hypothesis import draw_hypothesis
from ffaa.vqa.trace import tower_words


class MeasuredFace(Record):
    """What a teacher needs of a face: its manifest fields, the evidence, and how sure the tower is (0..1, fake)."""

    image: str
    sha256: str
    variant: int
    label: Label
    forgery_type: ForgeryType
    regions: tuple[str, ...]
    evidence: list[Evidence]
    tower_score: float
    tower_type: ForgeryType

    @property
    def words(self) -> dict[str, str]:
        """What the language model reads about the face: the measured words, then the tower's."""
        return {e.name: e.word for e in self.evidence} | tower_words(self.tower_score, self.tower_type)


def stated_probability(tower_score: float, label: Label, temperature: float) -> float:
    """How sure an answer that says `label` states to be: the tempered tower score, kept in [0.55, 0.99]."""
    score = min(max(tower_score, 1e-4), 1 - 1e-4)
    fake = 1 / (1 + np.exp(-np.log(score / (1 - score)) / temperature))
    return round(float(np.clip(fake if label is Label.FAKE else 1 - fake, 0.55, 0.99)), 2)


def conversations(
    faces: Sequence[MeasuredFace], ask: dict[Label, str], temperature: float, resist: float, contrary: float, seed: int
) -> Iterator[Conversation]:
    """One conversation per face. ask: the hypothetical prompt for each hypothesis.

    resist: from this probability of the truth on, a hypothesis may be contrary (see `draw_hypothesis`).
    """
    questions = phrases()["questions"]
    for index, face in enumerate(faces):
        rng = np.random.default_rng((seed, 3, index))
        probability = stated_probability(face.tower_score, face.label, temperature)
        hypothesis = draw_hypothesis(face.label, probability >= resist, contrary, rng)
        question = ask[hypothesis] if hypothesis else questions[int(rng.integers(len(questions)))]
        description, reasoning, links = write_answer(
            face.evidence, face.label, face.forgery_type, face.regions, probability, rng
        )
        yield Conversation(
            image=face.image, sha256=face.sha256, variant=face.variant, label=face.label,
            forgery_type=face.forgery_type, question=question, hypothesis=hypothesis, description=description,
            reasoning=reasoning, probability=probability, evidence=face.words,
            links=links, teacher=f"{NAME}-{phrases()['version']}", seed=seed,
        )  # fmt: skip
