"""Answer mining: the three answers of the tuned MLLM to faces it was not tuned on, for MIDS to learn from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ffaa.errors import InputError
from ffaa.mllm.generate import QUESTIONS, Mllm, assign_roles
from ffaa.types import Answer, Label, Record, UnparsedAnswer
from ffaa.vqa.conversation import resume_jsonl

log = logging.getLogger(__name__)


class Mined(Record):
    """The three answers to feature row `row`."""

    row: int
    image: str
    sha256: str
    label: Label
    answers: list[Answer | UnparsedAnswer]

    @property
    def results(self) -> list[Label | None]:
        return [a.result if isinstance(a, Answer) else None for a in self.answers]


def mine(
    mllm: Mllm,
    features: np.ndarray,
    faces: Sequence,
    out: Path,
    tuned_on: set[str],
    anchors: Sequence[str],
    seed: int,
    batch: int = 32,
) -> list[Mined]:
    """Answers for every feature row, appended to `out`; a killed run goes on where it stopped.

    features: (N, 2, tokens, C). faces: records with image, sha256, label, evidence. tuned_on: sha256 of the images the
    MLLM was tuned on; one of them here is an InputError. anchors: non-hypothetical prompts, one drawn (seeded) per
    batch. Returns all records.
    """  # fmt: skip
    leaked = tuned_on & {f.sha256 for f in faces}
    if leaked:
        raise InputError(f"{len(leaked)} images to mine were used to tune the MLLM, e.g. {min(leaked)}; split them")
    done = resume_jsonl(out, Mined, batch)
    with out.open("a", encoding="utf-8") as file:
        for start in range(len(done), len(faces), batch):
            part = range(start, min(start + batch, len(faces)))
            rng = np.random.default_rng((seed, 4, start))
            questions = (anchors[int(rng.integers(len(anchors)))], *QUESTIONS[1:])
            hidden = torch.from_numpy(np.array(features[part.start : part.stop, -1])).float()
            measured = [faces[i].words for i in part]
            raws = mllm.generate(mllm.project(hidden), measured, questions)
            for i, raw in zip(part, raws, strict=True):
                record = Mined(
                    row=i, image=faces[i].image, sha256=faces[i].sha256, label=faces[i].label,
                    answers=assign_roles(raw, questions),
                )  # fmt: skip
                done.append(record)
                file.write(record.model_dump_json() + "\n")
            file.flush()
            if start // batch % 5 == 0:
                log.info("mined %d of %d", len(done), len(faces))
    return done
