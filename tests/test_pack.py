"""The model folder that the tiny run was packed into."""

import json

import torch
from safetensors import safe_open
from transformers import LlavaForConditionalGeneration

from ffaa import weights
from ffaa.mllm.train_tower import load_tower
from ffaa.pack import trained_on


def test_the_packed_folder_is_whole(tiny_run):
    folder = weights.open_folder(tiny_run.model)
    assert weights.verify(folder) == []
    config = folder.config
    assert {p.relative_to(tiny_run.model).as_posix() for p in tiny_run.model.rglob("*") if p.is_file()} == {
        *config.files,
        weights.MODEL_FILE,
    }
    assert (config.name, config.template, config.trained_on) == ("nano-tiny", "nano-2", ["tiny"])
    assert config.temperature == json.loads((tiny_run.folder / "mids.json").read_text())["temperature"]
    fitted = json.loads((tiny_run.folder / "detail.json").read_text())
    assert fitted["faces"] == len(tiny_run.stages.part("val"))
    assert (config.detail and config.detail.model_dump()) == fitted["correction"]
    for name in ("mids.safetensors", "heads.safetensors", "mllm/model.safetensors"):
        with safe_open(tiny_run.model / name, "pt") as file:
            kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
        assert torch.float16 in kinds, name
        assert kinds <= {torch.float16, torch.int64}, name


def test_the_tower_inside_the_packed_mllm_is_the_trained_one(tiny_run):
    """Every tensor, batch norm statistics included, up to half precision."""
    trained = load_tower(tiny_run.folder / "tower.safetensors")[0].state_dict()
    packed = LlavaForConditionalGeneration.from_pretrained(tiny_run.model / "mllm", dtype=torch.float32)
    loaded = packed.model.vision_tower.state_dict()
    assert loaded.keys() == trained.keys()
    for name, value in trained.items():
        assert torch.equal(loaded[name].float(), value.half().float()), name
    assert trained["stem.1.running_mean"].abs().max() > 0


def test_the_card_names_what_was_learnt_from(tiny_run):
    name = tiny_run.stages.rows[0].dataset
    for tower, named in ([], [name]), ([name], []):
        recipe = tiny_run.recipe.model_copy(update={
            "teach": tiny_run.recipe.teach.model_copy(update={"without": [name]}),
            "tower": tiny_run.recipe.tower.model_copy(update={"without": tower}),
        })  # fmt: skip
        assert trained_on(recipe, tiny_run.stages.rows) == named
