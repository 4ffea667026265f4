import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa.data.crops import plain_face, read_photo
from ffaa.mllm import train_tower as module
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.train_tower import (
    TowerArgs,
    average_towers,
    imagenet_tower,
    load_tower,
    tower_scores,
    train_tower,
)

STARTED = ("tower.stem.", "tower.stages.", "tower.head.")
ARGS = TowerArgs(epochs=2, batch=4, workers=0, bf16=False, save_every=2, blend=0.5)


@pytest.fixture(scope="module")
def rows(tiny_rows):
    """12 training photos (3 steps an epoch) and 4 for validation, without boxes."""
    found = [r.model_copy(update={"box": None}) for r in tiny_rows]
    return [r for r in found if r.split == "train"][:12] + [r for r in found if r.split == "val"][:4]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_manifest, rows, lite0_state):
    out = tmp_path_factory.mktemp("tower")
    return out, train_tower(ARGS, rows, tiny_manifest, out, imagenet_tower(lite0_state, 0), 0.0, 0)


def test_writes_what_it_learnt(whole, lite0_state):
    out, figures = whole
    assert [h["epoch"] for h in figures["history"]] == [1, 2]
    assert all(0 <= h[name] <= 1 for h in figures["history"] for name in ("val_auc", "val_acc", "val_type_acc"))
    assert json.loads((out / "tower.json").read_text()) == {"history": figures["history"], "steps": 6, "seed": 0}
    tower, heads = load_tower(out / "tower.safetensors")
    assert not tower.training
    assert not heads.training
    assert not torch.equal(tower.stem[0].weight, lite0_state["_conv_stem.weight"])
    assert torch.allclose(tower.stem[0].weight, lite0_state["_conv_stem.weight"], atol=0.1)  # that is where it began


def test_keeps_the_epoch_with_the_best_auc(whole, rows, tiny_manifest):
    out, figures = whole
    tower, heads = load_tower(out / "tower.safetensors")
    val = rows[12:]
    scores, kinds = tower_scores(tower, heads, tiny_manifest, val)
    assert scores.shape == kinds.shape == (4,)
    best = max(figures["history"], key=lambda h: (h["val_auc"], h["epoch"]))
    truth = np.array([r.label == "fake" for r in val])
    assert ((scores > 0.5) == truth).mean() == pytest.approx(best["val_acc"])
    with torch.no_grad():  # one by one, on the crop that `analyze` makes
        pixels = pixel_tensor([plain_face(read_photo(tiny_manifest, val[1]), val[1], 224).image])
        assert heads.forgery_logit(tower(pixels).hidden_states).sigmoid().item() == pytest.approx(scores[1], abs=1e-4)


def test_the_file_is_read_strictly(whole, tmp_path):
    state = load_file(whole[0] / "tower.safetensors")
    removed = dict(state)
    del removed["heads.kind.bias"]
    for changed in (removed, {**state, "heads.more": torch.zeros(1)}):
        save_file(changed, tmp_path / "x.safetensors")
        with pytest.raises(RuntimeError, match=r"heads\.(kind\.bias|more)"):
            load_tower(tmp_path / "x.safetensors")


def test_some_real_photos_must_be_left():
    with pytest.raises(ValueError, match="leave no real photo"):
        TowerArgs(blend=0.8, decode=0.2)


def test_the_mean_of_towers(whole, tmp_path):
    one = load_file(whole[0] / "tower.safetensors")
    other = {name: value + 2 if value.is_floating_point() else value + 5 for name, value in one.items()}
    save_file(other, tmp_path / "other.safetensors")
    average_towers([whole[0] / "tower.safetensors", tmp_path / "other.safetensors"], tmp_path / "mean.safetensors")
    mean = load_file(tmp_path / "mean.safetensors")
    assert list(mean) == list(one)
    for name, value in one.items():
        want = value + 1 if value.is_floating_point() else value
        assert torch.allclose(mean[name], want, atol=1e-5), name
    load_tower(tmp_path / "mean.safetensors")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("calls", [2, 6])  # behind the checkpoint of step 2; behind the first epoch and step 4
def test_a_killed_run_ends_with_the_same_weights(whole, rows, tiny_manifest, lite0_state, tmp_path, monkeypatch, calls):
    read, sample = [], module.train_sample

    def dying(*args, **kwargs):
        if len(read) == calls * 4:
            raise KilledError
        read.append(1)
        return sample(*args, **kwargs)

    monkeypatch.setattr(module, "train_sample", dying)
    if calls == 6:
        monkeypatch.setattr(module, "tower_scores", _dies_at_second_call(module.tower_scores))
    with pytest.raises(KilledError):
        train_tower(ARGS, rows, tiny_manifest, tmp_path, imagenet_tower(lite0_state, 0), 0.0, 0)
    assert (tmp_path / "tower.state.pt").exists()
    assert not (tmp_path / "tower.json").exists()
    monkeypatch.undo()

    resumed = []
    monkeypatch.setattr(module, "train_sample", lambda *a, **k: resumed.append(1) or sample(*a, **k))
    figures = train_tower(ARGS, rows, tiny_manifest, tmp_path, imagenet_tower(lite0_state, 0), 0.0, 0)
    assert len(resumed) == (6 - (2 if calls == 2 else 4)) * 4
    want, found = (load_file(folder / "tower.safetensors") for folder in (whole[0], tmp_path))
    assert figures == whole[1]
    assert want.keys() == found.keys()
    assert all(torch.equal(want[k], found[k]) for k in want)
    final = [torch.load(f / "tower.state.pt", weights_only=True)["model"] for f in (whole[0], tmp_path)]
    assert all(torch.equal(final[0][k], final[1][k]) for k in final[0])


def _dies_at_second_call(function):
    calls = []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KilledError
        return function(*args, **kwargs)

    return call


def test_doubled_collections_are_drawn_twice(rows, tiny_manifest, lite0_state, tmp_path, monkeypatch):
    drawn = []

    def note(root, row, *args):
        drawn.append(row)
        raise KilledError

    monkeypatch.setattr(module, "train_sample", note)
    seen = {}

    class Samples(module._Samples):
        def __init__(self, *args):
            super().__init__(*args)
            seen["rows"], seen["total"] = self.rows, self.total

    monkeypatch.setattr(module, "_Samples", Samples)
    args = ARGS.model_copy(update={"double": ["tiny"]})
    with pytest.raises(KilledError):
        train_tower(args, rows, tiny_manifest, tmp_path, imagenet_tower(lite0_state, 0), 0.0, 0)
    assert len(seen["rows"]) == 6 * 2 + 6  # reals twice, fakes once
    assert seen["total"] == 2 * (18 // 4) * 4


def test_a_collection_is_left_out_and_augmentations_have_their_strength(
    rows, tiny_manifest, lite0_state, tmp_path, monkeypatch
):
    drawn = []

    def note(root, row, size, rng, blend, decode, colours, strength, together, blurred):
        drawn.append((row.dataset, strength, together, blurred))
        if len(drawn) == 4:
            raise KilledError

    real = module.train_sample
    monkeypatch.setattr(module, "train_sample", lambda *a: note(*a) or real(*a))
    mixed = [r.model_copy(update={"dataset": "other"}) if i % 2 else r for i, r in enumerate(rows)]
    args = ARGS.model_copy(update={"without": ["tiny"], "strength": 0.25, "together": True, "blurred": 0.5})
    with pytest.raises(KilledError):
        train_tower(args, mixed, tiny_manifest, tmp_path, imagenet_tower(lite0_state, 0), 0.0, 0)
    assert drawn == [("other", 0.25, True, 0.5)] * 4


def test_an_epoch_holds_every_photo_once_in_another_order(rows, tiny_manifest, monkeypatch):
    drawn = []
    real = module.train_sample
    monkeypatch.setattr(module, "train_sample", lambda root, row, *a: drawn.append(row.path) or real(root, row, *a))
    data = module._Samples(tiny_manifest, rows[:6], 64, TowerArgs(blend=0.0), 0, 12)
    first = [data[i] for i in range(12)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == sorted(r.path for r in rows[:6])
    assert drawn[:6] != drawn[6:]
    again = data[7]  # whatever was read before
    assert np.array_equal(again[0], first[7][0])
    assert np.array_equal(again[3], first[7][3])


def test_what_imagenet_filled_moves_slower(rows, tiny_manifest, lite0_state, tmp_path):
    """By the share of the rate that the recipe names; the residual branch and the heads move as ever."""
    moved = {}
    for share in (1.0, 0.01):
        args = ARGS.model_copy(update={"epochs": 1, "pretrained": share, "weight_decay": 0.0})
        out = tmp_path / str(share)
        train_tower(args, rows, tiny_manifest, out, imagenet_tower(lite0_state, 0), 0.0, 0)
        own = torch.load(out / "tower.state.pt", weights_only=True)["model"]
        begun = imagenet_tower(lite0_state, 0)
        for part, model in (("tower", begun[0]), ("heads", begun[1])):
            for name, value in model.named_parameters():
                kind = "given" if name.startswith(("stem", "stages", "head.")) else "new"
                found = float((own[f"{part}.{name}"] - value.detach()).abs().max())
                moved[share, kind] = max(moved.get((share, kind), 0), found)
    assert moved[0.01, "given"] == pytest.approx(0.01 * moved[1.0, "given"], rel=0.05)
    assert moved[0.01, "new"] == pytest.approx(moved[1.0, "new"], rel=0.3)


def test_a_share_of_the_samples_takes_on_the_look_of_another_photo(rows, tiny_manifest, monkeypatch):
    looks = []
    monkeypatch.setattr(module, "train_sample", lambda *a: looks.append(a[6]))
    for share in (0.0, 0.5):
        data = module._Samples(tiny_manifest, rows, 64, TowerArgs(colours=share), 0, 200)
        for i in range(200):
            with pytest.raises(AttributeError):  # what there is instead of a sample has no image
                data[i]
        borrowed = sum(look is not None for look in looks)
        assert 60 < borrowed < 140 if share else not borrowed


def test_what_is_kept_is_the_average_of_the_weights(rows, tiny_manifest, lite0_state, tmp_path, whole):
    """With a decay of nearly 1 the average stays near the weights of the first step, while the model moves on."""
    args = ARGS.model_copy(update={"average": 0.999})
    train_tower(args, rows, tiny_manifest, tmp_path, imagenet_tower(lite0_state, 0), 0.0, 0)
    own = torch.load(tmp_path / "tower.state.pt", weights_only=True)["model"]
    plain = load_file(whole[0] / "tower.safetensors")
    kept = load_file(tmp_path / "tower.safetensors")
    name = "tower.stem.0.weight"
    begun = lite0_state["_conv_stem.weight"]
    assert torch.equal(own[name], torch.load(whole[0] / "tower.state.pt", weights_only=True)["model"][name])
    assert (kept[name] - begun).abs().mean() < 0.7 * (own[name] - begun).abs().mean()
    assert set(kept) == set(plain)


def test_a_share_of_imagenet_is_put_back(rows, tiny_manifest, lite0_state, tmp_path, monkeypatch):
    """Also when the training was killed in between: of where it began, not of where it went on."""

    def train(name, share):
        args = ARGS.model_copy(update={"epochs": 1, "imagenet_share": share})
        train_tower(args, rows, tiny_manifest, tmp_path / name, imagenet_tower(lite0_state, 0), 0.0, 0)
        return load_file(tmp_path / name / "tower.safetensors")

    plain = train("plain", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "tower_scores", None)  # after the checkpoint of the second of three steps
        with pytest.raises(TypeError):
            train("mixed", 0.25)
    mixed = train("mixed", 0.25)
    begun = imagenet_tower(lite0_state, 0)[0].state_dict()
    names = [name for name in plain if name.startswith(STARTED) and plain[name].is_floating_point()]
    assert {name.split(".")[1] for name in names} == {"stem", "stages", "head"}
    for name in names:
        wanted = 0.75 * plain[name] + 0.25 * begun[name.removeprefix("tower.")]
        assert torch.allclose(mixed[name], wanted, atol=1e-5), name
    rest = [name for name in plain if not name.startswith(STARTED)]
    assert any("residual" in name for name in rest)
    assert [name for name in rest if not torch.equal(mixed[name], plain[name])] == []
    assert set(mixed) == set(plain)


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_only_where_the_processor_has_it(rows, tiny_manifest, lite0_state, tmp_path, monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    tower, heads = imagenet_tower(lite0_state, 0)
    seen = []
    tower.head.register_forward_hook(lambda module, _given, found: seen.append((module.training, found.dtype)))
    args = ARGS.model_copy(update={"bf16": True, "epochs": 1})
    train_tower(args, rows[:4] + rows[12:], tiny_manifest, tmp_path, (tower, heads), 0.0, 0)
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16 if fast else torch.float32}
