"""The four classes of Eq. 3 among mined answers, and what to do where they are lopsided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ffaa.mids.label import NUM_CLASSES, pair_label
from ffaa.mllm.mine import Mined

Balance = Literal["none", "weights", "sampling"]


def pair_labels(m: Mined, answers: int = 3) -> list[int]:
    """Eq. 3 of each pair of the image with one of its first answers that could be read."""
    return [pair_label(m.label, result) for result in m.results[:answers] if result is not None]


def class_counts(labels: Sequence[Sequence[int]]) -> list[int]:
    """How many pairs of each class; labels: per image."""
    found = Counter(c for one in labels for c in one)
    return [found[c] for c in range(NUM_CLASSES)]


def class_weights(counts: Sequence[int]) -> Tensor:
    """float32 (4,): inverse to the count, the mean over all pairs 1; 0 for a class that is not there."""
    there = sum(n > 0 for n in counts)
    return torch.tensor([sum(counts) / (there * n) if n else 0.0 for n in counts])


def order(labels: Sequence[Sequence[int]], balance: Balance, seed: int, epoch: int) -> np.ndarray:
    """The images of an epoch, as many as there are. sampling: drawn with replacement, those of rare classes more often
    (an image brings all its pairs, so that the classes come nearer to each other but not always level)."""
    rng = np.random.default_rng((seed, 5, epoch))
    if balance != "sampling":
        return rng.permutation(len(labels))
    weights = class_weights(class_counts(labels)).double().numpy()
    chance = np.array([weights[list(one)].sum() for one in labels])
    return rng.choice(len(labels), len(labels), p=chance / chance.sum())
