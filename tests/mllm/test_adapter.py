"""What is saved of a tuned LLaVA, and that it comes back whole or not at all."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa import weights
from ffaa.errors import WeightsError
from ffaa.mllm.adapter import CARD, AdapterCard, attach_adapter, load_tuned, read_card, save_adapter, weight_files
from ffaa.mllm.llava_import import import_llava, prepare_pixels
from ffaa.mllm.llava_tiny import write_tiny
from ffaa.mllm.train import LoraArgs, add_lora, answer_loss, collate


def inputs(model):
    config = model.config
    ids, labels = [1, *[config.image_token_id] * config.image_seq_length, 40, 50, 60], [-100] * 18 + [50, 60]
    pixels = prepare_pixels(np.arange(24 * 24 * 3, dtype=np.uint8).reshape(24, 24, 3), 56)[0]
    return collate(2, [{"input_ids": ids, "labels": labels, "pixel_values": pixels}])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """.base, .folder (the adapter), .loss (of the model that was saved)."""
    root = tmp_path_factory.mktemp("adapter")
    base = write_tiny(root / "base", "llava_mistral")
    model = import_llava(base, image_aspect_ratio="pad").requires_grad_(False)
    add_lora(model, LoraArgs(r=3, alpha=6, dropout=0.0))
    model.model.multi_modal_projector.requires_grad_(True)
    torch.manual_seed(1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for p in trained.values():
            p.normal_(0, 0.6)
        loss = answer_loss(model.eval(), inputs(model)).item()
    files = save_adapter(root / "out", model, trained)
    card = AdapterCard(
        name="x", template="v1", base="here", base_files=weight_files(base), recipe={}, seed=0, data={}, versions={},
        command="ffaa", processes=1, steps=1, eval_loss=1.0, files=files,
    )  # fmt: skip
    (root / "out" / CARD).write_text(card.model_dump_json())
    return SimpleNamespace(base=base, folder=root / "out", loss=loss)


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved.folder, tmp_path / "out")
    return tmp_path / "out"


def change(folder, name, state):
    """Another file, and a card that says so."""
    save_file(state, folder / name)
    card = json.loads((folder / CARD).read_text())
    card["files"][name] = weights.sha256(folder / name)
    (folder / CARD).write_text(json.dumps(card))


def test_a_loaded_adapter_is_the_model_that_was_saved(saved):
    model = load_tuned(saved.folder, saved.base)
    assert not model.training
    with torch.no_grad():
        assert answer_loss(model, inputs(model)).item() == pytest.approx(saved.loss, rel=1e-5)
        plain = import_llava(saved.base, image_aspect_ratio="pad")
        assert abs(answer_loss(plain, inputs(plain)).item() - saved.loss) > 0.01
    assert not [name for name in model.state_dict() if "lora" in name]


def test_peft_reads_the_adapter(saved):
    from peft import PeftModel

    model = import_llava(saved.base, image_aspect_ratio="pad")
    ours = load_tuned(saved.folder, saved.base).model.language_model.state_dict()
    theirs = PeftModel.from_pretrained(model.model.language_model, str(saved.folder)).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-5), name


def test_another_base_is_refused(saved, tmp_path):
    other = write_tiny(tmp_path / "other", "llava_mistral", seed=1)
    with pytest.raises(WeightsError, match=r"not the base of .* \(here\): model.safetensors differ"):
        load_tuned(saved.folder, other)


def test_a_body_of_other_sizes_is_refused(saved, tmp_path):
    other = import_llava(write_tiny(tmp_path / "llama", "llava_llama"), image_aspect_ratio="pad")
    with pytest.raises(WeightsError, match=r"of another shape: .*k_proj\.lora_B"):
        attach_adapter(other, saved.folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "projector.safetensors"])
def test_a_missing_and_an_unexpected_key_are_told(saved, copy, name):
    state = load_file(copy / name)
    gone = sorted(state)[0]
    change(copy, name, {("new" if key == gone else key): value for key, value in state.items()})
    with pytest.raises(WeightsError, match=f"missing: {gone}; unexpected: new"):
        load_tuned(copy, saved.base)


def test_a_changed_file_is_told_by_its_hash(copy):
    state = load_file(copy / "projector.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, copy / "projector.safetensors")
    with pytest.raises(WeightsError, match=r"projector.safetensors: expected sha256"):
        read_card(copy)


def test_a_folder_without_a_card(tmp_path):
    with pytest.raises(WeightsError, match="holds no adapter.json"):
        read_card(tmp_path)


def test_what_is_not_trained_is_not_saved_in_silence(saved, tmp_path):
    model = import_llava(saved.base, image_aspect_ratio="pad")
    add_lora(model, LoraArgs(r=3, alpha=6, dropout=0.0))
    trained = {name: p for name, p in model.named_parameters() if "lora" in name}
    with pytest.raises(WeightsError, match="missing: linear_1"):
        save_adapter(tmp_path / "out", model, trained)
