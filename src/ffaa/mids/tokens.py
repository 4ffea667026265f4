"""The text that MIDS reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ffaa.mllm.answer import KEYS, masked_text
from ffaa.types import Answer, UnparsedAnswer


def whole_text(answer: Answer) -> str:
    """All five lines, for the MIDS that sees what the answer concludes (Table 3, rows 1 and 2)."""
    read = {
        "result": answer.result.value,
        "probability": "unknown" if answer.probability is None else f"{answer.probability:.2f}",
        "forgery_type": answer.forgery_type.value if answer.forgery_type else "unknown",
    }
    return "\n".join([masked_text(answer), *(f"{KEYS[name]} {value}" for name, value in read.items())])


class AnswerTokens:
    """Tokenises what MIDS reads of an answer: description and reasoning; with `masked` False all five lines."""

    def __init__(self, tokenizer: Any, max_tokens: int, masked: bool = True):
        self.tokenizer, self.max_tokens, self.masked = tokenizer, max_tokens, masked

    def __call__(self, answers: Sequence[Answer | UnparsedAnswer]) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask), each (N, T); an unparsed answer is empty text."""
        read = masked_text if self.masked else whole_text
        texts = [read(a) if isinstance(a, Answer) else "" for a in answers]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return encoded.input_ids, encoded.attention_mask
