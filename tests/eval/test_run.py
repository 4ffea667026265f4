import hashlib
import json

import numpy as np
import pytest

from ffaa.data.build import build
from ffaa.data.crops import read_photo
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError
from ffaa.eval import run as module
from ffaa.eval.benchmark import BenchRecipe, read_rows, sample
from ffaa.eval.detectors import Ffaa
from ffaa.eval.figures import make_result
from ffaa.eval.run import Outcome, face_of, run
from ffaa.mllm.tower import pixel_tensor
from ffaa.types import Answer
from ffaa.vqa.conversation import read_jsonl

RECIPE = BenchRecipe(name="tiny", per_class=2)  # 4 photos in domain, 8 of the open world


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def assistant(tiny_assistant):
    return Ffaa(tiny_assistant)


@pytest.fixture(scope="module")
def whole(assistant, tiny_manifest, tmp_path_factory):
    records = tmp_path_factory.mktemp("bench") / "deep" / "x.records"
    return records, run(RECIPE, tiny_manifest, [assistant], records)[assistant.name]


def test_every_sampled_photo_once_and_kept(whole, assistant, tiny_manifest):
    records, found = whole
    rows = sample(RECIPE, read_rows(RECIPE, tiny_manifest))
    assert [o.path for o in found] == [r.path for r in rows]
    assert list(read_jsonl(records / f"{assistant.name}.jsonl", Outcome)) == found
    for outcome, row in zip(found, rows, strict=True):
        assert (outcome.label, outcome.forgery_type, outcome.split, outcome.test_set) == (
            row.label, row.forgery_type, row.split, row.test_set
        )  # fmt: skip
        assert outcome.sha256 == hashlib.sha256((tiny_manifest / row.path).read_bytes()).hexdigest()
        assert row.group in outcome.video
        assert outcome.seconds > 0


def test_the_outcomes_are_the_assistants_verdicts(whole, tiny_assistant, tiny_manifest):
    for outcome in whole[1][:3]:
        verdict = tiny_assistant.analyze(tiny_manifest / outcome.path, whole_image=outcome.whole_image)[0]
        name = tiny_assistant.engine.name
        assert outcome.says[name].label is verdict.label
        assert outcome.says[name].score == pytest.approx(verdict.forgery_score, abs=1e-5)
        assert (outcome.said_type, outcome.difficulty) == (verdict.forgery_type, verdict.difficulty)
        assert outcome.results == [a.result if isinstance(a, Answer) else None for a in verdict.answers]
        assert outcome.says[f"{name}/anchor"].label is verdict.answers[0].result


def test_the_tower_row_is_the_tower_with_its_head(whole, tiny_assistant, tiny_manifest):
    engine = tiny_assistant.engine
    folder = tiny_manifest
    rows = {r.path: r for r in read_rows(RECIPE, folder)}
    for outcome in whole[1][:3]:
        face, _ = face_of(folder, rows[outcome.path], 224)
        hidden = engine.mllm.model.model.vision_tower(pixel_tensor([face.image])).hidden_states
        score = engine.heads.forgery_logit(hidden).sigmoid().item()
        assert outcome.says[f"{engine.name}/tower"].score == pytest.approx(score, abs=1e-5)


def test_all_detectors_see_the_same_crops(bright, dark, tiny_manifest, tmp_path, monkeypatch):
    """One detection per photo, however many detectors."""
    calls = []
    real = module.face_of
    monkeypatch.setattr(module, "face_of", lambda *args: calls.append(1) or real(*args))
    found = run(RECIPE, tiny_manifest, [bright, dark], tmp_path, batch=5)
    assert len(calls) == 12
    assert [len(of) for of in found.values()] == [12, 12]
    rows = sample(RECIPE, read_rows(RECIPE, tiny_manifest))
    for one, other, row in zip(bright._trained.seen, dark._trained.seen, rows, strict=True):
        assert one.shape == (224, 224, 3)
        assert one.dtype == np.uint8
        assert (one == other).all()
        assert (one == real(tiny_manifest, row, 224)[0].image).all()
    for up, down in zip(found["bright"], found["dark"], strict=True):
        assert up.says["bright"].score == pytest.approx(1 - down.says["dark"].score)


def test_crops_of_a_built_set_are_taken_as_they_are(bright, tiny_manifest, tmp_path):
    """In single files and in shards: the same outcomes, and no detector runs."""
    source = SourceArgs(kind="csv", root=".", per_class=1)
    found = []
    for kind in ("none", "webdataset"):
        settings = DataRecipe(name="c", sources=[source], pose=False, duplicates=False, val=0, test=0, shards=kind)
        build(settings, tiny_manifest, tmp_path / kind, workers=0)
        recipe = BenchRecipe(name="crops", manifest="manifest.parquet")
        bright._trained.seen.clear()
        found.append(run(recipe, tmp_path / kind, [bright], tmp_path / f"{kind}.records")["bright"])
        rows = sample(recipe, read_rows(recipe, tmp_path / kind))
        for crop, row in zip(bright._trained.seen, rows, strict=True):
            assert (crop == read_photo(tmp_path / kind, row)).all()
            assert face_of(tmp_path / kind, row, 224)[0].box == (row.box or row.crop.region)
    timeless = [[o.model_copy(update={"seconds": 0}) for o in outcomes] for outcomes in found]
    assert timeless[0]
    assert timeless[0] == timeless[1]


# --- killed runs -----------------------------------------------------------------------------------------------------


def _records(folder):
    """File -> content, without the seconds."""
    lines = {p.name: p.read_text().splitlines() for p in sorted(folder.glob("*.jsonl"))}
    return {name: [json.loads(line) | {"seconds": 0} for line in of] for name, of in lines.items()}


def _figures(detectors, outcomes):
    found = make_result(RECIPE, outcomes, detectors, "x", 5, 20).model_dump()
    for of in found["detectors"].values():
        of.pop("images_per_second")
    return found


def _kill_and_go_on(detectors, data, once, again, kill_at, batch, monkeypatch):
    """Kill a run in its kill_at-th call of a detector, tear the files as a kill may, go on; the calls in all."""
    calls = []
    for detector in detectors:
        judge = detector.judge

        def dying(faces, judge=judge):
            calls.append(len(faces))
            if len(calls) == kill_at:
                raise KilledError
            return judge(faces)

        monkeypatch.setattr(detector, "judge", dying)
    with pytest.raises(KilledError):
        run(RECIPE, data, detectors, again, batch)
    for torn in again.glob("*.jsonl"):  # a whole line of a batch that is not, and part of another
        lines = (once / torn.name).read_text().splitlines(keepends=True)
        count = len(torn.read_text().splitlines())
        with torn.open("a") as file:
            file.write("".join(lines[count : count + 1]) + '{"path": "photos/te')
    return calls, run(RECIPE, data, detectors, again, batch)


@pytest.mark.parametrize("kill_at", range(1, 7))
def test_a_killed_run_goes_on(bright, dark, tiny_manifest, tmp_path, kill_at, monkeypatch):
    once, again, detectors = tmp_path / "once", tmp_path / "again", [bright, dark]
    whole = run(RECIPE, tiny_manifest, detectors, once, batch=5)
    calls, found = _kill_and_go_on(detectors, tiny_manifest, once, again, kill_at, 5, monkeypatch)
    assert len(calls) == 3 * 2 + 1  # 3 batches, 2 detectors, and the call that was killed
    assert _records(again) == _records(once)
    assert _figures(detectors, found) == _figures(detectors, whole)
    run(RECIPE, tiny_manifest, detectors, again, batch=5)
    assert len(calls) == 7  # done: nothing is judged again


def test_a_killed_run_of_the_assistant_goes_on(whole, assistant, tiny_manifest, tmp_path, monkeypatch):
    calls, found = _kill_and_go_on([assistant], tiny_manifest, whole[0], tmp_path, 2, 8, monkeypatch)
    assert calls == [8, 4, 4]
    assert _records(tmp_path) == _records(whole[0])
    assert _figures([assistant], found) == _figures([assistant], {assistant.name: whole[1]})


def test_a_detector_may_be_added_later(bright, dark, tiny_manifest, tmp_path):
    first = run(RECIPE, tiny_manifest, [bright], tmp_path)
    count = len(bright._trained.seen)
    both = run(RECIPE, tiny_manifest, [bright, dark], tmp_path)
    assert len(bright._trained.seen) == count
    assert both["bright"] == first["bright"]
    assert len(both["dark"]) == len(both["bright"])


def test_records_of_another_run_are_refused(bright, tiny_manifest, tmp_path):
    run(RECIPE, tiny_manifest, [bright], tmp_path)
    with pytest.raises(InputError, match=r"another run \(recipe"):
        run(RECIPE.model_copy(update={"seed": 1}), tiny_manifest, [bright], tmp_path)
    with pytest.raises(InputError, match=r"another run \(batch differ"):
        run(RECIPE, tiny_manifest, [bright], tmp_path, batch=3)
    bright.about = bright.about.model_copy(update={"files": {"baseline.safetensors": "cd" * 32}})
    with pytest.raises(InputError, match=r"another run \(detector differ"):
        run(RECIPE, tiny_manifest, [bright], tmp_path)
    (tmp_path / "bright.json").unlink()
    with pytest.raises(InputError, match="not known of which run"):
        run(RECIPE, tiny_manifest, [bright], tmp_path)


def test_records_of_other_photos_are_refused(bright, tiny_manifest, tmp_path):
    run(RECIPE, tiny_manifest, [bright], tmp_path)
    file = tmp_path / "bright.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    with pytest.raises(InputError, match="other photos"):
        run(RECIPE, tiny_manifest, [bright], tmp_path)


def test_an_unreadable_photo_stops_the_run(bright, tiny_manifest, tmp_path):
    (tmp_path / "manifest.csv").write_text((tiny_manifest / "manifest.csv").read_text())
    with pytest.raises(InputError, match="no such file"):
        run(RECIPE, tmp_path, [bright], tmp_path / "records")


def test_a_manifest_without_these_splits(bright, tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label,split\np.jpg,real,train\n")
    with pytest.raises(InputError, match="no photo of split 'test' or 'bench'"):
        run(RECIPE, tmp_path, [bright], tmp_path / "records")
