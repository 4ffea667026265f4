"""Weight files of MIDS: our own (safetensors, with a card) and the published `mids.pth`. Both hold the trainable part
alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ffaa import weights
from ffaa.errors import WeightsError
from ffaa.files import write_tensors
from ffaa.mids.eyes import Eyes
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
from ffaa.types import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFIX = "module."


class MidsCard(Record):
    """Where the weights of a MIDS come from."""

    format: Literal["1"] = "1"
    file: str
    sha256: weights.Sha256 = Field(description="of the weight file")
    config: MIDSConfig
    settings: dict[str, Any] = Field(description="`MidsArgs`")
    seed: int
    encoders: dict[str, str] = Field(description="text, image: which, with the sha256 of their weights")
    data: dict[str, str] = Field(description="file -> sha256")
    versions: dict[str, str]
    command: str
    figures: dict[str, Any] = Field(description="what `train_mids` returned")


def save_card(path: Path, mids: MIDS, **about: Any) -> MidsCard:
    """Write the card of the weight file at `path`, beside it with the ending .card.json. about: the card's fields from
    `settings` on."""
    card = MidsCard(file=path.name, sha256=weights.sha256(path), config=mids.config, **about)
    path.with_suffix(".card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return card


def save(mids: MIDS, path: str | Path) -> None:
    """Write the trainable part and the config as one safetensors file."""
    state = {name: value.detach().cpu().clone().contiguous() for name, value in mids.trainable_state().items()}
    write_tensors(Path(path), state, {"config": mids.config.model_dump_json()})


def load(path: str | Path, text_encoder: nn.Module, image_encoder: nn.Module) -> MIDS:
    """A file written by `save` -> MIDS in eval mode, on the CPU; the encoders must be those it was trained with.

    An image encoder of which the file brings trained blocks is copied: others may use the one that is given. To a MIDS
    with towers of its own, the one that is given is the shared one.
    Raises WeightsError when the file cannot be read, or has missing, unexpected or misshapen keys.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("config", "")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config = MIDSConfig.model_validate_json(text)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    except ValidationError as error:
        raise WeightsError(f"{path} carries no valid MIDS config; write it with ffaa.mids.checkpoint.save") from error
    if config.own_towers:
        if not isinstance(image_encoder, ForensicVisionModel):
            raise WeightsError(f"{path} has towers beside nano's, and the model is no nano")
        size, width = image_encoder.config.image_size, image_encoder.config.hidden_size
        own = (ForensicVisionModel(ForensicVisionConfig(size, width, lite)) for lite in config.own_towers)
        image_encoder = Eyes(image_encoder, own)
    mids = MIDS(text_encoder, copy.deepcopy(image_encoder) if config.unfreeze else image_encoder, config)
    mids.load_trainable_state(state)
    return mids.eval()


def load_published(
    path_or_state: str | Path | Mapping[str, Tensor],
    text_encoder: PreTrainedModel,
    image_encoder: PreTrainedModel,
    num_heads: int = 8,
) -> MIDS:
    """The published `mids.pth` (or its state dict) with its T5 encoder and CLIP vision model -> MIDS in eval mode.

    The file holds the trainable keys, each prefixed `module.`: the last two blocks of CLIP, the projectors, the
    fusion and the classifier. The frozen rest is taken from the encoders given; sizes from their `config`.
    The published fusion attends to padded text tokens, so here they count too: pad as the published code does, or
    the scores differ. Raises WeightsError when the file cannot be read, or has missing, unexpected or misshapen keys.
    """
    state = _read(path_or_state) if isinstance(path_or_state, (str, Path)) else path_or_state
    if all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    config = MIDSConfig(
        dim=text_encoder.config.hidden_size,
        image_dim=image_encoder.config.hidden_size,
        num_heads=num_heads,
        mask_padding=False,
    )
    mids = MIDS(text_encoder, image_encoder, config)
    mids.load_trainable_state(state)
    return mids.eval()


def _read(path: str | Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} is not a readable PyTorch state dict ({error}); fetch it again") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} does not hold a plain state dict; use the released mids.pth")
    return state
