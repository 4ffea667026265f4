"""Linear heads on the vision tower: what it is trained by, and the baseline that MIDS has to beat."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ffaa.types import ForgeryType
from ffaa.vqa.trace import tower_words

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

    def opinion(self, hidden: tuple[Tensor, Tensor]) -> tuple[list[float], list[ForgeryType]]:
        """Per image of hidden (previous, last): the forgery score in [0, 1] and the forgery type."""
        kinds = self.kind(hidden[1][:, 0]).argmax(1).tolist()
        return self.forgery_logit(hidden).sigmoid().tolist(), [TYPES[k] for k in kinds]

    def words(self, hidden: tuple[Tensor, Tensor]) -> dict[str, str]:
        """The opinion on one image in words."""
        scores, kinds = self.opinion(hidden)
        return tower_words(scores[0], kinds[0])

    def loss(
        self, hidden: tuple[Tensor, Tensor], fake: Tensor, kind: Tensor, mask: Tensor, real: float = 0.5
    ) -> Tensor:
        """fake float (B,), kind int64 (B,), mask (B, 7, 7) with -1 where unknown.

        real: share of real photos among the training samples; both sides weigh the same, whatever it is.
        """
        hidden = (hidden[0].float(), hidden[1].float())
        bce = F.binary_cross_entropy_with_logits
        weight = torch.where(fake > 0.5, 0.5 / (1 - real), 0.5 / real)
        loss = bce(self.last(hidden[1][:, 0])[:, 0], fake, weight)
        loss = loss + 0.5 * bce(self.previous(hidden[0][:, 0])[:, 0], fake, weight)
        loss = loss + 0.3 * F.cross_entropy(self.kind(hidden[1][:, 0]), kind)
        known = mask.flatten(1) >= 0
        if known.any():
            loss = loss + 0.3 * bce(self.cell(hidden[1][:, 1:])[..., 0][known], mask.flatten(1)[known])
        return loss


def load_heads(path: Path) -> TowerHeads:
    """Heads from a safetensors file, strict, float32, in evaluation mode."""
    state = {name: value.float() for name, value in load_file(path).items()}
    heads = TowerHeads(state["last.weight"].shape[1])
    heads.load_state_dict(state)
    return heads.eval()
