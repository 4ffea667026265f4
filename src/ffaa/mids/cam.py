"""Heatmaps of MIDS: which places of the face speak for an answer (Fig. 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn
from torch.nn import functional

from ffaa.errors import UsageError
from ffaa.mids.encoder import fine_stages
from ffaa.mids.label import claimed_class
from ffaa.mids.model import MIDS
from ffaa.types import Label


def heatmap(
    mids: MIDS,
    pixel_values: Tensor,
    answer: Label,
    size: int,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> np.ndarray:
    """Where the image supports the answer: what speaks for the class in which the answer is right (0 real, 3 fake).

    mids: in eval mode; its weights may be frozen. pixel_values (3, H, W) as for MIDS. answer: what the answer says.
    size: side of the face image. input_ids, attention_mask (T,): the answer's text; without them the text branch is
    left out (see `MIDS.classify`).
    On nano's tower, or on both: gradient times activation at its 14 x 14 stage. On a transformer, as the paper:
    Grad-CAM on the patches of both projected visual layers, each scaled to a maximum of 1, then summed. Only what
    speaks for the class is shown, not what speaks against it.
    Returns float32 (size, size) in [0, 1]; all zero when no place speaks for the class.
    Raises UsageError when the patches are not a square grid.
    """
    target = claimed_class(answer)
    # The caller may be in no_grad or inference mode; clones made here are ordinary tensors again.
    with torch.inference_mode(False), torch.enable_grad():
        pixels, text, mask = pixel_values[None].clone(), None, None
        if input_ids is not None:
            mask = torch.ones_like(input_ids)[None] if attention_mask is None else attention_mask[None].clone()
            text = mids.encode_text(input_ids[None].clone(), mask)

        def logits(last: Tensor, previous: Tensor) -> Tensor:
            several = [None if one is None else one.expand(len(last), *one.shape[1:]) for one in (text, mask)]
            return mids.classify(several[0], several[1], mids.project((last, previous)))

        if stages := fine_stages(mids.image_encoder):
            grid = _of_stages(lambda given: logits(*mids.encode_image(given)), stages, pixels, target)
        else:
            grid = _of_patches(mids, logits, pixels, target)
    large = functional.interpolate(grid.float(), (size, size), mode="bilinear", align_corners=False)
    return _unit(large)[0, 0].clamp(0, 1).cpu().numpy()


def _of_stages(logits: Callable[[Tensor], Tensor], stages: Sequence[nn.Module], pixels: Tensor, target: int) -> Tensor:
    """Gradient times activation, summed over channels and stages: (1, 1, h, w), what speaks for the class; the rest is
    0."""
    # The image twice: on a batch of one, torch 2.13's backward of BatchNorm in eval mode misreads a gradient that lies
    # channels last, as that of a mean over cells does. Grad is asked for, so that a graph exists over frozen weights.
    twice = pixels.repeat(2, 1, 1, 1).requires_grad_()
    found: list[Tensor] = LayerGradientXActivation(logits, list(stages)).attribute(twice, target=target)
    return torch.cat([one[:1].detach() for one in found], 1).sum(1, keepdim=True).clamp(min=0)


def _of_patches(mids: MIDS, logits: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, target: int) -> Tensor:
    """Grad-CAM of both projected layers: (1, 1, h, w)."""
    with torch.no_grad():
        last, previous = mids.encode_image(pixels)
    features = (last.detach().requires_grad_(), previous.detach().requires_grad_())  # weights may be frozen
    maps = [
        LayerGradCam(logits, layer).attribute(features, target=target, relu_attributions=True).detach()
        for layer in (mids.patches1, mids.patches2)
    ]
    grid = _unit(maps[0]) + _unit(maps[1])  # (1, 1, P)
    side = math.isqrt(grid.shape[-1])
    if side * side != grid.shape[-1]:
        raise UsageError(f"{grid.shape[-1]} patches are not a square grid; a heatmap needs a square image")
    return grid.view(1, 1, side, side)


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Blend the heat, in the colours of 'inferno', over the image.

    image uint8 RGB (S, S, 3); heat float (S, S) in [0, 1]; strength in [0, 1], 0 shows the image alone.
    Returns uint8 RGB (S, S, 3). Raises UsageError when the two sizes differ.
    """
    if image.shape != (*heat.shape, 3):
        raise UsageError(f"the image is {image.shape}, the heatmap {heat.shape}; compute the heatmap at the image size")
    levels = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    blended: np.ndarray = np.rint((1 - strength) * image + strength * colours).astype(np.uint8)
    return blended


def _unit(values: Tensor) -> Tensor:
    """Scale values >= 0 to a maximum of 1; zeros stay zeros."""
    top = values.max()
    return values / top if top > 0 else values
