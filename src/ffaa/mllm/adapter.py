"""A tuned LLaVA on disk: LoRA adapter and projector as safetensors, and a card that names their base.

`adapter_config.json` and `adapter_model.safetensors` are peft's own, for the language model; `projector.safetensors` is
the whole projector. `adapter.json` is the card (`AdapterCard`). Loading is strict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from ffaa import weights
from ffaa.errors import WeightsError
from ffaa.mllm.llava_import import import_llava
from ffaa.types import Record

CARD = "adapter.json"
ADAPTER, PROJECTOR, LORA = "adapter_model.safetensors", "projector.safetensors", "adapter_config.json"
_LAYER = "base_model.model."  # what peft puts before a layer's name
_BODY, _PROJECTOR = "model.language_model.", "model.multi_modal_projector."


class AdapterCard(Record):
    """What an adapter belongs to and where it comes from."""

    format: Literal["1"] = "1"
    name: str
    template: str = Field(description="name in ffaa.mllm.template.TEMPLATES")
    base: str = Field(description="as the recipe names it")
    base_files: dict[str, weights.Sha256] = Field(description="weight files of the base -> sha256")
    recipe: dict[str, Any] = Field(description="all settings")
    seed: int
    data: dict[str, Any] = Field(description="files with their sha256, and how many conversations were used for what")
    versions: dict[str, str]
    command: str
    processes: int = Field(ge=1)
    steps: int = Field(description="of the weights that were kept: those with the lowest evaluation loss")
    eval_loss: float
    files: dict[str, weights.Sha256] = Field(description="the files beside the card -> sha256")


def weight_files(base: Path) -> dict[str, str]:
    """The weight files of a checkpoint folder -> sha256."""
    found = sorted([*base.glob("*.safetensors"), *base.glob("pytorch_model*.bin")])
    return {file.name: weights.sha256(file) for file in found}


def save_adapter(folder: Path, model: LlavaForConditionalGeneration, trained: Mapping[str, Tensor]) -> dict[str, str]:
    """Write adapter and projector of a model with LoRA; returns file -> sha256.

    trained: the values, under the names they have in `model` (a sharded model's own are only parts).
    """
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    body: Any = model.model.language_model
    plain = {name: value.detach().cpu().float().contiguous() for name, value in trained.items()}
    lora = {name.removeprefix(_BODY): value for name, value in plain.items() if name.startswith(_BODY)}
    projector = {name.removeprefix(_PROJECTOR): v for name, v in plain.items() if name.startswith(_PROJECTOR)}
    adapter = dict(get_peft_model_state_dict(body, state_dict=lora))
    # Names alone: what a process holds of a sharded model has other shapes.
    _insist_same(folder / ADAPTER, adapter, get_peft_model_state_dict(body), False)
    _insist_same(folder / PROJECTOR, projector, model.model.multi_modal_projector.state_dict(), False)
    save_file(adapter, folder / ADAPTER)
    save_file(projector, folder / PROJECTOR)
    body.peft_config["default"].save_pretrained(str(folder))
    return {name: weights.sha256(folder / name) for name in (ADAPTER, PROJECTOR, LORA)}


def read_card(folder: Path) -> AdapterCard:
    """The card of an adapter. Raises WeightsError where there is none or it is not valid, or a file differs from it."""
    try:
        card = AdapterCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        raise WeightsError(f"{folder} holds no {CARD}; give the folder that `ffaa train mllm` wrote") from error
    except ValidationError as error:
        raise WeightsError(f"{folder / CARD} is no valid card ({error.error_count()} errors); train again") from error
    weights.insist(weights.verify_files(folder, card.files), "copy or train it again")
    return card


def attach_adapter(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Put an adapter's projector and, merged, its LoRA into its base; needs no peft.

    Raises WeightsError for a damaged folder, and with the keys that do not fit.
    """
    read_card(folder)
    config = json.loads((folder / LORA).read_text("utf-8"))
    scale = config["lora_alpha"] / config["r"]
    body = model.model.language_model
    lora, projector = load_file(folder / ADAPTER), load_file(folder / PROJECTOR)
    layers = {name: layer for name, layer in body.named_modules() if isinstance(layer, nn.Linear)}
    wanted: dict[str, Tensor] = {}
    for name, layer in layers.items():
        wanted[f"{_LAYER}{name}.lora_A.weight"] = torch.empty(config["r"], layer.in_features, device="meta")
        wanted[f"{_LAYER}{name}.lora_B.weight"] = torch.empty(layer.out_features, config["r"], device="meta")
    _insist_same(folder / ADAPTER, lora, wanted)
    _insist_same(folder / PROJECTOR, projector, model.model.multi_modal_projector.state_dict())
    for name, layer in layers.items():
        down, up = (lora[f"{_LAYER}{name}.lora_{part}.weight"] for part in "AB")
        layer.weight.data += (scale * up @ down).to(layer.weight.dtype)
    model.model.multi_modal_projector.load_state_dict(projector)


def load_tuned(
    folder: Path, base: Path, clip_folder: Path | None = None, dtype: torch.dtype = torch.float32
) -> LlavaForConditionalGeneration:
    """The base with the adapter merged into it, in eval mode.

    Raises WeightsError where the base's weight files are not those that the adapter was trained on.
    """
    card, found = read_card(folder), weight_files(base)
    if found != card.base_files:
        differ = sorted(name for name in {*found, *card.base_files} if found.get(name) != card.base_files.get(name))
        raise WeightsError(
            f"{base} is not the base of {folder} ({card.base}): {', '.join(differ)} differ; give the base it names"
        )
    model = import_llava(base, clip_folder, dtype, image_aspect_ratio="pad")
    attach_adapter(model, folder)
    return model.eval()


def _insist_same(
    file: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], with_shapes: bool = True
) -> None:
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    both = sorted(found.keys() & wanted.keys())
    other = [key for key in both if with_shapes and found[key].shape != wanted[key].shape]
    if missing or unexpected or other:
        raise WeightsError(
            f"{file} does not fit its base; missing: {', '.join(missing) or 'none'}; unexpected: "
            f"{', '.join(unexpected) or 'none'}; of another shape: {', '.join(other) or 'none'}"
        )
