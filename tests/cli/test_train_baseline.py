"""`ffaa train baseline`: wiring and errors; the training itself is tested in tests/baselines/test_train.py."""

import shutil
import sys

import pytest
import yaml

from ffaa.baselines import BASELINES
from ffaa.baselines.trained import load_trained
from ffaa.cli.train_baseline import Name
from ffaa.data import manifest

NPR = {
    "name": "n",
    "baseline": "npr",
    "model": {"depth": 18, "image_size": 32},
    "settings": {"steps": 1, "batch": 4},
    "workers": 0,
}


@pytest.fixture(scope="module")
def built_set(tiny_manifest, tiny_rows, tmp_path_factory):
    """The tiny photos with their manifest."""
    folder = tmp_path_factory.mktemp("set") / "set"
    shutil.copytree(tiny_manifest, folder)
    manifest.write(folder / manifest.NAME, tiny_rows)
    return folder


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        path = tmp_path / "r.yaml"
        path.write_text(yaml.safe_dump(NPR | changes))
        return path

    return write


def test_the_names_are_those_of_the_package():
    assert [name.value for name in Name] == list(BASELINES)


def test_it_trains_and_says_how_well(run, recipe, tmp_path, built_set, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ffaa", "train", "baseline", "npr"])
    result = run("train", "baseline", "npr", recipe(), "--data", built_set)
    assert result.code == 0, result.err
    assert result.out.startswith("runs/n: npr, step 1 of 1, val AUC ")
    trained = load_trained(tmp_path / "runs" / "n")
    assert trained.card.command == "ffaa train baseline npr"
    assert f"{trained.card.chosen.auc:.4f}" in result.out


@pytest.mark.parametrize(
    ("name", "changes", "code", "text"),
    [
        ("npr", {"sead": 1}, 2, "r.yaml: sead: Extra inputs are not permitted; did you mean 'seed'?"),
        ("npr", {"settings": {"stepps": 1}}, 2, "did you mean 'steps'?"),
        ("npr", {"model": {"depth": 17}}, 2, "there is no ResNet of depth 17"),
        ("recce", {}, 2, "a recipe of 'npr', not of 'recce'"),
        ("nrp", {}, 2, "'nrp' is not one of 'xception'"),
        ("npr", {"data": {"manifest": "none.parquet"}}, 1, "none.parquet: no such manifest"),
        ("npr", {"data": {"manifest": "photos.csv"}}, 2, "run `ffaa data build` first"),
        ("npr", {"settings": {"steps": 1, "batch": 99}}, 1, "26 rows to train on and a batch of 99"),
    ],
)
def test_what_is_wrong_is_one_line(run, recipe, tmp_path, built_set, name, changes, code, text):
    command = ("train", "baseline", name, recipe(**changes), "--data", built_set, "--run", tmp_path / "run")
    result = run(*command)
    assert result.code == code
    assert text in result.err
    (line,) = (line for line in result.err.splitlines() if line.startswith("ffaa: "))
    assert line == result.err.splitlines()[-1]


def test_only_options_of_its_own(run, recipe, built_set):
    for option in ("--rows", "--images", "--out"):
        assert run("train", "baseline", "npr", recipe(), "--data", built_set, option, "x").code == 2
    assert run("train", "baseline", "npr", recipe()).code == 2  # without --data
    assert run("train", "tower", recipe(), "--rows", "x").code == 2
