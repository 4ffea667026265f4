import re

import pytest
import torch
from safetensors.torch import save_file

from ffaa.errors import WeightsError
from ffaa.mids.checkpoint import load, load_published, save
from ffaa.mids.model import MIDS, MIDSConfig


def test_round_trip(small, batch, tmp_path, make_encoders):
    path = tmp_path / "mids.safetensors"
    with torch.no_grad():  # a trained image encoder differs from the pretrained one
        for value in small.trainable_state().values():
            value.add_(0.01)
        save(small, path)
        again = load(path, *make_encoders())
        assert again.config == small.config
        assert not again.training
        torch.testing.assert_close(again(*batch), small(*batch), atol=0, rtol=0)


def test_missing_and_extra_keys_are_both_listed(small):
    state = dict(small.trainable_state())
    state["surplus.weight"] = state.pop("classifier.weight")
    with pytest.raises(WeightsError, match=re.escape("missing ['classifier.weight'], unexpected ['surplus.weight']")):
        small.load_trainable_state(state)


def test_other_shapes_are_listed_and_nothing_is_loaded(small):
    before = small.classifier.bias.clone()
    state = {name: torch.ones_like(value) for name, value in small.trainable_state().items()}
    state["classifier.weight"] = torch.ones(4, 5)
    with pytest.raises(WeightsError, match=re.escape("classifier.weight (4, 5) instead of (4, 192)")):
        small.load_trainable_state(state)
    assert torch.equal(small.classifier.bias, before)


def test_file_without_config_is_an_error(small, tmp_path, make_encoders):
    path = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no valid MIDS config"):
        load(path, *make_encoders())


@pytest.mark.parametrize("content", [None, b"", b"not weights at all"])
@pytest.mark.parametrize("loader", [load, load_published])
def test_unreadable_file_is_an_error(loader, content, tmp_path, make_encoders):
    path = tmp_path / "broken"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable"):
        loader(path, *make_encoders())


def test_published_file_brings_what_it_holds(published, full_state):
    state = published.trainable_state()
    assert not published.training
    assert published.config.mask_padding is False
    key = "encoder.layers.2.mlp.fc1.weight"
    assert torch.equal(state[f"image_encoder.{key}"], full_state[f"image_encoder.vision_model.{key}"])
    assert torch.equal(state["fusion_block.lr_itt2"], full_state["fusion_block.lr_itt2"])


def test_published_state_dict_loads_like_the_file(published_state, published_encoders, published):
    other = load_published(published_state, *published_encoders)
    for name, value in published.trainable_state().items():
        assert torch.equal(other.trainable_state()[name], value)


def test_published_missing_key(published_state, published_encoders):
    state = {name: value for name, value in published_state.items() if name != "module.se_attn.2.norm.bias"}
    with pytest.raises(WeightsError, match=re.escape("missing ['se_attn.2.norm.bias'], unexpected []")):
        load_published(state, *published_encoders)


def test_published_extra_key(published_state, published_encoders, tmp_path):
    path = tmp_path / "mids.pth"
    torch.save({**published_state, "module.head.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=re.escape("missing [], unexpected ['head.weight']")):
        load_published(path, *published_encoders)


def test_published_file_must_be_a_plain_state_dict(published_encoders, tmp_path):
    path = tmp_path / "mids.pth"
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(WeightsError, match="plain state dict"):
        load_published(path, *published_encoders)


def test_published_weights_saved_as_ours_give_the_same_logits(published, published_encoders, expected, tmp_path):
    path = tmp_path / "mids.safetensors"
    save(published, path)
    again = load(path, *published_encoders)
    with torch.no_grad():
        logits = again(
            expected["input_ids"].view(2, 3, -1), expected["attention_mask"].view(2, 3, -1), expected["pixel_values"]
        )
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-6)


def test_both_namings_of_clip_load(small, make_encoders):
    state = {re.sub("^image_encoder.", "image_encoder.vision_model.", n): v for n, v in small.trainable_state().items()}
    fresh = MIDS(*make_encoders(), MIDSConfig(dim=32, image_dim=48))
    fresh.load_trainable_state(state)
    assert torch.equal(fresh.trainable_state()["classifier.weight"], small.classifier.weight)
