"""Boxes of the artifact detection module: its anchors, which of them stand for a forged area, and the loss (Liu et al.,
"SSD: Single Shot MultiBox Detector", ECCV 2016). Boxes are in shares of the image's side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE = 224
# side of the map, pixels between two anchors, short and long side of an anchor: of the published 224 px input
_SCALES = ((7, 32, 40, 80), (5, 45, 80, 120), (3, 75, 120, 160), (1, 224, 224, 224))
_VARIANCES = (0.1, 0.2)  # SSD's scales of the offsets of centre and size


def anchors() -> Tensor:
    """(168, 4): centre x, y, width and height of all anchors in the order of the heads: by scale, row, column, and in
    each cell the standing before the lying one; clipped to [0, 1]."""
    out = []
    for cells, step, short, long in _SCALES:
        for row in range(cells):
            for column in range(cells):
                centre = [(column + 0.5) * step, (row + 0.5) * step]
                out += [[*centre, short, long], [*centre, long, short]]
    return (torch.tensor(out) / _SIDE).clamp(0, 1)


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> left, top, right, bottom."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU (n, m) of boxes (n, 4) and (m, 4), both left, top, right, bottom."""
    shared = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(
        min=0
    )
    common = shared.prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def assign(areas: Tensor, priors: Tensor, overlap: float) -> tuple[Tensor, Tensor]:
    """Which anchors stand for which area: offsets to learn (m, 4), and bool (m,), True where an anchor stands for one.

    areas: (n, 4) left, top, right, bottom, n may be 0; priors: (m, 4) from `anchors`. An anchor takes the area it
    overlaps most, if by `overlap` or more; the best anchor of each area takes that one in any case.
    """
    if not len(areas):
        return torch.zeros_like(priors), torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
    shared = overlaps(areas, corners(priors))
    best, which = shared.max(0)
    for area, anchor in enumerate(shared.argmax(1).tolist()):  # one by one: two areas may have the same best anchor
        which[anchor], best[anchor] = area, 2.0
    taken = areas[which]
    centre = ((taken[:, :2] + taken[:, 2:]) / 2 - priors[:, :2]) / (_VARIANCES[0] * priors[:, 2:])
    size = ((taken[:, 2:] - taken[:, :2]) / priors[:, 2:]).log() / _VARIANCES[1]
    return torch.cat([centre, size], 1), best >= overlap


def detection_loss(
    boxes: Tensor, logits: Tensor, targets: Tensor, positive: Tensor, negatives: float
) -> tuple[Tensor, Tensor]:
    """SSD's location loss (smooth L1) and confidence loss (cross-entropy), each per positive anchor of the batch.

    boxes, targets: (B, m, 4); logits: (B, m, 2); positive: bool (B, m). Background counts only for the hardest
    `negatives` x positives anchors of the same image, so an image without a forged area adds nothing.
    """
    count = positive.sum().clamp(min=1)
    location = F.smooth_l1_loss(boxes[positive], targets[positive], reduction="sum") / count
    each = F.cross_entropy(logits.flatten(0, 1), positive.long().flatten(), reduction="none").view_as(positive)
    hardness = each.detach().masked_fill(positive, 0)
    rank = hardness.argsort(1, descending=True).argsort(1)
    wanted = (negatives * positive.sum(1, keepdim=True)).clamp(max=positive.shape[1] - 1)
    kept = positive | (rank < wanted)
    return location, each[kept].sum() / count


def mask_box(mask: Tensor) -> Tensor | None:
    """The smallest box (4,) around a mask (n, n) of changed shares per cell; None where unknown (< 0) or empty.

    A share at the edge says how far the box reaches into that cell, so a rectangle that fills a cell comes back to a
    fiftieth of a cell.
    """
    if mask.min() < 0 or mask.max() <= 0.02:
        return None
    cells = len(mask)
    edges = []
    for shares in (mask.amax(0), mask.amax(1)):
        inside = (shares > 0.02 * shares.max()).nonzero().flatten()
        first, last = int(inside[0]), int(inside[-1])
        if last - first > 1:  # a cell between the edges is full: what it has is how strong the change is
            shares = shares / shares.max()
        if first == last:  # where in its cell a narrow area lies is not known
            edges.append((first / cells, (first + 1) / cells))
        else:
            edges.append(((first + 1 - float(shares[first])) / cells, (last + float(shares[last])) / cells))
    (left, right), (top, bottom) = edges
    return torch.tensor([left, top, right, bottom])
