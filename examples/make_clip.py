"""Makes a short video of two people out of the example photos: a forged face on the left, a real one on the right.

Run: python examples/make_clip.py clip.mp4
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from ffaa.data.images import load_photo

PHOTOS = Path(__file__).parent / "photos"
WIDTH, HEIGHT, RATE, SECONDS = 1280, 720, 10, 6


def pasted(frame: np.ndarray, photo: np.ndarray, centre: tuple[float, float], scale: float) -> None:
    """Draws the photo around (x, y), enlarged by `scale`; what is outside of the frame is cut off."""
    x, y = centre[0] - scale * photo.shape[1] / 2, centre[1] - scale * photo.shape[0] / 2
    place = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    cv2.warpAffine(photo, place, (WIDTH, HEIGHT), dst=frame, borderMode=cv2.BORDER_TRANSPARENT)


def main(out: str) -> None:
    left, right = (load_photo(PHOTOS / name).pixels for name in ("forged_swap.jpg", "grace_hopper.jpg"))
    with av.open(out, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(RATE * SECONDS):
            way = number / (RATE * SECONDS)
            frame = np.full((HEIGHT, WIDTH, 3), 96, np.uint8)
            pasted(frame, left, (320 + 40 * np.sin(6 * way), 360), 1.2 + 0.15 * way)
            pasted(frame, right, (960 - 60 * way, 370), 0.9 + 0.1 * np.cos(5 * way))
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(sys.argv[1])
