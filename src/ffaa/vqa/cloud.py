"""A word cloud as in the paper's Fig. 10."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1200, 700
LARGEST, SMALLEST = 160, 13  # font size, pixels
COLOURS = {"noun": "#1b6ca8", "adjective": "#d1495b"}
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_GAP = 3


def draw_cloud(counts: Mapping[tuple[str, str], int]) -> Image.Image:
    """Words as large as the root of their counts, the most frequent in the middle; the same counts, the same pixels.

    counts: (word, 'noun' or 'adjective') -> number. Words that find no place are left out. RGB, 1200 x 700.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, taken = ImageDraw.Draw(image), np.zeros((HEIGHT, WIDTH), bool)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    angles = np.arange(0, 2500) * 0.08  # radians along the spiral
    spiral = np.stack([WIDTH / HEIGHT * np.cos(angles), np.sin(angles)], 1) * (angles * 2.0)[:, None]
    for (word, kind), count in ordered:
        size = int(LARGEST * (count / ordered[0][1]) ** 0.5)
        if size < SMALLEST:
            break
        font = ImageFont.truetype(str(_FONT), size)
        left, top, right, bottom = font.getbbox(word)
        width, height = int(right - left) + 2 * _GAP, int(bottom - top) + 2 * _GAP
        for dx, dy in spiral:
            x, y = int(WIDTH / 2 + dx - width / 2), int(HEIGHT / 2 + dy - height / 2)
            if x < 0 or y < 0 or x + width > WIDTH or y + height > HEIGHT or taken[y : y + height, x : x + width].any():
                continue
            taken[y : y + height, x : x + width] = True
            pen.text((x + _GAP - left, y + _GAP - top), word, COLOURS[kind], font)
            break
    return image
