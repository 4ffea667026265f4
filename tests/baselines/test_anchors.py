import math

import pytest
import torch
from torch.nn import functional as F

from ffaa.baselines.anchors import anchors, assign, corners, detection_loss, mask_box, overlaps


def test_anchors_of_the_published_input():
    boxes = anchors() * 224
    assert boxes.shape == (2 * (49 + 25 + 9 + 1), 4)
    torch.testing.assert_close(boxes[0], torch.tensor([16.0, 16.0, 40.0, 80.0]))
    torch.testing.assert_close(boxes[1], torch.tensor([16.0, 16.0, 80.0, 40.0]))
    torch.testing.assert_close(boxes[2], torch.tensor([48.0, 16.0, 40.0, 80.0]))
    torch.testing.assert_close(boxes[98], torch.tensor([22.5, 22.5, 80.0, 120.0]))
    torch.testing.assert_close(boxes[167], torch.tensor([112.0, 112.0, 224.0, 224.0]))


def test_overlaps():
    a = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    b = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.6, 0.6, 1.0, 1.0]])
    torch.testing.assert_close(overlaps(a, b), torch.tensor([[1.0, 1 / 3, 0.0]]))


def test_whole_image_takes_the_two_largest_anchors_only():
    targets, positive = assign(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), anchors(), 0.5)
    assert positive.nonzero().flatten().tolist() == [166, 167]
    torch.testing.assert_close(targets[positive], torch.zeros(2, 4))


def test_every_area_gets_its_best_anchor_and_offsets_lead_back_to_it():
    areas = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.10, 0.20, 0.18, 0.26]])  # the second overlaps nothing by half
    priors = anchors()
    targets, positive = assign(areas, priors, 0.5)
    assert positive.sum() == 3
    small = positive.nonzero().flatten()[0]
    centre = priors[small, :2] + targets[small, :2] * 0.1 * priors[small, 2:]
    size = priors[small, 2:] * (targets[small, 2:] * 0.2).exp()
    torch.testing.assert_close(corners(torch.cat([centre, size])), areas[1])


def test_of_two_areas_with_one_best_anchor_the_later_takes_it():
    areas = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.98, 0.98]])
    targets, positive = assign(areas, anchors(), 0.5)
    assert positive.nonzero().flatten().tolist() == [166, 167]
    assert targets[166, 2] < 0
    assert torch.equal(targets[167], torch.zeros(4))


def test_no_area():
    targets, positive = assign(torch.zeros(0, 4), anchors(), 0.5)
    assert not positive.any()
    assert targets.shape == (168, 4)


def test_detection_loss_keeps_the_hardest_background():
    logits = torch.zeros(2, 5, 2)
    logits[0, :, 1] = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])  # how wrong the background is
    positive = torch.zeros(2, 5, dtype=torch.bool)
    positive[0, 0] = True
    boxes, targets = torch.zeros(2, 5, 4), torch.ones(2, 5, 4)
    location, confidence = detection_loss(boxes, logits, targets, positive, 2)
    assert location.item() == pytest.approx(4 * 0.5)
    kept = torch.tensor([3.0, 2.0])
    wanted = math.log(2) + F.softplus(kept).sum().item()
    assert confidence.item() == pytest.approx(wanted, rel=1e-5)


def test_nothing_to_find_gives_no_loss():
    none = torch.zeros(1, 5, dtype=torch.bool)
    location, confidence = detection_loss(torch.ones(1, 5, 4), torch.ones(1, 5, 2), torch.zeros(1, 5, 4), none, 2)
    assert location == confidence == 0


def test_rectangle_comes_back_from_its_mask():
    mask = torch.zeros(7, 7)
    rows, columns = torch.tensor([0, 0.5, 1, 1, 0.25, 0, 0]), torch.tensor([0, 0, 0.7, 1, 0.8, 0, 0])
    mask = rows[:, None] * columns[None]
    box = mask_box(0.8 * mask)  # a blend of 80 %
    torch.testing.assert_close(box, torch.tensor([2.3, 1.5, 4.8, 4.25]) / 7)


def test_narrow_empty_and_unknown_masks():
    assert mask_box(torch.full((7, 7), -1.0)) is None
    assert mask_box(torch.zeros(7, 7)) is None
    mask = torch.zeros(7, 7)
    mask[3, 2] = 0.4
    torch.testing.assert_close(mask_box(mask), torch.tensor([2.0, 3.0, 3.0, 4.0]) / 7)
    torch.testing.assert_close(mask_box(torch.ones(7, 7)), torch.tensor([0.0, 0.0, 1.0, 1.0]))
