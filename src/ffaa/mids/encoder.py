"""The image encoder in two parts: the frozen one, whose output can be kept, and the trained blocks above it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ffaa.errors import UsageError
from ffaa.mids.eyes import Eyes
from ffaa.mllm.tower import GRID, RESIDUAL, STEM, WIDTHS, ForensicVisionModel

Unfreeze = int | Literal["all"]
_FINE = 4  # of a tower's stages: the last one in front of the last halving
_ABOVE_TOWER = ("head.", "previous_", "last_")


def blocks(encoder: nn.Module) -> nn.ModuleList:
    """The encoder's blocks in order: a transformer's layers, or the stages of nano's tower. Empty where it has none."""
    if isinstance(encoder, ForensicVisionModel):
        return encoder.stages
    for path in ("encoder.layers", "vision_model.encoder.layers"):
        try:
            found = encoder.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    return nn.ModuleList()


def fine_stages(encoder: nn.Module) -> list[nn.Module]:
    """The stage of nano's tower, or of each, that gives its last map finer than its patches: (B, 112, 14, 14) beside
    7 x 7. None for a transformer, whose blocks all have the patches' own grid."""
    towers = encoder.towers if isinstance(encoder, Eyes) else [encoder]
    return [tower.stages[_FINE] for tower in towers if isinstance(tower, ForensicVisionModel)]


def trained_names(encoder: nn.Module, unfreeze: Unfreeze) -> frozenset[str]:
    """Names of the parameters and buffers in the encoder's last `unfreeze` blocks; of nano's tower also those behind
    its last stage (the residual branch, which runs beside the stages, stays frozen). Raises UsageError for more blocks
    than there are."""
    names = frozenset(encoder.state_dict())
    if unfreeze == "all":
        return names
    found = blocks(encoder)
    if unfreeze > len(found):
        raise UsageError(
            f"unfreeze is {unfreeze}, but the image encoder shows {len(found)} numbered blocks; use 'all' or 0"
        )
    if not unfreeze:
        return frozenset()
    place = next(name for name, module in encoder.named_modules() if module is found)
    above = _ABOVE_TOWER if isinstance(encoder, ForensicVisionModel) else ()
    starts = tuple(f"{place}.{i}." for i in range(len(found) - unfreeze, len(found))) + above
    return frozenset(name for name in names if name.startswith(starts))


def saved_names(encoder: nn.Module, unfreeze: Unfreeze) -> frozenset[str]:
    """Names of what MIDS's file brings of its image encoder: what is trained, and towers of its own."""
    own = (name for name in encoder.state_dict() if name.startswith("own."))
    return trained_names(encoder, unfreeze) | frozenset(own if isinstance(encoder, Eyes) else ())


class _ReachedError(Exception):
    pass


class SplitEncoder:
    """`below` and `above` in a row give what the encoder's last two hidden states are.

    unfreeze 0: all of the encoder is below. 'all': all of it is above, and `below` hands the pixels on.
    """

    def __init__(self, encoder: nn.Module, unfreeze: Unfreeze):
        self.encoder, self.unfreeze = encoder, unfreeze
        self.count = len(blocks(encoder))
        trained_names(encoder, unfreeze)  # raises for too many

    @torch.no_grad()
    def below(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> what the frozen part gives, (B, ...): the one tensor that is worth keeping."""
        if self.unfreeze == "all":
            return pixel_values
        if not self.unfreeze:
            hidden = self.encoder(pixel_values=pixel_values, output_hidden_states=True).hidden_states
            return torch.stack((hidden[-2], hidden[-1]), 1)
        if isinstance(self.encoder, ForensicVisionModel):
            x = self.encoder.stem(pixel_values)
            for stage in self.encoder.stages[: self.count - self.unfreeze]:
                x = stage(x)
            return torch.cat([x.flatten(1), self.encoder.residual(pixel_values).flatten(1)], 1)
        kept: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            kept.append(args[0])
            raise _ReachedError

        handle = blocks(self.encoder)[self.count - self.unfreeze].register_forward_pre_hook(catch)
        try:
            self.encoder(pixel_values=pixel_values)
        except _ReachedError:
            return kept[0]
        finally:
            handle.remove()
        raise UsageError("the image encoder does not run its blocks in order; use unfreeze 0 or 'all'")

    def above(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """What `below` gave -> (last, last but one), (B, 1 + P, C) each, with gradients of the trained blocks."""
        if self.unfreeze == "all":
            hidden = self.encoder(pixel_values=kept, output_hidden_states=True).hidden_states
            return hidden[-1], hidden[-2]
        if not self.unfreeze:
            return kept[:, 1], kept[:, 0]
        first = self.count - self.unfreeze
        if isinstance(self.encoder, ForensicVisionModel):
            return self._above_tower(self.encoder, kept, first)
        x, previous = kept, kept
        for block in blocks(self.encoder)[first:]:
            previous, x = x, block(x, attention_mask=None)
        return x, previous

    def _above_tower(self, tower: ForensicVisionModel, kept: Tensor, first: int) -> tuple[Tensor, Tensor]:
        tail = RESIDUAL[-1] * GRID * GRID
        residual = kept[:, -tail:].view(len(kept), RESIDUAL[-1], GRID, GRID)
        width = WIDTHS[tower.config.lite][first - 1] if first else STEM
        side = math.isqrt((kept.shape[1] - tail) // width)
        x = previous = kept[:, :-tail].view(len(kept), width, side, side)
        for number, stage in enumerate(tower.stages[first:], first):
            x = stage(x)
            if number == self.count - 2:
                previous = x
        return (
            _tokens(torch.cat([tower.head(x), residual], 1), tower.last_pooled, tower.last_patch, tower.last_norm),
            _tokens(
                torch.cat([previous, residual], 1), tower.previous_pooled, tower.previous_patch, tower.previous_norm
            ),
        )


def _tokens(grid: Tensor, pooled: nn.Module, patch: nn.Module, norm: nn.Module) -> Tensor:
    """(B, C, 7, 7) -> (B, 1 + 49, width), as the tower's own `forward` makes its two layers."""
    tokens = grid.flatten(2).transpose(1, 2)
    found: Tensor = norm(torch.cat([pooled(tokens.mean(1, keepdim=True)), patch(tokens)], 1))
    return found
