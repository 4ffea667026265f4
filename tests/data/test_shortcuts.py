import json
import math

import numpy as np
import pytest

from ffaa.cli.main import main
from ffaa.data import manifest, shortcuts
from ffaa.data.manifest import Row
from ffaa.data.shortcuts import ALL, FAMILIES, FEATURES, UNKNOWN, check, features
from ffaa.data.stats import markdown
from ffaa.types import ForgeryType, Label

REAL, FAKE = Label.REAL, Label.FAKE


def faces(dataset, count, labels=(REAL, FAKE), larger=1.0, seed=0, per_group=0, **more):
    """`count` faces of each label; the photos of fakes have `larger` times the bytes, all else is drawn alike."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in labels:
        for i in range(count):
            if not per_group or i % per_group == 0:
                width, height, size = *rng.integers(300, 900, 2), rng.uniform(4e4, 8e4)
                red, green, blue = rng.uniform(60, 180, 3)
            rows.append(
                Row(
                    path=f"{dataset}/{label}-{i}.png", label=label,
                    forgery_type=ForgeryType.REAL if label is REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS,
                    dataset=dataset, group=f"{dataset}-{label}-{i // per_group}" if per_group else "",
                    photo_width=width, photo_height=height, red=red, green=green, blue=blue,
                    photo_bytes=round(size * (larger if label is FAKE else 1)),
                    **{"split": "train" if i % 4 else "test"} | more,
                )
            )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rows = [
        *faces("planted", 60, larger=1.5),
        *faces("clean", 60, seed=1),
        *faces("few", 8, seed=2),
        *faces("portraits", 40, (REAL,), seed=3),
        *faces("gan", 30, (FAKE,), seed=4, larger=2.5),
        *faces("mixed", 40, seed=5, larger=2.5, split="bench", bench="SET"),
    ]
    manifest.write(folder / manifest.NAME, rows)
    return check(folder, seed=0)


def test_a_planted_shortcut_is_flagged_and_only_that(found):
    planted, clean = ({c.name: c for c in found.collections}[name] for name in ("planted", "clean"))
    assert (planted.real, planted.fake, planted.flagged) == (60, 60, True)
    flags = {r.features: r.flagged for r in planted.readings}
    assert flags == {ALL: True, "file size": True, "aspect": False, "colour": False, "native size": False}
    size = planted.readings[1]
    assert 0.55 < size.low <= size.balanced_accuracy <= size.high < 1
    assert size.auc > 0.8
    assert not clean.flagged
    for reading in clean.readings:
        assert reading.low < 0.55
        assert 0.35 < reading.balanced_accuracy < 0.65
        assert reading.high - reading.low > 0.1


def test_collections_of_one_label_are_named(found):
    assert [(c.name, c.label, c.faces) for c in found.one_label] == [("gan", FAKE, 22), ("portraits", REAL, 30)]
    assert "portraits holds only real faces (30) in training" in markdown(shortcuts.tables(found))


def test_too_few_faces_are_said(found):
    (few,) = [c for c in found.collections if c.name == "few"]
    assert (few.readings, few.flagged) == ([], False)
    assert few.note.startswith("too few to say: 8 real in 8 groups, 8 fake in 8")


def test_transfer_from_the_training_split(found):
    tests = {(t.name, t.split): t for t in found.transfer}
    assert set(tests) == {
        ("planted", "held out"), ("clean", "held out"), ("few", "held out"), ("portraits", "held out"),
        ("gan", "held out"), ("SET", "bench"),
    }  # fmt: skip
    bench, clean, gan = tests["SET", "bench"], tests["clean", "held out"], tests["gan", "held out"]
    assert (bench.real, bench.fake, bench.majority, bench.beats_majority) == (40, 40, 0.5, True)
    assert bench.low <= bench.accuracy <= bench.high
    assert bench.accuracy == pytest.approx(bench.balanced_accuracy)
    assert (clean.real, clean.fake, clean.beats_majority) == (15, 15, False)
    assert (gan.real, gan.majority, gan.balanced_accuracy, gan.auc) == (0, 1.0, None, None)


def test_the_words(found):
    text = markdown(shortcuts.tables(found))
    assert "SHORTCUT: in planted real and fake are told apart by all (at least" in text
    assert "SHORTCUT: in clean" not in text
    assert "few: too few to say" in text


def test_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts, "FAMILIES", {})
    manifest.write(tmp_path / manifest.NAME, faces("clean", 30, seed=6))
    first = check(tmp_path, seed=1)
    assert check(tmp_path, seed=1) == first
    assert check(tmp_path, seed=2).collections != first.collections
    assert first.transfer_note.startswith("too few to say")


def test_a_group_is_never_cut(tmp_path):
    """Ten frames of each video share all features: with frames of one video on both sides, all would be told apart."""
    manifest.write(tmp_path / manifest.NAME, faces("videos", 150, seed=7, per_group=10))
    (videos,) = check(tmp_path).collections
    assert not videos.flagged
    assert all(0.25 < r.balanced_accuracy < 0.75 for r in videos.readings)
    manifest.write(tmp_path / manifest.NAME, faces("videos", 60, seed=7, per_group=10))
    assert "in 6 groups" in check(tmp_path).collections[0].note


def test_what_was_not_measured(tmp_path):
    rows = [row.model_copy(update={"red": None, "green": None, "blue": None}) for row in faces("own", 30)]
    manifest.write(tmp_path / manifest.NAME, rows)
    (own,) = check(tmp_path).collections
    assert [r.features for r in own.readings] == [ALL, "file size", "aspect", "native size"]
    blank = {"photo_bytes": 0, "photo_width": 0, "photo_height": 0}
    manifest.write(tmp_path / manifest.NAME, [row.model_copy(update=blank) for row in rows])
    (own,) = check(tmp_path).collections
    assert (own.readings, own.note) == ([], "nothing was measured on its photos")


def test_features():
    row = Row(
        path="a", label=REAL, forgery_type=ForgeryType.REAL, photo_bytes=1000, photo_width=400, photo_height=200,
        red=1.0, green=2.0, blue=3.0,
    )  # fmt: skip
    expected = [math.log(1000), math.log(2), 1, 2, 3, math.log(400), math.log(200)]
    assert features(row) == pytest.approx(expected)
    blank = Row(path="a", label=REAL, forgery_type=ForgeryType.REAL)
    assert features(blank) == [UNKNOWN] * len(FEATURES)
    assert len(FEATURES) == sum(map(len, FAMILIES.values())) == len(expected)


def test_an_empty_manifest(tmp_path):
    manifest.write(tmp_path / manifest.NAME, [])
    found = check(tmp_path)
    assert (found.collections, found.transfer, found.one_label) == ([], [], [])
    assert "No collection holds both labels." in markdown(shortcuts.tables(found))


def test_the_command(tmp_path, capsys):
    manifest.write(tmp_path / manifest.NAME, faces("planted", 40, larger=3.0))
    assert main(["data", "stats", str(tmp_path), "--shortcuts", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "SHORTCUT: in planted" in captured.out
    assert captured.err == "80 faces have no crop and are on no sheet; give --data, the photos' folder\n"
    record = shortcuts.Shortcuts.model_validate(json.loads((tmp_path / "out/stats.json").read_text())["shortcuts"])
    assert [c.name for c in record.collections if c.flagged] == ["planted"]
    assert "SHORTCUT: in planted" in (tmp_path / "out" / "stats.md").read_text()
