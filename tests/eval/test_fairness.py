import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ffaa.data import manifest
from ffaa.data.build import build
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.eval import attributes
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample
from ffaa.eval.fairness import fairness, table
from ffaa.eval.figures import make_result
from ffaa.eval.run import run

RECIPE = BenchRecipe(name="f", per_class=2, attributes=("group", "width"))


def _with(result, values):
    photos = result.photos.model_copy(update={"attributes": {"tone": values}})
    return result.model_copy(update={"photos": photos})


@pytest.fixture(scope="module")
def known(result):
    """Open-world photos called by hand: every second real one of tone 'dark' is called fake, none of 'light'."""
    photos = result.photos
    tone, said, reals = [], [], 0
    for fake in photos.fake:
        reals += not fake
        tone.append("dark" if reals % 2 else "light")
        said.append(fake or (tone[-1] == "dark" and reals % 4 == 1))
    says = photos.says["weak"].model_copy(update={"fake": said})
    photos = photos.model_copy(update={"says": {"weak": says}, "attributes": {"tone": tone}})
    return result.model_copy(update={"photos": photos})


def test_shares_by_hand(known):
    of = fairness(known, "tone")["ALL"]["weak"]
    photos = known.photos
    for name, expected in (("dark", 0.5), ("light", 0.0)):
        inside = [i for i, t in enumerate(photos.attributes["tone"]) if t == name and photos.pool[i] == "ALL"]
        group = of.groups[name]
        assert group.real == sum(not photos.fake[i] for i in inside)
        assert group.fake == sum(photos.fake[i] for i in inside)
        assert group.accused.value == expected
        assert group.found.value == 1
        assert group.accused.low <= expected < group.accused.high  # 0 of 20 is not certain
    assert of.gap is None  # 20 real photos each


def test_the_gap_and_what_chance_makes_of_it(known, monkeypatch):
    monkeypatch.setattr("ffaa.eval.fairness.FEW", 10)
    gap = fairness(known, "tone")["ALL"]["weak"].gap
    assert (gap.highest, gap.lowest) == ("dark", "light")
    assert gap.value.value == 0.5
    assert gap.value.low < 0.5 < gap.value.high
    assert gap.p < 0.01
    rng = np.random.default_rng(2)
    mixed = _with(known, rng.permutation(known.photos.attributes["tone"]).tolist())
    assert fairness(mixed, "tone")["ALL"]["weak"].gap.p > 0.05


def test_unread_answers_accuse_nobody(known):
    says = known.photos.says["weak"]
    says = says.model_copy(update={"fake": [None] * len(says.fake)})
    photos = known.photos.model_copy(update={"says": {"weak": says}})
    of = fairness(known.model_copy(update={"photos": photos}), "tone")["ALL"]["weak"].groups["dark"]
    assert (of.accused.value, of.found.value) == (0, 0)


def test_the_table_warns_of_small_groups(known):
    shown = table(known, "tone")
    assert shown.title == "By tone"
    assert {row[2] for row in shown.rows} == {"dark (!)", "light (!)"}
    assert any("fewer than two values with 30 real photos" in note for note in shown.notes)
    assert any("read nothing into such a line" in note for note in shown.notes)


def test_the_gap_is_told_with_p(known, monkeypatch):
    monkeypatch.setattr("ffaa.eval.fairness.FEW", 10)
    notes = table(known, "tone").notes
    assert any("ALL, weak: gap of false positives 0.500 [" in n and "(dark over light)" in n for n in notes)


def test_an_unknown_attribute(result):
    with pytest.raises(
        UsageError, match=r"no attribute 'age' \(it holds: none\); name it in the recipe's `attributes`"
    ):
        fairness(result, "age")


# --- where they come from --------------------------------------------------------------------------------------------


def test_columns_of_a_csv_reach_the_result(bright, tiny_manifest, tmp_path):
    told = attributes.read(RECIPE, tiny_manifest)
    with (tiny_manifest / "manifest.csv").open(newline="") as file:
        lines = {line["path"]: line for line in csv.DictReader(file)}
    rows = sample(RECIPE, read_rows(RECIPE, tiny_manifest))
    assert told == {name: [lines[row.path][name] for row in rows] for name in ("group", "width")}
    seen = run(RECIPE, tiny_manifest, [bright], tmp_path)
    result = make_result(RECIPE, seen, [bright], "x", 8, 50, told)
    assert result.photos.attributes == told
    assert {"144 (!)"} == {row[2] for row in table(result, "width").rows}


def test_naming_one_later_judges_nothing_again(bright, tiny_manifest, tmp_path):
    plain = RECIPE.model_copy(update={"attributes": ()})
    run(plain, tiny_manifest, [bright], tmp_path)
    count = len(bright._trained.seen)
    run(RECIPE, tiny_manifest, [bright], tmp_path)
    assert len(bright._trained.seen) == count
    assert attributes.read(plain, tiny_manifest) == {}


def test_columns_of_a_built_set(tiny_manifest, tmp_path):
    """Further columns of its Parquet file, and those that it has anyway."""
    source = SourceArgs(kind="csv", root=".", per_class=2)
    build(DataRecipe(name="c", sources=[source], pose=False, duplicates=False, val=0, test=0), tiny_manifest,
          tmp_path / "set", workers=0)  # fmt: skip
    recipe = BenchRecipe(name="b", manifest="set", attributes=("tone", "method"))
    with pytest.raises(InputError, match="no column 'tone' for the recipe's attributes"):
        attributes.read(recipe, tmp_path)
    path = tmp_path / "set" / manifest.NAME
    old = pyarrow.parquet.read_table(path)
    tones = pa.array([None if i == 0 else f"t{i % 3}" for i in range(len(old))])
    pyarrow.parquet.write_table(old.append_column("tone", tones), path)
    by_path = dict(zip(old["path"].to_pylist(), tones.to_pylist(), strict=True))
    rows = sample(recipe, read_rows(recipe, tmp_path))
    told = attributes.read(recipe, tmp_path)
    assert told["tone"] == [by_path[row.path.removeprefix("set/")] or "(none)" for row in rows]
    assert told["method"] == [row.method or "(none)" for row in rows]


def test_what_is_no_attribute(tiny_manifest):
    with pytest.raises(InputError, match=r"manifest.csv: no column 'age' .*it has path, sha256"):
        attributes.read(RECIPE.model_copy(update={"attributes": ("age",)}), tiny_manifest)
    whole = BenchRecipe(name="f", in_domain="train", attributes=("sha256",))
    with pytest.raises(InputError, match="'sha256' has 34 values, at most 30 are compared; put them into groups"):
        attributes.read(whole, tiny_manifest)
