"""`ffaa train` and `ffaa bench`: wiring and errors; the stages themselves are tested in tests/test_stages.py."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import pytest
import yaml

from ffaa.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"


def test_an_unknown_recipe_is_bad_use(capsys, tmp_path):
    assert main(["train", "all", str(tmp_path / "none.yaml"), "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("none.yaml: no such recipe")


def test_an_unknown_key_names_the_nearest(capsys, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nmllm: {epoch: 2}\n")
    assert main(["train", "all", str(recipe), "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "mllm.epoch" in error
    assert "did you mean 'epochs'" in error


def test_a_missing_manifest_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\n")
    assert main(["train", "faces", str(recipe), "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "manifest.csv: no such manifest" in error
    assert "\n" not in error


@pytest.mark.parametrize(
    "command",
    [["train", "all", "r.yaml", "--data", "."], ["bench", "run", "r.yaml", "--data", ".", "--out", "o.json"]],
)
def test_a_missing_extra_is_named(capsys, monkeypatch, command):
    real = builtins.__import__

    def without_extra(name, *args, **kwargs):
        if name.split(".")[0] in {"sklearn", "yaml", "pyarrow"} or name in {"ffaa.recipe", "ffaa.eval"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_extra)
    assert main(command) == 1
    assert "pip install 'ffaa[train]'" in capsys.readouterr().err


def test_bench_table_refuses_another_file(capsys, tmp_path: Path):
    other = tmp_path / "x.json"
    other.write_text("{}")
    assert main(["bench", "table", str(other)]) == 1
    assert "not a result" in capsys.readouterr().err


BASE = "name: x\nbase: {random: llava_llama}\n"


@pytest.mark.parametrize(
    ("stage", "options"),
    [("all", ["--data", "d"]), ("mllm", ["--rows", "r"]), ("mids", ["--data", "d"])],
)
def test_a_base_is_tuned_on_rows_about_a_set(capsys, tmp_path, stage, options):
    (tmp_path / "r.yaml").write_text(BASE)
    assert main(["train", stage, str(tmp_path / "r.yaml"), *options]) == 2
    assert "ffaa train mllm RECIPE --rows ROWS --images SET" in capsys.readouterr().err


def test_stages_need_data(capsys, tmp_path):
    (tmp_path / "r.yaml").write_text("name: x\n")
    assert main(["train", "all", str(tmp_path / "r.yaml")]) == 2
    assert "--data is missing" in capsys.readouterr().err


def test_rows_that_cannot_be_learnt_from_are_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(BASE)
    (tmp_path / "rows.jsonl").write_text("{}\n{}\n")
    assert main(["train", "mllm", "r.yaml", "--rows", "rows.jsonl", "--images", "."]) == 1
    error = capsys.readouterr().err.strip()
    assert "2 of 2 rows cannot be learnt from, the first is row 1" in error
    assert "\n" not in error
    assert not (tmp_path / "runs").exists()


def test_mids_of_a_base_is_trained_on_what_was_mined(capsys, tmp_path, monkeypatch, tiny_manifest):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(BASE)
    assert main(["train", "mids", "r.yaml", "--images", str(tiny_manifest)]) == 1
    assert "run `ffaa mine` first" in capsys.readouterr().err


def test_all_ends_with_the_benchmark(run, tiny_run, use_tiny_parts, tmp_path):
    """The whole tiny run is up to date: it is packed and evaluated, and again without being asked anew."""
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    settings = tiny_run.recipe.model_dump(mode="json") | {"evaluate": "bench.yaml"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    command = ("train", "all", tmp_path / "r.yaml", "--data", tiny_run.data, "--run", tmp_path / "run")
    found = run(*command)
    assert (found.code, found.err.strip()) == (2, f"ffaa: {tmp_path / 'bench.yaml'}: no such recipe")
    assert not (tmp_path / "run" / "model").exists()
    (tmp_path / "bench.yaml").write_text("name: b\nopen_world: none\nin_domain_per_class: 1\n")
    found = run(*command)
    assert found.code == 0, found.err
    assert "| in domain | 1 / 1 |" in found.out
    assert (tmp_path / "run" / "model" / "model.json").is_file()
    written = (tmp_path / "run" / "evaluation.json").stat().st_mtime_ns
    assert run(*command).out == found.out
    assert (tmp_path / "run" / "evaluation.json").stat().st_mtime_ns == written


def test_the_shipped_twin_goes_through(run, tiny_run, use_tiny_parts, tmp_path):
    """recipes/nano-tiny.yaml as it stands, to the table of its benchmark: both pools and every set."""
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    recipe = RECIPES / "nano-tiny.yaml"
    found = run("train", "all", recipe, "--data", tiny_run.data, "--run", tmp_path / "run")
    assert found.code == 0, found.err
    assert all(f"| {name} |" in found.out for name in ("in domain/tiny", "set 1", "set 2", "in domain", "ALL"))
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["recipe"]["name"] == "nano-tiny"
    assert result["photos"] == 12
