import pytest
import torch
from torch import nn

from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mids.start import side_by_side, start_from_heads


@pytest.fixture
def heads():
    torch.manual_seed(5)
    return nn.Linear(48, 1), nn.Linear(48, 1)


@pytest.fixture
def layers():
    return tuple(torch.randn(40, 1 + 16, 48, generator=torch.Generator().manual_seed(n)) for n in (6, 7))


@pytest.mark.parametrize("blocks", [0, 3])
def test_the_odds_are_at_first_those_of_the_heads(encoders, heads, layers, blocks):
    mids = MIDS(*encoders, MIDSConfig(dim=32, image_dim=48, num_self_attention=blocks)).eval()
    text = torch.randn(80, 9, 32, generator=torch.Generator().manual_seed(8))

    def odds():
        with torch.no_grad():
            logits = mids.classify(text, torch.ones(80, 9), mids.project(layers)).view(40, 2, 4)
        return logits[..., 3] - logits[..., 1], logits[..., 2] - logits[..., 0]

    with torch.no_grad():
        said = (heads[0](layers[0][:, 0]) + heads[1](layers[1][:, 0]))[:, 0] / 2
    fresh = odds()
    start_from_heads(mids, *heads, layers)
    for before, after in zip(fresh, odds(), strict=True):
        for answer in range(2):
            close = torch.corrcoef(torch.stack([after[:, answer], said]))[0, 1]
            assert close > 0.9
            assert abs(torch.corrcoef(torch.stack([before[:, answer], said]))[0, 1]) < close - 0.3
            assert 0.5 < after[:, answer].std() / said.std() < 2


def test_everything_still_learns(encoders, heads, layers):
    mids = MIDS(*encoders, MIDSConfig(dim=32, image_dim=48)).train()
    start_from_heads(mids, *heads, layers)
    trained = {n: p for n, p in mids.named_parameters() if p.requires_grad and not n.startswith("image_encoder")}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # behind an output projection of zeros nothing moves in the first step
        optimizer.zero_grad()
        mids.classify(torch.randn(40, 5, 32), None, mids.project(layers)).square().sum().backward()
        optimizer.step()
    assert trained
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum()] == []


def test_heads_side_by_side_say_their_mean(heads):
    heads = [*heads, torch.nn.Linear(48, 1)]
    seen = [torch.randn(5, 48) for _ in heads]
    said = side_by_side(heads)(torch.cat(seen, 1))
    torch.testing.assert_close(said, sum(head(one) for head, one in zip(heads, seen, strict=True)) / 3)
