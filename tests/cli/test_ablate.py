"""`ffaa ablate`: wiring and errors; the ablations themselves are tested in tests/eval/test_ablation.py."""

import shutil

import pytest
import yaml


@pytest.fixture
def recipe(tiny_run, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_run.recipe.model_dump(mode="json")))
    (tmp_path / "bench.yaml").write_text("name: b\nopen_world: none\nin_domain_per_class: 1\n")
    file = tmp_path / "a.yaml"
    file.write_text(
        "name: a\nabout: the seed of nothing\nbase: base.yaml\nbench: bench.yaml\njudged: anchor\n"
        "rows:\n  one: {}\n  two: {mids.epochs: 2}\npaper: {source: says nothing}\n"
    )
    return file


def test_the_table_is_printed_and_written(run, recipe, tiny_run, use_tiny_parts, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    command = ("ablate", recipe, "--data", tiny_run.data, "--run", folder, "--only", "one", "--only", "two")
    found = run(*command)
    assert found.code == 0, found.err
    assert found.out.startswith("**a**: the seed of nothing\n")
    assert "| two | mids.epochs 2 |" in found.out
    assert "one -> two: ACC +0.0" in found.out
    assert (folder / "ablations" / "a.md").read_text() == found.out
    assert run(*command).out == found.out


def test_errors_are_one_line(run, recipe, tiny_run, tmp_path):
    found = run("ablate", recipe, "--data", tiny_run.data, "--run", tmp_path / "run", "--only", "three")
    assert (found.code, found.err.strip()) == (2, "ffaa: a has no row 'three'; its rows: one, two")
    recipe.write_text(recipe.read_text().replace("epochs", "epoch"))
    found = run("ablate", recipe, "--data", tiny_run.data, "--run", tmp_path / "run")
    assert found.code == 2
    assert found.err.strip().endswith("a.yaml: two: no setting 'mids.epoch'; did you mean 'epochs'?")
    assert not (tmp_path / "run").exists()
