"""What an MLLM is tuned on: questions and answers about the images of a built set, in any format of `ffaa vqa`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch.utils.data import Dataset

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.data.manifest import Row, held_for_mids
from ffaa.errors import InputError, UsageError
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.mllm.llava_import import prepare_pixels
from ffaa.mllm.template import ChatTemplate, hypothesis_prompt
from ffaa.mllm.train import IGNORED, encode_answer
from ffaa.types import Label, Role, UnparsedAnswer
from ffaa.vqa import export
from ffaa.vqa.export import VARIANTS, Variant
from ffaa.vqa.row import VqaRow

IMAGE = "<image>"


class Told(NamedTuple):
    """A question about an image of a set, and the answer to learn. sha256: of the image; '' where it is not told."""

    image: str
    sha256: str
    question: str
    answer: str


class Asked(NamedTuple):
    """A conversation with the manifest row of its image."""

    told: Told
    row: Row


def read_told(path: Path, variant: Variant, seed: int) -> list[Told]:
    """The conversations of a file: `VqaRow` as JSON Lines, or what `ffaa vqa export` writes (LLaVA, chat messages).

    Of VqaRow a seeded third is asked under a hypothesis, as the export does it. Raises InputError, with the number of
    rows that cannot be learnt from and the first reason, where there is one: nothing is left out in silence.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `ffaa vqa generate` and `ffaa vqa export` write rows")
    told: list[Told] = []
    wrong: list[str] = []
    total = 0
    for total, found in enumerate(_records(path, variant, seed), 1):
        why = found if isinstance(found, str) else _unfit(found, variant)
        if not isinstance(found, str) and not why:
            told.append(found)
        if why:
            wrong.append(f"row {total}: {why}")
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} of {total} rows cannot be learnt from, the first is {wrong[0]}; "
            "`ffaa vqa filter` and `ffaa vqa export` leave such rows out"
        )
    if not told:
        raise InputError(f"{path}: holds no rows")
    return told


def _records(path: Path, variant: Variant, seed: int) -> Iterator[Told | str]:
    """One conversation a row, or why there is none."""
    with path.open(encoding="utf-8") as file:
        first = next((line for line in file if line.strip()), "")
        if first.lstrip().startswith("["):
            file.seek(0)
            try:
                rows = json.load(file)
            except (ValueError, UnicodeDecodeError) as error:
                raise InputError(f"{path}: no JSON ({error}); export it again") from error
            yield from map(_of_llava, rows)
            return
        lines = chain([first], file)
        if '"messages"' in first:
            yield from map(_of_chat, filter(str.strip, lines))
        else:
            yield from _of_rows(filter(str.strip, lines), variant, seed)


def _of_llava(row: Any) -> Told | str:
    try:
        human, gpt = row["conversations"]
        if (human["from"], gpt["from"]) != ("human", "gpt"):
            return "not one question of 'human' and one answer of 'gpt'"
        before, question = str(human["value"]).split(IMAGE)
        return Told(str(row["image"]), "", (before.strip() + question.lstrip("\n")).strip(), str(gpt["value"]))
    except (KeyError, TypeError, ValueError):
        return "not the published LLaVA layout (image, one question that holds <image>, one answer)"


def _of_chat(line: str) -> Told | str:
    try:
        row = json.loads(line)
        (image,), (user, assistant) = row["images"], row["messages"]
        if (user["role"], assistant["role"]) != ("user", "assistant"):
            return "not one message of 'user' and one of 'assistant'"
        (question,) = [part["text"] for part in user["content"] if part["type"] == "text"]
        (answer,) = [part["text"] for part in assistant["content"]]
        return Told(image, "", question, answer)
    except (KeyError, TypeError, ValueError):
        return "not the chat layout (one image, one question, one answer)"


def _of_rows(lines: Iterable[str], variant: Variant, seed: int) -> Iterator[Told | str]:
    prompts = {label: [hypothesis_prompt(label)] for label in Label}
    for line in lines:
        try:
            row = VqaRow.model_validate_json(line)
        except ValidationError as error:
            yield f"not a row of `ffaa vqa` ({error.error_count()} errors)"
            continue
        if why := export.unfit(row, variant):
            yield f"{row.image}: {why}"
            continue
        (row,) = export.with_hypotheses([row], prompts, seed)
        yield Told(row.image, row.sha256, row.question, export.answer(row, variant, format_answer))


def _unfit(told: Told, variant: Variant) -> str:
    """Why a conversation cannot be learnt from; '' where it can."""
    if not told.question or IMAGE in told.question or IMAGE in told.answer:
        return f"{told.image}: no question, or {IMAGE} in a text"
    read = parse_answer(told.answer, Role.ANCHOR, told.question, VARIANTS[variant])
    if isinstance(read, UnparsedAnswer):
        return f"{told.image}: {read.reason}"
    if read.probability is None or read.forgery_type is None:
        return f"{told.image}: no probability or forgery type"
    extra = [name for name in export.TEXTS if getattr(read, name) and name not in VARIANTS[variant]]
    return f"{told.image}: has a {extra[0]}, which the variant {variant} leaves out" if extra else ""


def _says(told: Told) -> Label | None:
    read = parse_answer(told.answer, Role.ANCHOR, told.question, ())
    return None if isinstance(read, UnparsedAnswer) else read.result


class Split(NamedTuple):
    """left_out: why -> conversations that are used for neither."""

    train: list[Asked]
    val: list[Asked]
    left_out: dict[str, int]


def split(told: Sequence[Told], folder: Path, held: float, limit: int, seed: int) -> Split:
    """Conversations by the split that the set's manifest gives their image.

    held: share of the training images that are kept for MIDS (see `held_for_mids`). limit: of the validation split at
    most so many, a seeded draw. Raises InputError for images that are not in the set, or not those the rows are about,
    for answers that are not true, and where nothing is left to train or to evaluate on.
    """
    rows = {row.path: row for row in manifest.scan(folder)}
    strange = [t.image for t in told if t.image not in rows]
    if strange:
        raise InputError(
            f"{folder}: {len(strange)} of {len(told)} rows are about images it does not hold, the first is {strange[0]}"
        )
    other = [t.image for t in told if t.sha256 and t.sha256 != rows[t.image].sha256]
    if other:
        raise InputError(f"{folder}: {len(other)} images changed since the rows were written, the first is {other[0]}")
    false = [t.image for t in told if _says(t) is not rows[t.image].label]
    if false:
        raise InputError(f"{folder}: {len(false)} answers are not true of their image, the first of {false[0]}")
    if any(not rows[t.image].size for t in told):
        raise InputError(f"{folder}: the manifest points to photos; build it with a crop size")
    train: list[Asked] = []
    val: list[Asked] = []
    left_out: dict[str, int] = {}
    for one in told:
        row = rows[one.image]
        why = "" if row.split in ("train", "val") else f"of the split '{row.split}'"
        if row.split == "train" and held_for_mids(row, held):
            why = "kept for MIDS"
        if why:
            left_out[why] = left_out.get(why, 0) + 1
        else:
            (train if row.split == "train" else val).append(Asked(one, row))
    if not train or not val:
        missing = "to train on (split 'train')" if not train else "to evaluate on (split 'val')"
        raise InputError(f"{folder}: no conversation {missing} is left; make rows of both splits")
    if len(val) > limit:
        drawn = np.random.default_rng((seed, 10)).permutation(len(val))[:limit]
        val = [val[i] for i in sorted(drawn.tolist())]
    return Split(train, val, left_out)


class ImageConversations(Dataset):
    """Encoded conversations with the pixels of their image, padded to a square (`prepare_pixels`) when it is read."""

    def __init__(
        self,
        asked: Sequence[Asked],
        folder: Path,
        tokenizer: Any,
        template: ChatTemplate,
        image: tuple[int, int, int],
        max_tokens: int,
    ):
        """image: (placeholder id, tokens, side in pixels). Raises UsageError for conversations beyond max_tokens."""
        image_id, tokens, self.size = image
        self.folder, self.asked = folder, asked
        self._encoded: list[tuple[np.ndarray, int]] = []
        long = []
        for one, row in asked:
            ids, labels = encode_answer(tokenizer, template, one.question, {}, one.answer, tokens, image_id)
            self._encoded.append((np.array(ids, np.int32), labels.count(IGNORED)))
            if len(ids) > max_tokens:
                long.append(f"{row.path} with {len(ids)}")
        if long:
            raise UsageError(
                f"{len(long)} conversations are longer than {max_tokens} tokens, the first is {long[0]}; "
                "raise tune.max_tokens or filter the rows"
            )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each conversation."""
        return [len(ids) for ids, _ in self._encoded]

    def __len__(self) -> int:
        return len(self._encoded)

    def pixels(self, index: int) -> torch.Tensor:
        """float32 (3, S, S)."""
        return prepare_pixels(read_photo(self.folder, self.asked[index].row), self.size)[0]

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, prompt = self._encoded[index]
        learnt = ids.tolist()
        return {
            "input_ids": learnt,
            "labels": [IGNORED] * prompt + learnt[prompt:],
            "pixel_values": self.pixels(index),
        }
