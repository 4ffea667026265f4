import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ffaa.baselines.exposing import AutomaticWeights, Exposing, ExposingSettings
from ffaa.errors import UsageError, WeightsError

SMALL = {"regions": 2, "backbone": "resnet18", "image_size": 48}


@pytest.fixture(scope="module")
def published(parity):
    return parity("exposing")


def test_parity(published):
    state = {f"module.{key}": value for key, value in published.state.items()}
    model = Exposing.from_published({"state_dict": state, "epoch": 3})
    with torch.no_grad():
        fused, every, without = model(published.pixels)
    expected = published.expected
    torch.testing.assert_close(fused, expected["logits"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(every, expected["logits_all_regions"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(without, expected["logits_without_region"], rtol=1e-4, atol=1e-6)
    assert model.state_dict().keys() - published.state.keys() == {"balance.params"}
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"] + 3


@pytest.mark.parametrize(
    ("classes", "regions", "backbone"), [(2, 3, "resnet18"), (4, 2, "mobilenet"), (2, 2, "resnet50")]
)
def test_other_configurations_are_read_from_the_tensors(classes, regions, backbone):
    torch.manual_seed(0)
    model = Exposing(classes, regions, backbone).eval()
    again = Exposing.from_published(model.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pixels)[0], model(pixels)[0])
        assert again(pixels)[2].shape == (regions, 2, classes)
        scores = again.score(pixels)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_learned_loss_weights_are_kept():
    model = Exposing(**SMALL)
    with torch.no_grad():
        model.balance.params.copy_(torch.tensor([1.5, 0.5, 2.0]))
    again = Exposing.from_published(model.state_dict())
    assert torch.equal(again.balance.params, model.balance.params)


def test_one_region_and_unknown_backbones_are_refused():
    with pytest.raises(UsageError, match="give 2 or more"):
        Exposing(regions=1)
    with pytest.raises(UsageError, match="'vgg' is no backbone"):
        Exposing(backbone="vgg")


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "local_linear3.bias"}
    with pytest.raises(WeightsError, match=re.escape("missing ['local_linear3.bias'], unexpected ['x']")):
        Exposing.from_published({**state, "x": torch.zeros(1)})


def test_region_heads_do_not_see_their_region():
    torch.manual_seed(0)
    model = Exposing(**SMALL).eval()
    pixels = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        before = model(pixels)[2]
        model.region_model1.layer4[1].bn2.bias.add_(1.0)
        after = model(pixels)[2]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_losses_by_hand():
    model = Exposing(**SMALL, settings=ExposingSettings(mixup=0))
    fused, every = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 0.0]])
    without = torch.tensor([[[0.0, 0.0]], [[2.0, -1.0]]])
    labels = torch.tensor([0])
    classification, alignment, local = model.losses((fused, every, without), labels).tolist()
    wanted = sum(F.cross_entropy(logits, labels).item() for logits in (fused, every, *without))
    assert classification == pytest.approx(wanted, rel=1e-5)

    def divergence(logits):  # KL(logits || every), over B x C
        q, p = (logits / 1.5).softmax(1), (every / 1.5).softmax(1)
        return (q * (q / p).log()).sum().item() / 2

    assert alignment == pytest.approx(divergence(fused), rel=1e-4)
    assert local == pytest.approx(math.exp(-divergence(without[0]) - divergence(without[1])), rel=1e-4)


def test_information_losses_do_not_move_what_all_regions_say():
    model = Exposing(**SMALL)
    every = torch.randn(4, 2, requires_grad=True)
    others = torch.randn(3, 4, 2, requires_grad=True)
    losses = model.losses((others[0], every, others[1:]), torch.zeros(4, dtype=torch.long))
    losses[1:].sum().backward()
    assert every.grad.abs().sum() == 0
    assert others.grad.abs().sum() > 0


def test_automatic_weights():
    balance = AutomaticWeights(2)
    with torch.no_grad():
        balance.params.copy_(torch.tensor([1.0, 2.0]))
    total = balance(torch.tensor([3.0, 4.0])).item()
    assert total == pytest.approx(0.5 * 3 + math.log(2) + 4 / 8 + math.log(5), rel=1e-6)


def test_settings_switch_losses_off_and_fix_their_weights(batch_of):
    torch.manual_seed(0)
    model = Exposing(**SMALL, settings=ExposingSettings(local_loss=False, balance="fixed", mixup=0)).train()
    total, parts = model.loss(batch_of(model))
    assert set(parts) == {"classification", "global"}
    assert total.item() == pytest.approx(parts["classification"] + 2 * parts["global"], rel=1e-5)


def test_preprocessing_is_blue_first():
    image = np.zeros((60, 60, 3), np.uint8)
    image[:] = (255, 0, 51)
    pixels = Exposing(**SMALL).preprocess([image])
    assert pixels.shape == (1, 3, 48, 48)
    wanted = (torch.tensor([0.2, 0.0, 1.0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0, :, 5, 5], wanted)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_overfits(mixup, overfit, batch_of, heat):
    torch.manual_seed(0)
    model = Exposing(**SMALL, settings=ExposingSettings(mixup=mixup))
    losses = overfit(model, 3e-4, 12)
    floor = 3 * math.log(2) + 0.5  # no classification and global loss, the largest local one, weights as they start
    assert np.mean(losses[-3:]) - floor < (0.5 if mixup else 0.2) * (losses[0] - floor)
    assert heat(model, batch_of(model).pixels[:2]).shape == (2, 1, 2, 2)


def test_trains_in_bfloat16(batch_of):
    torch.manual_seed(0)
    model = Exposing(**SMALL).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model.loss(batch_of(model))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
