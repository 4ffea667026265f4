"""Importer of checkpoints in the published LLaVA layout into `transformers.LlavaForConditionalGeneration`.

Loading is strict. The published model reads its image at one size, padded to a square; that preprocessing is
`prepare_pixels`. Where a prompt has the placeholder id -200, `embed_prompt` puts the image features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig
from transformers.initialization import no_init_weights

from ffaa.errors import InputError, UsageError, WeightsError

IMAGE_PLACEHOLDER = -200
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Separates image tiles ("anyres"); an image padded to a square has one tile, so it is never read.
IGNORED_KEYS = frozenset({"model.image_newline"})

_BODIES: dict[str, type[LlamaConfig | MistralConfig]] = {
    "llava_llama": LlamaConfig,
    "llava": LlamaConfig,
    "llava_mistral": MistralConfig,
}
_KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    f"openai/clip-vit-large-patch14{suffix}": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": size, "patch_size": 14, "projection_dim": 768,
    }
    for suffix, size in (("", 224), ("-336", 336))
}  # fmt: skip
_RENAMES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)


def import_llava(
    folder: str | Path,
    clip_folder: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    image_aspect_ratio: str | None = None,
) -> LlavaForConditionalGeneration:
    """The model of a folder in the published layout (config.json; safetensors or pytorch_model*.bin), in eval mode.

    clip_folder: the CLIP tower's own folder; needed when the checkpoint leaves the tower out, or names one whose
    sizes are not known here. image_aspect_ratio: replaces the config's; 'pad' is the only one supported (a base
    checkpoint says 'anyres' and may be tuned further with 'pad'). Raises WeightsError, with the lists of missing and
    unexpected keys where they differ.
    """
    folder = Path(folder)
    published = _read_json(folder / "config.json")
    if image_aspect_ratio is not None:
        published["image_aspect_ratio"] = image_aspect_ratio
    state = read_state_dict(folder)
    if clip_folder is None:
        named = folder / str(published.get("mm_vision_tower", ""))
        clip_folder = named if named != folder and (named / "config.json").is_file() else None
    tower = _tower_sizes(published, clip_folder)
    config = build_config(published, tower)
    if not any(key.startswith(_RENAMES[0][0]) for key in state):
        if clip_folder is None:
            raise WeightsError(
                f"{folder} holds no vision tower; give the folder of {published.get('mm_vision_tower', 'its CLIP')!r}"
            )
        clip = read_state_dict(Path(clip_folder))
        state |= {f"model.vision_tower.vision_tower.{k}": v for k, v in clip.items() if k.startswith("vision_model.")}
    return load_llava(state, config, dtype)


def build_config(published: Mapping[str, Any], tower: Mapping[str, Any]) -> LlavaConfig:
    """The transformers configuration of a published config.json (`published`) and its CLIP vision sizes (`tower`)."""
    kind = published.get("model_type")
    if kind not in _BODIES:
        raise WeightsError(f"model_type {kind!r} is not a published LLaVA layout; known: {', '.join(_BODIES)}")
    for key, supported in (
        ("mm_projector_type", ("mlp2x_gelu",)),
        ("image_aspect_ratio", ("pad",)),
        ("mm_vision_select_feature", ("patch", "cls_patch")),
        ("mm_use_im_start_end", (False,)),
        ("mm_use_im_patch_token", (False,)),
    ):
        if published.get(key, supported[0]) not in supported:
            raise WeightsError(
                f"{key} {published[key]!r} is not supported; use one of {', '.join(map(str, supported))}"
            )
    body_type = _BODIES[kind]
    known = {*body_type().to_dict(), "rope_theta", "rope_scaling"} - {"model_type", "architectures", "dtype"}
    body = body_type(**{key: value for key, value in published.items() if key in known})
    vision = CLIPVisionConfig(**tower)
    cls = published.get("mm_vision_select_feature") == "cls_patch"
    return LlavaConfig(
        vision_config=vision,
        text_config=body,
        image_token_index=IMAGE_PLACEHOLDER,
        projector_hidden_act="gelu",
        vision_feature_layer=published.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="full" if cls else "default",
        image_seq_length=(tower["image_size"] // tower["patch_size"]) ** 2 + cls,
        tie_word_embeddings=bool(body.tie_word_embeddings),
    )


def load_llava(
    state: Mapping[str, Tensor], config: LlavaConfig, dtype: torch.dtype = torch.float32
) -> LlavaForConditionalGeneration:
    """Fill the model from a state dict with the published key names. Strict; raises WeightsError."""
    renamed = {_rename(key): value for key, value in state.items() if key not in IGNORED_KEYS}
    if config.tie_word_embeddings and "lm_head.weight" not in renamed:
        renamed["lm_head.weight"] = renamed.get("model.language_model.embed_tokens.weight", torch.empty(0))
    with no_init_weights():
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)  # .to() would round RoPE's buffers
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    _complain("missing", wanted.keys() - renamed.keys(), "unexpected", renamed.keys() - wanted.keys())
    _complain(
        "of another shape than the configuration's",
        {
            f"{key} {tuple(renamed[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if renamed[key].shape != shape
        },
    )
    model.load_state_dict(renamed, strict=True)
    return model.eval()


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: (sharded) safetensors, else (sharded) pytorch_model*.bin, read as weights only."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index, single = folder / f"{name}.index.json", folder / name
        if index.is_file():
            listed: dict[str, str] = _read_json(index)["weight_map"]
            files = [folder / Path(file).name for file in sorted(set(listed.values()))]
        elif single.is_file():
            listed, files = {}, [single]
        else:
            continue
        state: dict[str, Tensor] = {}
        for file in files:
            if not file.is_file():
                raise WeightsError(f"{file} is listed in {index.name} but is not there; download it again")
            state |= load_file(file) if file.suffix == ".safetensors" else _load_bin(file)
        if listed:
            _complain(f"listed in {index.name} but in no file", listed.keys() - state.keys())
        return state
    raise WeightsError(f"{folder} holds neither model*.safetensors nor pytorch_model*.bin; check the path")


def prepare_pixels(image: np.ndarray, size: int = 336) -> Tensor:
    """uint8 RGB (height, width, 3) -> float32 (1, 3, size, size): padded to a square with CLIP's mean colour, the
    image in the middle, resized (bicubic) and normalised as by CLIP. Raises InputError for another array."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"the image is {image.dtype} {image.shape}; give uint8 RGB (height, width, 3)")
    height, width = image.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in CLIP_MEAN))
    square.paste(Image.fromarray(image), ((side - width) // 2, (side - height) // 2))
    resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    normalised = (resized - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))[None]


def image_features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Projected features (images, patches, width) of pixel_values (images, 3, size, size)."""
    return torch.stack(list(model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output))


def embed_prompt(model: LlavaForConditionalGeneration, input_ids: Tensor, features: Tensor) -> Tensor:
    """Input embeddings (rows, tokens - 1 + patches, width) for `inputs_embeds`.

    input_ids (rows, tokens): every row has the placeholder -200 once, at the same place. features: (rows, patches,
    width), see `image_features`. Raises UsageError where the placeholder is missing, repeated or displaced.
    """
    places = (input_ids == IMAGE_PLACEHOLDER).nonzero()
    if (
        len(places) != len(input_ids)
        or places[:, 0].unique().numel() != len(places)
        or places[:, 1].unique().numel() > 1
    ):
        raise UsageError(f"every row needs the image placeholder {IMAGE_PLACEHOLDER} once, at the same position")
    at = int(places[0, 1])
    embed = model.get_input_embeddings()
    return torch.cat([embed(input_ids[:, :at]), features, embed(input_ids[:, at + 1 :])], dim=1)


def _rename(key: str) -> str:
    for published, ours in _RENAMES:
        if key.startswith(published):
            return ours + key[len(published) :]
    return key


def _tower_sizes(published: Mapping[str, Any], clip_folder: str | Path | None) -> dict[str, Any]:
    if clip_folder is not None:
        config = _read_json(Path(clip_folder) / "config.json")
        return dict(config.get("vision_config", config))
    name = str(published.get("mm_vision_tower"))
    if name not in _KNOWN_TOWERS:
        raise WeightsError(f"the sizes of vision tower {name!r} are not known; give its CLIP folder (clip_folder)")
    return dict(_KNOWN_TOWERS[name])


def _load_bin(file: Path) -> dict[str, Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise WeightsError(f"{file} is missing; give a folder in the published layout")
    return json.loads(file.read_text(encoding="utf-8"))


def _complain(*names_and_keys: Any) -> None:
    """Raise WeightsError when any of the named key lists is not empty."""
    pairs: Iterable[tuple[str, set[str]]] = zip(names_and_keys[::2], names_and_keys[1::2], strict=True)
    parts = [f"{len(keys)} {name}: {', '.join(sorted(keys))}" for name, keys in pairs if keys]
    if parts:
        raise WeightsError(
            f"the checkpoint does not fit; {'; '.join(parts)}; check that config and weights belong together"
        )
