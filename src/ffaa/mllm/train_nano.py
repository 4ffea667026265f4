"""Training of a nano's MLLM from its first step: tokenizer, body and projector, in one phase or two."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ffaa.mllm import nano
from ffaa.mllm.answer import format_answer
from ffaa.mllm.template import ChatTemplate
from ffaa.mllm.tower import ForensicVisionModel
from ffaa.mllm.train import ConversationData, MllmArgs, train_mllm
from ffaa.vqa.conversation import Conversation
from ffaa.vqa.hypothesis import hypothesis_rows

log = logging.getLogger(__name__)
STEPS = ("mllm-steps", "mllm-steps-2")  # where the phases keep their checkpoints
PROMPTS = 2000  # that the tokenizer learns from, beside all answers


class Told(NamedTuple):
    """Conversations, the tower's features of images, (N, layers, tokens, C), and the row of each conversation's."""

    conversations: Sequence[Conversation]
    features: np.ndarray
    rows: Sequence[int]


def train_nano(
    told: Told,
    evaluation: Told,
    tower: ForensicVisionModel,
    body: nano.BodyArgs,
    args: MllmArgs,
    hypothesis_phase: MllmArgs | None,
    template: ChatTemplate,
    texts: Collection[str],
    folder: Path,
    seed: int,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast, dict[str, Any]]:
    """(MLLM, tokenizer, the Trainer's figures); a killed training goes on from its checkpoints in `folder`.

    hypothesis_phase: settings of the second phase, on `hypothesis_rows`. texts: which texts the answers hold.
    """
    answers = [" " + format_answer(c.description, c.reasoning, c.label, c.probability, c.forgery_type, texts)
               for c in told.conversations]  # fmt: skip
    prompts = [template.prompt(c.question) for c in told.conversations[:PROMPTS]]
    tokenizer = nano.train_tokenizer([*answers, *prompts], body.vocab_size)
    torch.manual_seed(seed)
    model = nano.build(body, tokenizer, tower)
    log.info("MLLM: %d conversations, %.1f M parameters", len(answers), model.num_parameters() / 1e6)

    def data(part: Told) -> ConversationData:
        return ConversationData(part.conversations, part.features, part.rows, tokenizer, template, texts)

    phases = [(args, told)]
    if hypothesis_phase:
        asked = hypothesis_rows([c.hypothesis for c in told.conversations], seed)
        few = Told([told.conversations[i] for i in asked], told.features, [told.rows[i] for i in asked])
        phases.append((hypothesis_phase, few))
    judged = data(evaluation)
    first, *second = [
        train_mllm(settings, model, tokenizer, data(part), judged, folder / steps, seed)
        for (settings, part), steps in zip(phases, STEPS[: len(phases)], strict=True)
    ]
    return model, tokenizer, first | ({"hypothesis_phase": second[0]} if second else {})
