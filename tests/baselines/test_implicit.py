import re

import numpy as np
import pytest
import torch

from ffaa.baselines.implicit import Implicit, ImplicitSettings
from ffaa.errors import UsageError, WeightsError


@pytest.fixture(scope="module")
def published(parity):
    return parity("implicit")


def test_parity(published, tmp_path):
    path = tmp_path / "resnet34.pkl"  # as the published trainer writes it
    torch.save({"network": published.state, "opt_state": {"state": {}}, "epoch": 1}, path)
    model = Implicit.from_published(path)
    with torch.no_grad():
        probabilities = model.probabilities(published.pixels)
        torch.testing.assert_close(probabilities, published.expected["probabilities"], rtol=1e-4, atol=0)
        torch.testing.assert_close(model.score(published.pixels), probabilities[:, 1])
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"]
    assert model.state_dict().keys() == published.state.keys()


@pytest.mark.parametrize(
    ("classes", "backbone", "size"), [(4, "resnet18", 224), (2, "efficientnet-b0", 200), (2, "efficientnet-b3", 64)]
)
def test_other_configurations_are_read_from_the_tensors(classes, backbone, size):
    torch.manual_seed(0)
    model = Implicit(classes, backbone, size).eval()
    again = Implicit.from_published(model.state_dict())
    pixels = torch.randn(1, 3, size, size)
    with torch.no_grad():
        boxes, anchor_logits, logits = again(pixels)
        assert torch.equal(logits, model(pixels)[2])
        score = again.score(pixels)
    assert boxes.shape == (1, 168, 4)
    assert anchor_logits.shape == (1, 168, 2)
    assert logits.shape == (1, classes)
    assert 0 <= score.item() <= 1


def test_unknown_backbone():
    with pytest.raises(UsageError, match="'resnet33' is no backbone; give one of"):
        Implicit(backbone="resnet33")


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "adm.adm_extra_layers.3.conv2.bias"}
    with pytest.raises(
        WeightsError, match=re.escape("missing ['adm.adm_extra_layers.3.conv2.bias'], unexpected ['x']")
    ):
        Implicit.from_published({**state, "x": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no ResNet of depth"):
        Implicit.from_published({k: v for k, v in published.state.items() if "layer3.5" not in k})


def test_preprocessing_is_blue_first_and_not_normalised():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:] = (10, 100, 250)
    pixels = Implicit(backbone="resnet18", image_size=16).preprocess([image, image[:16, :16]])
    assert pixels.shape == (2, 3, 16, 16)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor([250.0, 100.0, 10.0]))


def test_published_learning_rates():
    settings = ImplicitSettings()
    assert [settings.rate_at(epoch) for epoch in (0, 3, 4, 9, 10, 199)] == [3.6e-4, 3.6e-4, 1e-4, 1e-4, 5e-5, 5e-5]


def test_real_photos_have_no_areas_to_find(batch_of):
    torch.manual_seed(0)
    model = Implicit(backbone="resnet18", image_size=64).train()
    batch = batch_of(model)
    _, parts = model.loss(batch._replace(fake=torch.zeros(8)))
    assert parts["location"] == parts["confidence"] == 0
    _, parts = model.loss(batch)
    assert parts["location"] > 0
    assert parts["confidence"] > 0


def test_overfits(overfit, batch_of, heat):
    torch.manual_seed(0)
    model = Implicit(backbone="resnet18", image_size=64)
    losses = overfit(model, 1e-4, 10)
    assert losses[-1] < 0.4 * losses[0]
    assert heat(model, batch_of(model).pixels[:2]).shape == (2, 1, 2, 2)


def test_trains_in_bfloat16(batch_of):
    torch.manual_seed(0)
    model = Implicit(backbone="resnet18", image_size=64).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model.loss(batch_of(model))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
