import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ffaa.baselines import BASELINES
from ffaa.baselines.base import load_strict, read_state, tensor_of, to_pixels
from ffaa.errors import WeightsError

STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


def test_every_baseline_has_its_own_name():
    assert all(baseline.name == name for name, baseline in BASELINES.items())


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {f"module.{key}": value for key, value in STATE.items()},
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in STATE.items()}},
        {"model": STATE, "optimizer": {"lr": 1}},
        {"model": {"state_dict": STATE}},
    ],
)
def test_wrappers_come_off(wrapped, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(wrapped, path)
    for state in (read_state(path), read_state(wrapped)):
        assert state.keys() == STATE.keys()
        assert torch.equal(state["weight"], STATE["weight"])


def test_safetensors_and_torchscript_are_read(tmp_path):
    linear = nn.Linear(3, 2)
    save_file(linear.state_dict(), tmp_path / "a.safetensors")
    torch.jit.save(torch.jit.trace(linear, torch.zeros(1, 3)), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert torch.equal(read_state(tmp_path / name)["weight"], linear.weight)


@pytest.mark.parametrize("content", [None, b"", b"not weights at all"])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_unreadable_file_is_an_error(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [torch.zeros(1)], {"state_dict": {}}])
def test_no_state_dict_is_an_error(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        read_state(tmp_path / "a.pth")


def test_pickled_code_is_not_run(tmp_path):
    torch.save({"weight": nn.Linear(1, 1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        read_state(tmp_path / "a.pth")


def test_missing_unexpected_and_misshapen_keys_are_listed():
    state = {"weight": torch.ones(3, 2), "surplus": torch.zeros(1)}
    message = "missing ['bias'], unexpected ['surplus'], other shape ['weight (3, 2) instead of (2, 3)']"
    linear = nn.Linear(3, 2)
    before = linear.weight.clone()
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_strict(linear, state, "linear")
    assert torch.equal(linear.weight, before)
    with pytest.raises(WeightsError, match=re.escape("missing ['bias']")):
        tensor_of(state, "bias", "linear")


def test_counters_may_be_missing_all_together_only():
    norms = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    state = {key: value for key, value in norms.state_dict().items() if not key.endswith("tracked")}
    load_strict(norms, state, "norms")
    with pytest.raises(WeightsError, match=re.escape("missing ['1.num_batches_tracked']")):
        load_strict(norms, {**state, "0.num_batches_tracked": torch.tensor(0)}, "norms")


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic", "opencv"])
def test_pixels(resampling):
    image = np.full((9, 9, 3), (255, 0, 51), np.uint8)
    pixels = to_pixels([image, image[:4, :4]], 4, (0.5, 0.5, 0.0), (0.5, 0.25, 1.0), resampling)
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels.dtype == torch.float32
    wanted = torch.tensor([1.0, -2.0, 0.2])[None, :, None, None].expand(2, 3, 4, 4)
    torch.testing.assert_close(pixels, wanted)


def test_antialiasing_follows_the_publication():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    contrast = {
        name: to_pixels([stripes], 20, (0, 0, 0), (1, 1, 1), name).std().item() for name in ("bilinear", "opencv")
    }
    assert contrast["bilinear"] < 0.1 < contrast["opencv"]
