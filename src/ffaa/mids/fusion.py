"""Image-answer cross fusion of MIDS: dual cross-attention (Eq. 4) and aggregation by learnable queries (Eq. 5).

Attribute names are those of the published checkpoint. There `tii` is the side of the text (text queries image),
`itt` the side of the image (image queries text); `1` is the image encoder's last layer, `2` the last but one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """Multi-head attention, then LayerNorm; with `residual` the query is added before the norm.

    Eq. 4 and 5 have no residual; the self-attention before the classifier has.
    """

    def __init__(self, dim: int, num_heads: int, residual: bool = False) -> None:
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.residual = residual

    def forward(self, query: Tensor, source: Tensor, ignore: Tensor | None = None) -> Tensor:
        """query (N, Q, d) attends to source (N, S, d); ignore (N, S) bool, True where the source is padding.

        Returns (N, Q, d).
        """
        attended = self.cross_attn(query, source, source, key_padding_mask=ignore, need_weights=False)[0]
        output: Tensor = self.norm(attended + query if self.residual else attended)
        return output


class DualCrossAttention(nn.Module):
    """Eq. 4 and 5 for both visual layers: text and two visual features in, four vectors out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        # Unit scale, as the LayerNorm outputs they attend to: smaller queries start as a plain mean over tokens.
        self.lr_tii1 = nn.Parameter(torch.randn(1, dim))
        self.lr_tii2 = nn.Parameter(torch.randn(1, dim))
        self.lr_itt1 = nn.Parameter(torch.randn(1, dim))
        self.lr_itt2 = nn.Parameter(torch.randn(1, dim))
        self.cr_tii1 = AttentionBlock(dim, num_heads)
        self.cr_tii2 = AttentionBlock(dim, num_heads)
        self.cr_itt1 = AttentionBlock(dim, num_heads)
        self.cr_itt2 = AttentionBlock(dim, num_heads)
        self.cr_tii1_lr = AttentionBlock(dim, num_heads)
        self.cr_tii2_lr = AttentionBlock(dim, num_heads)
        self.cr_itt1_lr = AttentionBlock(dim, num_heads)
        self.cr_itt2_lr = AttentionBlock(dim, num_heads)

    def forward(
        self, text: Tensor, last: Tensor, previous: Tensor, ignore: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """text (N, T, d); last, previous (N, 1 + P, d), CLS first; ignore (N, T) bool, True where text is padding.

        Returns text-side and image-side of the last layer, then of the last but one: four times (N, 1, d).
        """
        # Eq. 4
        text_last = self.cr_tii1(text, last)
        text_previous = self.cr_tii2(text, previous)
        image_last = self.cr_itt1(last, text, ignore)
        image_previous = self.cr_itt2(previous, text, ignore)
        # Eq. 5; the text side still has one row per text token, padding included
        n = len(text)
        return (
            self.cr_tii1_lr(self.lr_tii1.expand(n, 1, -1), text_last, ignore),
            self.cr_itt1_lr(self.lr_itt1.expand(n, 1, -1), image_last),
            self.cr_tii2_lr(self.lr_tii2.expand(n, 1, -1), text_previous, ignore),
            self.cr_itt2_lr(self.lr_itt2.expand(n, 1, -1), image_previous),
        )
