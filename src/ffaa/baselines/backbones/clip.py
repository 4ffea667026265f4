"""CLIP with a vision transformer (Radford et al. 2021) with the names of the original OpenAI state dict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffaa.baselines.base import State, tensor_of


class CLIPConfig(NamedTuple):
    """Sizes of both towers. Heads: the original has one per 64 channels."""

    embed_dim: int
    image_resolution: int
    vision_layers: int
    vision_width: int
    vision_heads: int
    vision_patch_size: int
    context_length: int
    vocab_size: int
    transformer_width: int
    transformer_heads: int
    transformer_layers: int


class _Block(nn.Module):
    """Residual attention block, norms first, QuickGELU. x (B, N, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class _Vision(nn.Module):
    """The image tower. `grid` sees the patches (B, width, H, W) before the last block, for Grad-CAM: behind it only
    the class token counts."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, self.side = config.vision_width, config.image_resolution // config.vision_patch_size
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, config.vision_patch_size, config.vision_patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(self.side**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _Transformer(width, config.vision_layers, config.vision_heads)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))
        self.grid = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, embed_dim), not normalised."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        *first, last = self.transformer.resblocks
        for block in first:
            x = block(x)
        cells = self.grid(x[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side)))
        x = last(torch.cat([x[:, :1], cells.flatten(2).transpose(1, 2)], 1))
        return self.ln_post(x[:, 0]) @ self.proj


class CLIP(nn.Module):
    """Both towers. Texts enter as embeddings, so that prompts can be learnt."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config, width = config, config.transformer_width
        self.visual = _Vision(config)
        self.transformer = _Transformer(width, config.transformer_layers, config.transformer_heads)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, embedded: Tensor, ends: Tensor) -> Tensor:
        """embedded (K, N, width), N up to context_length; ends (K,) places of the end token -> (K, embed_dim), not
        normalised. A token sees those before it alone, so what follows the end is without effect."""
        length = embedded.shape[1]
        mask = torch.full((length, length), -torch.inf, device=embedded.device).triu_(1)
        x = self.ln_final(self.transformer(embedded + self.positional_embedding[:length], mask))
        return x[torch.arange(len(x), device=x.device), ends] @ self.text_projection


def config_of(state: State, name: str, vision_heads: int | None = None, text_heads: int | None = None) -> CLIPConfig:
    """The sizes that the tensors of an original state dict have; heads are one per 64 channels unless given.

    Raises WeightsError (naming `name`) when a tensor that a size is read from is missing.
    """
    positions = len(tensor_of(state, "visual.positional_embedding", name))
    vision_width, _, patch, _ = tensor_of(state, "visual.conv1.weight", name).shape
    context, width = tensor_of(state, "positional_embedding", name).shape
    return CLIPConfig(
        embed_dim=tensor_of(state, "text_projection", name).shape[1],
        image_resolution=patch * round((positions - 1) ** 0.5),
        vision_layers=_layers(state, "visual.transformer."),
        vision_width=vision_width,
        vision_heads=vision_heads or max(1, vision_width // 64),
        vision_patch_size=patch,
        context_length=context,
        vocab_size=len(tensor_of(state, "token_embedding.weight", name)),
        transformer_width=width,
        transformer_heads=text_heads or max(1, width // 64),
        transformer_layers=_layers(state, "transformer."),
    )


def _layers(state: State, prefix: str) -> int:
    """Number of blocks under a prefix; a missing inner tensor must not hide one."""
    prefix += "resblocks."
    return 1 + max((int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)), default=0)
