"""Detectors behind one protocol: faces in, what is said of each out."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError

from ffaa.assistant import Assistant, choose_device
from ffaa.data.faces import resize_square
from ffaa.engine import Engine
from ffaa.errors import UsageError, WeightsError
from ffaa.mids.decide import Decision
from ffaa.mids.train import majority
from ffaa.mllm.tower import pixel_tensor
from ffaa.settings import load_yaml
from ffaa.types import Answer, Difficulty, Face, ForgeryType, JudgedSentence, Label, Record, UnparsedAnswer
from ffaa.weights import MODEL_FILE, model_names, sha256
from ffaa.wording import is_finding

UNSURE = 0.5  # the score of a face of which nothing could be read, and the usual threshold
ASKED = ("openai:", "hf:")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


class Says(Record):
    """label: the determination, None where it could not be read. score: forgery score in [0, 1]. refused: the model
    declined to answer."""

    label: Label | None
    score: float = Field(ge=0, le=1)
    refused: bool = False


class Judgement(Record):
    """Of one face. says: row of the table -> what it says. Only with answers: the forgery type that the chosen one
    names, difficulty, results of (anchor, positive, negative), None where one could not be read. finding: whether ffaa
    says it as a finding, not as uncertain.

    seconds: of the model, for one face of its batch, 0 where it was not measured. words: row -> its answer as it was
    written.
    """

    says: dict[str, Says]
    seconds: float
    said_type: ForgeryType | None = None
    difficulty: Difficulty | None = None
    finding: bool | None = None
    results: list[Label | None] = Field(default_factory=list)
    words: dict[str, str] = Field(default_factory=dict)


class About(Record):
    """What a detector is. files: name -> sha256. threshold: that of its own validation, None where it has none.
    image_size, parameters: None where they are not known. device: for a model elsewhere, where and how it is asked."""

    kind: Literal["ffaa", "baseline", "asked"]
    files: dict[str, str]
    image_size: int | None
    parameters: int | None
    device: str
    threshold: float | None = None


class Detector(Protocol):
    """name: of its main row; `rows`: that and those of its parts."""

    name: str
    rows: tuple[str, ...]
    about: About

    def judge(self, faces: Sequence[Face]) -> list[Judgement]: ...


@dataclass(frozen=True)
class Explanation:
    """What a detector says of one face, in words. label: the determination, None where it could not be read. chosen:
    the answer that stands for it. sentences: of the chosen one, held against what was measured. heat: where the chosen
    determination comes from, float32 (S, S) in [0, 1]; None for a detector without a heatmap."""

    label: Label | None
    answers: list[Answer | UnparsedAnswer]
    chosen: Answer | None
    sentences: list[JudgedSentence]
    heat: np.ndarray | None


@runtime_checkable
class Explainer(Detector, Protocol):
    """A detector that gives reasons."""

    def explain(self, face: Face) -> Explanation: ...


class Ffaa:
    """The assistant. Its rows: NAME (MIDS decides), NAME/anchor (the MLLM alone), NAME/majority (of the three
    determinations), NAME/tower where the model has a tower with a linear head, and NAME/towers (the mean of all heads'
    logits) where MIDS has more of them."""

    def __init__(self, assistant: Assistant, name: str = ""):
        self._assistant, engine = assistant, assistant.engine
        self.name = name or engine.name
        parts = ["anchor", "majority"] + ["tower"] * (engine.heads is not None)
        parts += ["towers"] * bool(engine.own_heads)
        self.rows = (self.name, *(f"{self.name}/{part}" for part in parts))
        modules = [engine.mllm.model, engine.mids, *filter(None, [engine.heads]), *engine.own_heads]
        sizes = {id(p): p.numel() for module in modules for p in module.parameters()}  # the trunk may be shared
        self._size = engine.image_size
        self.about = About(
            kind="ffaa", files=engine.hashes, image_size=self._size, parameters=sum(sizes.values()),
            device=str(engine.device),
        )  # fmt: skip

    def judge(self, faces: Sequence[Face]) -> list[Judgement]:
        """What the assistant says of faces; each is resized to its image size."""
        faces, engine = [_resized(face, self._size) for face in faces], self._assistant.engine
        started = time.perf_counter()
        found = self._assistant.judge(faces)
        seconds = (time.perf_counter() - started) / len(faces)
        judgements = []
        for face, judged in zip(faces, found, strict=True):
            decision, anchor = judged.decision, judged.answers[0]
            results = [a.result if isinstance(a, Answer) else None for a in judged.answers]
            says = [
                decided(decision),
                stated(anchor if isinstance(anchor, Answer) else None),
                majority_says(results),
            ]
            chosen = None if decision is None else judged.answers[decision.chosen_index]
            judgements.append(
                Judgement(
                    says=dict(zip(self.rows, says + self._towers(face), strict=True)),
                    seconds=seconds,
                    said_type=chosen.forgery_type if isinstance(chosen, Answer) else None,
                    difficulty=judged.difficulty,
                    finding=finds(engine, decision, judged.difficulty, face.image),
                    results=results,
                    words={} if chosen is None else {self.name: chosen.raw},
                )
            )
        return judgements

    def explain(self, face: Face) -> Explanation:
        """Its answers to one face, the chosen one's sentences, and the heatmap of its determination."""
        small = _resized(face, self._size)
        judged = self._assistant.judge([small])[0]
        chosen = None if judged.decision is None else judged.answers[judged.decision.chosen_index]
        if not isinstance(chosen, Answer):
            return Explanation(None, judged.answers, None, [], None)
        _, sentences = self._assistant.hold(small, chosen.description, chosen.reasoning)
        return Explanation(chosen.result, judged.answers, chosen, sentences, self._assistant.heat_of(small, chosen))

    @torch.inference_mode()
    def _towers(self, face: Face) -> list[Says]:
        engine = self._assistant.engine
        if engine.heads is None:
            return []
        pixels = engine.pixels(face.image)
        previous, last = engine.mllm.model.model.vision_tower(pixels).hidden_states
        score = engine.heads.opinion((previous.cpu(), last.cpu()))[0][0]
        every = engine.towers_score(engine.mids.encode_image(pixels)) if engine.own_heads else None
        return [scored(score)] + ([] if every is None else [scored(every)])


class Scorer(Protocol):
    """What `ffaa.baselines.trained.load_trained` gives."""

    name: str
    files: dict[str, str]
    image_size: int
    parameters: int
    device: str

    @property
    def threshold(self) -> float | None: ...

    def scores(self, crops: Sequence[np.ndarray]) -> np.ndarray: ...


class Baseline:
    """A trained baseline, or a tower alone: fake where its score is at least 0.5, as published."""

    def __init__(self, trained: Scorer, name: str = ""):
        self._trained, self.name = trained, name or trained.name
        self.rows: tuple[str, ...] = (self.name,)
        self.about = About(
            kind="baseline", files=trained.files, image_size=trained.image_size, parameters=trained.parameters,
            device=trained.device, threshold=trained.threshold,
        )  # fmt: skip

    def judge(self, faces: Sequence[Face]) -> list[Judgement]:
        """The scores of face crops; the baseline resizes them as it was trained."""
        started = time.perf_counter()
        scores = [float(score) for score in self._trained.scores([face.image for face in faces])]
        seconds = (time.perf_counter() - started) / len(faces)
        return [Judgement(says={self.name: scored(s)}, seconds=seconds) for s in scores]


class TowerFile:
    """A vision tower of `ffaa train tower` with its linear head, without language model and MIDS; a `Scorer`.

    Raises WeightsError for a file that holds something else.
    """

    threshold = None

    def __init__(self, path: Path, device: str):
        from ffaa.mllm.train_tower import load_tower  # the training's parts, which most runs do not need

        try:
            tower, heads = load_tower(path)
        except (SafetensorError, RuntimeError, WeightsError) as error:
            raise WeightsError(f"{path}: holds no tower; give the tower.safetensors of a run of ffaa train") from error
        self._tower, self._heads = tower.to(device), heads.to(device)  # type: ignore[arg-type]  # transformers wraps to
        self.name, self.files, self.device = path.parent.name, {path.name: sha256(path)}, device
        self.image_size = tower.config.image_size
        self.parameters = sum(p.numel() for part in (tower, heads) for p in part.parameters())

    @torch.inference_mode()
    def scores(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Forgery scores (N,) in [0, 1] of uint8 RGB crops."""
        pixels = pixel_tensor([resize_square(crop, self.image_size) for crop in crops]).to(self.device)
        score: np.ndarray = self._heads.forgery_logit(self._tower(pixels).hidden_states).sigmoid().cpu().numpy()
        return score


def load_detectors(
    given: Sequence[str], device: str, asking: Path | None = None, replies: Path | None = None
) -> list[Detector]:
    """One detector per `[NAME=]WHICH`: a registered model, a model's folder, the folder of a trained baseline, the
    tower.safetensors of a run of `ffaa train`, or another model that is asked (`openai:MODEL@URL`, `hf:FOLDER`).

    asking: settings of `ffaa.eval.asked.Asking`, YAML. replies: file that keeps paid replies. Raises UsageError for
    what is none of these, and where two have one name.
    """
    found: list[Detector] = []
    for text in given:
        head, equals, tail = text.partition("=")
        head, tail = (head, tail) if equals else ("", text)
        if head and not _NAME.fullmatch(head):
            raise UsageError(f"detector '{text}': the name before '=' may hold letters, digits and . _ + -")
        one = _asked(tail, device, head, asking, replies) if tail.startswith(ASKED) else _load(tail, device, head)
        if any(one.name == other.name for other in found):
            raise UsageError(f"two detectors are called '{one.name}'; give another name: --detector NAME={tail}")
        found.append(one)
    return found


def _asked(which: str, device: str, name: str, asking: Path | None, replies: Path | None) -> Detector:
    from ffaa.eval.asked import Asking, load_asked  # it knows what stands here

    return load_asked(which, device, name, load_yaml(asking, Asking) if asking else Asking(), replies)


def _load(which: str, device: str, name: str) -> Detector:
    folder = Path(which)
    if folder.suffix == ".safetensors" and folder.is_file():
        return Baseline(TowerFile(folder, str(choose_device(device))), name)
    if which in model_names() or not folder.is_dir() or (folder / MODEL_FILE).is_file():
        return Ffaa(Assistant(which, device=device), name)  # says what is wrong where it is no model
    from ffaa.baselines.trained import load_trained  # seven architectures that most runs do not need

    return Baseline(load_trained(folder, str(choose_device(device))), name)


def decided(decision: Decision | None) -> Says:
    """What MIDS decides; None: no answer could be read."""
    if decision is None:
        return Says(label=None, score=UNSURE)
    return Says(label=decision.label, score=decision.forgery_score)


def finds(engine: Engine, decision: Decision | None, level: Difficulty, image: np.ndarray) -> bool:
    """Whether what is decided of a face image is said as a finding (`ffaa.wording`)."""
    return decision is not None and is_finding(level, decision.match_score, engine.lacks_detail(image))


def stated(answer: Answer | None) -> Says:
    """An answer's determination; its score from the probability that it states of it."""
    if answer is None:
        return Says(label=None, score=UNSURE)
    sure = 1.0 if answer.probability is None else answer.probability
    return Says(label=answer.result, score=sure if answer.result is Label.FAKE else 1 - sure)


def majority_says(results: Sequence[Label | None]) -> Says:
    """What most answers say. score: the share of answers that say fake, an unread one as half."""
    scores = {Label.FAKE: 1.0, Label.REAL: 0.0, None: UNSURE}
    return Says(label=majority(results), score=sum(scores[result] for result in results) / len(results))


def scored(score: float) -> Says:
    """What a bare forgery score says: fake from 0.5 on."""
    return Says(label=Label.FAKE if score >= UNSURE else Label.REAL, score=score)


def _resized(face: Face, size: int) -> Face:
    if face.image.shape[0] == size:
        return face
    return replace(face, image=resize_square(face.image, size), crop=face.crop.model_copy(update={"size": size}))
