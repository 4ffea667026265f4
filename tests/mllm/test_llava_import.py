"""Parity with the published LLaVA: a tiny checkpoint in the published layout is written, imported and compared."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.mllm.llava_import import (
    IMAGE_PLACEHOLDER,
    build_config,
    embed_prompt,
    image_features,
    import_llava,
    prepare_pixels,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
META = json.loads((FIXTURES / "llava_original.json").read_text())
EXPECTED = dict(np.load(FIXTURES / "llava_original.npz"))
VISION = "model.vision_tower.vision_tower."


def published_state() -> dict[str, torch.Tensor]:
    spec = importlib.util.spec_from_file_location("fill", FIXTURES / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rule = META.get("rule", "small")
    shapes = META["state_dict_shapes"].items()
    return {key: torch.from_numpy(module.fill(key, shape, META["salt"], rule)) for key, shape in shapes}


def published_config(**changes) -> dict:
    return {
        "model_type": "llava_mistral",
        "architectures": ["LlavaMistralForCausalLM"],
        "mm_projector_type": META["projector"],
        "mm_vision_select_layer": META["vision_select_layer"],
        "mm_vision_select_feature": "patch",
        "mm_vision_tower": "clip",
        "mm_patch_merge_type": "flat",
        "mm_hidden_size": 32,
        "image_aspect_ratio": META["image_aspect_ratio"],
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "tokenizer_model_max_length": 2048,
        **META["language_config"],
        **changes,
    }


def write_shards(folder: Path, state: dict, shards: int = 3, binary: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    base, ending = ("pytorch_model", "bin") if binary else ("model", "safetensors")
    keys, weight_map = list(state), {}
    for shard in range(shards):
        name = f"{base}-{shard + 1:05}-of-{shards:05}.{ending}"
        part = {key: state[key] for key in keys[shard::shards]}
        weight_map |= dict.fromkeys(part, name)
        if binary:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name)
    (folder / f"{base}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_clip(folder: Path, state: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": META["vision_config"]}))
    if state is not None:
        save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path / "llava", published_state())
    (tmp_path / "llava" / "config.json").write_text(json.dumps(published_config()))
    write_clip(tmp_path / "llava" / "clip")
    return tmp_path / "llava"


def close(actual, expected) -> None:
    expected = torch.from_numpy(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def check_parity(model) -> None:
    pixels = prepare_pixels(EXPECTED["image"], META["vision_config"]["image_size"])
    ids = torch.from_numpy(EXPECTED["input_ids"])
    with torch.no_grad():
        features = image_features(model, pixels)
        close(features, EXPECTED["image_features"])
        embeds = embed_prompt(model, ids, features)
        close(model(inputs_embeds=embeds).logits, EXPECTED["logits"])
        tokens = [1]
        for _ in range(EXPECTED["greedy_tokens"].shape[1] - 1):
            tokens.append(int(model(inputs_embeds=embeds).logits[0, -1].argmax()))
            embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor([tokens[-1:]]))], 1)
    assert tokens == EXPECTED["greedy_tokens"][0].tolist()


def test_pixels():
    close(prepare_pixels(EXPECTED["image"], 56), EXPECTED["pixel_values"])


@pytest.mark.parametrize("shape", [(30, 50, 3), (50, 30, 3), (40, 40, 3)])
def test_pixels_are_padded_in_the_middle(shape):
    pixels = prepare_pixels(np.full(shape, 255, np.uint8), 28)
    white = (pixels[0] > 1.5).all(0)
    assert pixels.shape == (1, 3, 28, 28)
    assert white[14, 14]
    assert white[0, 14] == (shape[0] >= shape[1])
    assert white[14, 0] == (shape[1] >= shape[0])
    assert torch.equal(white, white.flip(0).flip(1))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_pixels_refuse_other_arrays(image):
    with pytest.raises(InputError):
        prepare_pixels(image)


@pytest.mark.parametrize("model_type", ["llava_mistral", "llava_llama"])
def test_sharded_safetensors(folder, model_type):
    (folder / "config.json").write_text(json.dumps(published_config(model_type=model_type)))
    model = import_llava(folder)
    assert not model.training
    check_parity(model)


def test_sharded_bin(tmp_path):
    folder = tmp_path / "llava"
    write_shards(folder, published_state(), binary=True)
    (folder / "config.json").write_text(json.dumps(published_config(mm_vision_tower="openai/elsewhere")))
    check_parity(import_llava(folder, clip_folder=write_clip(tmp_path / "clip")))


def test_tower_from_its_own_folder(tmp_path):
    state = published_state()
    tower = {key.removeprefix(VISION): state.pop(key) for key in list(state) if key.startswith(VISION)}
    folder = tmp_path / "llava"
    write_shards(folder, state)
    (folder / "config.json").write_text(json.dumps(published_config()))
    clip = write_clip(tmp_path / "clip", tower | {"logit_scale": torch.zeros(()), "text_model.x": torch.zeros(1)})
    check_parity(import_llava(folder, clip_folder=clip))


def test_absent_tower_is_named(tmp_path):
    folder = tmp_path / "llava"
    write_shards(folder, {key: value for key, value in published_state().items() if not key.startswith(VISION)})
    (folder / "config.json").write_text(
        json.dumps(published_config(mm_vision_tower="openai/clip-vit-large-patch14-336"))
    )
    with pytest.raises(WeightsError, match="no vision tower.*patch14-336"):
        import_llava(folder)
    (folder / "config.json").write_text(json.dumps(published_config(mm_vision_tower="other")))
    with pytest.raises(WeightsError, match="'other' are not known"):
        import_llava(folder)


def test_missing_and_unexpected_keys_are_listed(folder):
    state = published_state()
    del state["model.norm.weight"], state["model.mm_projector.2.bias"]
    write_shards(
        folder, state | {"model.mm_projector.4.weight": torch.zeros(2), "model.image_newline.x": torch.zeros(1)}
    )
    with pytest.raises(WeightsError) as error:
        import_llava(folder)
    message = str(error.value)
    missing, unexpected = message.split("unexpected:")
    assert "2 missing" in missing
    assert "model.language_model.norm.weight" in missing
    assert "multi_modal_projector.linear_2.bias" in missing
    assert "mm_projector.4.weight" in unexpected
    assert "image_newline.x" in unexpected


def test_wrong_shape_is_named(folder):
    write_shards(folder, published_state() | {"lm_head.weight": torch.zeros(500, 64)})
    with pytest.raises(WeightsError, match=r"lm_head.weight \(500, 64\) for \(512, 64\)"):
        import_llava(folder)


def test_damaged_folders(folder, tmp_path):
    shard = next(folder.glob("model-00002*"))
    shard.unlink()
    with pytest.raises(WeightsError, match=shard.name):
        import_llava(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="config.json is missing"):
        import_llava(tmp_path / "empty")


@pytest.mark.parametrize(
    "change",
    [{"model_type": "llava_mpt"}, {"mm_projector_type": "linear"}, {"image_aspect_ratio": "anyres"}],
    ids=lambda change: next(iter(change)),
)
def test_unsupported_configurations(change):
    with pytest.raises(WeightsError, match=next(iter(change.values()))):
        build_config(published_config(**change), META["vision_config"])


def test_anyres_base_can_be_read_as_pad(folder):
    (folder / "config.json").write_text(json.dumps(published_config(image_aspect_ratio="anyres")))
    check_parity(import_llava(folder, image_aspect_ratio="pad"))


def test_dtype_and_cls_token(folder):
    (folder / "config.json").write_text(json.dumps(published_config(mm_vision_select_feature="cls_patch")))
    model = import_llava(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}
    features = image_features(model, prepare_pixels(EXPECTED["image"], 56).bfloat16())
    assert features.shape == (1, 17, 64)


@pytest.mark.parametrize("ids", [[[1, 2]], [[1, IMAGE_PLACEHOLDER, IMAGE_PLACEHOLDER]]])
def test_placeholder_must_stand_once(folder, ids):
    model = import_llava(folder)
    with pytest.raises(UsageError, match="once"):
        embed_prompt(model, torch.tensor(ids), torch.zeros(1, 16, 64))
