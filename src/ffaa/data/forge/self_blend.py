"""Self-blended images (Shiraishi & Yamasaki 2022): a face blended with a slightly changed copy of itself.

What is left is what every swap leaves: a blending boundary, and statistics that differ inside and outside.
The mask is a smooth random blob inside the face instead of a landmark hull, so no landmark model is needed.
"""

from __future__ import annotations

import cv2
import numpy as np


def blob_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (height, width) in [0, 1]: a random closed curve around the middle of the face, feathered."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    waves = [rng.normal(0, 0.12) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3)]
    radii = 1 + np.sum(waves, axis=0)
    centre = np.array([width * rng.uniform(0.42, 0.58), height * rng.uniform(0.45, 0.65)])
    size = np.array([width * rng.uniform(0.16, 0.36), height * rng.uniform(0.14, 0.38)])
    points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] * size
    mask: np.ndarray = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1.0)
    feather = rng.uniform(0.01, 0.06) * min(height, width)
    mask = cv2.GaussianBlur(mask, (0, 0), max(feather, 0.8))
    return mask * np.float32(rng.choice([0.6, 0.75, 0.9, 1.0, 1.0]))


def self_blend(face: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB (h, w, 3) -> (forged uint8 RGB of the same shape, mask float32 (h, w) in [0, 1]).

    Either the source or the target copy is changed: colour, sharpness, and a small shift, turn and scale.
    The same generator state gives the same forgery.
    """
    height, width = face.shape[:2]
    changed: np.ndarray = face.astype(np.float32)
    changed = changed * rng.uniform(0.88, 1.12, 3).astype(np.float32) + rng.uniform(-12, 12, 3).astype(np.float32)
    kind = rng.integers(3)
    if kind == 0:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.5, 1.6))
    elif kind == 1:
        changed = changed + rng.uniform(0.3, 1.0) * (changed - cv2.GaussianBlur(changed, (0, 0), 1.5))
    else:
        scale = rng.uniform(0.45, 0.9)
        small = cv2.resize(changed, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        changed = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    changed = np.clip(changed, 0, 255)
    source: np.ndarray
    source, target = (changed, face.astype(np.float32)) if rng.random() < 0.5 else (face.astype(np.float32), changed)
    move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-3, 3), rng.uniform(0.97, 1.03))
    shift = rng.uniform(-0.02, 0.02, 2) * (width, height)
    move = move + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])
    source = cv2.warpAffine(source, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    mask = blob_mask(height, width, rng)
    forged = source * mask[..., None] + target * (1 - mask[..., None])
    return np.clip(forged + 0.5, 0, 255).astype(np.uint8), mask
