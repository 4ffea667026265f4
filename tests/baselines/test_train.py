from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ffaa.baselines import BASELINES, fedforgery
from ffaa.baselines import samples as samples_module
from ffaa.baselines.base import BaselineSettings
from ffaa.baselines.clipping import ClippingSettings
from ffaa.baselines.facial_swap import FacialSwap
from ffaa.baselines.fedforgery import FedForgery
from ffaa.baselines.implicit import ImplicitSettings
from ffaa.baselines.npr import NPR
from ffaa.baselines.recipe import build_detector, load_recipe
from ffaa.baselines.samples import Samples, augmentation, draw, face_of
from ffaa.baselines.train import STATE, best_threshold, chosen_rows, train_baseline
from ffaa.baselines.trained import CARD, WEIGHTS, load_trained
from ffaa.data import manifest
from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.types import ForgeryType, Label
from ffaa.weights import sha256

RECIPES = Path(__file__).parents[2] / "recipes" / "baselines"
CLIP = [16, 32, 2, 32, 2, 16, 77, 49408, 16, 2, 2]


def fresh(recipe):
    """The state dict that a training of the recipe begins with."""
    torch.manual_seed(recipe.seed)
    return build_detector(recipe).state_dict()


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("xception", {"image_size": 32}),
        ("npr", {"depth": 18, "image_size": 32}),
        ("implicit", {"backbone": "resnet18", "image_size": 32}),
        ("clipping", {"config": CLIP, "n_ctx": 4}),
        ("fedforgery", {"depth": 18, "width": 8, "codes": 8, "image_size": 32}),
    ],
)
def test_what_learns_moves_and_the_rest_stays(built_set, tiny_baseline, tmp_path, name, model):
    length = {"clients": 2, "epochs": 1, "local_epochs": 1} if name == "fedforgery" else {"steps": 2}
    recipe = tiny_baseline(name, model=model, settings=length, epoch_steps=1, evaluate_every=2)
    card = train_baseline(recipe, built_set, tmp_path, "cpu", "ffaa train baseline")
    assert (card.name, card.steps, card.samples, card.chosen.step) == (name, 2, 8, 2)
    assert np.isfinite(card.chosen.loss)
    assert card.rows == {"train": {"Real": 6, "Identity exchange": 6}, "val": {"Real": 4, "Identity exchange": 4}}
    assert card.files == {WEIGHTS: sha256(tmp_path / WEIGHTS)}
    assert card.data == {manifest.NAME: sha256(built_set / manifest.NAME)}
    assert not (tmp_path / STATE).exists()
    before, after = fresh(recipe), load_file(tmp_path / WEIGHTS)
    assert before.keys() == after.keys()
    detector = build_detector(recipe)
    learnt = {key for key, parameter in detector.named_parameters() if parameter.requires_grad}
    unused = {key for key in learnt if key.startswith("base_model.fc.")}  # of the published names, gets no gradient
    buffers = {key for key, _ in detector.named_buffers()}
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved - buffers == learnt - unused
    assert card.trainable == sum(before[key].numel() for key in learnt)
    scores = load_trained(tmp_path).scores([np.zeros((50, 50, 3), np.uint8)])
    assert 0 <= scores[0] <= 1


@pytest.mark.parametrize("bf16", [False, True])
def test_it_learns(built_set, tiny_baseline, tmp_path, bf16):
    settings = {"steps": 20, "batch": 8, "lr": 0.005}
    recipe = tiny_baseline("npr", settings=settings, bf16=bf16, balance=True, evaluate_every=10)
    card = train_baseline(recipe, built_set, tmp_path)
    assert [found.step for found in card.validations] == [10, 20]
    assert card.validations[-1].loss < card.validations[0].loss
    assert card.chosen.auc == max(found.auc for found in card.validations) == 1.0
    assert card.chosen.step == min(found.step for found in card.validations if found.auc == 1.0)


class KilledError(Exception):
    pass


def _killed_at(monkeypatch, detector, steps):
    """Each run of the detector's loss dies when it is called for the n-th time, n from `steps`, then none does."""
    loss, left = detector.loss, list(steps)

    def dying(self, batch):
        if left and left[0] == 0:
            left.pop(0)
            raise KilledError
        if left:
            left[0] -= 1
        return loss(self, batch)

    monkeypatch.setattr(detector, "loss", dying)


def _with_kills(monkeypatch, detector, steps, run):
    _killed_at(monkeypatch, detector, steps)
    for _ in steps:
        with pytest.raises(KilledError):
            run()
    return run()


def _same(a, b, folders):
    first, second = (load_file(folder / WEIGHTS) for folder in folders)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert a.validations == b.validations
    assert (a.steps, a.chosen, a.files) == (b.steps, b.chosen, b.files)


def test_a_killed_training_ends_with_the_same_weights(built_set, tiny_baseline, tmp_path, monkeypatch):
    settings = {"steps": 9, "optimizer": "adamw", "schedule": "cosine", "clip": 0.1}
    recipe = tiny_baseline("npr", settings=settings, augment="ours", evaluate_every=4, save_every=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = train_baseline(recipe, built_set, whole)
    second = _with_kills(monkeypatch, NPR, [2, 5, 1], lambda: train_baseline(recipe, built_set, parts))
    _same(first, second, (whole, parts))
    assert sorted(file.name for file in parts.iterdir()) == [CARD, WEIGHTS]


@pytest.fixture
def federation(tiny_baseline, monkeypatch):
    """Two rounds of two clients, two steps of each, with a small classifier in place of the ResNet."""

    def classifier(depth, classes):
        pooled = [nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2), *pooled, nn.Linear(8, classes))

    monkeypatch.setattr(fedforgery, "ResNet", classifier)
    model, settings = {"width": 8, "codes": 8, "image_size": 32}, {"clients": 2, "epochs": 2, "local_epochs": 1}
    return lambda **more: tiny_baseline(
        "fedforgery", model=model, settings=settings | more, epoch_steps=2, save_every=1
    )


def test_a_killed_federation_ends_with_the_same_weights(federation, built_set, tmp_path, monkeypatch):
    recipe = federation()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = train_baseline(recipe, built_set, whole)
    assert (first.steps, [found.step for found in first.validations]) == (8, [4, 8])
    # inside a client, behind a finished client, in the second round
    second = _with_kills(monkeypatch, FedForgery, [1, 2, 2], lambda: train_baseline(recipe, built_set, parts))
    _same(first, second, (whole, parts))
    assert sorted(file.name for file in parts.iterdir()) == [CARD, WEIGHTS]


def test_clients_may_hold_collections(federation, built_set, tmp_path):
    with pytest.raises(UsageError, match="2 clients cannot share 1 groups"):
        train_baseline(federation(held_by="dataset"), built_set, tmp_path)


def test_what_is_done_is_not_done_again(built_set, tiny_baseline, tmp_path, monkeypatch):
    recipe = tiny_baseline("npr", settings={"steps": 1})
    first = train_baseline(recipe, built_set, tmp_path)
    (tmp_path / CARD).write_text("{")  # damaged: it is trained again
    assert train_baseline(recipe, built_set, tmp_path).files == first.files
    first = train_baseline(recipe, built_set, tmp_path)
    _killed_at(monkeypatch, NPR, [0])
    assert train_baseline(recipe, built_set, tmp_path) == first
    assert train_baseline(recipe.model_copy(update={"workers": 1}), built_set, tmp_path) == first
    with pytest.raises(KilledError):
        train_baseline(recipe.model_copy(update={"seed": 5}), built_set, tmp_path)
    assert not (tmp_path / CARD).exists()  # of other inputs


def test_a_checkpoint_to_start_from(built_set, tiny_baseline, tmp_path):
    other = {key: value + 1 for key, value in fresh(tiny_baseline("npr")).items()}
    other |= {"fc1.weight": torch.zeros(1000, 128), "surplus": torch.zeros(1)}
    file = tmp_path / "start.safetensors"
    save_file(other, file)
    start = {"file": str(file), "sha256": sha256(file), "skip": ["fc1.", "surplus"]}
    recipe = tiny_baseline("npr", settings={"steps": 1, "lr": 1e-9}, start=start)
    train_baseline(recipe, built_set, tmp_path / "run")
    after = load_file(tmp_path / "run" / WEIGHTS)
    torch.testing.assert_close(after["conv1.weight"], other["conv1.weight"], atol=1e-6, rtol=0)
    torch.testing.assert_close(after["fc1.weight"], fresh(recipe)["fc1.weight"], atol=1e-6, rtol=0)
    for changes, match in [
        ({"skip": ["fc1."]}, r"unexpected \['surplus'\]"),
        ({"sha256": "0" * 64}, "instead of 000"),
        ({"file": str(tmp_path / "none.pth")}, "no such checkpoint"),
        ({"into": ["layer1"]}, "does not fit npr.layer1: missing"),
    ]:
        with pytest.raises(WeightsError, match=match):
            train_baseline(tiny_baseline("npr", start=start | changes), built_set, tmp_path / "run")
    with pytest.raises(UsageError, match="npr has no module 'layer9'"):
        train_baseline(tiny_baseline("npr", start=start | {"into": ["layer9"]}), built_set, tmp_path / "run")


def test_rows_that_cannot_be_learnt_from(built_set, tiny_baseline, tmp_path):
    rows = manifest.read(built_set)
    real = [row for row in rows if row.label is Label.REAL]
    with pytest.raises(InputError, match="no fake row in split train"):
        chosen_rows(tiny_baseline("npr"), real)
    with pytest.raises(InputError, match="12 rows to train on and a batch of 13"):
        train_baseline(tiny_baseline("npr", settings={"batch": 13}), built_set, tmp_path)
    with pytest.raises(UsageError, match="run `ffaa data build` first"):
        train_baseline(tiny_baseline("npr", data={"manifest": "photos.csv"}), built_set, tmp_path)
    with pytest.raises(UsageError, match="device 'tpu' is not available"):
        train_baseline(tiny_baseline("npr"), built_set, tmp_path, "tpu")
    with pytest.raises(InputError, match=r"at step \d+; set settings.lr lower"):
        train_baseline(tiny_baseline("npr", settings={"steps": 20, "lr": 1e30}), built_set, tmp_path)


def test_at_most_so_many_rows(built_set, tiny_baseline):
    rows = manifest.read(built_set)
    found = chosen_rows(tiny_baseline("npr", data={"limit": 3}), rows)
    assert [[r.label for r in found[s]].count(label) for s in ("train", "val") for label in Label] == [3, 3, 3, 3]
    assert found == chosen_rows(tiny_baseline("npr", data={"limit": 3}), rows)
    assert found["train"] != chosen_rows(tiny_baseline("npr", data={"limit": 3}, seed=1), rows)["train"]


def test_without_a_dataset(built_set, tiny_baseline):
    rows = manifest.read(built_set)
    odd = [row.model_copy(update={"dataset": "odd"}) if i % 4 < 2 else row for i, row in enumerate(rows)]
    found = chosen_rows(tiny_baseline("npr", data={"without": ["odd"]}), odd)
    assert {row.dataset for row in found["train"]} == {rows[0].dataset}
    assert found["val"] == chosen_rows(tiny_baseline("npr"), odd)["val"]


def test_threshold():
    truth = np.array([False, False, False, True, True])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.3, 0.7, 0.9])) == (0.5, 1.0)
    cut, balanced = best_threshold(truth, np.array([0.1, 0.2, 0.8, 0.7, 0.9]))
    assert (cut, balanced) == (pytest.approx(0.45), pytest.approx(5 / 6))
    cut, balanced = best_threshold(truth, np.full(5, 0.25))  # all the same: nothing is told apart
    assert (cut, balanced) == (0.25, 0.5)
    cut, balanced = best_threshold(truth, np.array([0.9, 0.9, 0.9, 0.1, 0.1]))  # upside down
    assert 0 <= cut <= 1
    assert balanced == 0.5


def test_learning_rates():
    def rates(settings, epochs):
        return [settings.rate_at(epoch, epochs) for epoch in range(epochs)]

    assert rates(BaselineSettings(lr=0.1), 3) == [0.1] * 3
    step = BaselineSettings(lr=0.1, schedule="step", gamma=0.5, every=2)
    assert rates(step, 5) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])
    assert rates(BaselineSettings(lr=0.1, schedule="cosine"), 4) == pytest.approx(
        [0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5
    )
    assert rates(ClippingSettings(), 2) == pytest.approx([1e-5, 2e-3])
    assert rates(ImplicitSettings(), 12) == [3.6e-4] * 4 + [1e-4] * 6 + [5e-5] * 2


# --- samples ---------------------------------------------------------------------------------------------------------


def _samples(built_set, recipe, count=24):
    model = build_detector(recipe)
    rows = [row for row in manifest.read(built_set) if row.split == "train"]
    return Samples(built_set, rows, recipe, model.image_size, model.preprocess, (recipe.seed,), count), rows


def test_an_epoch_is_every_row_once_in_a_new_order(built_set, tiny_baseline):
    samples, rows = _samples(built_set, tiny_baseline("npr"))
    epochs = [[samples.row(i).path for i in range(start, start + 12)] for start in (0, 12)]
    assert all(sorted(epoch) == sorted(row.path for row in rows) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert all(torch.equal(a, b) for a, b in zip(samples[7], samples[7], strict=True))


def test_labels_take_turns(built_set, tiny_baseline):
    samples, _ = _samples(built_set, tiny_baseline("npr", balance=True))
    samples.pools[1] = samples.pools[1][:2]  # few forgeries: they come more often
    drawn = [samples.row(i) for i in range(12)]
    assert [row.label for row in drawn] == [Label.REAL, Label.FAKE] * 6
    assert len({row.path for row in drawn}) == 6 + 2


def test_random_cuts_of_the_input(built_set, tiny_baseline):
    recipe = tiny_baseline("npr", model={"depth": 18, "image_size": 64}, crop=32, augment="none")
    samples, _ = _samples(built_set, recipe)
    whole, _ = _samples(built_set, recipe.model_copy(update={"crop": None}))
    cut, full = samples[3].pixels, whole[3].pixels
    assert (cut.shape, full.shape) == ((3, 32, 32), (3, 64, 64))
    windows = full.unfold(1, 32, 1).unfold(2, 32, 1)
    assert ((windows - cut[:, None, None]).abs().amax((0, 3, 4)) == 0).any()


@pytest.mark.parametrize("name", ["none", "flip", "exposing", "clipping", "ours"])
def test_augmentations_follow_the_seed(built_set, tiny_baseline, name):
    recipe = tiny_baseline("npr", augment=name)
    row = manifest.read(built_set)[1]
    images = [draw(built_set, row, recipe, 64, np.random.default_rng(seed)).image for seed in (0, 0, *range(1, 9))]
    assert all(image.shape[0] == image.shape[1] and image.dtype == np.uint8 for image in images)
    assert np.array_equal(images[0], images[1])
    assert all(np.array_equal(images[0], image) for image in images) == (name == "none")


def test_a_flip_takes_the_mask_along(built_set, tiny_baseline):
    row = manifest.read(built_set)[1]
    face, recipe = face_of(built_set, row), tiny_baseline("npr")
    drawn = [draw(built_set, row, recipe, 64, np.random.default_rng(seed)) for seed in range(12)]
    sides = [(bool(d.cells[0, 0] > 0.5), bool(d.cells[0, 6] > 0.5)) for d in drawn]
    assert set(sides) == {(True, False), (False, True)}  # the mask is the left half
    for one, (left, _) in zip(drawn, sides, strict=True):
        assert np.array_equal(one.image, face if left else face[:, ::-1])


def test_forgeries_with_an_original_are_swapped(built_set, tiny_baseline, monkeypatch):
    recipe, calls = tiny_baseline("implicit", swap=True, augment="none"), []

    def swap(root, row, size, rng):
        calls.append(row.path)
        cells = np.zeros((7, 7), np.float32)
        cells[2, 3] = 0.5
        return None if len(calls) == 1 else FacialSwap(np.full((size, size, 3), 9, np.uint8), cells, None)

    monkeypatch.setattr(samples_module, "swap_row", swap)
    rows = manifest.read(built_set)
    fake = next(row for row in rows if row.label is Label.FAKE).model_copy(update={"reference": "x.png"})
    drawn = draw(built_set, fake, recipe, 224, np.random.default_rng(0))
    assert calls == [fake.path] * 2  # drawn again where nothing would be seen
    assert (drawn.image == 9).all()
    assert drawn.cells[2, 3] == pytest.approx(0.5)
    assert drawn.cells.sum() == pytest.approx(0.5)
    for row in (rows[0].model_copy(update={"reference": "x.png"}), rows[1]):  # a real photo, no original
        assert np.array_equal(
            draw(built_set, row, recipe, 224, np.random.default_rng(0)).image, face_of(built_set, row)
        )
    assert len(calls) == 2


def test_cells_that_are_not_known(built_set, tiny_baseline):
    real, fake = manifest.read(built_set)[:2]
    made = ForgeryType.ENTIRE_FACE_SYNTHESIS
    rows = [real, fake.model_copy(update={"mask": ""}), fake.model_copy(update={"forgery_type": made})]
    cells = [draw(built_set, row, tiny_baseline("npr"), 64, np.random.default_rng(0)).cells for row in rows]
    assert [set(np.unique(found)) for found in cells] == [{0.0}, {-1.0}, {1.0}]
    with pytest.raises(InputError, match="missing or damaged"):
        draw(
            built_set, fake.model_copy(update={"mask": "none.png"}), tiny_baseline("npr"), 64, np.random.default_rng(0)
        )


def test_the_published_noise_is_as_strong_as_before(built_set):
    noise = next(one for one in augmentation("exposing", 64).transforms if type(one).__name__ == "GaussNoise")
    assert np.array(noise.std_range) * 255 == pytest.approx([10**0.5, 50**0.5], rel=0.01)


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda p: str(p.relative_to(RECIPES)))
def test_every_recipe_parses(path):
    recipe = load_recipe(path, path.stem)
    small = path.parent.name == "small"
    assert recipe.name == path.stem + "-small" * small
    if small:
        assert build_detector(recipe).image_size >= 96
    else:  # the settings are the defaults, which are appendix B's
        assert recipe.settings == type(recipe.settings)()


def test_every_baseline_has_both_recipes():
    for folder in (RECIPES, RECIPES / "small"):
        assert {path.stem for path in folder.glob("*.yaml")} == set(BASELINES)


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("npr", {"model": {"depht": 18}}, r"model.depht: .*did you mean 'depth'"),
        ("npr", {"settings": {"lrr": 1}}, "did you mean 'lr'"),
        ("npr", {"settings": {"flood": 1}}, "settings.flood"),
        ("npr", {"seeds": 1}, "did you mean 'seed'"),
        ("npr", {"settings": {"epochs": None}}, "settings.epochs or settings.steps"),
        ("implicit", {"swap": True, "augment": "ours"}, "swap does not go with augment 'ours'"),
        ("npr", {"augment": "mirror"}, "augment"),
        ("npr", {"model": {"image_size": 0}}, "model.image_size"),
        ("fedforgery", {"settings": {"steps": 3}}, "settings.steps"),
        ("npr", {"start": {"file": "x.pth", "sha256": "abc"}}, "start.sha256"),
    ],
)
def test_bad_recipes_are_usage_errors(write_recipe, name, changes, match):
    with pytest.raises(UsageError, match=match) as caught:
        load_recipe(write_recipe(name, **changes), name)
    assert "\n" not in str(caught.value)


def test_a_recipe_of_another_baseline(write_recipe):
    with pytest.raises(UsageError, match="a recipe of 'npr', not of 'recce'; run: ffaa train baseline npr"):
        load_recipe(write_recipe("npr"), "recce")
    with pytest.raises(UsageError, match="unknown baseline 'nrp'; known: xception"):
        load_recipe(write_recipe("npr"), "nrp")


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("npr", {"model": {"depth": 19}}, "no ResNet of depth 19; give one of 18, 34"),
        ("npr", {"model": {"image_size": 31}}, "the input has 31 px; give it 32 or more"),
        ("npr", {"model": {"image_size": 64}, "crop": 65}, "the input has 64 px; give it 65 or more"),
        ("implicit", {"model": {"backbone": "vgg"}}, "'vgg' is no backbone"),
        ("clipping", {"model": {"config": [16, 32, 2, 33, 2, 16, 77, 49408, 16, 2, 2]}}, "clipping cannot be built"),
    ],
)
def test_sizes_that_cannot_be_built(tiny_baseline, name, changes, match):
    with pytest.raises(UsageError, match=match):
        build_detector(tiny_baseline(name, **changes))
