"""Constrained decoding of the five-line answer, for any Hugging Face tokenizer that can write a newline.

The fixed text (keys and allowed values) is a trie over the token ids the tokenizer itself uses for it, so a trained
model keeps the tokenisation it learnt and most steps are forced; between the keys any printable text may stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffaa.errors import UsageError
from ffaa.mllm.answer import KEYS, TEXT_SECTIONS
from ffaa.types import ForgeryType, Label


@dataclass(eq=False)
class _Node:
    """A place in the answer. `following`: token id -> next node. A free node also allows its `text` tokens."""

    following: dict[int, _Node] = field(default_factory=dict)
    free: bool = False
    crossing: dict[int, _Node] = field(default_factory=dict)  # tokens such as '.\n' that end free text and begin a key


class _Row(NamedTuple):
    node: _Node
    used: int = 0  # tokens of free text so far
    solid: bool = False  # the free text holds more than white space


@dataclass
class ConstraintState:
    """Where each row of the batch stands. Rows are immutable: `select` may repeat, drop or reorder them."""

    rows: list[_Row]

    def select(self, indices: Iterable[int]) -> ConstraintState:
        return ConstraintState([self.rows[index] for index in indices])


class AnswerConstraint:
    """Lets through only tokens after which a strictly parseable answer is still possible.

    tokenizer: slow or fast; needs an EOS token. max_free_tokens: bound of each of the two texts, at least 2.
    texts: which of the two are written, for a model that was tuned on answers without the others (Fig. 3).
    The answer may begin with one space (after 'ASSISTANT:'), as the model likes. Free text is printable, on one line,
    not blank, without special tokens and without tokens that are only a part of a character.
    `max_new_tokens` is the longest possible output, EOS included. Raises UsageError when the tokenizer cannot write
    the fixed text.
    """

    def __init__(self, tokenizer: Any, max_free_tokens: int = 160, texts: Collection[str] = TEXT_SECTIONS) -> None:
        if max_free_tokens < 2:
            raise UsageError(f"max_free_tokens is {max_free_tokens}; it must be at least 2")
        if tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no EOS token; set tokenizer.eos_token")
        self._tokenizer = tokenizer
        self.max_free_tokens = max_free_tokens
        self._keys = [KEYS[name] for name in TEXT_SECTIONS if name in texts]
        self.eos_token_id = int(tokenizer.eos_token_id)
        self._texts = _token_texts(tokenizer)
        self._ids = {text: index for index, text in reversed(list(enumerate(self._texts))) if text}
        self._masks: dict[tuple[_Node | frozenset[int], str], Tensor] = {}

        self._done = _Node()
        self._done.following = {self.eos_token_id: self._done}
        self._start = self._build()
        self._texts_first, self._texts_solid, self._texts_any = (
            torch.tensor([test(text) for text in self._texts])
            for test in (
                lambda text: _free(text) and text[0] == " ",
                lambda text: _free(text) and bool(text.strip()),
                _free,
            )
        )
        if not self._texts_first.any() or not self._texts_solid.any():
            raise UsageError("the tokenizer has no token that begins with a space; the five-line answer needs one")
        self.max_new_tokens = _longest(self._start, {}) + len(self._keys) * max_free_tokens

    def start(self, n_rows: int) -> ConstraintState:
        """All rows before their first generated token."""
        return ConstraintState([_Row(self._start)] * n_rows)

    def mask(self, state: ConstraintState, vocab_size: int | None = None) -> Tensor:
        """bool (rows, vocab_size), True = allowed. vocab_size: of the model's head, at least the tokenizer's own."""
        size = len(self._texts) if vocab_size is None else vocab_size
        if size < len(self._texts):
            raise UsageError(f"the model has {size} logits, its tokenizer {len(self._texts)} tokens; they do not match")
        mask = torch.zeros(len(state.rows), size, dtype=torch.bool)
        for index, row in enumerate(state.rows):
            mask[index, : len(self._texts)] = self._row_mask(row)
        return mask

    def apply(self, state: ConstraintState, logits: Tensor) -> Tensor:
        """logits (rows, vocab) with -inf for every disallowed token; a new tensor."""
        return logits.masked_fill(~self.mask(state, logits.shape[-1]).to(logits.device), -torch.inf)

    def advance(self, state: ConstraintState, tokens: Sequence[int] | Tensor) -> None:
        """Move every row on by its chosen token, in place. A finished row takes any token (padding).

        Raises ValueError for a token that was not allowed."""
        chosen = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        state.rows[:] = [self._next(row, token) for row, token in zip(state.rows, chosen, strict=True)]

    def forced(self, state: ConstraintState) -> list[int | None]:
        """Per row the only allowed token, or None where there is a choice. EOS for a finished row."""
        return [
            next(iter(row.node.following))
            if len(row.node.following) == 1 and (not row.node.free or row.used >= self.max_free_tokens)
            else None
            for row in state.rows
        ]

    def done(self, state: ConstraintState) -> list[bool]:
        """Per row: EOS has been chosen."""
        return [row.node is self._done for row in state.rows]

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text of generated tokens, without special ones."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    def _next(self, row: _Row, token: int) -> _Row:
        if row.node is self._done:
            return row
        if not 0 <= token < len(self._texts) or not self._row_mask(row)[token]:
            raise ValueError(f"token {token} was not allowed here; choose from the masked logits")
        if not row.node.free:
            return _Row(row.node.following[token])
        ending = row.node.following.get(token) or row.node.crossing.get(token)
        # Inside free text a newline can only be the one that ends it, so `ending` is never ambiguous.
        return _Row(ending) if ending else _Row(row.node, row.used + 1, row.solid or bool(self._texts[token].strip()))

    def _row_mask(self, row: _Row) -> Tensor:
        kind = "fixed"
        if row.node.free:
            full = row.used >= self.max_free_tokens
            kind = "full" if full else "open" if row.solid else "blank" if row.used else "first"
        # Most fixed places allow one token; places that allow the same tokens share a mask.
        key = (row.node if row.node.free else frozenset(row.node.following), kind)
        if key not in self._masks:
            if kind in ("first", "blank"):
                mask = (self._texts_first if kind == "first" else self._texts_solid).clone()
            else:
                mask = self._texts_any.clone() if kind == "open" else torch.zeros(len(self._texts), dtype=torch.bool)
                mask[list(row.node.following)] = True
                if kind == "open" and row.node.crossing:
                    mask[list(row.node.crossing)] = True
            self._masks[key] = mask
        return self._masks[key]

    def _build(self) -> _Node:
        """The whole answer, from its end to its beginning."""
        following = [
            f"{KEYS['result']} {label.value}\n{KEYS['probability']} {hundredths / 100:.2f}"
            f"\n{KEYS['forgery_type']} {kind.value}"
            for label in Label
            for hundredths in range(101)
            for kind in ForgeryType
            if (kind is ForgeryType.REAL) == (label is Label.REAL)
        ]
        target, end = self._done, [self.eos_token_id]
        for key in reversed(self._keys):
            target, end = self._free_node([f"\n{text}" for text in following], target, end), []
            following = [key]
        start = _Node()
        for text in following:
            for lead in ("", " "):
                self._add(start, self._encode(lead + text, before=":") + end, target)
        return start

    def _free_node(self, fixed: list[str], target: _Node, end: list[int]) -> _Node:
        """Free text, then one of the `fixed` texts (each begins with a newline), then the tokens `end`."""
        node, after_newline = _Node(free=True), _Node()
        for text in fixed:
            self._add(node, self._encode(text, before="x") + end, target)
            self._add(after_newline, self._encode(text[1:], before="x\n") + end, target)
        for index, text in enumerate(self._texts):
            if text.endswith("\n") and _free(text[:-1]) and text[:-1].strip():
                node.crossing[index] = after_newline
        return node

    def _add(self, node: _Node, tokens: list[int], target: _Node) -> None:
        for token in tokens[:-1]:
            node = node.following.setdefault(token, _Node())
        node.following[tokens[-1]] = target

    def _encode(self, text: str, before: str) -> list[int]:
        """Token ids whose texts join to exactly `text`: as the tokenizer writes it after `before`, else the fewest."""
        ids = self._tokenizer.encode(before + text, add_special_tokens=False)
        for start in range(len(ids)):
            if "".join(self._texts[index] for index in ids[start:]) == text:
                return ids[start:]
        best: list[list[int] | None] = [[]] + [None] * len(text)
        for stop in range(1, len(text) + 1):
            for start in range(stop):
                index, head = self._ids.get(text[start:stop]), best[start]
                if index is not None and head is not None and len(head) + 1 < len(best[stop] or range(len(text) + 1)):
                    best[stop] = [*head, index]
        found = best[-1]
        if found is None:
            raise UsageError(f"the tokenizer cannot write {text[:40]!r} (newlines, case); use another language model")
        return found


def _free(text: str) -> bool:
    """May stand in free text: printable (no newline, no control character) and no part of a character."""
    return bool(text) and text.isprintable() and "\ufffd" not in text


def _token_texts(tokenizer: Any) -> list[str]:
    """What each token id adds to a decoded text; '' for special and unknown ids."""
    vocabulary = tokenizer.get_vocab()
    banned = {*tokenizer.all_special_ids, *(i for i, added in tokenizer.added_tokens_decoder.items() if added.special)}
    # Decoded after a letter, since sentencepiece decoders drop a leading space.
    anchor = next(index for index in reversed(tokenizer.encode("a", add_special_tokens=False)) if index not in banned)
    before = tokenizer.decode([anchor], clean_up_tokenization_spaces=False)
    texts = [""] * (max(vocabulary.values()) + 1)
    known = [index for index in sorted(vocabulary.values()) if index not in banned]
    decoded = tokenizer.batch_decode([[anchor, index] for index in known], clean_up_tokenization_spaces=False)
    for index, text in zip(known, decoded, strict=True):
        if text.startswith(before):
            texts[index] = text[len(before) :]
    return texts


def _longest(node: _Node, known: dict[_Node, int]) -> int:
    """Number of fixed tokens (crossing ones included) on the longest way to the end. `known` remembers."""
    if node not in known:
        ways = {*node.following.values(), *node.crossing.values()} - {node}
        known[node] = max((1 + _longest(following, known) for following in ways), default=0)
    return known[node]
