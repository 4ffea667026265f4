"""How alike two texts are: ROUGE-L (Lin 2004), and the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from transformers import AutoTokenizer

from ffaa.mids.encoders import text_encoder
from ffaa.stages import TEXT_PART
from ffaa.types import Record
from ffaa.vqa.words import words

Alike = Callable[[str, str], float]
MAX_TOKENS = 256  # what MiniLM-L6 was made for


class Likeness(Record):
    """Of a text to what people wrote about the same photo, the most alike of them; control: to what they wrote about
    another photo; people: of one person to the others, the mean, None where only one wrote."""

    found: float
    control: float
    people: float | None


def rouge_l(a: str, b: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]."""
    one, two = words(a), words(b)
    before = [0] * (len(two) + 1)
    for word in one:
        row = [0]
        for place, other in enumerate(two):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
        before = row
    return 2 * before[-1] / (len(one) + len(two)) if one or two else 0.0


class Embedded:
    """Cosine of sentence embeddings: mean of the last layer's tokens, as all-MiniLM-L6-v2 was trained. In [-1, 1].

    Raises WeightsError where the part is not installed.
    """

    def __init__(self, part: str = TEXT_PART):
        found = text_encoder(part)
        self._model: Any = found.model
        self._tokenizer: Any = AutoTokenizer.from_pretrained(found.folder)
        self.about = found.about
        self._vector = cache(self._encode)

    def __call__(self, a: str, b: str) -> float:
        return float(torch.dot(self._vector(a), self._vector(b)))

    @torch.inference_mode()
    def _encode(self, text: str) -> torch.Tensor:
        given = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
        hidden = self._model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        return torch.nn.functional.normalize(hidden[0].mean(0), dim=0)


def likeness(text: str, references: Sequence[str], others: Sequence[str], alike: Alike) -> Likeness:
    """references: what people wrote about the photo, others: about another one; at least one each."""
    rest = [(one, [*references[:i], *references[i + 1 :]]) for i, one in enumerate(references)]
    among = [max(alike(one, other) for other in of) for one, of in rest if of]
    return Likeness(
        found=max(alike(text, one) for one in references),
        control=max(alike(text, one) for one in others),
        people=sum(among) / len(among) if among else None,
    )
