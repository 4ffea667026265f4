"""Conversations as training files: the published LLaVA JSON, and chat messages for `datasets`."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ffaa.errors import UsageError
from ffaa.types import ForgeryType, Label, Record
from ffaa.vqa.hypothesis import draw_hypothesis
from ffaa.vqa.row import VqaRow

Formatter = Callable[[str, str, Label, float, ForgeryType], str]
Variant = Literal["R", "DR", "FR", "All"]
# Fig. 3: which texts stand before the analysis result (result, probability and type).
VARIANTS: dict[Variant, tuple[str, ...]] = {
    "R": (),
    "DR": ("description",),
    "FR": ("reasoning",),
    "All": ("description", "reasoning"),
}
TEXTS = VARIANTS["All"]


def with_hypotheses(rows: Iterable[VqaRow], prompts: Mapping[Label, Sequence[str]], seed: int) -> Iterator[VqaRow]:
    """A seeded third of the rows asked under a hypothesis that agrees with the truth (the paper's rule).

    prompts: what may be asked for each hypothesis. The draw hangs on the row's photo, teacher and seed only, so other
    rows do not change it, and rows that were drawn before stay as they are.
    """
    for row in rows:
        key = zlib.crc32(f"{row.sha256} {row.image} {row.teacher} {row.seed}".encode())
        rng = np.random.default_rng((seed, key))
        hypothesis = draw_hypothesis(row.label, rng)
        if row.hypothesis is None and hypothesis is not None:
            asked = prompts[hypothesis]
            question = asked[int(rng.integers(len(asked)))]
            row = row.model_copy(update={"hypothesis": hypothesis, "question": question})
        yield row


class Exported(Record):
    """left_out: why -> rows."""

    written: int
    left_out: dict[str, int]


def unfit(row: VqaRow, variant: Variant) -> str:
    """Why a row cannot be exported in a variant; '' where it can: it must state the truth and hold the texts."""
    if row.result is None or row.probability is None or row.stated_type is None:
        return "not parsed"
    if row.result is not row.label or row.stated_type is not row.forgery_type:
        return "states what is not true"
    missing = [part for part in VARIANTS[variant] if not getattr(row, part)]
    return f"no {missing[0]}" if missing else ""


def answer(row: VqaRow, variant: Variant, formatter: Formatter) -> str:
    """The answer to learn from a row.

    formatter: `ffaa.mllm.answer.format_answer`, which writes description, reasoning and the three lines of the result,
    in this order; variants leave out of the first two. Raises UsageError for a row that is not fit.
    """
    probability, why = row.probability, unfit(row, variant)
    if why or probability is None:
        raise UsageError(f"{row.image}: no {variant} answer can be made of it ({why}); filter the rows first")
    kept = VARIANTS[variant]
    texts = [getattr(row, part) if part in kept else "-" for part in TEXTS]
    lines = formatter(texts[0], texts[1], row.label, probability, row.forgery_type).split("\n")
    return "\n".join([line for line, part in zip(lines, TEXTS) if part in kept] + lines[len(TEXTS) :])


def llava(row: VqaRow, text: str) -> dict[str, Any]:
    """One element of the published JSON."""
    return {
        "id": _identity(row),
        "image": row.image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{row.question}"},
            {"from": "gpt", "value": text},
        ],
    }


def chat(row: VqaRow, text: str) -> dict[str, Any]:
    """One line of chat messages with the image's place in them, as trainers on `datasets` read it."""
    return {
        "id": _identity(row),
        "images": [row.image],
        "messages": [
            {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": row.question}]},
            {"role": "assistant", "content": [{"type": "text", "text": text}]},
        ],
    }


def _identity(row: VqaRow) -> str:
    """Names a row by its photo and its text, so that a row keeps its name whatever stands around it."""
    return f"{row.sha256[:16]}-{zlib.crc32(f'{row.image} {row.question} {row.raw}'.encode()):08x}"


def export(
    rows: Iterable[VqaRow], path: Path, kind: Literal["llava", "chat"], variant: Variant, formatter: Formatter
) -> Exported:
    """Write rows as one JSON array (llava) or JSON Lines (chat); the file appears, whole, at the end. The same rows
    give the same bytes. Rows that `unfit` objects to are left out and counted."""
    left_out, written = Counter[str](), 0
    part = path.with_suffix(path.suffix + ".part")
    make, before = (llava, ("[\n", ",\n")) if kind == "llava" else (chat, ("", ""))
    with part.open("w", encoding="utf-8") as file:
        for row in rows:
            if why := unfit(row, variant):
                left_out[why] += 1
                continue
            file.write(before[min(written, 1)])
            made = make(row, answer(row, variant, formatter))
            file.write(json.dumps(made, ensure_ascii=False) + ("" if kind == "llava" else "\n"))
            written += 1
        if kind == "llava":
            file.write("\n]\n" if written else "[]\n")
    part.replace(path)
    return Exported(written=written, left_out=dict(left_out.most_common()))
