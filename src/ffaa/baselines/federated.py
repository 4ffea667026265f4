"""Federated averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, Algorithm 1): clients train copies of one model on their own images; the server averages the copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ffaa.errors import UsageError


def split_clients(count: int, clients: int, seed: int) -> list[np.ndarray]:
    """Which of `count` samples each client holds: a random even split (the published setting, independent and
    identically distributed); sizes differ by one at most. Raises UsageError where a client would have none."""
    if clients > count:
        raise UsageError(f"{clients} clients cannot share {count} images; set fewer clients")
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(count), clients)]


def split_clients_by(groups: Sequence[str], clients: int) -> list[np.ndarray]:
    """A split by group, such as the collection a photo is from, so that clients' images differ: groups go, largest
    first, to the client that has the fewest samples. Raises UsageError where there are fewer groups than clients."""
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    if clients > len(names):
        raise UsageError(f"{clients} clients cannot share {len(names)} groups; set fewer clients")
    held: list[list[str]] = [[] for _ in range(clients)]
    sizes = np.zeros(clients, int)
    for i in np.argsort(-counts, kind="stable"):
        client = int(sizes.argmin())
        held[client].append(str(names[i]))
        sizes[client] += counts[i]
    return [np.flatnonzero(np.isin(groups, names_held)) for names_held in held]


def choose_clients(clients: int, share: float, rng: np.random.Generator) -> list[int]:
    """The clients of a round: a random share of them, one at least, ascending."""
    wanted = max(1, round(share * clients))
    return sorted(int(i) for i in rng.choice(clients, wanted, replace=False))


def federated_average(states: Sequence[Mapping[str, Tensor]], sizes: Sequence[float]) -> dict[str, Tensor]:
    """The mean of the clients' state dicts, weighted by their numbers of samples: w = sum_k (n_k / n) w_k.

    Statistics of batch norms are averaged too; counters (integers) are the largest of all. Raises UsageError when the
    keys differ.
    """
    if not states or len(states) != len(sizes) or any(state.keys() != states[0].keys() for state in states):
        raise UsageError("federated averaging needs state dicts of one model, and a size for each")
    shares = [size / sum(sizes) for size in sizes]
    mean: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
            mean[name] = torch.as_tensor(total).to(first.dtype)
        else:
            mean[name] = torch.stack([state[name] for state in states]).amax(0)
    return mean


def federated_round(
    model: nn.Module, train: Callable[[nn.Module, int], None], chosen: Sequence[int], sizes: Sequence[int]
) -> None:
    """One round, in place: every chosen client trains a copy of `model`, which then becomes their average.

    train: called with a copy and the client's number; it changes the copy. sizes: samples of every client. Only the
    running mean is kept, so memory does not grow with the clients.
    """
    mean: dict[str, Tensor] = {}
    seen = 0
    for client in chosen:
        local = copy.deepcopy(model)
        train(local, client)
        state = {name: value.detach() for name, value in local.state_dict().items()}
        mean = federated_average([mean, state], [seen, sizes[client]]) if mean else state
        seen += sizes[client]
    model.load_state_dict(mean)
