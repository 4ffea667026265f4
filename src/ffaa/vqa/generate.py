"""Conversations from measured faces, by the grounded teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ffaa.evidence.examine import of_values
from ffaa.types import EvidenceRecord, ForgeryType, Label, Record
from ffaa.vqa.conversation import Conversation
from ffaa.vqa.hypothesis import draw_weighed
from ffaa.vqa.sentences import file_version, read_items, read_words
from ffaa.vqa.trace import tower_words
from ffaa.vqa.writer import write


class MeasuredFace(Record):
    """What a teacher needs of a face: its manifest fields, what was measured on it (item -> value), and how sure the
    tower is (0..1, fake). method and regions are empty: a model is not to claim what it cannot see."""

    image: str
    sha256: str
    variant: int
    label: Label
    forgery_type: ForgeryType
    method: str = ""
    regions: tuple[str, ...] = ()
    values: dict[str, float]
    tower_score: float
    tower_type: ForgeryType

    @property
    def words(self) -> dict[str, str]:
        """What the language model reads about the face: the measured words, then the tower's."""
        return read_words(self.record) | tower_words(self.tower_score, self.tower_type)

    @property
    def record(self) -> EvidenceRecord:
        """What of the measured items a model may read."""
        return of_values({name: value for name, value in self.values.items() if name in read_items()})


def tempered(tower_score: float, temperature: float) -> float:
    """The tower's forgery score with its log odds divided by `temperature`."""
    score = min(max(tower_score, 1e-4), 1 - 1e-4)
    return float(1 / (1 + np.exp(-np.log(score / (1 - score)) / temperature)))


def stated_probability(tower_score: float, label: Label, temperature: float) -> float:
    """How sure an answer that says `label` states to be: the tempered tower score, kept in [0.55, 0.99]."""
    fake = tempered(tower_score, temperature)
    return round(float(np.clip(fake if label is Label.FAKE else 1 - fake, 0.55, 0.99)), 2)


def conversations(
    faces: Sequence[MeasuredFace],
    anchors: Sequence[str],
    ask: dict[Label, str],
    temperature: float,
    resist: float,
    contrary: float,
    seed: int,
) -> Iterator[Conversation]:
    """One conversation per face. anchors: the non-hypothetical prompts; ask: the one for each hypothesis.

    resist, contrary: when an answer holds to what the tower sees, and when it follows the hypothesis (`draw_weighed`).
    An answer that argues for a hypothesis which is not true has a forgery type to match, the tower's or a drawn one.
    """
    for index, face in enumerate(faces):
        rng = np.random.default_rng((seed, 3, index))
        fake = tempered(face.tower_score, temperature)
        hypothesis, said = draw_weighed(face.label, fake, resist, contrary, rng)
        kind = face.forgery_type if said is face.label else _kind(said, face.tower_type, rng)
        question = ask[hypothesis] if hypothesis else anchors[int(rng.integers(len(anchors)))]
        told = face.model_copy(update={"label": said, "forgery_type": kind})
        sentences = write(face.record, told, rng)
        texts = [" ".join(s.text for s in sentences if s.part == part) for part in ("description", "reasoning")]
        yield Conversation(
            image=face.image, sha256=face.sha256, variant=face.variant, label=said,
            forgery_type=kind, question=question, hypothesis=hypothesis, description=texts[0],
            reasoning=texts[1], probability=stated_probability(face.tower_score, said, temperature),
            evidence=face.words, links=["+".join(s.evidence) for s in sentences], teacher=file_version(), seed=seed,
        )  # fmt: skip


def _kind(said: Label, seen: ForgeryType, rng: np.random.Generator) -> ForgeryType:
    """The forgery type of an answer that argues for `said` against the truth; seen: the tower's."""
    if said is Label.REAL:
        return ForgeryType.REAL
    forged = [kind for kind in ForgeryType if kind is not ForgeryType.REAL]
    return seen if seen in forged else forged[int(rng.integers(len(forged)))]
