"""The paper's augmentations of the images that MIDS is trained on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ffaa.data.crops import seed_each


@cache
def _augmentation() -> Any:
    import albumentations as A

    # Strengths are albumentations 1's defaults, which the paper names no others for: version 2 draws ten times the
    # noise and another blur under the same names.
    return A.Compose(
        [
            A.ImageCompression(quality_range=(60, 100), p=0.5),
            A.GaussNoise(std_range=(10**0.5 / 255, 50**0.5 / 255), p=0.2),
            A.MotionBlur(blur_limit=(3, 7), p=0.2),
            A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.8, 0.8), p=0.2),
            A.OneOf([A.FancyPCA(p=0.5), A.HueSaturationValue(p=0.5)], p=0.7),
        ]
    )


def augment(image: np.ndarray, seed: int, row: int, variant: int) -> np.ndarray:
    """uint8 RGB (S, S, 3) -> the same size, augmented as seed, row and variant alone decide."""
    transform = _augmentation()
    seed_each(transform, np.random.default_rng((seed, 6, variant, row)))
    changed: np.ndarray = transform(image=np.ascontiguousarray(image))["image"]
    return changed
