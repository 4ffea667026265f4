import re

import pytest
import torch

from ffaa.baselines import BASELINES
from ffaa.baselines.xception import Xception
from ffaa.errors import WeightsError


@pytest.fixture(scope="module")
def published(parity):
    return parity("xception")


def test_parity(published, tmp_path):
    path = tmp_path / "xception.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in published.state.items()}}, path)
    model = Xception.from_published(path)
    assert not model.training
    with torch.no_grad():
        logits = model(published.pixels)
        torch.testing.assert_close(logits, published.expected["logits"], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(model.score(published.pixels), logits.softmax(1)[:, 1])
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"]


@pytest.mark.parametrize("head", ["last_linear.", "model.last_linear.", "model.last_linear.1."])
def test_other_published_names_of_the_head(published, head):
    prefix = "model." if head.startswith("model.") else ""
    state = {prefix + k: v for k, v in published.state.items() if not k.startswith("fc.")}
    state |= {head + k: published.state[f"fc.{k}"] for k in ("weight", "bias")}
    model = Xception.from_published(state)
    assert torch.equal(model.fc.weight, published.state["fc.weight"])


def test_imagenet_file_of_2018_with_matrices_and_without_counters(published):
    state = {k: v[..., 0, 0] if k.endswith("pointwise.weight") else v for k, v in published.state.items()}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    model = Xception.from_published(state)
    key = "block5.rep.4.pointwise.weight"
    assert torch.equal(model.state_dict()[key], published.state[key])


def test_strict(published):
    state = dict(published.state)
    state["surplus"] = state.pop("block7.rep.8.bias")
    with pytest.raises(WeightsError, match=re.escape("missing ['block7.rep.8.bias'], unexpected ['surplus']")):
        Xception.from_published(state)
    with pytest.raises(WeightsError, match=re.escape("missing ['fc.weight']")):
        Xception.from_published({k: v for k, v in published.state.items() if k != "fc.weight"})


def test_preprocessing(synthetic):
    assert BASELINES["xception"] is Xception
    model = Xception(image_size=299)
    pixels = model.preprocess([synthetic(299)[0], synthetic(120)[0]])
    assert pixels.shape == (2, 3, 299, 299)
    torch.testing.assert_close(pixels[0], torch.from_numpy(synthetic(299)[0]).permute(2, 0, 1) / 127.5 - 1)


def test_four_classes_learn_the_forgery_type(batch_of, heat):
    torch.manual_seed(0)
    model = Xception(num_classes=4, image_size=72)
    batch = batch_of(model)
    model.train()
    loss, parts = model.loss(batch)
    assert parts == {"classification": loss.item()}
    other, _ = model.loss(batch._replace(kind=batch.kind.flip(0)))
    assert abs(other.item() - loss.item()) > 1e-3
    model.eval()
    scores = model.score(batch.pixels)
    assert scores.shape == (8,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert heat(model, batch.pixels[:2]).shape == (2, 1, 3, 3)


def test_overfits(overfit):
    torch.manual_seed(0)
    losses = overfit(Xception(image_size=64), 1e-3, 5)
    assert losses[-1] < 0.3 * losses[0]
