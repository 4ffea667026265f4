"""Image -> faces -> three answers -> MIDS -> Verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffaa import __version__
from ffaa.data.faces import MIN_FACE, Detection, DlibDetector, cut, detector, split_by_size, whole_image
from ffaa.data.images import Photo, load_photo, shown
from ffaa.engine import Engine, load_engine
from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.evidence.examine import examine_face, require_mesh
from ffaa.mids.cam import heatmap, overlay
from ffaa.mids.decide import Decision, decide, difficulty
from ffaa.mllm.generate import assign_roles
from ffaa.types import (
    Analysis,
    Answer,
    Difficulty,
    Evidence,
    EvidenceRecord,
    Face,
    Failure,
    JudgedSentence,
    Placed,
    Source,
    Support,
    Timings,
    UnparsedAnswer,
    Verdict,
)
from ffaa.vqa.judge import judge_text
from ffaa.vqa.sentences import read_items, read_words
from ffaa.wording import WEAK

FACES_AT_ONCE = 8
SMALL_FACE = 80


@dataclass
class _Pending:
    """A photo whose faces wait for the models."""

    source: Source
    faces: list[Face]
    message: str
    detect: float
    verdicts: list[Verdict] = field(default_factory=list)
    failed: str = ""

    def placed(self, index: int) -> Placed:
        count = len(self.faces)
        return Placed(self.faces[index], self.source, index, count, self.detect / count)


class Assistant:
    """Analyses photos with one model, loaded once. May be called from several threads; the models serve one at a time.

    model: a registered name or a model folder. device: 'auto', 'cpu', 'cuda', 'mps'. seed: kept in every verdict;
    decoding is greedy, so it changes nothing yet. min_face: smallest face width in photo pixels.
    Raises UsageError for an unknown model or device, WeightsError when weights are missing or corrupted.
    """

    def __init__(
        self,
        model: str | Path = "nano",
        device: str = "auto",
        seed: int = 0,
        min_face: int = MIN_FACE,
        face_detector: str = DlibDetector.name,
    ):
        self.seed, self.min_face = seed, min_face
        self._detector = detector(face_detector)
        self.engine: Engine = load_engine(model, choose_device(device))
        if self.engine.mllm.template.reads_evidence:
            require_mesh()
        self._models = threading.RLock()
        self.versions = {"ffaa": __version__} | {name: version(name) for name in ("torch", "transformers", "numpy")}

    def analyze(self, photo: Any, whole_image: bool = False, evidence: bool = False) -> Analysis:
        """All faces of one photo (path, PIL image, or uint8 RGB / grey array), largest first.

        whole_image: the photo is a face crop already. evidence: each verdict gets everything that can be measured on
        the face (`examined`) and the chosen answer's sentences held against it (`sentences`). A photo without a usable
        face gives an Analysis without verdicts and a message. Raises InputError for a file that cannot be read; with
        evidence WeightsError where the face mesh is not installed.
        """
        if evidence:
            require_mesh()
        pending = self._find(photo, whole_image)
        self._decide_all([pending], evidence)
        if pending.failed:
            raise FFAAError(pending.failed)
        return _analysis(pending)

    def analyze_many(
        self, photos: Iterable[Any], whole_image: bool = False, evidence: bool = False
    ) -> Iterator[Analysis | Failure]:
        """Analyse photos as they come, in order, several faces at once: see `analyze`. A photo that fails becomes a
        Failure."""
        if evidence:
            require_mesh()
        waiting: list[_Pending | Failure] = []
        for photo in photos:
            try:
                waiting.append(self._find(photo, whole_image))
            except InputError as error:
                waiting.append(Failure(path=_name(photo), message=str(error)))
            faces = sum(len(w.faces) for w in waiting if isinstance(w, _Pending))
            if max(faces, len(waiting)) >= FACES_AT_ONCE:
                yield from self._finish(waiting, evidence)
                waiting = []
        yield from self._finish(waiting, evidence)

    def find(self, photo: Any, whole_image: bool = False) -> _Pending:
        """The first half of `analyze`, without the models: reads a photo (also a loaded `Photo`) and cuts its faces.

        Raises InputError. The result holds its `faces`, and is for `finish`.
        """
        return self._find(photo, whole_image)

    def finish(self, found: Sequence[_Pending], evidence: bool = False) -> list[Analysis | Failure]:
        """The second half: the verdicts of what `find` gave, in order, faces of several photos in one batch."""
        return list(self._finish(found, evidence))

    def heatmap(self, face: Face, verdict: Verdict, with_text: bool = True) -> np.ndarray:
        """`heat` over the face image, uint8 RGB (S, S, 3) (Fig. 7)."""
        return overlay(face.image, self.heat(face, verdict, with_text))

    def heat(self, face: Face, verdict: Verdict, with_text: bool = True) -> np.ndarray:
        """What speaks for the chosen answer's class: float32 (S, S) in [0, 1], all zero where nothing does.

        Computed by the MIDS object that decided. with_text False leaves the text branch out.
        """
        return self.heat_of(face, verdict.answers[verdict.chosen_index], with_text)

    def heat_of(self, face: Face, answer: Answer | UnparsedAnswer, with_text: bool = True) -> np.ndarray:
        """What speaks for the class in which a readable answer is right, as `heat` gives it."""
        assert isinstance(answer, Answer)  # an unparsed one is never chosen
        pixels = self.engine.pixels(face.image)[0]
        ids = mask = None
        with self._models:
            if with_text:
                ids, mask = (t[0].to(self.engine.device) for t in self.engine.tokens([answer]))
            return heatmap(self.engine.mids, pixels, answer.result, face.image.shape[0], ids, mask)

    def detect(self, pixels: np.ndarray) -> tuple[list[Detection], list[Detection]]:
        """(usable, too small) faces of a uint8 RGB (H, W, 3) photo, each largest first."""
        return split_by_size(self._detector(pixels), self.min_face)

    def cut(self, pixels: np.ndarray, found: Detection) -> Face:
        """One detected face of a photo as the models want it."""
        return cut(pixels, found, self.engine.image_size, self._detector.name)

    def verdicts_of(self, placed: Sequence[Placed]) -> list[Verdict | None]:
        """The verdicts of faces, in order; None where none of the three answers could be read."""
        judged = self.judge([one.face for one in placed])
        return [
            None if found.decision is None else self._verdict(one, found, found.decision)
            for one, found in zip(placed, judged, strict=True)
        ]

    def _finish(self, waiting: Sequence[_Pending | Failure], evidence: bool) -> Iterator[Analysis | Failure]:
        self._decide_all([w for w in waiting if isinstance(w, _Pending)], evidence)
        for one in waiting:
            if isinstance(one, _Pending) and one.failed:
                yield Failure(path=one.source.path, message=one.failed)
            else:
                yield _analysis(one) if isinstance(one, _Pending) else one

    def _find(self, photo: Any, whole: bool) -> _Pending:
        started = time.perf_counter()
        loaded = photo if isinstance(photo, Photo) else load_photo(photo)
        size = self.engine.image_size
        if whole:
            faces, message = [whole_image(loaded.pixels, size)], ""
        else:
            usable, small = self.detect(loaded.pixels)
            faces = [self.cut(loaded.pixels, found) for found in usable]
            message = ""
            if not faces and small:
                message = (
                    f"no usable face: the largest face found is {small[0].box.width} px wide, at least "
                    f"{self.min_face} px are needed; use a larger version of the photo"
                )
            elif not faces:
                message = (
                    "no face found (frontal faces only); for a photo that is a face crop already use --whole-image"
                )
        return _Pending(loaded.source, faces, message, time.perf_counter() - started)

    def _decide_all(self, photos: Sequence[_Pending], evidence: bool) -> None:
        jobs = [(photo, index) for photo in photos for index in range(len(photo.faces))]
        for start in range(0, len(jobs), FACES_AT_ONCE):
            part = jobs[start : start + FACES_AT_ONCE]
            found = self.verdicts_of([photo.placed(index) for photo, index in part])
            for (photo, index), verdict in zip(part, found, strict=True):
                if verdict is None:
                    photo.failed = f"{photo.source.path}: face {index + 1}: none of the three answers could be read"
                else:
                    photo.verdicts.append(self.examine(photo.faces[index], verdict) if evidence else verdict)

    def judge(self, faces: Sequence[Face]) -> list[Judged]:
        """What the models say of faces, in order; `analyze` is this between finding faces and making verdicts.

        Only decoding is batched over faces: on a CPU nothing else gains, and what runs face by face cannot depend on
        the batch.
        """
        with self._models:
            return self._judge(faces)

    def _judge(self, faces: Sequence[Face]) -> list[Judged]:
        clock = time.perf_counter
        measured = [self._measure(face) for face in faces]
        t0 = clock()
        encoded = [self.engine.encode(face.image) for face in faces]
        t1 = clock()
        features = torch.cat([e.features for e in encoded])
        words = [read | one.words for (_, read), one in zip(measured, encoded, strict=True)]
        raws = self.engine.mllm.generate(features, words)
        t2 = clock()
        out = []
        for face, raw, (found, _), one in zip(faces, raws, measured, encoded, strict=True):
            answers = assign_roles(raw)
            probabilities = self.engine.probabilities(answers, one.layers, face.image)
            results = [a.result if isinstance(a, Answer) else None for a in answers]
            decision = decide(probabilities, results) if any(results) else None
            out.append(Judged(answers, found, probabilities, decision, difficulty(results)))
        t3 = clock()
        count = len(faces)
        for one_out in out:
            one_out.timings = {"encode": (t1 - t0) / count, "generate": (t2 - t1) / count, "decide": (t3 - t2) / count}
        return out

    def _measure(self, face: Face) -> tuple[list[Evidence], dict[str, str]]:
        """What is measured on a face for the model, and the words that it reads."""
        if not self.engine.mllm.template.reads_evidence:
            return [], {}
        record = examine_face(face)
        items = [i for i in record.items.values() if i.value is not None and i.name in read_items()]
        kept = set(Evidence.model_fields)
        return [Evidence(**i.model_dump(include=kept)) for i in items], read_words(record)

    def _verdict(self, placed: Placed, judged: Judged, decision: Decision) -> Verdict:
        face, chosen = placed.face, judged.answers[decision.chosen_index]
        assert isinstance(chosen, Answer)  # decide never chooses an unparsed one
        parsed = [isinstance(a, Answer) for a in judged.answers]
        lacking = self.engine.lacks_detail(face.image)
        return Verdict(
            source=placed.source,
            face_index=placed.index,
            face_count=placed.count,
            box=face.box,
            crop=face.crop,
            detector=face.detector,
            label=decision.label,
            forgery_type=chosen.forgery_type,
            match_score=decision.match_score,
            forgery_score=decision.forgery_score,
            difficulty=judged.difficulty,
            lacks_detail=lacking,
            description=chosen.description,
            reasoning=chosen.reasoning,
            answers=judged.answers,
            probabilities=[row if ok else None for row, ok in zip(judged.probabilities, parsed, strict=True)],
            match_scores=decision.match_scores,
            chosen_index=decision.chosen_index,
            evidence=judged.evidence,
            cautions=_cautions(face, chosen, judged, decision, self.engine, lacking),
            model=self.engine.name,
            weights=self.engine.hashes,
            versions=self.versions,
            seed=self.seed,
            timings=Timings(detect=placed.detect, **judged.timings),
        )

    def examine(self, face: Face, verdict: Verdict) -> Verdict:
        """The verdict with all that can be measured on its face, and its answer's sentences held against that."""
        started = time.perf_counter()
        record, sentences = self.hold(face, verdict.description, verdict.reasoning)
        wrong = sum(sentence.support is Support.CONTRADICTED for sentence in sentences)
        said = f"{wrong} of {len(sentences)} sentences of the answer {'is' if wrong == 1 else 'are'} contradicted"
        cautions = [f"{said} by what was measured"] if wrong else []
        return verdict.model_copy(
            update={
                "examined": record,
                "sentences": sentences,
                "cautions": cautions + verdict.cautions,
                "timings": verdict.timings.model_copy(update={"examine": time.perf_counter() - started}),
            }
        )

    def hold(self, face: Face, description: str, reasoning: str) -> tuple[EvidenceRecord, list[JudgedSentence]]:
        """All that can be measured on a face, and the sentences of an answer held against it."""
        record = examine_face(face)
        sentences = judge_text(description, record, "description")
        return record, sentences + judge_text(reasoning, record, "reasoning")


@dataclass
class Judged:
    """What the models say of one face."""

    answers: list[Answer | UnparsedAnswer]
    evidence: list[Evidence]
    probabilities: list[list[float]]
    decision: Decision | None  # None: no answer could be read
    difficulty: Difficulty
    timings: dict[str, float] = field(default_factory=dict)


def _cautions(
    face: Face, chosen: Answer, judged: Judged, decision: Decision, engine: Engine, lacking: bool
) -> list[str]:
    found = []
    if judged.difficulty is Difficulty.HARD:
        found.append("hard case: the three answers do not agree")
    if decision.match_score < WEAK:
        found.append(f"low match score ({decision.match_score:.2f}): the decision is uncertain")
    if face.box.width < SMALL_FACE:
        found.append(f"the face is only {face.box.width} px wide; traces of forgery may be lost at this size")
    if lacking:
        found.append("the face lacks fine detail (blurred or enlarged); verdicts on such faces are often wrong")
    if face.crop.whole_image:
        found.append("the whole image was taken as a face crop; no face detector checked it")
    unread = sum(isinstance(a, UnparsedAnswer) for a in judged.answers)
    if unread:
        found.append(f"{unread} of 3 answers could not be read")
    found += [f"the chosen answer contradicts itself: {flag}" for flag in chosen.flags]
    return found + engine.cautions


def _analysis(pending: _Pending) -> Analysis:
    return Analysis(pending.source, pending.verdicts, pending.message, pending.faces)


def _name(photo: Any) -> str:
    return shown(photo) if isinstance(photo, str | Path) else "<array>"


def choose_device(name: str) -> torch.device:
    """'auto' is CUDA where there is one, else the CPU. Raises UsageError for a device that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there.get(name.split(":")[0], False):
        raise UsageError(f"device '{name}' is not available; here: {', '.join(k for k, v in there.items() if v)}")
    return torch.device(name)
