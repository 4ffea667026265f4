"""The parity fixtures of the baselines: weights by name, inputs by seed, outputs as published."""

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml
from captum.attr import LayerGradCam

from ffaa.baselines.base import Batch
from ffaa.baselines.recipe import recipe_class
from ffaa.data import manifest
from ffaa.data.manifest import Row
from ffaa.types import ForgeryType, Label

PARITY = Path(__file__).parent / "parity"
FILL = Path(__file__).parents[1] / "fixtures" / "parity" / "fill.py"


class Parity(NamedTuple):
    """spec: NAME.json; state: the filled published state dict; expected: NAME.npz; pixels: the input."""

    spec: dict
    state: dict[str, torch.Tensor]
    expected: dict[str, torch.Tensor]
    pixels: torch.Tensor


def _fill():
    module_spec = importlib.util.spec_from_file_location("parity_fill", FILL)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.fill


@pytest.fixture(scope="session")
def fill():
    return _fill()


@pytest.fixture(scope="session")
def parity(fill):
    """name -> Parity. The rule of the spec may be 'fan_in (KEY: small)'."""

    def load(name: str) -> Parity:
        spec = json.loads((PARITY / f"{name}.json").read_text())
        rule, _, rest = spec["rule"].partition(" (")
        small = rest.partition(":")[0]
        state = {
            key: torch.from_numpy(np.asarray(fill(key, shape, spec["salt"], "small" if key == small else rule)))
            for key, shape in spec["state_dict_shapes"].items()
        }
        state = {key: v.reshape(spec["state_dict_shapes"][key]) for key, v in state.items()}
        with np.load(PARITY / f"{name}.npz") as file:
            expected = {key: torch.from_numpy(file[key]) for key in file.files}
        shape = tuple(int(n) for n in spec["input"]["rng"].split("uniform(-1, 1, (")[1].split(")")[0].split(","))
        pixels = np.random.default_rng(21).uniform(-1, 1, shape).astype(np.float32)
        return Parity(spec, state, expected, torch.from_numpy(pixels))

    return load


@pytest.fixture
def synthetic():
    """side -> uint8 RGB images: 8 of coarse cells and a little noise, the last 4 with narrow stripes over them."""

    def images(side: int) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        out = []
        for i in range(8):
            coarse = rng.uniform(60, 190, (4, 4, 3)).astype(np.float32)
            image = np.kron(coarse, np.ones((-(-side // 4), -(-side // 4), 1), np.float32))[:side, :side]
            image = image + rng.normal(0, 4, image.shape)
            if i >= 4:
                image = image + 40 * (np.arange(side) % 3 < 1)[None, :, None]
            out.append(np.clip(image, 0, 255).astype(np.uint8))
        return out

    return images


@pytest.fixture
def batch_of(synthetic):
    """baseline -> Batch of 8 synthetic images at its input size, the last 4 fake."""

    def make(model) -> Batch:
        pixels = model.preprocess(synthetic(model.image_size))
        fake = torch.tensor([0.0] * 4 + [1.0] * 4)
        kind = torch.tensor([0] * 4 + [1, 2, 3, 1])
        return Batch(pixels, fake, kind, torch.where(fake[:, None, None] > 0, 0.5, 0.0).expand(8, 7, 7).clone())

    return make


@pytest.fixture
def overfit(batch_of):
    """(baseline, learning rate, steps) -> losses of training on the same 8 images, one per step."""

    def run(model, lr: float, steps: int) -> list[float]:
        torch.manual_seed(0)
        batch = batch_of(model)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
        model.train()
        losses = []
        for _ in range(steps):
            loss, parts = model.loss(batch)
            assert all(isinstance(value, float) for value in parts.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


@pytest.fixture
def heat():
    """(baseline, pixels) -> Grad-CAM of the score on the heat layer, (B, 1, H, W)."""

    def run(model, pixels: torch.Tensor) -> torch.Tensor:
        return LayerGradCam(model.eval().score, model.heat_layer).attribute(pixels)

    return run


@pytest.fixture(scope="session")
def built_set(tmp_path_factory):
    """A folder with manifest.parquet and 20 crops of 64 x 64 px; every second one is fake: stripes on its left half,
    which is its mask. 12 are for training, 8 for validation. The files of 4 rows of other splits are not there."""
    root, rows = tmp_path_factory.mktemp("built"), []
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    cv2.imwrite(str(root / "left.png"), mask)
    for number, split in enumerate(["train"] * 12 + ["val"] * 8 + ["test"] * 2 + ["bench"] * 2):
        rng, fake = np.random.default_rng((5, number)), number % 2 == 1
        if split in ("train", "val"):
            image = np.kron(rng.uniform(60, 190, (4, 4, 3)), np.ones((16, 16, 1))) + rng.normal(0, 4, (64, 64, 3))
            image[:, :32] += fake * 40 * (np.arange(32) // 2 % 2)[None, :, None]
            cv2.imwrite(str(root / f"{number}.png"), np.clip(image, 0, 255).astype(np.uint8))
        rows.append(
            Row(
                path=f"{number}.png",
                width=64,
                height=64,
                size=64,
                photo_width=64,
                photo_height=64,
                split=split,
                label=Label.FAKE if fake else Label.REAL,
                dataset="stripes",
                mask="left.png" if fake else "",
                forgery_type=ForgeryType.IDENTITY_EXCHANGE if fake else ForgeryType.REAL,
            )
        )
    manifest.write(root / manifest.NAME, rows)
    return root


def _plain(name, changes):
    model = {"npr": {"depth": 18, "image_size": 32}}.get(name, {})
    base = {"name": "tiny", "baseline": name, "seed": 3, "model": model, "workers": 0}
    return base | changes | {"settings": {"batch": 4} | changes.get("settings", {})}


@pytest.fixture(scope="session")
def tiny_baseline():
    """(name, changes) -> the recipe of a baseline for the built set."""
    return lambda name, **changes: recipe_class(name).model_validate(_plain(name, changes))


@pytest.fixture
def write_recipe(tmp_path):
    """(name, changes) -> the same as a file."""

    def write(name, **changes):
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump(_plain(name, changes)))
        return path

    return write
