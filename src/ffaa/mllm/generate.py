"""Three answers at the price of one: the hypotheses are always {real, fake}, so all three prompts are known before
the anchor is read. The image is encoded once, the shared prefix prefilled once, and the three decoded as one batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlavaForConditionalGeneration

from ffaa.mllm.answer import parse_answer
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.llava_import import image_features
from ffaa.mllm.template import ANCHOR_PROMPTS, ChatTemplate, hypothesis_prompt
from ffaa.types import Answer, Label, Role, UnparsedAnswer

QUESTIONS = (ANCHOR_PROMPTS[0], hypothesis_prompt(Label.REAL), hypothesis_prompt(Label.FAKE))


@dataclass
class Mllm:
    """A LLaVA model with its tokenizer and template. constraint None: free generation."""

    model: LlavaForConditionalGeneration
    tokenizer: Any
    template: ChatTemplate
    constraint: AnswerConstraint | None = None
    max_new_tokens: int = 512

    @torch.inference_mode()
    def image_features(self, pixel_values: Tensor) -> Tensor:
        """(B, tokens, width) projected image features of (B, 3, S, S)."""
        return image_features(self.model, pixel_values)

    @torch.inference_mode()
    def project(self, hidden: Tensor) -> Tensor:
        """The same from the tower's selected layer (B, tokens, C), when the tower already ran."""
        return self.model.model.multi_modal_projector(hidden)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []

    def _embed(self, ids: list[int], rows: int) -> Tensor:
        embed = self._embedding()
        return embed(torch.tensor([ids], device=embed.weight.device).long()).expand(rows, -1, -1)

    def _embedding(self) -> nn.Embedding:
        embed = self.model.get_input_embeddings()
        assert isinstance(embed, nn.Embedding)
        return embed

    @torch.inference_mode()
    def generate(
        self, features: Tensor, measured: Sequence[dict[str, str]], questions: Sequence[str] = QUESTIONS
    ) -> list[list[str]]:
        """Greedy answers [image][question] to every question about every image.

        features: (B, tokens, width) from `image_features`. measured: per image its measured words (read only by
        templates that use them). The prefix (start, image, measured words) runs once per image; the questions are
        aligned right behind it, and all B * Q rows decode together.
        """
        count, asked = len(features), len(questions)
        splits = [self.template.split(question) for question in questions]
        start = [self.tokenizer.bos_token_id, *self._ids(splits[0][0])]
        words = [self._ids(self.template.measured(m)) for m in measured]
        if len({len(w) for w in words}) > 1:
            raise ValueError("measured words differ in number between images; measure the same quantities on all")
        embed = self._embedding()
        behind = torch.tensor(words, device=features.device).long().reshape(count, -1)
        prefix = torch.cat([self._embed(start, count), features.to(embed.weight.dtype), embed(behind)], 1)
        body = self.model.model.language_model
        cache = DynamicCache(config=body.config)
        length = prefix.shape[1]
        body(inputs_embeds=prefix, **_with(cache, body), use_cache=True)
        cache.batch_repeat_interleave(asked)

        own = [self._ids(after) for _, after in splits]
        longest = max(map(len, own))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (longest - len(o)) + o for o in own], device=features.device).repeat(count, 1)
        kept = torch.tensor([[0] * (longest - len(o)) + [1] * len(o) for o in own], device=features.device)
        mask = torch.cat([torch.ones(asked, length, device=features.device).long(), kept], 1).repeat(count, 1)
        positions = (length + kept.cumsum(1) - 1).clamp(min=length).repeat(count, 1)
        hidden = body(
            input_ids=ids, attention_mask=mask, position_ids=positions, **_with(cache, body), use_cache=True
        ).last_hidden_state[:, -1]
        return self._decode(hidden, mask, positions[:, -1:], cache, count, asked)

    def _decode(
        self, hidden: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache, count: int, asked: int
    ) -> list[list[str]]:
        body = self.model.model.language_model
        rows = count * asked
        eos = self.tokenizer.eos_token_id
        written: list[list[int]] = [[] for _ in range(rows)]
        alive = list(range(rows))
        ended: set[int] = set()
        state = self.constraint.start(rows) if self.constraint else None
        limit = self.constraint.max_new_tokens if self.constraint else self.max_new_tokens
        for _ in range(limit):
            logits = self.model.lm_head(hidden).float()
            if self.constraint and state:
                logits = self.constraint.apply(state, logits)
            tokens = logits.argmax(-1)
            if self.constraint and state:
                self.constraint.advance(state, tokens)
            chosen = tokens.tolist()
            for row, token in zip(alive, chosen, strict=True):
                if token == eos:
                    ended.add(row)
                elif row not in ended:
                    written[row].append(token)
            going = [place for place, row in enumerate(alive) if row not in ended]
            if not going:
                break
            # Finished rows leave the batch once they are many; a row's own result does not depend on the others.
            if len(going) <= 0.7 * len(alive):
                keep = torch.tensor(going, device=tokens.device)
                cache.batch_select_indices(keep)
                tokens, mask, position = tokens[keep], mask[keep], position[keep]
                alive = [alive[place] for place in going]
                state = state.select(going) if state else None
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
            position = position + 1
            hidden = body(
                input_ids=tokens[:, None], attention_mask=mask, position_ids=position, **_with(cache, body),
                use_cache=True,
            ).last_hidden_state[:, -1]  # fmt: skip
        texts = [self.tokenizer.decode(w, skip_special_tokens=True).strip() for w in written]
        return [texts[i * asked : (i + 1) * asked] for i in range(count)]


def _with(cache: DynamicCache, body: nn.Module) -> dict[str, DynamicCache]:
    """The cache under the name that this transformers gives it: 5.40 no longer knows the old one."""
    return {"cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values": cache}


def assign_roles(raws: Sequence[str], questions: Sequence[str] = QUESTIONS) -> list[Answer | UnparsedAnswer]:
    """(anchor, positive, negative) from the raw answers to (anchor, 'real', 'fake') prompts.

    Positive is the one whose hypothesis repeats the anchor's determination. When the anchor cannot be read there is
    nothing to repeat: the 'real' hypothesis is then called positive, and the face is Hard in any case.
    """
    anchor = parse_answer(raws[0], Role.ANCHOR, questions[0])
    stated = anchor.result if isinstance(anchor, Answer) else Label.REAL
    same, other = (1, 2) if stated is Label.REAL else (2, 1)
    return [
        anchor,
        parse_answer(raws[same], Role.POSITIVE, questions[same]),
        parse_answer(raws[other], Role.NEGATIVE, questions[other]),
    ]
