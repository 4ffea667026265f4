"""The parity fixtures of the baselines: weights by name, inputs by seed, outputs as published."""

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from ffaa.baselines.base import Batch

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
