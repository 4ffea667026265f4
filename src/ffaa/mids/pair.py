"""MIDS's image encoder where it has a tower of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
from ffaa.mllm.tower_heads import TowerHeads


class TowerPair(nn.Module):
    """nano's tower, through which the MLLM sees too, and beside it one of MIDS's own: other eyes, other mistakes.

    Hidden states are both towers' side by side, (B, 1 + 49, 2 C), those of the shared one first. MIDS's file brings the
    own one; both are frozen in MIDS's training.
    """

    def __init__(self, shared: ForensicVisionModel, own: ForensicVisionModel):
        super().__init__()
        self.shared, self.own = shared, own
        self.config = ForensicVisionConfig(shared.config.image_size, shared.config.hidden_size + own.config.hidden_size)

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """pixel_values (B, 3, S, S) in [-1, 1]."""
        both = (tower(pixel_values).hidden_states for tower in (self.shared, self.own))
        previous, last = (torch.cat(layers, -1) for layers in zip(*both, strict=True))
        return BaseModelOutputWithPooling(
            last_hidden_state=last, pooler_output=last[:, 0], hidden_states=(previous, last)
        )

    def forgery_score(self, hidden: tuple[Tensor, Tensor], shared: TowerHeads, own: TowerHeads) -> list[float]:
        """Of hidden (previous, last): the sigmoid of the mean logit of both towers' linear heads, per image."""
        width = self.shared.config.hidden_size
        first = shared.forgery_logit((hidden[0][..., :width], hidden[1][..., :width]))
        second = own.forgery_logit((hidden[0][..., width:], hidden[1][..., width:]))
        return ((first + second) / 2).sigmoid().tolist()
