import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa.errors import WeightsError
from ffaa.mids.checkpoint import MidsCard, load, load_published, save, save_card
from ffaa.mids.eyes import Eyes
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
from ffaa.weights import ASSETS


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


def test_a_card_names_where_the_weights_come_from(small, tmp_path):
    path = tmp_path / "mids.safetensors"
    save(small, path)
    card = save_card(
        path, small, settings={"lr": 1e-4}, seed=3, encoders={"text": "t", "image": "i"}, data={"mined.jsonl": "0"},
        command="ffaa train mids r.yaml", figures={"temperature": 1.5}, versions={"torch": "2"},
    )  # fmt: skip
    read = MidsCard.model_validate_json((tmp_path / "mids.card.json").read_bytes())
    assert read == card
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (read.config, read.seed, read.file) == (small.config, 3, "mids.safetensors")


def test_only_trained_tensors_are_saved(make_encoders, tmp_path):
    for unfreeze, blocks in ((0, set()), (1, {"2"})):
        mids = MIDS(*make_encoders(), MIDSConfig(dim=32, image_dim=48, unfreeze=unfreeze))
        save(mids, tmp_path / "m.safetensors")
        names = set(load_file(tmp_path / "m.safetensors"))
        assert names == {n for n, p in mids.named_parameters() if p.requires_grad}
        assert {n.split(".")[3] for n in names if n.startswith("image_encoder")} == blocks


def test_trained_blocks_do_not_change_the_encoder_that_others_use(make_encoders, tmp_path):
    mids = MIDS(*make_encoders(), MIDSConfig(dim=32, image_dim=48, unfreeze=1))
    with torch.no_grad():
        for value in mids.trainable_state().values():
            value.add_(0.1)
    save(mids, tmp_path / "m.safetensors")
    text, image = make_encoders()
    before = {k: v.clone() for k, v in image.state_dict().items()}
    again = load(tmp_path / "m.safetensors", text, image)
    assert all(torch.equal(v, before[k]) for k, v in image.state_dict().items())
    key = "image_encoder.encoder.layers.2.mlp.fc1.weight"
    assert torch.equal(again.trainable_state()[key], mids.trainable_state()[key])


def test_a_file_from_before_a_setting_was_there_loads(small, tmp_path, make_encoders):
    state = {name: value.detach().clone() for name, value in small.trainable_state().items()}
    config = small.config.model_dump(exclude={"masked"})
    save_file(state, tmp_path / "old.safetensors", metadata={"config": json.dumps(config)})
    assert load(tmp_path / "old.safetensors", *make_encoders()).config == small.config


def test_the_released_nano_loads(tiny_parts):
    """Its MIDS is frozen in the image encoder and masked, and brings two towers beside the one that it is given."""
    from safetensors import safe_open

    with safe_open(ASSETS / "nano" / "mids.safetensors", "pt") as file:
        config = MIDSConfig.model_validate_json(file.metadata()["config"])
        names = set(file.keys())
    assert (config.unfreeze, config.masked, config.own_towers) == (0, True, ["lite0", "lite1"])
    shared, *own = (
        ForensicVisionModel(ForensicVisionConfig(hidden_size=config.image_dim // 3, lite=lite))
        for lite in ("lite0", *config.own_towers)
    )
    text = torch.nn.Linear(1, 1)
    assert names == set(MIDS(text, Eyes(shared, own), config).trainable_state())
    found = load(ASSETS / "nano" / "mids.safetensors", text, shared).image_encoder
    assert (found.shared is shared, found.own_towers) == (True, config.own_towers)
