import numpy as np
import pytest
import torch
from torch import nn

from ffaa.baselines.federated import (
    choose_clients,
    federated_average,
    federated_round,
    split_clients,
    split_clients_by,
)
from ffaa.errors import UsageError


def test_random_split_gives_every_sample_to_one_client():
    parts = split_clients(11, 3, seed=1)
    assert sorted(len(part) for part in parts) == [3, 4, 4]
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
    assert all(np.array_equal(a, b) for a, b in zip(parts, split_clients(11, 3, seed=1), strict=True))
    with pytest.raises(UsageError, match="3 clients cannot share 2 images"):
        split_clients(2, 3, seed=0)


def test_split_by_group_keeps_groups_whole_and_sizes_even():
    groups = ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"]
    parts = split_clients_by(groups, 2)
    held = [{groups[i] for i in part} for part in parts]
    assert held == [{"a", "d"}, {"b", "c"}] or held == [{"a"}, {"b", "c", "d"}]
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
    with pytest.raises(UsageError, match="5 clients cannot share 4 groups"):
        split_clients_by(groups, 5)


def test_clients_of_a_round():
    rng = np.random.default_rng(0)
    assert choose_clients(4, 1.0, rng) == [0, 1, 2, 3]
    assert len(choose_clients(10, 0.3, rng)) == 3
    assert len(choose_clients(10, 0.01, rng)) == 1


def test_average_is_weighted_by_samples():
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([5.0, 6.0]), "n": torch.tensor(7)},
    ]
    mean = federated_average(states, [1, 3])
    torch.testing.assert_close(mean["w"], torch.tensor([4.0, 5.0]))
    assert mean["w"].dtype == torch.float32
    assert mean["n"] == 7
    with pytest.raises(UsageError, match="of one model"):
        federated_average([states[0], {"w": torch.zeros(2)}], [1, 1])


def test_round_is_the_average_of_the_trained_copies():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = []

    def train(copy, client):
        assert all(torch.equal(value, before[name]) for name, value in copy.state_dict().items())
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(client)
            copy[1].running_mean.add_(10 * client)
        trained.append(client)

    federated_round(model, train, [1, 2, 4], sizes=[9, 1, 1, 9, 2])
    assert trained == [1, 2, 4]
    mean = (1 * 1 + 1 * 2 + 2 * 4) / 4
    torch.testing.assert_close(model[0].weight, before["0.weight"] + mean)
    torch.testing.assert_close(model[1].running_mean, before["1.running_mean"] + 10 * mean)
