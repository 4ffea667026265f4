"""A MIDS with towers beside the one it shares with the MLLM."""

import re

import pytest
import torch
from pydantic import ValidationError

from ffaa.errors import UsageError, WeightsError
from ffaa.mids.checkpoint import load, save
from ffaa.mids.eyes import Eyes, tower_logits
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads

CONFIG = MIDSConfig(dim=32, image_dim=96, unfreeze=0, own_towers=["lite0", "lite1"])


@pytest.fixture
def own():
    torch.manual_seed(8)
    return [ForensicVisionModel(ForensicVisionConfig(hidden_size=32, lite=lite)).eval() for lite in ("lite0", "lite1")]


@pytest.fixture
def eyes(tiny_tower, own):
    return Eyes(tiny_tower, own)


@pytest.fixture
def pixels(tiny_crops):
    return pixel_tensor(tiny_crops[:2])


@torch.no_grad()
def test_all_towers_lie_side_by_side_and_come_apart(eyes, tiny_tower, own, pixels):
    hidden = eyes(pixels, output_hidden_states=True).hidden_states
    assert [layer.shape for layer in hidden] == [(2, 50, 96)] * 2
    apart = eyes.apart(hidden)
    for i, tower in enumerate([tiny_tower, *own]):
        for layer, (found, one) in enumerate(zip(apart[i], tower(pixels).hidden_states, strict=True)):
            assert torch.equal(found, one)
            assert torch.equal(hidden[layer][..., 32 * i : 32 * (i + 1)], one)
    assert eyes.config.hidden_size == 96
    assert eyes.own_towers == ["lite0", "lite1"]


@torch.no_grad()
def test_every_tower_has_a_logit(eyes, tiny_tower, own, pixels):
    torch.manual_seed(9)
    heads = [TowerHeads(32) for _ in range(3)]
    logits = [h.forgery_logit(t(pixels).hidden_states) for h, t in zip(heads, (tiny_tower, *own), strict=True)]
    found = tower_logits(eyes, eyes(pixels).hidden_states, heads)
    assert torch.allclose(found, torch.stack(logits), atol=1e-6)
    assert min(abs(logits[0] - logits[i]).max() for i in (1, 2)) > 0.01
    assert torch.equal(tower_logits(tiny_tower, tiny_tower(pixels).hidden_states, heads[:1])[0], logits[0])
    with pytest.raises(ValueError, match="zip"):
        tower_logits(eyes, eyes(pixels).hidden_states, heads[:2])


def test_its_file_brings_the_own_towers_and_not_the_shared_one(eyes, tiny_tower, encoders, pixels, tmp_path):
    mids = MIDS(encoders[0], eyes, CONFIG).eval()
    kept = mids.trainable_state()
    assert {name.split(".")[1] for name in kept if name.startswith("image_encoder")} == {"own"}
    assert len([n for n in kept if n.startswith("image_encoder.own.")]) == len(eyes.own.state_dict())
    assert [n for n, p in mids.named_parameters() if p.requires_grad and "encoder" in n] == []
    save(mids, tmp_path / "mids.safetensors")
    again = load(tmp_path / "mids.safetensors", encoders[0], tiny_tower)
    assert again.image_encoder.shared is tiny_tower
    for one, two in zip(again.encode_image(pixels), mids.encode_image(pixels), strict=True):
        assert torch.equal(one, two)


def test_what_cannot_be_is_refused(eyes, encoders, tmp_path):
    with pytest.raises(ValidationError, match="with a tower of its own, unfreeze must be 0"):
        MIDSConfig(dim=32, image_dim=96, unfreeze=1, own_towers=["lite0"])
    with pytest.raises(UsageError, match="unfreeze is 1, but the image encoder shows 0 numbered blocks"):
        MIDS(encoders[0], eyes, MIDSConfig(dim=32, image_dim=96, unfreeze=1))
    save(MIDS(encoders[0], eyes, CONFIG), tmp_path / "mids.safetensors")
    with pytest.raises(WeightsError, match=re.escape("has towers beside nano's, and the model is no nano")):
        load(tmp_path / "mids.safetensors", *encoders)
