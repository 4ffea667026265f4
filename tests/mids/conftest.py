"""The published MIDS of the parity fixture, written as a real `mids.pth`, and a small MIDS of our own kind."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

from ffaa.mids.checkpoint import load_published
from ffaa.mids.model import MIDS, MIDSConfig

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture(scope="session")
def spec():
    return json.loads((PARITY / "mids.json").read_text())


@pytest.fixture(scope="session")
def expected():
    with np.load(PARITY / "mids.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="session")
def full_state(spec):
    module_spec = importlib.util.spec_from_file_location("parity_fill", PARITY / "fill.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    shapes = spec["state_dict_shapes"]
    return {key: torch.from_numpy(module.fill(key, shape, spec["salt"])) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def published_state(spec, full_state):
    return {key: full_state[key.removeprefix("module.")] for key in spec["checkpoint_keys"]}


@pytest.fixture(scope="session")
def published_path(published_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "mids.pth"
    torch.save(published_state, path)
    return path


@pytest.fixture(scope="session")
def published_encoders(spec, full_state):
    """Frozen T5 and CLIP of the fixture; the last two CLIP blocks are zeroed, so only mids.pth can bring them."""
    text = T5EncoderModel(T5Config(**spec["t5_config"]))
    image = CLIPVisionModel(CLIPVisionConfig(**spec["clip_vision_config"]))
    for name, encoder in (("text_encoder.", text), ("image_encoder.", image)):
        state = {key.removeprefix(name): value for key, value in full_state.items() if key.startswith(name)}
        if "vision_model.post_layernorm.bias" not in encoder.state_dict():
            state = {key.removeprefix("vision_model."): value for key, value in state.items()}
        encoder.load_state_dict(state)
    with torch.no_grad():
        for key, parameter in image.named_parameters():
            if "layers.1." in key or "layers.2." in key:
                parameter.zero_()
    return text.eval(), image.eval()


@pytest.fixture(scope="session")
def published(published_path, published_encoders):
    return load_published(published_path, *published_encoders)


def _small_encoders():
    torch.manual_seed(1)
    text = T5EncoderModel(T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4))
    vision = CLIPVisionConfig(
        hidden_size=48, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    return text, CLIPVisionModel(vision)


@pytest.fixture
def make_encoders():
    """Builds the same small text and image encoder each time it is called."""
    return _small_encoders


@pytest.fixture
def encoders(make_encoders):
    return make_encoders()


@pytest.fixture
def small(encoders):
    return MIDS(*encoders, MIDSConfig(dim=32, image_dim=48)).eval()


@pytest.fixture
def batch():
    """input_ids, attention_mask (3, 2, 9) with padding, pixel_values (3, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, 50, (3, 2, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 1, 5:] = 0
    mask[2, 0, 2:] = 0
    return ids * mask, mask, torch.randn(3, 3, 32, 32, generator=generator)
