"""The text that MIDS reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ffaa.mllm.answer import masked_text
from ffaa.types import Answer, UnparsedAnswer


class AnswerTokens:
    """Tokenises the part of an answer that MIDS reads: description and reasoning, the result masked."""

    def __init__(self, tokenizer: Any, max_tokens: int):
        self.tokenizer, self.max_tokens = tokenizer, max_tokens

    def __call__(self, answers: Sequence[Answer | UnparsedAnswer]) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask), each (N, T); an unparsed answer is empty text."""
        texts = [masked_text(a) if isinstance(a, Answer) else "" for a in answers]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return encoded.input_ids, encoded.attention_mask
