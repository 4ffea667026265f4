"""benchmarks/encoders.py: the draw, the kept features, the probe and DINOv2's weights."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from ffaa.data import manifest
from ffaa.data.manifest import Row
from ffaa.errors import InputError, WeightsError
from ffaa.types import ForgeryType, Label


@pytest.fixture(scope="module")
def encoders():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield importlib.import_module("encoders")


@pytest.fixture(scope="module")
def frozen(encoders):
    return importlib.import_module("frozen")


@pytest.fixture
def no_files(encoders, monkeypatch):
    """Crops of one colour instead of files: the row's number."""
    monkeypatch.setattr(encoders, "crop", lambda _, row: np.full((2, 2, 3), int(row.sha256, 16), np.uint8))


def face(number: int, fake: bool, split: str, dataset: str = "", bench: str = "") -> Row:
    """Forged photos have the larger files, except our own forgeries."""
    return Row(
        path=f"{number}.png", sha256=f"{number:064x}", size=224, split=split, dataset=dataset, bench=bench,
        label=Label.FAKE if fake else Label.REAL,
        forgery_type=ForgeryType.ENTIRE_FACE_SYNTHESIS if fake else ForgeryType.REAL,
        photo_width=300, photo_height=300, photo_bytes=(20_000 if fake and dataset != "forge" else 9_000) + 31 * number,
        red=0.5, green=0.4, blue=0.3,
    )  # fmt: skip


@pytest.fixture
def faces():
    parts = [("train", "a", "", 60), ("train", "forge", "", 60), ("val", "a", "", 20), ("test", "a", "", 20),
             ("bench", "", "X", 20), ("bench", "", "Y", 20)]  # fmt: skip
    rows: list[Row] = []
    for split, dataset, bench, count in parts:
        rows += [
            face(len(rows) + i, bool(i % 2) or dataset == "forge", split, dataset, bench) for i in range(count)
        ]  # fmt: skip
    return rows


def colours(key: str = "k" * 64, stop: int = 10**6, frozen=None):
    """An encoder that gives a crop's colour, and the numbers it has seen; at `stop` crops it is killed."""
    seen: list[int] = []

    def embed(images):
        if len(seen) >= stop:
            raise KeyboardInterrupt
        seen.extend(int(image[0, 0, 0]) for image in images)
        return np.stack([image[0, 0].astype(np.float32) for image in images])

    return frozen.Encoder(embed, key, {"lite0": frozen.View("colour", np.arange(2), 0)}), seen


def test_the_draw_is_balanced_seeded_and_without_our_own_forgeries(encoders, faces):
    drawn = encoders.draw(faces, 40, 0)
    assert [row.label for row in drawn].count(Label.FAKE) == len(drawn) / 2 == 20
    assert {(row.split, row.dataset) for row in drawn} == {("train", "a")}
    assert encoders.draw(faces, 40, 0) == drawn != encoders.draw(faces, 40, 1)
    with pytest.raises(InputError, match="40 real training faces wanted, the set has 30"):
        encoders.draw(faces, 80, 0)


def test_a_killed_pass_goes_on_and_computes_nothing_twice(encoders, frozen, faces, no_files, monkeypatch, tmp_path):
    monkeypatch.setattr(encoders, "SAVE_EVERY", 32)
    rows = faces[:100]
    killed, _ = colours(stop=40, frozen=frozen)
    with pytest.raises(KeyboardInterrupt):
        encoders.features(killed, "one", rows, tmp_path, tmp_path)
    whole, seen = colours(frozen=frozen)
    values, speed = encoders.features(whole, "one", rows[::-1], tmp_path, tmp_path)
    assert sorted(seen) == list(range(32, 100))  # the first 32 were saved
    assert values[:, 0].tolist() == list(range(99, -1, -1))
    assert values.dtype == np.float32
    assert speed > 0
    again, seen = colours(frozen=frozen)
    encoders.features(again, "one", faces[:101], tmp_path, tmp_path)
    assert seen == [100]
    other, seen = colours(key="o" * 64, frozen=frozen)
    encoders.features(other, "one", rows, tmp_path, tmp_path)
    assert len(seen) == 100
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_file_of_features_is_an_error(encoders, frozen, faces, no_files, tmp_path):
    encoder, _ = colours(frozen=frozen)
    encoders.features(encoder, "one", faces[:3], tmp_path, tmp_path)
    next(tmp_path.glob("*.npz")).write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="damaged; remove it"):
        encoders.features(encoder, "one", faces[:3], tmp_path, tmp_path)


def test_the_probe_finds_what_is_there_whatever_its_scale(encoders):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    fake = x[:, 2] + 0.3 * rng.normal(size=400) > 0
    model, c, auc = encoders.probe(x[:200], fake[:200], x[200:300], fake[200:300])
    assert c in encoders.CS
    assert auc > 0.9
    assert ((model.predict_proba(x[300:])[:, 1] > 0.5) == fake[300:]).mean() > 0.85
    scale = np.array([1, 1, 1000, 1, 0.001, 1], np.float32)
    scaled, same, _ = encoders.probe(x[:200] * scale, fake[:200], x[200:300] * scale, fake[200:300])
    assert same == c
    np.testing.assert_allclose(scaled.predict_proba(x * scale), model.predict_proba(x), atol=1e-3)


def test_the_whole_run(encoders, frozen, faces, no_files, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(encoders.ENCODERS, "lite0", lambda options, crops: colours(frozen=frozen)[0])
    manifest.write(tmp_path / "manifest.parquet", faces)
    out = tmp_path / "found.json"
    asked = [str(tmp_path), "--encoders", "lite0", "file", "--train", "40", "--cache", str(tmp_path), "--out", str(out)]
    assert encoders.main(asked) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["photos"] == {"train": 40, "val": 20, "judged": 60}
    known, start = found["rows"]["file statistics"], found["rows"]["lite0"]
    assert (known["features"], start["features"]) == (7, 2)
    assert known["ALL"]["auc"] == 1
    assert (known["ALL"]["real"], known["in domain"]["fake"], known["X"]["fake"]) == (20, 10, 10)
    assert start["ALL"]["auc_interval"][0] < start["ALL"]["auc"] < 0.7
    assert known["auc_over_lite0"]["low"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| file statistics", "| lite0"]
    assert "1.000 [1.000, 1.000]" in lines[2]
    accuracies = [start[name]["acc"] for name in ("X", "Y", "in domain")]
    assert start["sacc"]["value"] == pytest.approx(np.std(accuracies), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["--train", "200"], 1, "lower --train"),
        (["--encoders", "dinov2"], 2, "needs --dinov2 FILE"),
        (["--out", "missing/found.json"], 2, "no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line(encoders, faces, tmp_path, capsys, changes, code, said):
    manifest.write(tmp_path / "manifest.parquet", faces)
    asked = [str(tmp_path), "--encoders", "file", "--train", "40", "--cache", str(tmp_path / "cache"), *changes]
    assert encoders.main(asked) == code
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("error: ")
    assert said in error[-1]


def test_lite0_and_the_tower_come_from_one_pass(frozen, lite0_state, hopper, monkeypatch, tmp_path):
    torch.save(lite0_state, tmp_path / "lite0.pth")
    monkeypatch.setattr(frozen, "part_folder", lambda _: tmp_path)
    image = np.ascontiguousarray(hopper[:224, :224])
    encoder = frozen.lite0(argparse.Namespace(seed=0), None)
    values = encoder.embed([image, image])
    tower = frozen._tower(True, 0)
    with torch.no_grad():
        pixels = frozen.pixel_tensor([image])
        _, last = tower.trunk(pixels)
        hidden = tower(pixels).hidden_states
    pooled = last[:, :1280].mean((2, 3))
    np.testing.assert_allclose(values[:1, encoder.views["lite0"].columns], pooled, rtol=1e-3, atol=1e-5)
    columns = encoder.views["nano's tower, ImageNet"].columns
    np.testing.assert_allclose(values[1, columns], torch.cat([h[0, 0] for h in hidden]), rtol=1e-3, atol=1e-5)
    assert values.shape == (2, 40 + 112 + 1280 + 768)


def exported(model: Dinov2Model) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """The model as an ONNX export holds it."""
    theirs = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
              "o_proj": "output.dense"}  # fmt: skip
    tensors, products = (
        {"decoder.up.weight": np.zeros((1, 2, 3), np.float32)},
        [("/backbone/scores/MatMul", "computed")],
    )
    for name, value in model.state_dict().items():
        for ours, other in theirs.items():
            name = name.replace(f"attention.{ours}", f"attention.{other}")
        if name.endswith("position_embeddings"):
            tensors["place of the class"], tensors["places"] = value[:, :1].numpy(), value[:, 1:].numpy()
        elif value.ndim == 2 and "mask_token" not in name:
            factor = f"onnx::MatMul_{len(products)}"
            tensors[factor] = value.T.numpy()
            products.append(("/backbone/" + name.removesuffix(".weight").replace(".", "/") + "/MatMul", factor))
        elif "mask_token" not in name:
            tensors[f"backbone.{name}"] = value.numpy()
    return tensors, products


def test_an_exported_dinov2_is_the_model(frozen):
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    torch.manual_seed(0)
    model, other = Dinov2Model(config).eval(), Dinov2Model(config).eval()
    pixels = torch.randn(1, 3, 56, 56)
    tensors, products = exported(model)
    frozen.fill(other, frozen.dinov2_state(tensors, products))
    with torch.no_grad():
        torch.testing.assert_close(other(pixels).last_hidden_state, model(pixels).last_hidden_state)
    with pytest.raises(WeightsError, match="missing"):
        frozen.fill(other, frozen.dinov2_state(tensors, products[:-1]))
    with pytest.raises(WeightsError, match="position embeddings"):
        frozen.dinov2_state({name: value for name, value in tensors.items() if name != "places"}, products)
