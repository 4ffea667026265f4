"""A tiny built set of faces, and what the grounded teacher wrote about it."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.data.build import build
from ffaa.data.recipe import DataRecipe
from ffaa.mllm.answer import format_answer
from ffaa.vqa import produce
from ffaa.vqa.conversation import read_jsonl
from ffaa.vqa.row import VqaRow
from ffaa.vqa.teachers.grounded_teacher import GroundedTeacher


@pytest.fixture(scope="session")
def crops(tmp_path_factory, hopper, astronaut):
    """A built set of 8 faces (one of them whole, without a detection), half of them swaps with masks."""
    root = tmp_path_factory.mktemp("data")
    for i in range(8):
        rng = np.random.default_rng(i)
        photo = (hopper[60:420, 90:450], astronaut[20:220, 130:330])[i % 2]
        small = cv2.resize(photo, (200, 200)).astype(np.float32) * rng.uniform(0.75, 1.1) + rng.normal(0, 6, (1, 1, 3))
        name = f"fake/swap/f{i}.png" if i % 4 > 1 else f"real/r{i}.png"
        for folder, pixels in (("", np.clip(small, 0, 255)), ("masks/swap", np.full((200, 200), 255))):
            if folder and name.startswith("real"):
                continue
            path = root / "photos" / (f"{folder}/f{i}.png" if folder else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    Image.fromarray(np.full((120, 120, 3), 80, np.uint8)).save(root / "photos" / "real" / "blank.png")
    out = tmp_path_factory.mktemp("set")
    source = {"kind": "folder", "root": "photos", "types": {"swap": "identity_exchange"}}
    recipe = DataRecipe.model_validate(
        {"name": "t", "sources": [source], "pose": False, "val": 0, "test": 0, "no_face": "whole", "duplicates": False}
    )
    build(recipe, root, out, workers=0)
    return out


@pytest.fixture(scope="session")
def rows(crops, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert produce.generate(crops, out, GroundedTeacher(format_answer, 0)) == 9
    return list(read_jsonl(out, VqaRow))
