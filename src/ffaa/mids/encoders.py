"""The two encoders of a MIDS from their parts or folders, and a fresh MIDS on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPVisionModel, T5EncoderModel

from ffaa import weights
from ffaa.errors import WeightsError
from ffaa.mids.eyes import Eyes
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mids.tokens import AnswerTokens
from ffaa.mids.train import MidsArgs


class Encoder(NamedTuple):
    """model: in eval mode. about: its name and the sha256 of its weights."""

    model: nn.Module
    folder: Path
    about: str

    @property
    def width(self) -> int:
        config: Any = self.model.config
        return int(config.hidden_size)


def _folder(name: str) -> Path:
    folder = Path(name)
    return folder if (folder / "config.json").is_file() else weights.part_folder(name)


def _about(name: str, folder: Path) -> str:
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not files:
        raise WeightsError(f"{folder} holds no weights (*.safetensors, pytorch_model*.bin); fetch it again")
    return " ".join([name, *(weights.sha256(file) for file in files)])


def text_encoder(name: str) -> Encoder:
    """A part (see `ffaa weights`) or a folder: the encoder of a T5, or another encoder such as MiniLM."""
    folder = _folder(name)
    about = _about(name, folder)
    if AutoConfig.from_pretrained(folder).model_type == "t5":
        return Encoder(T5EncoderModel.from_pretrained(folder).eval(), folder, about)
    return Encoder(AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(), folder, about)


def clip_encoder(name: str) -> Encoder:
    """The vision model of a CLIP, from a part or a folder."""
    folder = _folder(name)
    return Encoder(CLIPVisionModel.from_pretrained(folder).eval(), folder, _about(name, folder))


def fresh(args: MidsArgs, text: Encoder, image: Encoder, max_tokens: int, seed: int) -> tuple[MIDS, AnswerTokens]:
    """A MIDS with seeded random weights on its two encoders, on the GPU where there is one, and what it reads."""
    torch.manual_seed(seed)
    config = MIDSConfig(
        dim=text.width, image_dim=image.width, num_self_attention=args.self_attention, unfreeze=args.unfreeze,
        masked=args.masked, own_towers=image.model.own_towers if isinstance(image.model, Eyes) else [],
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mids = MIDS(text.model, image.model, config).to(device)
    return mids, AnswerTokens(AutoTokenizer.from_pretrained(text.folder), max_tokens, args.masked)
