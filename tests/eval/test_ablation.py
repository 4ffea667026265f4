"""Ablations on the tiny run: what a row shares and leaves alone, what it skips, and the table."""

import shutil
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ffaa import weights
from ffaa.errors import UsageError
from ffaa.eval import ablation as module
from ffaa.eval.ablation import Ablation, AblationResult, _paper_difference, changed, table
from ffaa.eval.cached import ANSWERS
from ffaa.mids.train import TEXTS
from ffaa.mllm.mine import Mined
from ffaa.recipe import Run, load_recipe
from ffaa.stages import Stages
from ffaa.types import Answer
from ffaa.vqa.conversation import read_jsonl

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = {"open-frozen": {"mids.masked": False}, "masked-frozen": {}}
PAPER = {"source": "Table 3", "columns": ["ACC", "sACC"], "values": {"open-frozen": [78.4, 15.1],
                                                                   "masked-frozen": [81.3, 10.4]}}  # fmt: skip


@pytest.fixture(scope="module")
def place(tiny_run, tiny_parts, tmp_path_factory):
    """A folder with a copy of the tiny run, its recipe and a benchmark of six photos; the parts are the tiny ones."""
    folder = tmp_path_factory.mktemp("ablation")
    shutil.copytree(tiny_run.folder, folder / "run")
    (folder / "base.yaml").write_text(yaml.safe_dump(tiny_run.recipe.model_dump(mode="json")))
    (folder / "bench.yaml").write_text("name: two sets\nper_class: 1\nin_domain_per_class: 1\n")
    (folder / "small.yaml").write_text("name: small\nopen_world: none\nin_domain_per_class: 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffaa.weights.part_folder", tiny_parts.__getitem__)
        yield folder


@pytest.fixture(scope="module")
def ablation(place):
    """ablation(**changes) -> an ablation of the tiny recipe."""

    def made(**changes):
        recipe = {"name": "mids", "about": "the mask", "base": "base.yaml", "bench": "bench.yaml", "rows": ROWS,
                  "paper": PAPER} | changes  # fmt: skip
        (place / "ablation.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        return Ablation(place / "ablation.yaml")

    return made


def content(folder):
    return {
        p.relative_to(folder).as_posix(): (weights.sha256(p), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "ablations" not in p.relative_to(folder).parts
    }


@contextmanager
def noted():
    """The stages whose work ran, as (row, stage)."""
    found, finish = [], Run.finish

    def note(self, name, inputs):
        found.append((self.folder.name, name))
        finish(self, name, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "finish", note)
        yield found


@pytest.fixture(scope="module")
def whole(place, ablation, tiny_run):
    """The ablation, run once: .result, .ran, .before (the run's files), .rows (folder of the rows)."""
    before = content(place / "run")
    with noted() as ran:
        result = ablation().run(tiny_run.data, place / "run")
    return SimpleNamespace(result=result, ran=ran, before=before, rows=place / "run" / "ablations" / "mids")


# --- the runs --------------------------------------------------------------------------------------------------------


def test_rows_share_what_they_can_and_change_nothing_of_the_run(whole, place):
    run, rows = place / "run", whole.rows
    assert content(run) == whole.before
    assert whole.ran == [
        ("open-frozen", "mids"), ("open-frozen", "evaluate features"), ("open-frozen", "evaluate answers"),
        ("open-frozen", "evaluate"), ("masked-frozen", "evaluate"),
    ]  # fmt: skip
    for name in ("tune.npy", "tower.safetensors", "mllm/model.safetensors", "mllm/tokenizer.json", "mined-mine.jsonl"):
        assert (rows / "open-frozen" / name).samefile(run / name)
    assert (rows / "masked-frozen" / "mids.safetensors").samefile(run / "mids.safetensors")
    assert not (rows / "open-frozen" / "mids.safetensors").samefile(run / "mids.safetensors")
    assert (rows / "masked-frozen" / ANSWERS).samefile(rows / "open-frozen" / ANSWERS)
    assert len(list((rows.parent / TEXTS).glob("*.npy"))) == 2  # of one row; the other's MIDS is the run's
    assert not (rows / "open-frozen" / TEXTS).exists()
    found = whole.result.rows
    assert {name: of.recipe["mids"]["masked"] for name, of in found.items()} == {
        "open-frozen": False, "masked-frozen": True
    }  # fmt: skip


def test_what_is_up_to_date_is_skipped(whole, place, ablation, tiny_run):
    with noted() as ran:
        again = ablation().run(tiny_run.data, place / "run")
        alone = ablation().run(tiny_run.data, place / "run", ["masked-frozen"])
    assert ran == []
    assert again.rows == alone.rows == whole.result.rows
    assert again.compared == alone.compared == whole.result.compared
    assert alone == AblationResult.model_validate_json(whole.rows.with_suffix(".json").read_text())
    assert whole.rows.with_suffix(".md").read_text() == table(alone) + "\n"


def test_rows_of_other_photos_are_not_shown(whole, place, ablation, tiny_run):
    result = ablation(bench="small.yaml").run(tiny_run.data, place / "run", ["masked-frozen"])
    assert list(result.rows) == ["masked-frozen"]
    assert result.compared == []
    assert "Not run: open-frozen." in table(result)


def test_a_row_that_is_trained_anew_leaves_the_run_alone(place, ablation, tiny_run):
    """Features and MLLM that were shared are made again, on files of the row's own."""
    base, run, row = load_recipe(place / "base.yaml"), place / "run", place / "run" / "ablations" / "x" / "row"
    before = content(run)
    Stages(base, tiny_run.data, row, [run]).mllm()
    assert (row / "mine.npy").samefile(run / "mine.npy")
    other = changed(base, {"mined_variants": 2, "mllm.lr": 1e-3}, "")
    Stages(other, tiny_run.data, row, [run]).mllm()
    assert content(run) == before
    assert (row / "mine.npy").stat().st_size > (run / "mine.npy").stat().st_size


def test_answers_of_fewer_texts(place, ablation, tiny_run):
    """Fig. 3: each MLLM learns and writes its own texts, from the same part of the conversations."""
    texts = {"R": (False, False), "FR": (False, True), "All": (True, True)}
    answers = ablation(
        name="answers", rows={name: {"tune.variant": name} for name in texts}, judged="anchor", bench="small.yaml",
        paper={"source": "Fig. 3", "claims": [["R", "FR"], ["R", "All"]]}, common={"conversation_limit": 8},
    )  # fmt: skip
    result = answers.run(tiny_run.data, place / "run")
    for name, held in texts.items():
        folder = place / "run" / "ablations" / "answers" / name
        (written,) = zip(*(m.answers for m in read_jsonl(folder / ANSWERS, Mined)), strict=True)
        assert all(isinstance(a, Answer) for a in written)
        assert {(bool(a.description), bool(a.reasoning)) for a in written} == {held}
        assert (folder / "conversations-tune.jsonl").samefile(place / "run" / "conversations-tune.jsonl")
        assert not (folder / "mids.safetensors").exists()
        assert result.rows[name].judged == "anchor"
    assert len({e.hashes["mllm/model.safetensors"] for e in result.rows.values()}) == 3
    assert [(c.first, c.second, c.paper) for c in result.compared] == [
        ("R", "FR", 1.0), ("FR", "All", None), ("R", "All", 1.0)
    ]  # fmt: skip
    assert "All rows: conversation_limit 8." in table(result)
    with pytest.raises(UsageError, match="MIDS reads both texts"):
        Stages(answers.rows["R"], tiny_run.data, folder).mids()


# --- sharing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path):
    """stage(folder, input, others=...) -> whether the work ran; it writes into its files as they are, one in a folder.
    'half' is both output and unfinished, as features are."""

    def run(name, value, others=()):
        folder, ran = tmp_path / name, []

        def work():
            ran.append(1)
            (folder / "sub").mkdir(exist_ok=True)
            for file in ("half", "sub/out", "sub/beside"):
                with (folder / file).open("r+" if (folder / file).exists() else "w") as opened:
                    opened.seek(0, 2)
                    opened.write(str(value))

        Run(folder, [tmp_path / o for o in others]).stage("s", {"v": value}, ["half", "sub/out"], work, ["half"])
        return bool(ran)

    return run


def read(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_stage_is_taken_from_another_run(stage, tmp_path):
    assert stage("a", 1)
    assert not stage("b", 1, ["none", "a"])
    assert (tmp_path / "b" / "sub" / "beside").samefile(tmp_path / "a" / "sub" / "beside")
    assert not stage("b", 1)  # noted as done here too
    assert stage("c", 2, ["a", "b"])


def test_no_run_writes_into_what_is_shared(stage, tmp_path):
    assert stage("a", 1)
    assert not stage("b", 1, ["a"])
    shared = read(tmp_path / "a")
    assert stage("b", 2, ["a"])
    assert read(tmp_path / "a") == shared
    assert not stage("c", 1, ["a"])
    assert stage("a", 3)  # nor does the one that others share with
    assert {k: v for k, v in read(tmp_path / "c").items() if k != "stages.json"} == {
        "half": "1", "sub/out": "1", "sub/beside": "1"
    }  # fmt: skip


def test_a_lost_file_is_made_again_apart_from_the_shared_ones(stage, tmp_path):
    assert stage("a", 1)
    assert not stage("b", 1, ["a"])
    (tmp_path / "b" / "sub" / "out").unlink()
    assert stage("b", 1)  # 'half' is there, for the same inputs, and shared
    assert read(tmp_path / "a")["half"] == "1"
    assert read(tmp_path / "b")["half"] == "1"


def test_a_stage_that_was_begun_anew_is_not_done(stage, tmp_path):
    """After inputs that were tried and killed, the first ones are not up to date: their files may be gone."""
    assert stage("a", 1)
    assert Run(tmp_path / "a").begin("s", {"v": 2}, ["half"], ["half"])
    assert stage("b", 1, ["a"])
    assert stage("a", 1)


# --- the table -------------------------------------------------------------------------------------------------------


def test_table_and_direction(whole):
    lines = table(whole.result).splitlines()
    assert lines[0] == "**mids**: the mask"
    assert lines[2] == (
        "| row | settings | ACC | AUC | AP | sACC | in domain ACC | Hard: n, ACC | paper ACC | paper sACC |"
    )
    acc, other = (whole.result.rows[name].pools["ALL"].rows["ffaa"].acc for name in ROWS)
    assert lines[4].startswith(f"| open-frozen | mids.masked false | {100 * acc:.1f} |")
    assert lines[4].endswith("| 78.4 | 15.1 |")
    assert lines[5].startswith("| masked-frozen | as the base |")
    (compared,) = whole.result.compared
    assert compared.ours.difference == pytest.approx(other - acc)
    assert compared.paper == 2.9
    assert compared.holds is (other > acc)
    told = next(line for line in lines if line.startswith("- "))
    assert told.startswith("- open-frozen -> masked-frozen: ACC ")
    assert ("paper: up: holds" in told) is (other > acc)


def test_what_the_paper_claims_without_figures():
    paper = module.Paper(source="text", claims=[("a", "b")])
    assert _paper_difference(paper, "a", "b") == 1
    assert _paper_difference(paper, "b", "a") == -1
    assert _paper_difference(paper, "a", "c") is None


BARE = {"paper": {"source": "none"}}

# --- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("ablations/*.yaml")), ids=lambda p: p.name)
def test_every_ablation_recipe_parses(path):
    found = Ablation(path)
    assert found.recipe.name == path.stem
    assert len({r.model_dump_json() for r in found.rows.values()}) == len(found.rows)


def test_the_figures_of_table_3():
    paper = Ablation(RECIPES / "ablations" / "mids.yaml").recipe.paper
    assert [_paper_difference(paper, a, b) for a, b in pairwise(paper.values)] == [-0.2, 3.1, 5.2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (BARE | {"rows": {"a": {"mids.maskd": 1}, "b": {}}}, "a: no setting 'mids.maskd'; did you mean 'masked'?"),
        (BARE | {"rows": {"a": {"mids.masked.x": 1}, "b": {}}}, "a: no setting 'mids.masked.x'"),
        (BARE | {"rows": {"a": {"mids.epochs": 0}, "b": {}}}, "a: mids.epochs: "),
        (BARE | {"rows": {"a/b": {}, "b": {}}}, "rows.a/b"),
        (BARE | {"rows": {"a": {}}}, "rows"),
        ({"rows": {"a": {}, "b": {}}}, "paper speaks of the row 'masked-frozen'"),
        ({"paper": PAPER | {"columns": ["ACC"]}}, "a figure for every one of paper.columns"),
        ({"paper": PAPER | {"columns": ["ACC", "F1"]}}, "'F1' is none of ACC"),
        ({"bench": "none.yaml"}, "none.yaml: no such recipe"),
        ({"jugded": "anchor"}, "did you mean 'judged'?"),
    ],
)
def test_bad_recipes(ablation, changes, message):
    with pytest.raises(UsageError) as caught:
        ablation(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_row(ablation, tiny_run, tmp_path):
    with pytest.raises(UsageError, match="mids has no row 'x'; its rows: open-frozen, masked-frozen"):
        ablation().run(tiny_run.data, tmp_path, ["x"])
    assert not list(tmp_path.iterdir())
