"""Linear heads on the vision tower: what it is trained by, and the baseline that MIDS has to beat."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ffaa.types import ForgeryType

TYPES = list(ForgeryType)


class TowerHeads(nn.Module):
    """Linear heads on the tower: pooled last and previous -> forgery logit; pooled last -> type; cells -> changed."""

    def __init__(self, size: int):
        super().__init__()
        self.last = nn.Linear(size, 1)
        self.previous = nn.Linear(size, 1)
        self.kind = nn.Linear(size, len(TYPES))
        self.cell = nn.Linear(size, 1)

    def forgery_logit(self, hidden: tuple[Tensor, Tensor]) -> Tensor:
        """(B,) mean of the two logits; its sigmoid is the tower's own forgery score."""
        return ((self.last(hidden[1][:, 0]) + self.previous(hidden[0][:, 0])) / 2)[:, 0]

    def loss(self, hidden: tuple[Tensor, Tensor], fake: Tensor, kind: Tensor, mask: Tensor) -> Tensor:
        """fake float (B,), kind int64 (B,), mask (B, 7, 7) with -1 where unknown."""
        hidden = (hidden[0].float(), hidden[1].float())
        bce = F.binary_cross_entropy_with_logits
        loss = bce(self.last(hidden[1][:, 0])[:, 0], fake, reduction="mean")
        loss = loss + 0.5 * bce(self.previous(hidden[0][:, 0])[:, 0], fake)
        loss = loss + 0.3 * F.cross_entropy(self.kind(hidden[1][:, 0]), kind)
        known = mask.flatten(1) >= 0
        if known.any():
            loss = loss + 0.3 * bce(self.cell(hidden[1][:, 1:])[..., 0][known], mask.flatten(1)[known])
        return loss
