"""Grad-CAM of MIDS: which patches speak for an answer (Fig. 7)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from captum.attr import LayerGradCam
from torch import Tensor
from torch.nn import functional

from ffaa.errors import UsageError
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
    """Where the image supports the answer: Grad-CAM of the class in which the answer is right (0 real, 3 fake).

    mids: in eval mode; its weights may be frozen. pixel_values (3, H, W) as for MIDS. answer: what the answer says.
    size: side of the face image. input_ids, attention_mask (T,): the answer's text; without them the text branch is
    left out (see `MIDS.classify`).
    Computed on the patches of both projected visual layers, each scaled to a maximum of 1, then summed.
    Returns float32 (size, size) in [0, 1]; all zero when no patch speaks for the class.
    Raises UsageError when the patches are not a square grid.
    """
    # The caller may be in no_grad or inference mode; clones made here are ordinary tensors again.
    with torch.inference_mode(False), torch.enable_grad():
        with torch.no_grad():
            last, previous = mids.encode_image(pixel_values[None].clone())
            text, mask = None, None
            if input_ids is not None:
                mask = torch.ones_like(input_ids)[None] if attention_mask is None else attention_mask[None].clone()
                text = mids.encode_text(input_ids[None].clone(), mask)
        # Grad is asked for here, so that a graph exists even though every weight may be frozen.
        features = (last.detach().requires_grad_(), previous.detach().requires_grad_())

        def logits(last: Tensor, previous: Tensor) -> Tensor:
            return mids.classify(text, mask, mids.project((last, previous)))

        target = claimed_class(answer)
        maps = [
            LayerGradCam(logits, layer).attribute(features, target=target, relu_attributions=True).detach()
            for layer in (mids.patches1, mids.patches2)
        ]
    grid = _unit(maps[0]) + _unit(maps[1])  # (1, 1, P)
    side = math.isqrt(grid.shape[-1])
    if side * side != grid.shape[-1]:
        raise UsageError(f"{grid.shape[-1]} patches are not a square grid; a heatmap needs a square image")
    large = functional.interpolate(
        grid.float().view(1, 1, side, side), (size, size), mode="bilinear", align_corners=False
    )
    return _unit(large)[0, 0].clamp(0, 1).cpu().numpy()


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
