"""The models behind the assistant: MLLM, MIDS and their encoders, loaded from a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5EncoderModel,
)
from transformers.utils import logging

from ffaa import weights
from ffaa.mids import checkpoint
from ffaa.mids.detail import correct_logits, fine_detail
from ffaa.mids.eyes import Eyes, tower_logits
from ffaa.mids.model import MIDS
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.adapter import attach_adapter
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import Mllm
from ffaa.mllm.llava_import import import_llava, prepare_pixels
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.tower import ForensicVisionModel, pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads, load_heads
from ffaa.types import Answer, UnparsedAnswer
from ffaa.weights import DetailCorrection

FREE_TOKENS = 192


class Encoded(NamedTuple):
    """features: (1, tokens, width) for the language model; layers: MIDS's (last, previous), (1, 1 + P, C) each;
    words: the tower's own opinion for a template that reads it (see `ffaa.vqa.trace`)."""

    features: Tensor
    layers: tuple[Tensor, Tensor]
    words: dict[str, str]


@dataclass
class Engine:
    """Everything that runs on a face image. `shared`: MLLM and MIDS use one trunk, which runs once per face
    unless MIDS trained blocks of its own copy. own_heads: on the trunks that MIDS has beside it. detail: what
    becomes of MIDS's opinion of a face without fine detail."""

    name: str
    mllm: Mllm
    mids: MIDS
    tokens: AnswerTokens
    image_size: int
    shared: bool
    temperature: float
    device: torch.device
    hashes: dict[str, str]
    heads: TowerHeads | None = None
    own_heads: list[TowerHeads] = field(default_factory=list)
    detail: DetailCorrection | None = None
    cautions: list[str] = field(default_factory=list)

    def pixels(self, image: np.ndarray) -> Tensor:
        """uint8 RGB (S, S, 3) -> the encoders' input (1, 3, S, S) on the device."""
        pixels = pixel_tensor([image]) if self.shared else prepare_pixels(image, self.image_size)
        return pixels.to(self.device)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Encoded:
        """Both models' view of one face image."""
        pixels = self.pixels(image)
        layers = self.mids.encode_image(pixels)
        if self.shared:
            previous, last = self._of_the_shared(pixels, layers)
            words = {} if self.heads is None else self.heads.words((previous.cpu(), last.cpu()))
            return Encoded(self.mllm.project(last), layers, words)
        dtype = self.mllm.model.dtype
        return Encoded(self.mllm.image_features(pixels.to(dtype)), layers, {})

    def _of_the_shared(self, pixels: Tensor, layers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden (previous, last) of the trunk that the language model sees through."""
        if self.mids.config.unfreeze:
            hidden: tuple[Tensor, Tensor] = self.mllm.model.model.vision_tower(pixels).hidden_states
            return hidden
        eyes = self.mids.image_encoder
        return eyes.apart(layers[::-1])[0] if isinstance(eyes, Eyes) else layers[::-1]

    @torch.inference_mode()
    def towers_score(self, layers: tuple[Tensor, Tensor]) -> float | None:
        """What the linear heads of all towers that MIDS looks through say of `Encoded.layers`: a forgery score in
        [0, 1]; None where it has one tower alone."""
        if self.heads is None or not isinstance(self.mids.image_encoder, Eyes):
            return None
        return float(self._tower_logits(layers).mean().sigmoid())

    def _tower_logits(self, layers: tuple[Tensor, Tensor]) -> Tensor:
        """(T,) of the towers' linear heads, the shared one first, on the CPU."""
        heads = [h for h in (self.heads, *self.own_heads) if h is not None]
        return tower_logits(self.mids.image_encoder, (layers[1].cpu(), layers[0].cpu()), heads)[:, 0]

    def lacks_detail(self, image: np.ndarray) -> bool:
        """Whether MIDS's opinion of a face image is corrected for what fine detail it lacks."""
        return self.detail is not None and fine_detail(image) < self.detail.below

    @torch.inference_mode()
    def probabilities(
        self, answers: Sequence[Answer | UnparsedAnswer], layers: tuple[Tensor, Tensor], image: np.ndarray
    ) -> list[list[float]]:
        """MIDS softmax (3, 4) of three answers to one face image, tempered with the temperature fitted on validation
        and corrected for what fine detail the image lacks."""
        ids, mask = (t.to(self.device) for t in self.tokens(answers))
        logits = self.mids.classify(self.mids.encode_text(ids, mask), mask, self.mids.project(layers))
        logits = logits.cpu().double() / self.temperature
        if self.detail is not None:
            towers = self.detail.towers
            told = float(self._tower_logits(layers)[towers].mean()) if towers else 0.0
            logits = correct_logits(self.detail, logits, fine_detail(image), told)
        return logits.softmax(-1).tolist()


def load_engine(name: str | Path, device: torch.device) -> Engine:
    """Load a registered model or a model folder; every file's sha256 is checked, every key must fit."""
    folder = weights.load_folder(name)
    # Its progress bars and remarks about layouts would stand between a user's verdicts.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config = folder.config
    text_folder = folder.text_encoder()
    if config.layout == "published":
        # bfloat16 halves the 7B model; a CPU without it would only be slower
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        clip = folder.clip()
        aspect = None if folder.adapter is None else "pad"  # what it was tuned with, whatever its base says
        model = import_llava(folder.mllm, clip_folder=clip, dtype=dtype, image_aspect_ratio=aspect)
        if folder.adapter is not None:
            attach_adapter(model, folder.adapter)
        text: Any = T5EncoderModel.from_pretrained(text_folder)
        mids = checkpoint.load_published(folder.mids, text, CLIPVisionModel.from_pretrained(clip or folder.mllm))
        tokenizer = AutoTokenizer.from_pretrained(folder.mllm)
    else:
        model = LlavaForConditionalGeneration.from_pretrained(folder.mllm, dtype=torch.float32)
        text = AutoModel.from_pretrained(text_folder, add_pooling_layer=False).eval()
        mids = checkpoint.load(folder.mids, text, model.model.vision_tower)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder.mllm)
    constraint = AnswerConstraint(tokenizer, FREE_TOKENS) if config.constrained else None
    return Engine(
        name=config.name,
        mllm=Mllm(model.eval().to(device), tokenizer, TEMPLATES[config.template], constraint),
        mids=mids.to(device),
        tokens=AnswerTokens(AutoTokenizer.from_pretrained(text_folder), config.text_max_tokens, mids.config.masked),
        image_size=config.image_size,
        shared=isinstance(model.model.vision_tower, ForensicVisionModel),
        temperature=config.temperature,
        device=device,
        hashes={
            **config.files,
            "model.json:settings": config.settings_hash,
            f"part:{config.text_encoder.part}": weights.sha256(text_folder / "model.safetensors"),
        },
        heads=None if folder.heads is None else load_heads(folder.heads),
        own_heads=[load_heads(file) for file in folder.own_heads],
        detail=config.detail,
    )
