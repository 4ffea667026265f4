"""MIDS's image encoder where it has towers of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, Lite
from ffaa.mllm.tower_heads import TowerHeads

Hidden = tuple[Tensor, Tensor]


class Eyes(nn.Module):
    """nano's tower, through which the MLLM sees too, and N of MIDS's own beside it: other eyes, other mistakes.

    Hidden states are all towers' side by side, (B, 1 + 49, (1 + N) C), those of the shared one first. MIDS's file
    brings the own ones; all are frozen in MIDS's training.
    """

    def __init__(self, shared: ForensicVisionModel, own: Iterable[ForensicVisionModel]):
        super().__init__()
        self.shared, self.own = shared, nn.ModuleList(own)
        self.towers = [shared, *self.own]
        width = shared.config.hidden_size * len(self.towers)
        self.config = ForensicVisionConfig(shared.config.image_size, width)

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """pixel_values (B, 3, S, S) in [-1, 1]."""
        found = (tower(pixel_values).hidden_states for tower in self.towers)
        previous, last = (torch.cat(layers, -1) for layers in zip(*found, strict=True))
        return BaseModelOutputWithPooling(
            last_hidden_state=last, pooler_output=last[:, 0], hidden_states=(previous, last)
        )

    @property
    def own_towers(self) -> list[Lite]:
        """What the own ones are."""
        return [tower.config.lite for tower in self.towers[1:]]

    def apart(self, hidden: Hidden) -> list[Hidden]:
        """Hidden (previous, last) of all towers -> of each one, the shared first."""
        previous, last = (layer.chunk(len(self.towers), -1) for layer in hidden)
        return list(zip(previous, last, strict=True))


def tower_logits(encoder: nn.Module, hidden: Hidden, heads: Sequence[TowerHeads]) -> Tensor:
    """(T, B) forgery logits by the linear heads of all towers that MIDS looks through, the shared one first, of hidden
    (previous, last). encoder: its image encoder, `Eyes` or one tower."""
    apart = encoder.apart(hidden) if isinstance(encoder, Eyes) else [hidden]
    return torch.stack([head.forgery_logit(own) for head, own in zip(heads, apart, strict=True)])
