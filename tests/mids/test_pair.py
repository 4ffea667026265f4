"""A MIDS with a tower beside the one it shares with the MLLM."""

import re

import pytest
import torch
from pydantic import ValidationError

from ffaa.errors import UsageError, WeightsError
from ffaa.mids.checkpoint import load, save
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mids.pair import TowerPair
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads

CONFIG = MIDSConfig(dim=32, image_dim=64, unfreeze=0, own_tower=True)


@pytest.fixture
def own():
    torch.manual_seed(8)
    return ForensicVisionModel(ForensicVisionConfig(hidden_size=32)).eval()


@pytest.fixture
def pair(tiny_tower, own):
    return TowerPair(tiny_tower, own)


@pytest.fixture
def pixels(tiny_crops):
    return pixel_tensor(tiny_crops[:2])


@torch.no_grad()
def test_both_towers_lie_side_by_side(pair, tiny_tower, own, pixels):
    hidden = pair(pixels, output_hidden_states=True).hidden_states
    for both, one, two in zip(hidden, tiny_tower(pixels).hidden_states, own(pixels).hidden_states, strict=True):
        assert both.shape == (2, 50, 64)
        assert torch.equal(both[..., :32], one)
        assert torch.equal(both[..., 32:], two)
    assert pair.config.hidden_size == 64


@torch.no_grad()
def test_the_score_is_that_of_the_mean_logit(pair, tiny_tower, own, pixels):
    torch.manual_seed(9)
    heads = TowerHeads(32), TowerHeads(32)
    logits = [h.forgery_logit(t(pixels).hidden_states) for h, t in zip(heads, (tiny_tower, own), strict=True)]
    found = pair.forgery_score(pair(pixels).hidden_states, *heads)
    assert found == pytest.approx(((logits[0] + logits[1]) / 2).sigmoid().tolist(), abs=1e-6)
    assert abs(logits[0] - logits[1]).max() > 0.01


def test_its_file_brings_the_own_tower_and_not_the_shared_one(pair, tiny_tower, encoders, pixels, tmp_path):
    mids = MIDS(encoders[0], pair, CONFIG).eval()
    kept = mids.trainable_state()
    assert {name.split(".")[1] for name in kept if name.startswith("image_encoder")} == {"own"}
    assert len([n for n in kept if n.startswith("image_encoder.own.")]) == len(pair.own.state_dict())
    assert [n for n, p in mids.named_parameters() if p.requires_grad and "encoder" in n] == []
    save(mids, tmp_path / "mids.safetensors")
    again = load(tmp_path / "mids.safetensors", encoders[0], tiny_tower)
    assert again.image_encoder.shared is tiny_tower
    for one, two in zip(again.encode_image(pixels), mids.encode_image(pixels), strict=True):
        assert torch.equal(one, two)


def test_what_cannot_be_is_refused(pair, encoders, tmp_path):
    with pytest.raises(ValidationError, match="with a tower of its own, unfreeze must be 0"):
        MIDSConfig(dim=32, image_dim=64, unfreeze=1, own_tower=True)
    with pytest.raises(UsageError, match="unfreeze is 1, but the image encoder shows 0 numbered blocks"):
        MIDS(encoders[0], pair, MIDSConfig(dim=32, image_dim=64, unfreeze=1))
    save(MIDS(encoders[0], pair, CONFIG), tmp_path / "mids.safetensors")
    with pytest.raises(WeightsError, match=re.escape("has a tower beside nano's, and the model is no nano")):
        load(tmp_path / "mids.safetensors", *encoders)
