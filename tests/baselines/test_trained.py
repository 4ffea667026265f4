import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ffaa.baselines.train import train_baseline
from ffaa.baselines.trained import CARD, WEIGHTS, load_trained
from ffaa.errors import WeightsError
from ffaa.weights import sha256


@pytest.fixture
def folder(built_set, tiny_baseline, tmp_path):
    train_baseline(tiny_baseline("npr", settings={"steps": 2}), built_set, tmp_path / "npr", "cpu", "the command")
    return tmp_path / "npr"


def _rewrite(folder, change):
    """The weights, changed, with a card that knows their hash."""
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    card = json.loads((folder / CARD).read_text())
    card["files"][WEIGHTS] = sha256(folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(card))


def test_scores_do_not_depend_on_the_batch(folder, synthetic):
    trained = load_trained(folder)
    crops = [*synthetic(64), *synthetic(224)[:3]] * 4
    scores = trained.scores(crops)
    assert scores.shape == (44,)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.allclose(scores, [trained.scores([crop])[0] for crop in crops], atol=1e-6)
    assert trained.scores([]).shape == (0,)


def test_what_it_says_of_itself(folder):
    trained = load_trained(folder)
    assert (trained.name, trained.image_size) == ("npr", 32)
    assert trained.files == {name: sha256(folder / name) for name in (WEIGHTS, CARD)}
    assert trained.threshold == trained.card.chosen.threshold
    assert 0 <= trained.threshold <= 1
    assert trained.parameters == sum(
        value.numel()
        for key, value in load_file(folder / WEIGHTS).items()
        if "running" not in key and "num_b" not in key
    )
    card = trained.card
    assert (card.command, card.device, card.seed) == ("the command", "cpu", 3)
    assert {"torch", "numpy", "python", "ffaa"} <= card.versions.keys()
    assert card.licence == "trained on stripes; the terms of these collections hold for the weights too"
    assert card.recipe["model"] == {"depth": 18, "num_classes": 1, "image_size": 32}
    assert card.recipe["settings"]["gamma"] == 0.8  # defaults in full: later ones do not change what is loaded


def test_the_validation_is_what_the_loaded_weights_give(folder, built_set):
    from sklearn.metrics import roc_auc_score

    from ffaa.baselines.samples import face_of
    from ffaa.data import manifest
    from ffaa.types import Label

    trained = load_trained(folder)
    rows = [row for row in manifest.read(built_set) if row.split == "val"]
    scores = trained.scores([face_of(built_set, row) for row in rows])
    truth = np.array([row.label is Label.FAKE for row in rows])
    assert roc_auc_score(truth, scores) == pytest.approx(trained.card.chosen.auc)
    called = scores >= trained.threshold
    balanced = (called[truth].mean() + (~called[~truth]).mean()) / 2
    assert balanced == pytest.approx(trained.card.chosen.balanced_acc)


def test_a_missing_key_is_named(folder):
    _rewrite(folder, lambda state: state.pop("fc1.bias"))
    with pytest.raises(WeightsError, match=re.escape("missing ['fc1.bias']")):
        load_trained(folder)


def test_a_surplus_key_is_named(folder):
    _rewrite(folder, lambda state: state.update({"more": torch.zeros(1)}))
    with pytest.raises(WeightsError, match=re.escape("unexpected ['more']")):
        load_trained(folder)


def test_changed_weights_are_refused(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError, match="expected sha256"):
        load_trained(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="found no file"):
        load_trained(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": "nrp"}, "unknown baseline 'nrp'"),
        ({"name": "xception"}, "no valid recipe of xception"),
        ({"threshold": 1}, "threshold: Extra inputs"),
        ({"seed": None}, "seed: "),
    ],
)
def test_a_bad_card_is_refused(folder, change, match):
    card = json.loads((folder / CARD).read_text()) | change
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(WeightsError, match=match):
        load_trained(folder)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no baseline.json; give the folder that `ffaa train baseline` wrote"):
        load_trained(tmp_path)
