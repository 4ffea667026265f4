"""`ffaa bench`: what is called with what; the figures are tested in tests/eval."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ffaa.eval import detectors  # before a stand-in for the assistant is there


class Trained:
    name, files, image_size, threshold, parameters, device = "bright", {"f": "0"}, 64, None, 10, "cpu"

    def scores(self, crops):
        return np.array([crop.mean() / 255 for crop in crops])


class Middle(Trained):
    name = "middle"

    def scores(self, crops):
        return np.array([crop[80:140, 80:140].mean() / 255 for crop in crops])


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Two folders of trained baselines, and a recipe."""
    made = {"bright": Trained, "middle": Middle}
    trained = SimpleNamespace(load_trained=lambda folder, device: made[folder.name]())
    monkeypatch.setitem(sys.modules, "ffaa.baselines.trained", trained)
    monkeypatch.setattr(detectors, "Assistant", None)
    for name in made:
        (tmp_path / name).mkdir()
    (tmp_path / "b.yaml").write_text("name: b\nper_class: 2\n")
    return tmp_path


@pytest.fixture
def result(folders, run, tiny_manifest):
    out = folders / "r.json"
    done = run("bench", "run", folders / "b.yaml", "--data", tiny_manifest, "--out", out, "--detector",
               folders / "bright", "--detector", f"m={folders / 'middle'}", "--batch", 5)  # fmt: skip
    assert done.code == 0, done.err
    return SimpleNamespace(out=done.out, path=out)


def test_run_writes_the_result_and_prints_the_tables(result, folders):
    content = json.loads(result.path.read_text())
    assert list(content["detectors"]) == ["bright", "m"]
    assert content["batch"] == 5
    assert len(content["photos"]["fake"]) == 12
    assert "| m |" in result.out
    assert sorted(p.name for p in (folders / "r.records").iterdir()) == ["bright.json", "bright.jsonl", "m.json",
                                                                        "m.jsonl"]  # fmt: skip


def test_table_in_three_formats(result, run):
    assert run("bench", "table", result.path).out == result.out
    assert run("bench", "table", result.path, "--format", "csv").out.startswith("set,row,real,fake,acc,")
    assert run("bench", "table", result.path, "--format", "html").out.startswith("<h2>Sets</h2>")
    assert run("bench", "table", result.path, "--format", "pdf").code == 2


def test_table_by_an_attribute(result, run, folders, tiny_manifest):
    bad = run("bench", "table", result.path, "--by", "width")
    assert bad.code == 2
    assert "name it in the recipe's `attributes`" in bad.err
    (folders / "b.yaml").write_text("name: b\nper_class: 2\nattributes: [width]\n")
    done = run("bench", "run", folders / "b.yaml", "--data", tiny_manifest, "--out", result.path, "--detector",
               folders / "bright", "--batch", 5)  # fmt: skip
    assert done.code == 0, done.err
    assert run("bench", "table", result.path, "--by", "width").out.startswith("## By width")
    lines = run("bench", "table", result.path, "--by", "width", "--format", "csv").out.splitlines()
    assert lines[0] == "pool,,width,real,fake,reals called fake,fakes found"
    assert "<h2>By width</h2>" in run("bench", "table", result.path, "--by", "width", "--format", "html").out


def test_robustness(folders, run, tiny_manifest, tmp_path):
    (folders / "b.yaml").write_text("name: b\nrobustness: {strengths: {jpeg: [50]}, per_class: 1}\n")
    done = run("bench", "robustness", folders / "b.yaml", "--data", tiny_manifest, "--out", folders / "r.json",
               "--detector", folders / "bright")  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith("## Area under the curves")
    assert run("bench", "table", folders / "r.json").out == done.out
    lines = run("bench", "table", folders / "r.json", "--format", "csv").out.splitlines()
    assert lines[0].startswith("corruption,strength,pool,row,")
    assert len(lines) == 1 + 2 * 2
    shown = run("bench", "plot", folders / "r.json", "--out", tmp_path / "plots").out.splitlines()
    assert [line.rsplit("/", 1)[1] for line in shown] == [
        f"robustness-{pool}-{of}.png" for pool in ("in-domain", "ALL") for of in ("acc", "auc")
    ]
    assert run("bench", "report", folders / "r.json", "--out", tmp_path / "x.html").code == 1  # of `run` alone


def test_explain(run, folders, tiny_manifest, tmp_path, monkeypatch):
    from tests.eval.test_explain import Talker

    monkeypatch.setattr("ffaa.eval.detectors.load_detectors", lambda *args: [Talker()])
    out = tmp_path / "e.json"
    done = run("bench", "explain", folders / "b.yaml", "--data", tiny_manifest, "--limit", 1, "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith("## Answers and sentences")
    assert run("bench", "table", out).out == done.out
    assert run("bench", "table", out, "--format", "csv").out.startswith("detector,table,figure,")
    assert run("bench", "plot", out, "--out", tmp_path).code == 2
    assert run("bench", "explain", "--out", out).err.startswith("ffaa: nothing to explain: give a recipe, a set, or")
    bad = run("bench", "explain", folders / "b.yaml", "--out", out)
    assert bad.code == 2
    assert "a recipe needs --data" in bad.err


def test_sheet(folders, run, tiny_manifest, tmp_path, monkeypatch, result):
    from tests.eval.test_sheets import Speaker

    bad = run("bench", "sheet", result.path, "--data", tiny_manifest, "--out", tmp_path / "s.html")
    assert bad.code == 2
    assert "no detector of this result gives three answers" in bad.err
    monkeypatch.setattr("ffaa.eval.detectors.load_detectors", lambda *args: [Speaker()])
    out = folders / "said.json"
    assert run("bench", "run", folders / "b.yaml", "--data", tiny_manifest, "--out", out).code == 0
    done = run("bench", "sheet", out, "--data", tiny_manifest, "--out", tmp_path / "s.html", "--photos", 2)
    assert done.out == f"{tmp_path / 's.html'}\n"
    assert "&lt;b&gt;words" in (tmp_path / "s.html").read_text()


def test_compare(result, run):
    found = run("bench", "compare", result.path, "bright", "m")
    assert found.out.startswith("## bright minus m")
    assert "| ALL | 8 |" in found.out
    bad = run("bench", "compare", result.path, "bright", "nano")
    assert bad.code == 2
    assert "no row 'nano' in this result; it has bright, m" in bad.err


def test_plot_and_report(result, run, tmp_path):
    done = run("bench", "plot", result.path, "--out", tmp_path / "plots")
    assert done.out.splitlines() == [str(tmp_path / "plots" / n) for n in ("roc.png", "reliability.png", "radar.png")]
    assert (tmp_path / "plots" / "radar.png").stat().st_size > 10_000
    assert run("bench", "report", result.path, "--out", tmp_path / "r.html").code == 0
    assert "data:image/png" in (tmp_path / "r.html").read_text()
    bad = run("bench", "report", result.path, "--out", tmp_path / "none" / "r.html")
    assert bad.code == 1
    assert "cannot be written" in bad.err


def test_errors_are_one_line(run, folders, tiny_manifest):
    twice = ["--detector", folders / "bright", "--detector", folders / "bright"]
    done = run("bench", "run", folders / "b.yaml", "--data", tiny_manifest, "--out", folders / "x.json", *twice)
    assert done.code == 2
    assert "two detectors are called 'bright'" in done.err
    (folders / "few.yaml").write_text("name: few\ncounts: {set 1: {real: 999}}\n")
    done = run("bench", "run", folders / "few.yaml", "--data", tiny_manifest, "--out", folders / "x.json", *twice[:2])
    assert done.code == 1
    assert "set 1 has 2 real of 999" in done.err
    assert "\n" not in done.err.strip()
    assert not (folders / "x.json").exists()
