import numpy as np
import pytest

from ffaa.data.build import build
from ffaa.data.crops import read_photo
from ffaa.data.manifest import Row
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.eval.benchmark import BenchRecipe, load_bench, read_rows, sample, sample_hash
from ffaa.types import ForgeryType, Label

REAL, FAKE = Label.REAL, Label.FAKE
RECIPE = BenchRecipe(name="tiny", per_class=1)


def row(n, name, label, split="bench"):
    kind = ForgeryType.REAL if label is REAL else ForgeryType.IDENTITY_EXCHANGE
    return Row(path=f"{n}.jpg", label=label, forgery_type=kind, split=split, bench=name, dataset="own")


ROWS = [row(n, name, label) for name in "AB" for label in Label for n in range(20)]
ROWS += [row(n, "", (REAL, FAKE)[n % 4 == 0], "test") for n in range(40)]


@pytest.fixture(scope="module")
def tiny(tiny_manifest):
    return read_rows(RECIPE, tiny_manifest)


def test_all_in_domain_photos_and_a_seeded_draw_of_every_set_and_label(tiny):
    chosen = sample(RECIPE, tiny)
    assert [r.split for r in chosen] == ["test"] * 4 + ["bench"] * 4
    assert [(r.test_set, r.label) for r in chosen[4:]] == [
        (name, label) for name in ("set 1", "set 2") for label in (FAKE, REAL)
    ]
    assert sample(RECIPE, tiny) == chosen
    assert sample(RECIPE, list(tiny[20:]) + list(tiny[:20]))[4:] == chosen[4:]  # other splits change nothing
    draws = {tuple(r.path for r in sample(RECIPE.model_copy(update={"seed": s}), tiny)[4:]) for s in range(20)}
    assert len(draws) > 3


def test_without_a_limit_every_photo_is_taken_once(tiny):
    chosen = sample(BenchRecipe(name="x"), tiny)
    assert sorted(r.path for r in chosen) == sorted(r.path for r in tiny if r.split in ("test", "bench"))


def test_a_larger_set_does_not_change_the_draw_of_another(tiny):
    more = [*tiny, *(r.model_copy(update={"path": f"more-{r.path}"}) for r in tiny if r.test_set == "set 1")]
    keep = [r for r in sample(RECIPE, more) if r.test_set == "set 2"]
    assert keep == [r for r in sample(RECIPE, tiny) if r.test_set == "set 2"]


def test_counts_are_met_exactly_and_name_the_sets():
    recipe = BenchRecipe(name="x", counts={"B": {"fake": 7, "real": 3}}, in_domain_per_class=2)
    chosen = sample(recipe, ROWS)
    counted = [(r.test_set, r.label) for r in chosen]
    assert {key: counted.count(key) for key in counted} == {
        ("own", REAL): 2, ("own", FAKE): 2, ("B", FAKE): 7, ("B", REAL): 3
    }  # fmt: skip
    assert len({(r.test_set, r.label, r.path) for r in chosen}) == 14
    assert sample(recipe, ROWS) == chosen
    assert sample(recipe.model_copy(update={"seed": 1}), ROWS) != chosen


def test_too_few_photos_are_told_set_by_set():
    recipe = BenchRecipe(name="x", counts={"A": {"fake": 21, "real": 20}, "C": {"real": 1}})
    with pytest.raises(InputError, match=r"A has 20 fake of 21, C has 0 real of 1"):
        sample(recipe, ROWS)


def test_a_count_of_in_domain_photos_keeps_their_proportion():
    recipe = BenchRecipe(name="x", in_domain_count=30, per_class=1)
    own = [r for r in sample(recipe, ROWS) if r.split == "test"]
    assert len({r.path for r in own}) == 30
    assert 4 <= sum(r.label is FAKE for r in own) <= 10  # 10 of 40 are
    with pytest.raises(InputError, match="41 photos wanted, the split 'test' has 40"):
        sample(recipe.model_copy(update={"in_domain_count": 41}), ROWS)


def test_validation_photos_come_last_and_only_on_demand(tiny):
    chosen = sample(RECIPE.model_copy(update={"validation": "val", "validation_per_class": 2}), tiny)
    assert [r.split for r in chosen[8:]] == ["val"] * 4
    assert chosen[:8] == sample(RECIPE, tiny)


@pytest.mark.parametrize(
    "text",
    ["name: x\nper_clas: 3\n", "per_class: 3\n", "name: [\n", "name: x\nper_class: 0\n", "name: x\nvalidation: test\n",
     "name: x\ncounts: {A: {unreal: 3}}\n", "name: x\ncounts: {A: {real: 0}}\n",
     "name: x\nin_domain_name: validation\n", "name: x\nin_domain_name: ALL\n"],
)  # fmt: skip
def test_bad_recipes(tmp_path, text):
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"b\.yaml"):
        load_bench(tmp_path / "b.yaml")
    with pytest.raises(UsageError, match="no such"):
        load_bench(tmp_path / "none.yaml")


@pytest.mark.parametrize("kind", ["none", "webdataset"])
def test_rows_of_several_manifests_in_folders(tiny_manifest, tmp_path, kind):
    """A built set in a folder, its crops in files or shards, beside a CSV: every path is found from the data folder."""
    source = SourceArgs(kind="csv", root=".", per_class=1)
    settings = DataRecipe(name="c", sources=[source], pose=False, duplicates=False, val=0, test=0, shards=kind)
    build(settings, tiny_manifest, tmp_path / "sets" / "one", workers=0)
    (tmp_path / "two.csv").write_text("path,label\np.jpg,real\n")
    recipe = BenchRecipe(name="x", manifest=("sets/one", "two.csv"))
    rows = read_rows(recipe, tmp_path)
    assert rows[-1].path == "p.jpg"
    assert len(rows) > 4
    for one in rows[:-1]:
        assert read_photo(tmp_path, one).shape == (224, 224, 3)
    again = read_rows(BenchRecipe(name="x", manifest="sets/one/manifest.parquet"), tmp_path)
    assert again == rows[:-1]


def test_the_papers_sets(request):
    """Table 1; and 1,000 photos each."""
    recipe = load_bench(request.config.rootpath / "recipes/bench/ow-ffa-bench.yaml")
    table = {name: (of[REAL], of[FAKE]) for name, of in recipe.counts.items()}
    assert table == {
        "DPF": (466, 534), "DFD": (327, 673), "DFDC": (198, 802), "PGC": (759, 241), "WFIR": (499, 501),
        "MFFDI": (485, 515),
    }  # fmt: skip
    assert {sum(pair) for pair in table.values()} == {1000}
    assert (recipe.in_domain_count, recipe.in_domain_name) == (1000, "MA")


def test_the_sample_hash_depends_on_every_photo_and_their_order():
    assert len({sample_hash(h) for h in (["a", "b"], ["b", "a"], ["a"], np.array(["a", "c"]).tolist())}) == 4
