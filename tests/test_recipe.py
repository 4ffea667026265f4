import contextlib
from pathlib import Path

import pytest

from ffaa.data.recipe import DataRecipe
from ffaa.data.sources import SOURCES
from ffaa.errors import UsageError
from ffaa.eval.benchmark import load_bench
from ffaa.recipe import Recipe, Run, load_recipe
from ffaa.settings import load_yaml

RECIPES = Path(__file__).parents[1] / "recipes"


def write(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_model_recipe_parses(path):
    assert load_recipe(path).name


@pytest.mark.parametrize("path", sorted(RECIPES.glob("bench/*.yaml")), ids=lambda p: p.name)
def test_every_benchmark_recipe_parses(path):
    assert load_bench(path).name == path.stem


@pytest.mark.parametrize("path", sorted(RECIPES.glob("data/*.yaml")), ids=lambda p: p.name)
def test_every_data_recipe_parses(path):
    found = load_yaml(path, DataRecipe)
    assert found.name == path.stem
    assert {source.kind for source in found.sources} <= set(SOURCES)


def test_there_are_recipes():
    assert {p.relative_to(RECIPES).as_posix() for p in RECIPES.rglob("*.yaml")} >= {
        "nano.yaml", "bench/development.yaml", "data/multi-attack.yaml", "data/ow-ffa-bench.yaml", "data/photos.yaml",
    }  # fmt: skip


def test_defaults_and_values(tmp_path):
    found = load_recipe(write(tmp_path, "name: x\nmllm: {lora: null, epochs: 0.5}\ntower: {double: [a]}\n"))
    assert found == Recipe(name="x", mllm={"lora": None, "epochs": 0.5}, tower={"double": ["a"]})
    assert found.mllm.batch == Recipe(name="x").mllm.batch


@pytest.mark.parametrize(
    ("text", "where", "near"),
    [
        ("name: x\nmlm: {}\n", "mlm", "mllm"),
        ("name: x\ntower: {epoch: 3}\n", "tower.epoch", "epochs"),
        ("name: x\nmllm: {projector_learning: 1}\n", "mllm.projector_learning", "projector_lr"),
        ("name: x\nmllm: {lora: {rank: 3, alpa: 3}}\n", "mllm.lora", ""),
        ("name: x\nmllm: {lora: {alpa: 3}}\n", "mllm.lora.alpa", "alpha"),
        ("name: x\nteach: {contrarry: 0}\n", "teach.contrarry", "contrary"),
        ("name: x\nmids_towers: [{seed: 1}, [{}, {epoch: 3}]]\n", "mids_towers.1.1.epoch", "epochs"),
        ("name: x\nmids_towers: [{epoch: 3}]\n", "mids_towers.0.0.epoch", "epochs"),
        ("name: x\nmids_towers: 3\n", "mids_towers", ""),
        ("name: x\nzzzzzz: 1\n", "zzzzzz", ""),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, text, where, near):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, text))
    message = str(caught.value)
    assert f"r.yaml: {where}" in message
    assert "\n" not in message
    assert ("did you mean" in message) == bool(near)
    if near:
        assert message.endswith(f"did you mean '{near}'?")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: x\nmids: {epochs: 0}\n", "mids.epochs"),
        ("name: x\nseed: many\n", "seed"),
        ("seed: 1\n", "name"),
        ("", "name"),
        ("- a\n- b\n", "r.yaml"),
        ("name: [\n", "not valid YAML"),
        ("name: x\nmids: {unfreeze: 1}\nmids_towers: [{}]\n", "mids.unfreeze must be 0"),
        ("name: x\nbase: {random: llava_mistral, template: v1}\nmids_towers: [{}]\n", "for a nano"),
        ("name: x\ntower: {start: lite1}\n", "others are for mids_towers"),
        ("name: x\nmore_towers: [{start: lite1}]\n", "others are for mids_towers"),
        ("name: x\nmids_towers: [[]]\n", "with one `start`"),
        ("name: x\nmids_towers: [[{}, {start: lite1}]]\n", "with one `start`"),
        ("name: x\nmids_towers: [{lr: 0.1, after: {lr: 0.2}}]\n", "all settings of another"),
        ("name: x\nmids_towers: [{}, {start: lite1, after: {}}]\n", "of the same `start`"),
        ("name: x\nmids_towers: [{}, {after: {after: {}}}]\n", "has none before it"),
        ("name: x\ntower: {after: {}}\n", "`after` is for mids_towers"),
    ],
)
def test_bad_recipes_are_usage_errors(tmp_path, text, match):
    with pytest.raises(UsageError, match=match):
        load_recipe(write(tmp_path, text))


def test_a_missing_recipe():
    with pytest.raises(UsageError, match="no such recipe"):
        load_recipe(Path("none.yaml"))


# --- Run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path):
    """stage(inputs, fail=..., folder=...) -> whether the work ran. It appends to 'half', a killed run's leftover."""

    def run(inputs, fail=False, outputs=("out",), name="one"):
        ran = []

        def work():
            ran.append(1)
            with (tmp_path / "half").open("a") as file:
                file.write(str(inputs["a"]))
            if fail:
                raise RuntimeError("killed")
            (tmp_path / "out").write_text((tmp_path / "half").read_text())

        with contextlib.suppress(RuntimeError):
            Run(tmp_path).stage(name, inputs, list(outputs), work, ["half", "steps"])
        return bool(ran)

    return run


def test_a_stage_runs_once_for_the_same_inputs(stage, tmp_path):
    assert stage({"a": 1})
    assert not stage({"a": 1})
    assert stage({"a": 2})
    assert stage({"a": 1})
    assert not stage({"a": 1})
    (tmp_path / "out").unlink()
    assert stage({"a": 1})


def test_a_failed_stage_runs_again_and_goes_on(stage, tmp_path):
    assert stage({"a": 1}, fail=True)
    assert stage({"a": 1})
    assert (tmp_path / "out").read_text() == "11"  # went on from what was there


def test_a_file_in_the_place_of_the_run_is_bad_use(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="cannot be made .*; choose another --run"):
            Run(folder)


def test_what_belongs_to_other_inputs_is_removed_first(stage, tmp_path):
    (tmp_path / "steps").mkdir()
    assert stage({"a": 1}, fail=True)
    assert (tmp_path / "steps").is_dir()
    assert stage({"a": 2})
    assert (tmp_path / "out").read_text() == "2"
    assert not (tmp_path / "steps").exists()
    assert stage({"a": 3})
    assert (tmp_path / "out").read_text() == "3"


def test_stages_do_not_share_their_state(stage):
    assert stage({"a": 1})
    assert stage({"a": 1}, name="two")
    assert not stage({"a": 1}, name="two")
