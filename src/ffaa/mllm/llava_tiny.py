"""Tiny random checkpoints in the published LLaVA layout, for trying out what tunes and loads the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

Kind = Literal["llava_mistral", "llava_llama"]
WIDTH, SIDE, PATCH = 48, 56, 14


def write_tiny(folder: Path, kind: Kind, seed: int = 0) -> Path:
    """Write a checkpoint with random weights into `folder`; returns it.

    llava_mistral: grouped-query attention, as LLaVA-v1.6-Mistral. llava_llama: one key per query head, as the Phi-3
    mini that is published as a Llama. 56 px images, 16 image tokens, a tokenizer of bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2 if kind == "llava_mistral" else 4,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    body = (
        MistralForCausalLM(MistralConfig(**sizes, sliding_window=None))
        if kind == "llava_mistral"
        else LlamaForCausalLM(LlamaConfig(**sizes))
    )
    vision: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": PATCH, "projection_dim": 16,
    }  # fmt: skip
    clip = CLIPVisionModel(CLIPVisionConfig(**vision))
    state = {name: value.clone() for name, value in body.state_dict().items()}
    for name, value in clip.state_dict().items():
        inner = name.removeprefix("vision_model.")
        state[f"model.vision_tower.vision_tower.vision_model.{inner}"] = value.clone()
    for layer, width in (("0", vision["hidden_size"]), ("2", WIDTH)):
        state[f"model.mm_projector.{layer}.weight"] = torch.randn(WIDTH, width) * width**-0.5
        state[f"model.mm_projector.{layer}.bias"] = torch.zeros(WIDTH)
    state["model.image_newline"] = torch.zeros(WIDTH)
    save_file(state, folder / "model.safetensors")
    config = {
        **sizes, "model_type": kind, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "mm_vision_tower": "clip", "sliding_window": None,
        "image_aspect_ratio": "anyres",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "clip").mkdir(exist_ok=True)
    (folder / "clip" / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
