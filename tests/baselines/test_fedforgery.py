import re

import pytest
import torch

from ffaa.baselines.fedforgery import CodeBook, FedForgery
from ffaa.errors import WeightsError


@pytest.fixture(scope="module")
def published(parity):
    return parity("fedforgery")


def test_parity(published):
    model = FedForgery.from_published(published.state)
    with torch.no_grad():
        logits, (drawn, encoding) = model(published.pixels), model.generate(published.pixels)
        scores = model.score(published.pixels)
    expected = published.expected
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=0)
    torch.testing.assert_close(drawn.mean((2, 3)), expected["residual_mean"], rtol=1e-4, atol=0)
    torch.testing.assert_close(encoding.mean((2, 3)), expected["encoding_mean"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores, logits.softmax(1)[:, 0])  # class 1 is real
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"]
    assert model.state_dict().keys() == published.state.keys()


@pytest.mark.parametrize(("classes", "width", "codes", "depth", "size"), [(2, 16, 8, 18, 50), (3, 8, 4, 50, 64)])
def test_other_configurations_are_read_from_the_tensors(classes, width, codes, depth, size):
    torch.manual_seed(0)
    model = FedForgery(classes, width, codes, depth).eval()
    again = FedForgery.from_published(model.state_dict())
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))
        scores, probabilities = again.score(pixels), again(pixels).softmax(1)
        drawn = again.generate(pixels)[0]
    assert drawn.shape == pixels.shape
    torch.testing.assert_close(scores, 1 - probabilities[:, 1])


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "L_bn.weight"}
    with pytest.raises(WeightsError, match=re.escape("missing ['L_bn.weight'], unexpected ['x']")):
        FedForgery.from_published({**state, "x": torch.zeros(1)})
    with pytest.raises(WeightsError, match=re.escape("missing ['emb.weight']")):
        FedForgery.from_published({"x": torch.zeros(1)})


def test_code_book_gives_the_nearest_code():
    book = CodeBook(5, 3)
    x = torch.randn(2, 3, 4, 6)
    found = book(x, learn=False)
    for b, i, j in ((0, 0, 0), (1, 3, 5), (1, 2, 1)):
        nearest = ((book.weight - x[b, :, i, j, None]) ** 2).sum(0).argmin()
        assert torch.equal(found[b, :, i, j], book.weight[:, nearest])


def test_code_book_gradients_go_straight_through_and_are_means_per_code():
    book = CodeBook(2, 1)
    with torch.no_grad():
        book.weight.copy_(torch.tensor([[0.0, 10.0]]))
    x = torch.tensor([1.0, -1.0, 2.0, 9.0]).view(1, 1, 2, 2).requires_grad_()
    weights = torch.tensor([1.0, 2.0, 6.0, 5.0]).view(1, 1, 2, 2)
    (book(x, learn=True) * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    torch.testing.assert_close(book.weight.grad, torch.tensor([[3.0, 5.0]]))
    book.weight.grad = None
    book(x, learn=False).sum().backward()
    assert book.weight.grad is None


def test_every_part_learns(batch_of):
    torch.manual_seed(0)
    model = FedForgery(width=8, codes=4, depth=18, image_size=32).train()
    loss, _ = model.loss(batch_of(model))
    loss.backward()
    for name in ("encoder.0.weight", "decoder.0.convs.1.weight", "emb.weight", "L_bn.bias", "classifier.fc.weight"):
        assert model.get_parameter(name).grad.abs().sum() > 0, name


def test_real_is_class_one(batch_of):
    torch.manual_seed(0)
    model = FedForgery(width=8, codes=4, depth=18, image_size=32).train()
    batch = batch_of(model)
    with torch.no_grad():
        model.classifier.fc.weight.zero_()
        model.classifier.fc.bias.copy_(torch.tensor([-5.0, 5.0]))
        real = model.loss(batch._replace(fake=torch.zeros(8)))[1]["classification"]
        fake = model.loss(batch._replace(fake=torch.ones(8)))[1]["classification"]
    assert real < 1e-3 < 9 < fake


def test_preprocessing(synthetic):
    pixels = FedForgery(width=8, codes=4, depth=18).preprocess([synthetic(100)[0]])
    assert pixels.shape == (1, 3, 296, 296)
    image = synthetic(32)[1]
    pixels = FedForgery(width=8, codes=4, depth=18, image_size=32).preprocess([image])
    wanted = (torch.from_numpy(image) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0], wanted.permute(2, 0, 1))


def test_overfits(overfit, batch_of, heat):
    torch.manual_seed(0)
    model = FedForgery(width=16, codes=8, depth=18, image_size=64)
    losses = overfit(model, 1e-3, 15)
    assert losses[-1] < 0.7 * losses[0]
    assert heat(model, batch_of(model).pixels[:2]).shape == (2, 1, 2, 2)


def test_trains_in_bfloat16(batch_of):
    torch.manual_seed(0)
    model = FedForgery(width=8, codes=4, depth=18, image_size=32).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model.loss(batch_of(model))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
