"""For `schemathesis run`: what a schema cannot say of a photo, that its bytes are one (docs/serve.md)."""

import io

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


schemathesis.openapi.format("binary", st.integers(0, 9).map(_png))
