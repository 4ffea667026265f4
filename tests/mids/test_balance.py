import numpy as np
import pytest
import torch
from tests.mids.test_train import FAKE, REAL, mined

from ffaa.mids.balance import class_counts, class_weights, order, pair_labels
from ffaa.mids.model import loss


def test_eq_3_by_hand():
    assert pair_labels(mined(0, REAL, (REAL, FAKE, REAL))) == [0, 1, 0]
    assert pair_labels(mined(0, FAKE, (REAL, FAKE, FAKE))) == [2, 3, 3]
    assert pair_labels(mined(0, FAKE, (REAL, None, FAKE))) == [2, 3]
    assert pair_labels(mined(0, FAKE, (REAL, FAKE, FAKE)), 1) == [2]
    assert class_counts([[0, 1, 0], [2, 3, 3]]) == [2, 1, 1, 2]


def test_weights_are_inverse_to_the_counts_and_one_on_the_mean():
    counts = [60, 20, 0, 20]
    weights = class_weights(counts)
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 60, 0, 100 / 60])
    assert sum(w * n for w, n in zip(weights.tolist(), counts, strict=True)) == pytest.approx(100)


def test_the_weighted_loss_by_hand():
    logits, labels = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 1.0]]), torch.tensor([0, 2])
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([0.5, 1, 3, 1])
    torch.testing.assert_close(loss(logits, labels, weights), (0.5 * each[0] + 3 * each[1]) / 2)
    torch.testing.assert_close(loss(logits, labels, torch.ones(4)), loss(logits, labels))


def test_sampling_draws_rare_classes_oftener_and_follows_from_the_seed():
    labels = [[0, 0, 1]] * 90 + [[2, 3, 3]] * 10
    plain = order(labels, "none", 0, 0)
    assert sorted(plain) == list(range(100))
    rare = np.concatenate([order(labels, "sampling", 0, epoch) for epoch in range(40)]) >= 90
    assert len(rare) == 4000
    assert rare.mean() == pytest.approx(0.5, abs=0.04)
    assert np.array_equal(order(labels, "sampling", 3, 1), order(labels, "sampling", 3, 1))
    assert not np.array_equal(order(labels, "sampling", 3, 1), order(labels, "sampling", 3, 2))
