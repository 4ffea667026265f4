import json
from types import SimpleNamespace

import numpy as np
import pytest

from ffaa.data.build import build
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.images import load_photo
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.eval import benchmark as module
from ffaa.eval.benchmark import BenchRecipe, Outcome, load_bench, markdown, result, run, sample, summarise, write_csv
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.tower_heads import TYPES
from ffaa.mllm.train_tower import load_tower
from ffaa.types import Difficulty, ForgeryType, Label
from ffaa.vqa.conversation import read_jsonl

REAL, FAKE = Label.REAL, Label.FAKE
RECIPE = BenchRecipe(name="tiny", per_class=1)


@pytest.fixture(scope="module")
def rows(tiny_rows):
    return tiny_rows


@pytest.fixture(scope="module")
def whole(tiny_assistant, tiny_manifest, tmp_path_factory):
    records = tmp_path_factory.mktemp("bench") / "deep" / "records.jsonl"
    return records, run(RECIPE, tiny_manifest, tiny_assistant, records)


# --- which photos ----------------------------------------------------------------------------------------------------


def test_all_in_domain_photos_and_a_seeded_draw_of_every_set_and_label(rows):
    chosen = sample(RECIPE, rows)
    assert [r.split for r in chosen] == ["test"] * 4 + ["bench"] * 4
    assert [(r.test_set, r.label) for r in chosen[4:]] == [
        (name, label) for name in ("set 1", "set 2") for label in (FAKE, REAL)
    ]
    assert sample(RECIPE, rows) == chosen
    assert sample(RECIPE, list(rows[20:]) + list(rows[:20]))[4:] == chosen[4:]  # other splits change nothing
    draws = {tuple(r.path for r in sample(RECIPE.model_copy(update={"seed": s}), rows)[4:]) for s in range(20)}
    assert len(draws) > 3


def test_without_a_limit_every_photo_is_taken_once(rows):
    chosen = sample(BenchRecipe(name="x"), rows)
    assert sorted(r.path for r in chosen) == sorted(r.path for r in rows if r.split in ("test", "bench"))


def test_a_larger_set_does_not_change_the_draw_of_another(rows):
    more = [*rows, *(r.model_copy(update={"path": f"more-{r.path}"}) for r in rows if r.test_set == "set 1")]
    keep = [r for r in sample(RECIPE, more) if r.test_set == "set 2"]
    assert keep == [r for r in sample(RECIPE, rows) if r.test_set == "set 2"]


@pytest.mark.parametrize("text", ["name: x\nper_clas: 3\n", "per_class: 3\n", "name: [\n", "name: x\nper_class: 0\n"])
def test_bad_recipes(tmp_path, text):
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"b\.yaml"):
        load_bench(tmp_path / "b.yaml")
    with pytest.raises(UsageError, match="no such"):
        load_bench(tmp_path / "none.yaml")


def test_crops_are_analysed_whole(tiny_assistant, tiny_manifest, tmp_path):
    """A built set of crops, in single files and in shards, gives the same figures."""
    source = SourceArgs(kind="csv", root=".", per_class=1)
    found = []
    for kind in ("none", "webdataset"):
        settings = DataRecipe(name="c", sources=[source], pose=False, duplicates=False, val=0, test=0, shards=kind)
        build(settings, tiny_manifest, tmp_path / kind, workers=0)
        recipe = BenchRecipe(name="crops", manifest="manifest.parquet")
        found.append(run(recipe, tmp_path / kind, tiny_assistant, tmp_path / f"{kind}.jsonl"))
    assert found[0]
    assert all(o.whole_image for o in found[0])
    assert found[0] == found[1]


# --- the run ---------------------------------------------------------------------------------------------------------


def test_outcomes_are_the_assistants_verdicts(whole, rows, tiny_assistant, tiny_manifest):
    records, found = whole
    chosen = sample(RECIPE, rows)
    assert [o.path for o in found] == [r.path for r in chosen]
    assert list(read_jsonl(records, Outcome)) == found
    for o, row in zip(found, chosen, strict=True):
        assert (o.sha256, o.label, o.forgery_type, o.split, o.test_set) == (
            row.sha256, row.label, row.forgery_type, row.split, row.test_set
        )  # fmt: skip
        assert 0 <= o.tower_score <= 1
        assert o.tower_type in ForgeryType
        assert o.unparsed == 0
    analysis = tiny_assistant.analyze(tiny_manifest / found[1].path, whole_image=found[1].whole_image)
    v = analysis[0]
    assert (found[1].said, found[1].said_type, found[1].difficulty) == (v.label, v.forgery_type, v.difficulty)
    assert found[1].forgery_score == pytest.approx(v.forgery_score, abs=1e-6)
    assert found[1].anchor is v.answers[0].result


def test_the_tower_alone_is_the_trained_tower(whole, tiny_run, tiny_assistant):
    boxed = {r.path: r for r in tiny_run.stages.rows}
    tower, heads = load_tower(tiny_run.folder / "tower.safetensors")
    for o in whole[1][:3]:
        row = boxed[o.path]
        photo = load_photo(tiny_run.data / o.path).pixels
        assert np.abs(photo.astype(int) - read_photo(tiny_run.data, row)).max() < 20  # decoders differ a little
        hidden = tower(pixel_tensor([plain_face(photo, row, 224).image])).hidden_states
        assert heads.forgery_logit(hidden).sigmoid().item() == pytest.approx(o.tower_score, abs=0.01)
        assert TYPES[int(heads.kind(hidden[1][:, 0]).argmax())] is o.tower_type


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on(whole, tiny_assistant, tiny_manifest, tmp_path, monkeypatch):
    records = tmp_path / "r.jsonl"
    real, made = module._outcome, []

    def dying(*args):
        made.append(1)
        if len(made) == 4:
            raise KilledError
        return real(*args)

    monkeypatch.setattr(module, "_outcome", dying)
    with pytest.raises(KilledError):
        run(RECIPE, tiny_manifest, tiny_assistant, records)
    with records.open("a") as file:
        file.write('{"path": "photos/te')  # a torn line
    found = run(RECIPE, tiny_manifest, tiny_assistant, records)
    assert len(made) == 4 + 5
    assert [o.path for o in found] == [o.path for o in whole[1]]
    for a, b in zip(found, whole[1], strict=True):
        assert a.model_dump(exclude={"forgery_score", "match_score", "tower_score"}) == b.model_dump(
            exclude={"forgery_score", "match_score", "tower_score"}
        )
        assert a.forgery_score == pytest.approx(b.forgery_score, abs=1e-6)
    assert len(records.read_text().splitlines()) == 8
    run(RECIPE, tiny_manifest, tiny_assistant, records)
    assert len(made) == 9


def test_records_of_another_run_are_refused(whole, tiny_assistant, tiny_manifest, tmp_path):
    records = tmp_path / "r.jsonl"
    records.write_text("".join(reversed(whole[0].read_text().splitlines(keepends=True))))
    with pytest.raises(InputError, match="another run"):
        run(RECIPE, tiny_manifest, tiny_assistant, records)


def test_an_unreadable_photo_stops_the_run(tiny_assistant, tiny_manifest, tmp_path, rows):
    (tmp_path / "manifest.csv").write_text((tiny_manifest / "manifest.csv").read_text())
    with pytest.raises(InputError, match="no such file"):
        run(RECIPE, tmp_path, tiny_assistant, tmp_path / "r.jsonl")


# --- figures ---------------------------------------------------------------------------------------------------------


def outcome(i, split, test_set, label, said, score, anchor, hard, tower, unparsed=0):
    kind = ForgeryType.REAL if label is REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS
    said_type = {REAL: ForgeryType.REAL, FAKE: ForgeryType.ENTIRE_FACE_SYNTHESIS}[said] if i != 3 else None
    return Outcome(
        path=f"{i}.jpg", sha256=f"{i}", split=split, test_set=test_set, label=label, forgery_type=kind, said=said,
        said_type=said_type, forgery_score=score, match_score=max(score, 1 - score),
        difficulty=Difficulty.HARD if hard else Difficulty.EASY, anchor=anchor, tower_score=tower,
        tower_type=kind, whole_image=i == 0, unparsed=unparsed,
    )  # fmt: skip


OUTCOMES = [
    outcome(0, "test", "own", REAL, REAL, 0.2, REAL, False, 0.1),
    outcome(1, "test", "own", FAKE, FAKE, 0.9, REAL, True, 0.4),
    outcome(2, "bench", "A", REAL, FAKE, 0.6, REAL, True, 0.2),
    outcome(3, "bench", "A", FAKE, FAKE, 0.8, FAKE, False, 0.7),
    outcome(4, "bench", "B", REAL, REAL, 0.3, FAKE, True, 0.6),
    outcome(5, "bench", "B", FAKE, FAKE, 0.7, None, True, 0.9, unparsed=1),
]


def test_summary_by_hand():
    found = summarise(RECIPE, OUTCOMES)
    assert list(found["sets"]) == ["in domain/own", "A", "B"]
    assert list(found["pools"]) == ["in domain", "ALL"]
    assert [found["sets"][name]["ffaa"].acc for name in found["sets"]] == [1, 0.5, 1]
    pool = found["pools"]["ALL"]
    assert (pool["ffaa"].real, pool["ffaa"].fake, pool["ffaa"].acc) == (2, 2, 0.75)
    assert pool["ffaa"].auc == 1.0
    assert pool["tower"].acc == 0.75
    assert (pool["anchor only"].real, pool["anchor only"].fake) == (2, 1)  # an unread anchor is left out
    assert pool["anchor only"].acc == pytest.approx(2 / 3)
    assert pool["easy"] == {"count": 1, "acc": 1.0, "anchor_acc": 1.0}
    assert pool["hard"] == {"count": 3, "acc": pytest.approx(2 / 3), "anchor_acc": pytest.approx(1 / 3)}
    assert pool["unparsed_answers"] == 1
    assert found["pools"]["in domain"]["whole_image"] == 1
    # types: 2 said synthesis for a real one, 3 named no type
    assert pool["type_acc"] == 0.5
    assert pool["type_acc_of_fakes"] == 0.5
    assert pool["type_acc_of_caught"] == 0.5
    assert pool["confusion"] == {
        "Entire face synthesis -> Entire face synthesis": 1, "Entire face synthesis -> none": 1,
        "Real -> Entire face synthesis": 1, "Real -> Real": 1,
    }  # fmt: skip
    assert sum(pool["confusion"].values()) == 4
    assert found["sacc"]["ffaa"] == pytest.approx(np.std([0.5, 1, 1]))  # A, B and the in-domain set
    assert found["sacc"]["tower"] == pytest.approx(np.std([0.5, 1, 0.5]))


def test_sample_hash_names_the_photos():
    assert summarise(RECIPE, OUTCOMES)["sample_sha256"] != summarise(RECIPE, OUTCOMES[:-1])["sample_sha256"]


def test_without_tower_or_open_world():
    bare = [o.model_copy(update={"tower_score": None}) for o in OUTCOMES]
    assert "tower" not in summarise(RECIPE, bare)["pools"]["ALL"]
    only = summarise(RECIPE, OUTCOMES[:2])
    assert list(only["pools"]) == ["in domain"]
    assert only["sacc"]["ffaa"] == 0


def test_result_csv_and_table(tmp_path):
    assistant = SimpleNamespace(engine=SimpleNamespace(name="m", hashes={"f": "0"}), versions={"ffaa": "0"}, seed=3)
    figures = result(RECIPE, OUTCOMES, assistant, "ffaa bench run x", 0.0)
    again = json.loads(json.dumps(figures))
    assert again["model"] == "m"
    assert again["weights"] == {"f": "0"}
    assert again["seed"] == 3
    assert again["photos"] == 6
    assert again["recipe"]["name"] == "tiny"
    assert again["command"] == "ffaa bench run x"
    assert again["pools"]["ALL"]["ffaa"]["acc"] == 0.75
    write_csv(tmp_path / "x.csv", again)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == "set,row,real,fake,acc,auc,ap,ece"
    assert "A,ffaa,1,1,0.5,1.0,1.0,0.4" in lines
    assert len(lines) == 1 + 5 * 3
    table = markdown(again).splitlines()
    assert len(table) == 2 + 5
    assert table[-1].startswith("| ALL | 2 / 2 | 0.750 | 1.000 | 1.000 | 0.750 |")
    assert table[-1].endswith("| 1, 1.000 | 3, 0.667 |")
