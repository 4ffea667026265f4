"""Pictures for a page: small, inside the page itself (data URIs), and readable without colour."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffaa.mids.cam import overlay
from ffaa.types import Box

PHOTO_SIDE, FACE_SIDE = 720, 224
HALF = 0.5
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def data_uri(pixels: np.ndarray, side: int) -> str:
    """uint8 RGB (H, W, 3) -> a JPEG of at most `side` px as 'data:image/jpeg;base64,...'."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def with_boxes(pixels: np.ndarray, boxes: Sequence[Box], side: int = PHOTO_SIDE) -> np.ndarray:
    """The photo at most `side` px large, with each box (in photo pixels) drawn and numbered from 1.

    Boxes are white between black lines, so that they show on any ground. uint8 RGB in and out.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), reducing_gap=2.0)
    scale = image.width / pixels.shape[1]
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=16)
    for number, box in enumerate(boxes, 1):
        left, top, right, bottom = (round(edge * scale) for edge in (box.left, box.top, box.right, box.bottom))
        for grow, colour in ((2, "black"), (1, "white"), (0, "white"), (-1, "black")):
            edges = (left - grow, top - grow, right + grow - 1, bottom + grow - 1)
            if edges[0] < edges[2] and edges[1] < edges[3]:
                draw.rectangle(edges, outline=colour)
        label = str(number)
        at = (max(0, min(left, image.width - 12 * len(label))), max(0, min(top, image.height - 20)))
        x0, y0, x1, y1 = draw.textbbox(at, label, font)
        draw.rectangle((x0 - 3, y0 - 3, x1 + 3, y1 + 3), fill="white", outline="black")
        draw.text(at, label, "black", font)
    return np.asarray(image)


def heat_picture(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The heat over a face, with a line around what is above half of its highest value.

    image uint8 RGB (S, S, 3), heat float (S, S) in [0, 1]; returns uint8 RGB (S, S, 3).
    """
    picture = overlay(image, heat)
    outlines, _ = cv2.findContours((heat >= HALF).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for width, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.drawContours(picture, outlines, -1, colour, width)
    return picture


def where(heat: np.ndarray) -> str:
    """The ninth of the picture with the most heat, e.g. 'upper left' (the viewer's left); '' where there is none."""
    if not heat.any():
        return ""
    cells = cv2.resize(heat.astype(np.float32), (3, 3), interpolation=cv2.INTER_AREA)
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    return "centre" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"
