import json

import numpy as np
import pytest
from PIL import Image

from ffaa.data.build import build
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.eval import robustness as module
from ffaa.eval.benchmark import BenchRecipe, load_bench
from ffaa.eval.corruptions import CORRUPTIONS
from ffaa.eval.curves import as_csv, curves, figures, tables
from ffaa.eval.kinds import read_any
from ffaa.eval.result import write_result
from ffaa.eval.robustness import CLEAN, Condition, area, conditions, make_result, run
from ffaa.eval.run import face_of

ROBUSTNESS = {"strengths": {"brightness": (0.2, 0.6), "blur": (1, 4)}, "per_class": 1}
RECIPE = BenchRecipe(name="tiny", per_class=2, robustness=ROBUSTNESS)


class KilledError(Exception):
    pass


@pytest.fixture
def seen(bright, dark, tiny_manifest, tmp_path):
    return run(RECIPE, tiny_manifest, [bright, dark], tmp_path / "r", 4)


@pytest.fixture
def found(seen, bright, dark):
    return make_result(RECIPE, seen, [bright, dark], "ffaa bench robustness <x>", 4, 100)


def test_every_photo_under_every_condition(seen, bright):
    of = seen["bright"]
    paths = {one.path for one in of}
    assert len(paths) == 6  # two sets and the in-domain one, a real photo and a fake each
    assert len(of) == 6 * 5
    every = conditions(RECIPE)
    assert every == [Condition(CLEAN, None), *(Condition(n, s) for n in ("brightness", "blur")
                     for s in ROBUSTNESS["strengths"][n])]  # fmt: skip
    assert {(one.path, one.corruption, one.strength) for one in of} == {(p, *c) for p in paths for c in every}
    assert len(bright._trained.seen) == 30


def test_the_clean_photos_are_those_of_the_plain_run_and_corruptions_do_what_they_say(seen, tiny_manifest, bright):
    rows = {row.path: row for row in module.chosen_rows(RECIPE, tiny_manifest)}
    by = {(o.path, o.corruption, o.strength): o.says["bright"].score for o in seen["bright"]}
    for path, row in rows.items():
        crop = face_of(tiny_manifest, row, 224)[0].image
        clean = by[path, CLEAN, None]
        assert clean == pytest.approx(crop.mean() / 255)
        ratios = [by[path, "brightness", s] / clean for s in (0.2, 0.6)]
        assert abs(ratios[1] - 1) > abs(ratios[0] - 1) > 0.1
        assert by[path, "blur", 4] == pytest.approx(clean, abs=0.01)  # the mean stays
    for one, other in zip(seen["bright"], seen["dark"], strict=True):
        assert one.says["bright"].score == pytest.approx(1 - other.says["dark"].score)


def test_faces_are_found_once(bright, dark, tiny_manifest, tmp_path, monkeypatch):
    calls, real = [], module.photo_and_face
    monkeypatch.setattr(module, "photo_and_face", lambda *args: calls.append(1) or real(*args))
    run(RECIPE, tiny_manifest, [bright, dark], tmp_path, 4)
    assert len(calls) == 6


def test_a_built_set(bright, tiny_manifest, tmp_path):
    """Crops alone: another cut mirrors at their border."""
    source = SourceArgs(kind="csv", root=".", per_class=1)
    build(DataRecipe(name="c", sources=[source], pose=False, duplicates=False, val=0, test=0), tiny_manifest,
          tmp_path / "set", workers=0)  # fmt: skip
    recipe = BenchRecipe(name="b", manifest="manifest.parquet", robustness={"strengths": {"shift": (0.2,)}})
    of = run(recipe, tmp_path / "set", [bright], tmp_path / "r", 8)["bright"]
    clean, moved = ([o.says["bright"].score for o in of if o.corruption == name] for name in (CLEAN, "shift"))
    assert len(clean) == len(moved) > 0
    assert all(0 < abs(a - b) < 0.2 for a, b in zip(clean, moved, strict=True))


def _timeless(folder):
    lines = {p.name: p.read_text().splitlines() for p in sorted(folder.glob("*.jsonl"))}
    return {name: [json.loads(line) | {"seconds": 0} for line in of] for name, of in lines.items()}


@pytest.mark.parametrize("kill_at", range(1, 21, 3))
def test_a_killed_run_goes_on(bright, dark, tiny_manifest, tmp_path, kill_at, monkeypatch):
    once, again, calls = tmp_path / "once", tmp_path / "again", []
    run(RECIPE, tiny_manifest, [bright, dark], once, 4)
    for one in (bright, dark):
        judge = one.judge

        def dying(faces, judge=judge):
            calls.append(len(faces))
            if len(calls) == kill_at:
                raise KilledError
            return judge(faces)

        monkeypatch.setattr(one, "judge", dying)
    with pytest.raises(KilledError):
        run(RECIPE, tiny_manifest, [bright, dark], again, 4)
    for torn in again.glob("*.jsonl"):
        lines = (once / torn.name).read_text().splitlines(keepends=True)
        count = len(torn.read_text().splitlines())
        with torn.open("a") as file:
            file.write("".join(lines[count : count + 1]) + '{"path": "ph')
    run(RECIPE, tiny_manifest, [bright, dark], again, 4)
    assert len(calls) == 2 * 2 * 5 + 1  # batches, detectors, conditions, and the killed one
    assert _timeless(again) == _timeless(once)
    run(RECIPE, tiny_manifest, [bright, dark], again, 4)
    assert len(calls) == 21


def test_other_strengths_are_another_run(bright, tiny_manifest, tmp_path):
    run(RECIPE, tiny_manifest, [bright], tmp_path, 4)
    other = RECIPE.model_copy(update={"robustness": RECIPE.robustness.model_copy(update={"per_class": 2})})
    with pytest.raises(InputError, match="another run"):
        run(other, tiny_manifest, [bright], tmp_path, 4)


def test_figures_by_hand(found, seen):
    pool, of = "ALL", [o for o in seen["bright"] if o.split == "bench"]
    clean = [o for o in of if o.corruption == CLEAN]
    dark = [o for o in of if (o.corruption, o.strength) == ("brightness", 0.6)]
    curve = found.curves["brightness"]
    point = curve.points[1][pool]["bright"]
    assert point.acc == np.mean([o.says["bright"].label is o.label for o in dark])
    changed = [a.says["bright"].label is not b.says["bright"].label for a, b in zip(clean, dark, strict=True)]
    assert point.changed == np.mean(changed)
    assert found.clean[pool]["bright"].changed == 0
    accs = [found.clean[pool]["bright"].acc, *(points[pool]["bright"].acc for points in curve.points)]
    got = curve.area[pool]["bright"].acc
    assert got.value == pytest.approx((accs[0] / 2 + accs[1] + accs[2] / 2) / 2)
    assert got.low <= got.value <= got.high
    aucs = [found.clean[pool]["bright"].auc, *(points[pool]["bright"].auc for points in curve.points)]
    assert curve.area[pool]["bright"].auc.value == pytest.approx((aucs[0] / 2 + aucs[1] + aucs[2] / 2) / 2)


def test_the_area_of_a_level_curve_is_its_height():
    level = [np.array([0.7, 0.4])] * 4
    assert area(level) == pytest.approx([0.7, 0.4])
    assert area([np.array([1.0]), np.array([0.0])]).item() == 0.5


def test_tables_csv_and_curves(found, tmp_path):
    shown = tables(found)
    assert [table.title for table in shown] == ["Area under the curves", "brightness", "blur"]
    assert found.least == 1
    assert "with one photo each they have no width at all" in shown[0].notes[-1]
    assert [row[2] for row in shown[0].rows[:3]] == [CLEAN, "brightness", "blur"]
    assert [row[2] for row in shown[1].rows[:3]] == [CLEAN, "0.2", "0.6"]
    lines = as_csv(found).splitlines()
    assert len(lines) == 1 + 5 * 2 * 2  # conditions, pools, rows
    assert lines[1].startswith("clean,,in domain,bright,1,1,")
    write_result(tmp_path / "r.json", found)
    kind, again = read_any(tmp_path / "r.json")
    assert [t.title for t in kind.tables(again)] == [t.title for t in shown]
    assert len(kind.as_csv(again).splitlines()) == len(lines)
    assert again.curves["blur"].area["ALL"]["dark"].acc.value == found.curves["blur"].area["ALL"]["dark"].acc.value
    assert list(figures(found)) == [f"robustness-{pool}-{height}.png" for pool in ("in-domain", "ALL")
                                    for height in ("acc", "auc")]  # fmt: skip
    axes = curves(found, "ALL", "acc").axes[0]
    points = [found.clean, *found.curves["brightness"].points]
    assert list(axes.lines[0].get_ydata()) == [point["ALL"]["bright"].acc for point in points]
    assert [label.get_text() for label in axes.get_xticklabels()] == [CLEAN, "0.2", "0.6"]
    curves(found, "ALL", "acc").savefig(tmp_path / "p.png")
    assert np.asarray(Image.open(tmp_path / "p.png").convert("L")).std() > 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("strengths: {fog: [1]}", f"no corruption 'fog'; known: {', '.join(CORRUPTIONS)}"),
        ("strengths: {jpeg: [90, 200]}", "jpeg: strengths are different numbers from 1 to 95"),
        ("strengths: {jpeg: []}", "jpeg: strengths"),
        ("strengths: {blur: [1, 1]}", "blur: strengths"),
        ("perclass: 3", "did you mean 'per_class'"),
    ],
)
def test_settings_that_cannot_be(tmp_path, text, told):
    (tmp_path / "b.yaml").write_text(f"name: b\nrobustness:\n  {text}\n")
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        load_bench(tmp_path / "b.yaml")


def test_all_corruptions_by_default():
    every = conditions(BenchRecipe(name="b"))
    assert len(every) == 1 + sum(len(found.strengths) for found in CORRUPTIONS.values())
    assert {c.corruption for c in every} == {CLEAN, *CORRUPTIONS}
