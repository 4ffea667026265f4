"""DD-VQA (Zhang et al. 2024): what people wrote about FaceForensics++ frames, as records and as conversations.

The frames, their truth and their groups come from `ffaa.data.sources.ddvqa`; here the texts are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffaa.data.manifest import Row
from ffaa.data.sources.base import SourceArgs, read_json, read_text
from ffaa.data.sources.ddvqa import SOURCE
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label, Record
from ffaa.vqa.row import Sentence, VqaRow

TEACHER = "people-ddvqa"
WHOLE = "image"
REGIONS = (WHOLE, "skin", "eyebrows", "eyes", "nose", "mouth")
_REGION = re.compile(rf"\b({'|'.join(REGIONS)})\b", re.IGNORECASE)
_SAYS = re.compile(r"\blooks?\b[^.]*?\b(real|fake)\b", re.IGNORECASE)
_STOPS = re.compile(r"\s*\.(?:\s*\.)*\s+|\s*\.+\s*$")


class Said(Record):
    """One person's answer. says: what the answer's first sentence calls the region (or image); None: neither."""

    text: str
    says: Label | None


class HumanRecord(Record):
    """A frame and what people wrote about it. image: relative to the collection's folder. said: region -> answers, in
    the order of the file; region 'image' is the face as a whole."""

    image: str
    label: Label
    forgery_type: ForgeryType
    method: str
    groups: tuple[str, ...]
    split: str
    said: dict[str, list[Said]]

    @property
    def votes(self) -> list[Label]:
        """What the answers about the frame and its regions say, one vote an answer."""
        return [said.says for answers in self.said.values() for said in answers if said.says is not None]


def read(root: Path, args: SourceArgs | None = None) -> Iterator[HumanRecord]:
    """The frames of a collection that have answers, in its order. args: as a data recipe has them.

    Raises InputError for a wrong layout, as the source does, or answers that are no text.
    """
    args = args or SourceArgs(kind="ddvqa", root=str(root))
    said = dict(_one_file(root) if (root / "answers.jsonl").is_file() else _published(root))
    for item in SOURCE.read(root, args):
        if item.path in said:
            yield HumanRecord(
                image=item.path, label=item.label, forgery_type=item.forgery_type, method=item.method,
                groups=item.groups, split=item.split, said=said[item.path],
            )  # fmt: skip


def _one_file(root: Path) -> Iterator[tuple[str, dict[str, list[Said]]]]:
    path = root / "answers.jsonl"
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
            name, asked = str(record["path"]), [(qa["question"], qa["answers"]) for qa in record["qa"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{where}: expected a path and qa with questions and answers; {error!r}") from error
        yield name, _said(asked, where)


def _published(root: Path) -> Iterator[tuple[str, dict[str, list[Said]]]]:
    for path in sorted((root / "DQ_FF++").glob("t*_set/*/*.json")):
        frames = read_json(path)
        for key in frames:
            where = f"{path}: {key}"
            try:
                asked = [(qa["question"], qa["answer"]) for qa in frames[key].values()]
            except (KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{where}: expected questions with answers; {error!r}") from error
            yield f"frames/{key}.jpg", _said(asked, where)


def _said(asked: Sequence[tuple[Any, Any]], where: str) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for question, answers in asked:
        region = _REGION.search(str(question))
        if region is None or not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
            raise InputError(f"{where}: expected a question on {', '.join(REGIONS)} and a list of texts")
        for text in answers:
            parts = tidy(text)
            match = _SAYS.search(parts[0]) if parts else None
            says = Label(match[1].lower()) if match else None
            found.setdefault(region[1].lower(), []).append(Said(text=" ".join(parts), says=says))
    return found


def tidy(text: str) -> list[str]:
    """The sentences of an answer: one stop each, a capital first, none twice; the words stay as people wrote them."""
    parts = [" ".join(part.split()) for part in _STOPS.split(text)]
    return list(dict.fromkeys(part[0].upper() + part[1:] + "." for part in parts if part))


def probability(record: HumanRecord, says: Label) -> float:
    """How sure people are that the frame is `says`: Laplace's rule on the votes, (agreeing + 1) / (all + 2)."""
    votes = record.votes
    return round((sum(vote is says for vote in votes) + 1) / (len(votes) + 2), 2)


def rows(
    records: Iterable[HumanRecord],
    faces: Iterable[Row],
    questions: Sequence[str],
    prompt_version: str,
    seed: int,
    descriptions: Mapping[str, Sequence[Sentence]] | None = None,
) -> Iterator[VqaRow]:
    """A conversation for every answer about a whole frame, where the frame has a face in a manifest.

    faces: manifest rows, matched by the end of their `photo`. The answer becomes the reasoning: people were asked for
    reasons, not for a description. descriptions: manifest path -> description sentences from elsewhere; without one,
    the rows suit only texts without description. People were not asked for the type, it is the manifest's.
    A manifest's face is the largest one in its frame.
    """
    known: dict[str, list[HumanRecord]] = {}
    for record in records:
        known.setdefault(Path(record.image).name, []).append(record)
    for face in faces:
        if face.track:
            continue
        match = [r for r in known.get(Path(face.photo).name, ()) if f"/{face.photo}".endswith(f"/{r.image}")]
        for record in match[:1]:
            if record.label is not face.label:
                raise InputError(f"{face.photo}: the manifest says {face.label}, DD-VQA {record.label}; build it again")
            for number, said in enumerate(record.said.get(WHOLE, ())):
                if said.says is None:
                    continue
                rng = np.random.default_rng((seed, number, *face.sha256.encode()[:16]))
                described = (descriptions or {}).get(face.path, ())
                reasoned = [Sentence(part="reasoning", text=text) for text in tidy(said.text)]
                yield VqaRow(
                    image=face.path, sha256=face.sha256, label=face.label, forgery_type=face.forgery_type,
                    method=face.method, dataset=face.dataset, split=face.split, group=face.group,
                    regions=face.regions, mask=face.mask, reference=face.reference,
                    question=questions[int(rng.integers(len(questions)))], teacher=TEACHER,
                    prompt_version=prompt_version, seed=seed, raw=said.text, sentences=[*described, *reasoned],
                    result=said.says, probability=probability(record, said.says),
                    stated_type=face.forgery_type if said.says is face.label else None,
                )  # fmt: skip
