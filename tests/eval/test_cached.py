"""The evaluation of a run folder: what it decides, keeps, skips and counts."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ffaa.data.crops import plain_face, read_photo
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.eval import cached
from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.cached import ANSWERS, FEATURES, JUDGEMENTS, RESULT, evaluate, read_evaluation
from ffaa.eval.detectors import Ffaa, Judgement, Says, majority_says, scored
from ffaa.eval.evaluation import Evaluation, figures, summarise, table
from ffaa.eval.run import Outcome, face_of, outcome_of
from ffaa.evidence.examine import examine_face
from ffaa.mllm import features
from ffaa.mllm.mine import Mined
from ffaa.mllm.tower import pixel_tensor
from ffaa.pack import pack
from ffaa.stages import Stages
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import read_jsonl
from ffaa.wording import is_uncertain

REAL, FAKE = Label.REAL, Label.FAKE
BENCH = BenchRecipe(name="tiny", per_class=1, in_domain_per_class=1)


@pytest.fixture
def run(tiny_run, use_tiny_parts, tmp_path):
    """run(changes of the recipe...) -> stages on a copy of the tiny run's folder."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)

    def made(**changes):
        return Stages(tiny_run.recipe.model_copy(update=changes), tiny_run.data, folder)

    return made


@pytest.fixture(scope="module")
def whole(tiny_run, tiny_parts, tmp_path_factory):
    """The tiny run, evaluated once: .folder, .found (the result), .judged, .answers."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(tiny_run.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffaa.weights.part_folder", tiny_parts.__getitem__)
        found = evaluate(Stages(tiny_run.recipe, tiny_run.data, folder), BENCH)
    return SimpleNamespace(
        folder=folder, found=found, judged=list(read_jsonl(folder / JUDGEMENTS, Outcome)),
        answers=list(read_jsonl(folder / ANSWERS, Mined)),
    )  # fmt: skip


# --- what is decided -------------------------------------------------------------------------------------------------


def test_it_decides_as_the_assistant(whole, tiny_assistant, tiny_manifest, use_tiny_parts):
    """From the photo on: the same answers, determination and type, and the forgery score to 1e-4."""
    assert len(whole.judged) == 6
    for judged, kept in zip(whole.judged, whole.answers, strict=True):
        photo = tiny_manifest / judged.path
        analysis = tiny_assistant.analyze(photo) or tiny_assistant.analyze(photo, whole_image=True)
        verdict = analysis.verdicts[0]
        assert [a.raw for a in kept.answers] == [a.raw for a in verdict.answers]
        assert [a.role for a in kept.answers] == [a.role for a in verdict.answers]
        assert (judged.says["ffaa"].label, judged.said_type) == (verdict.label, verdict.forgery_type)
        assert judged.says["ffaa"].score == pytest.approx(verdict.forgery_score, abs=1e-4)
        assert judged.results == [a.result for a in verdict.answers]
        assert judged.finding == (not is_uncertain(verdict))


def test_what_is_kept_is_of_the_crop_that_analyze_makes(whole, tiny_run, use_tiny_parts):
    array, found = features.load(whole.folder, FEATURES)
    rows = {r.path: r for r in tiny_run.stages.rows}
    tower, _ = cached.half_tower(tiny_run.folder / "tower.safetensors")
    assert array.dtype == np.float32
    for kept, one in zip(array, found, strict=True):
        face = plain_face(read_photo(tiny_run.data, rows[one.image]), rows[one.image], 224)
        assert one.values == examine_face(face).values
        with torch.no_grad():
            hidden = tower(pixel_tensor([face.image])).hidden_states
        np.testing.assert_allclose(kept, torch.stack(hidden, 1)[0].numpy(), atol=1e-4)


def test_mids_with_blocks_of_its_own_decides_as_the_assistant(tiny_run, run, use_tiny_parts, tmp_path):
    from ffaa.assistant import Assistant

    stages = run(mids=tiny_run.recipe.mids.model_copy(update={"unfreeze": 1}))
    pack(stages, tmp_path / "model")
    evaluate(stages, BenchRecipe(name="in domain alone", open_world="none", in_domain_per_class=1))
    found = list(read_jsonl(stages.folder / JUDGEMENTS, Outcome))
    assistant = Assistant(tmp_path / "model", device="cpu")
    for judged in found[:2]:
        photo = tiny_run.data / judged.path
        analysis = assistant.analyze(photo) or assistant.analyze(photo, whole_image=True)
        assert judged.says["ffaa"].score == pytest.approx(analysis.verdicts[0].forgery_score, abs=1e-4)


def test_mids_with_towers_of_its_own_decides_as_the_assistant(tiny_run, run, use_tiny_parts, tmp_path):
    """And what all towers say with their heads is a row, here and in the benchmark."""
    from ffaa.assistant import Assistant

    plain = tiny_run.recipe.tower
    stages = run(mids_towers=[[plain.model_copy(update=more)] for more in ({"lr": 3e-3}, {"seed": 1})])
    pack(stages, tmp_path / "model")
    evaluate(stages, BenchRecipe(name="in domain alone", open_world="none", in_domain_per_class=1))
    found = list(read_jsonl(stages.folder / JUDGEMENTS, Outcome))
    detector = Ffaa(Assistant(tmp_path / "model", device="cpu"))
    assert detector.rows == tuple(f"nano-tiny{part}" for part in ("", "/anchor", "/majority", "/tower", "/towers"))
    for judged in found[:2]:
        face, _ = face_of(tiny_run.data, next(r for r in stages.rows if r.path == judged.path), 224)
        says = detector.judge([face])[0].says
        for row, own in (("ffaa", ""), ("tower", "/tower"), ("towers", "/towers")):
            assert judged.says[row].score == pytest.approx(says[f"nano-tiny{own}"].score, abs=1e-4), row
        assert judged.says["towers"].score != pytest.approx(judged.says["tower"].score, abs=1e-4)


def test_without_mids_the_anchor_alone_is_asked_and_judged(run, whole):
    stages = run()
    found = evaluate(stages, BENCH, "anchor")
    kept = list(read_jsonl(stages.folder / ANSWERS, Mined))
    assert [[a.raw for a in m.answers] for m in kept] == [[m.answers[0].raw] for m in whole.answers]
    assert list(found.pools["ALL"].rows) == ["anchor only", "tower"]
    assert found.pools["ALL"].hard is None
    assert found.pools["ALL"].rows["anchor only"] == whole.found.pools["ALL"].rows["anchor only"]
    assert "mids.safetensors" not in found.hashes


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_second_evaluation_does_nothing(run, whole, monkeypatch):
    stages = run()
    for file in whole.folder.glob("eval*"):
        shutil.copy2(file, stages.folder)
    shutil.copy2(whole.folder / "stages.json", stages.folder)
    for name in ("compute", "mine", "judge"):
        holder = cached.features if name == "compute" else cached
        monkeypatch.setattr(holder, name, None)
    stages = run()
    assert evaluate(stages, BENCH) == whole.found == read_evaluation(stages.folder)


def test_another_mids_is_decided_anew_on_the_same_answers(run, tiny_run, whole):
    stages = run()
    evaluate(stages, BENCH)
    before = {name: (stages.folder / name).stat().st_mtime_ns for name in (f"{FEATURES}.npy", ANSWERS, RESULT)}
    stages = run(mids=tiny_run.recipe.mids.model_copy(update={"lr": 5e-2}))
    stages.mids()
    found = evaluate(stages, BENCH)
    after = {name: (stages.folder / name).stat().st_mtime_ns for name in before}
    assert [name for name in before if before[name] != after[name]] == [RESULT]
    assert found.hashes["mids.safetensors"] != whole.found.hashes["mids.safetensors"]
    assert found.pools["ALL"].rows["ffaa"] != whole.found.pools["ALL"].rows["ffaa"]


class KilledError(Exception):
    pass


def test_a_killed_evaluation_goes_on(run, whole, monkeypatch):
    real, asked_for = cached.Asked, []

    class Dying(real):
        def __init__(self, *args):
            super().__init__(*args)
            self.batch = 2

        def answer(self, asked):
            for found in super().answer(asked):
                asked_for.append(len(found))
                if len(asked_for) == 2:
                    raise KilledError
                yield found

    monkeypatch.setattr(cached, "Asked", Dying)
    stages = run()
    with pytest.raises(KilledError):
        evaluate(stages, BENCH)
    assert len((stages.folder / ANSWERS).read_text().splitlines()) == 2
    with (stages.folder / ANSWERS).open("a") as file:
        file.write('{"row": 9')  # a torn line
    found = evaluate(run(), BENCH)
    assert asked_for == [2] * 4  # of three batches the second was made again
    assert list(read_jsonl(stages.folder / ANSWERS, Mined)) == whole.answers
    assert found.pools["ALL"].rows == whole.found.pools["ALL"].rows


def test_a_photo_that_the_mllm_was_tuned_on_is_refused(run, tiny_run):
    bench = BenchRecipe(name="leak", open_world="train")
    with pytest.raises(InputError, match="used to tune the MLLM"):
        evaluate(run(), bench)


def test_a_benchmark_without_photos(run):
    with pytest.raises(InputError, match="no photo of the splits 'a', 'b'"):
        evaluate(run(), BenchRecipe(name="none", in_domain="a", open_world="b"))


# --- figures ---------------------------------------------------------------------------------------------------------


def judgement(i, split, test_set, label, results, said, score, anchor_score, tower, finding=False):
    kind = ForgeryType.REAL if label is REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS
    row = Row(path=f"{i}.jpg", sha256=f"{i}", label=label, forgery_type=kind, split=split, bench=test_set)
    anchor = Says(label=results[0], score=anchor_score)
    says = {"ffaa": Says(label=said, score=score), "anchor only": anchor, "tower": scored(tower),
            "majority": majority_says(results)}  # fmt: skip
    told = Judgement(says=says, seconds=0, results=results, said_type=None if i == 3 else kind, finding=finding)
    return outcome_of(row, told, row.sha256, False)


FOUND = [
    judgement(0, "test", "own", REAL, [REAL, REAL, REAL], REAL, 0.2, 0.1, 0.1),
    judgement(1, "test", "own", FAKE, [REAL, REAL, FAKE], FAKE, 0.9, 0.3, 0.4),
    judgement(2, "bench", "A", REAL, [REAL, FAKE, FAKE], FAKE, 0.6, 0.4, 0.2, True),
    judgement(3, "bench", "A", FAKE, [FAKE, FAKE, FAKE], FAKE, 0.8, 0.9, 0.7, True),
    judgement(4, "bench", "B", REAL, [FAKE, FAKE, REAL], REAL, 0.3, 0.8, 0.6),
    judgement(5, "bench", "B", FAKE, [None, FAKE, REAL], FAKE, 0.7, 0.5, 0.9),
]


def test_figures_by_hand():
    pool = figures(FOUND[2:], "ffaa", 0)
    assert {name: row.acc for name, row in pool.rows.items()} == {
        "ffaa": 0.75, "anchor only": 0.5, "tower": 0.75, "majority": 0.25
    }  # fmt: skip
    assert pool.rows["ffaa"].auc == 1.0
    assert pool.rows["anchor only"].auc == 0.75  # 0.9 above both real scores, the unread one's 0.5 above one of two
    assert (pool.easy, pool.easy_acc, pool.unparsed) == (1, 1.0, 1)
    assert (pool.type_acc, pool.type_acc_of_fakes) == (0.75, 0.5)
    said = pool.findings
    assert (said.count, said.share.value, said.acc.value, said.accused, said.missed) == (2, 0.5, 0.5, 0.5, 0)
    hard = pool.hard
    assert (hard.count, hard.mids.value, hard.anchor.value, hard.majority.value) == (3, 2 / 3, 1 / 3, 0)
    assert hard.over_anchor.difference == pytest.approx(1 / 3)
    assert hard.over_majority.difference == pytest.approx(2 / 3)


def test_intervals_are_paired_seeded_and_hold_the_value():
    many = [
        judgement(i, "bench", "A", FAKE, [REAL, REAL, FAKE], FAKE if i % 10 else REAL, 0.6, 0.4, 0.5)
        for i in range(200)
    ]
    hard = figures(many, "ffaa", 1).hard
    assert (hard.mids.value, hard.anchor.value) == (0.9, 0)
    assert 0.84 < hard.mids.low < 0.9 < hard.mids.high < 0.95
    assert hard.over_anchor.difference == pytest.approx(0.9)
    assert (hard.over_anchor.low, hard.over_anchor.high) == pytest.approx((hard.mids.low, hard.mids.high))
    assert figures(many, "ffaa", 1).hard == hard
    assert figures(many, "ffaa", 2).hard != hard


def test_sets_pools_and_spread():
    found = summarise(FOUND, BENCH, "ffaa")
    assert list(found["sets"]) == ["in domain/own", "A", "B"]
    assert list(found["pools"]) == ["in domain", "ALL"]
    assert found["sacc"]["ffaa"] == pytest.approx(np.std([0.5, 1, 1]))
    assert found["sacc"]["anchor only"] == pytest.approx(np.std([1, 0, 0.5]))


def test_the_result_says_where_it_comes_from(whole, tiny_run):
    found = Evaluation.model_validate_json((whole.folder / RESULT).read_text())
    assert found == whole.found
    assert found.recipe["name"] == "nano-tiny"
    assert found.seed == tiny_run.recipe.seed
    assert set(found.hashes) == {
        "faces.parquet", "tower.safetensors", "mllm/model.safetensors", "mids.safetensors", "detail.json", ANSWERS
    }  # fmt: skip
    assert {"ffaa", "torch", "transformers", "python"} <= set(found.versions)
    assert found.photos == 6
    assert sum(of.rows["ffaa"].real for of in found.sets.values()) == 3


def test_another_correction_is_judged_anew(run):
    """Where all faces lack detail, and lacking it leaves next to nothing, MIDS is undecided about all of them."""
    stages = run()
    correction = {"below": 20.0, "flatten": 100.0}
    (stages.folder / "detail.json").write_text(json.dumps({"correction": correction}))
    evaluate(stages, BENCH)
    scores = [j.says["ffaa"].score for j in read_jsonl(stages.folder / JUDGEMENTS, Outcome)]
    assert scores == pytest.approx([0.5] * 6, abs=0.02)


def test_table(whole):
    plain = whole.found.model_copy(update=summarise(FOUND, BENCH, "ffaa"))
    lines = table(plain).splitlines()
    assert lines[0].startswith("| set | real / fake | ffaa: ACC, AUC | anchor only: ACC, AUC | tower: ACC, AUC |")
    assert lines[6].startswith("| ALL | 2 / 2 | 0.750, 1.000 | 0.500, 0.750 | 0.750, 1.000 | 0.250, 0.500 | 0.750 |")
    assert "| ALL | 3 | 0.667 [" in table(plain)
    assert "1 answers unread" in lines[-1]
