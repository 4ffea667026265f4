import re

import pytest
import torch
from torch.nn import functional as F

from ffaa.baselines.npr import NPR, residual
from ffaa.errors import WeightsError


@pytest.fixture(scope="module")
def published(parity):
    return parity("npr")


def test_parity(published):
    model = NPR.from_published(published.state)
    with torch.no_grad():
        logits = model(published.pixels)
        torch.testing.assert_close(logits, published.expected["logits"], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(model.score(published.pixels), logits[:, 0].sigmoid())
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"]


def test_residual_is_what_nearest_neighbours_lose():
    pixels = torch.randn(2, 3, 12, 10)
    small = F.interpolate(pixels, scale_factor=0.5, mode="nearest")
    torch.testing.assert_close(residual(pixels), pixels - F.interpolate(small, scale_factor=2, mode="nearest"))
    assert torch.equal(residual(pixels[..., :11, :9]), residual(pixels[..., :10, :8]))


@pytest.mark.parametrize(("depth", "classes"), [(18, 1), (34, 4), (152, 2)])
def test_other_configurations_are_read_from_the_tensors(depth, classes):
    torch.manual_seed(0)
    model = NPR(depth, classes).eval()
    again = NPR.from_published(model.state_dict())
    pixels = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))
        scores = again.score(pixels)
    assert again(pixels).shape == (2, classes)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_unused_layer_of_the_published_trainer_is_left_out(published):
    NPR.from_published({**published.state, "fc.weight": torch.zeros(1, 2048), "fc.bias": torch.zeros(1)})


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "layer2.3.bn3.running_var"}
    with pytest.raises(WeightsError, match=re.escape("missing ['layer2.3.bn3.running_var'], unexpected ['surplus']")):
        NPR.from_published({**state, "surplus": torch.zeros(1)})
    with pytest.raises(WeightsError, match=re.escape("missing ['fc1.weight']")):
        NPR.from_published({"fc.weight": torch.zeros(1, 2048)})


def test_preprocessing(synthetic):
    pixels = NPR().preprocess([synthetic(100)[0]])
    assert pixels.shape == (1, 3, 256, 256)
    image = synthetic(64)[4]
    pixels = NPR(image_size=64).preprocess([image])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(pixels[0], wanted)


def test_overfits(overfit, batch_of, heat):
    torch.manual_seed(0)
    model = NPR(image_size=48)
    losses = overfit(model, 1e-3, 12)
    assert losses[-1] < 0.3 * losses[0]
    assert heat(model, batch_of(model).pixels[:2]).shape == (2, 1, 6, 6)
