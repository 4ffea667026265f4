"""`ffaa vqa generate | filter | export | stats` as a user runs them, one after the other."""

import json

import pytest

from ffaa.cli.main import main
from ffaa.vqa.conversation import read_jsonl, write_jsonl
from ffaa.vqa.row import VqaRow


@pytest.fixture(scope="module")
def crops(tmp_path_factory, tiny_manifest):
    folder = tmp_path_factory.mktemp("vqa")
    recipe = folder / "r.yaml"
    recipe.write_text("name: t\nval: 0\ntest: 0\nduplicates: false\nsources: [{kind: csv, root: .}]\n")
    arguments = ["--data", str(tiny_manifest), "--out", str(folder / "set"), "--workers", "0"]
    assert main(["data", "build", str(recipe), *arguments]) == 0
    return folder / "set"


@pytest.fixture(scope="module")
def rows(crops):
    out = crops.parent / "rows.jsonl"
    assert main(["vqa", "generate", str(crops), "--out", str(out), "--workers", "0"]) == 0
    return out


def test_generate(rows, crops, capsys):
    found = list(read_jsonl(rows, VqaRow))
    assert {row.split for row in found} == {"train"}
    assert all(row.teacher == "grounded" and row.prompt_version.startswith("grounded-") for row in found)
    before = rows.read_bytes()
    assert main(["vqa", "generate", str(crops), "--out", str(rows), "--workers", "0"]) == 0  # there is nothing to do
    assert rows.read_bytes() == before
    assert f"{rows}: {len(found)} rows by grounded" in capsys.readouterr().out
    assert main(["vqa", "generate", str(crops), "--out", str(rows), "--seed", "1"]) == 1
    assert "holds rows of another run; give another --out" in capsys.readouterr().err
    assert main(["vqa", "generate", str(crops), "--out", str(rows), "--estimate"]) == 0
    assert "costs nothing" in capsys.readouterr().out


def test_filter_keeps_what_the_grounded_teacher_wrote_and_drops_what_was_spoilt(rows, tmp_path, capsys):
    found = list(read_jsonl(rows, VqaRow))
    write_jsonl(tmp_path / "in.jsonl", [*found, found[0].model_copy(update={"result": found[0].label.opposite})])
    kept, rejected = tmp_path / "kept.jsonl", tmp_path / "rejected.jsonl"
    assert main(["vqa", "filter", str(tmp_path / "in.jsonl"), "--out", str(kept), "--rejected", str(rejected)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["read"], counts["kept"], counts["rejected"]) == (len(found) + 1, len(found), 1)
    assert kept.read_bytes() == rows.read_bytes()
    assert {"result", "duplicate"} <= set(json.loads(rejected.read_text())["reasons"])


@pytest.mark.parametrize(("form", "suffix"), [("llava", "json"), ("chat", "jsonl")])
def test_export(rows, tmp_path, capsys, form, suffix):
    out = tmp_path / f"train.{suffix}"
    assert main(["vqa", "export", str(rows), "--out", str(out), "--format", form]) == 0
    number = len(rows.read_text().splitlines())
    text = out.read_text()
    found = json.loads(text) if form == "llava" else [json.loads(line) for line in text.splitlines()]
    assert len(found) == number
    asked = json.dumps(found).count("What evidence do you have?")
    assert 0.15 * number < asked < 0.55 * number  # a third, by hash


def test_stats_with_everything(rows, crops, tmp_path, capsys):
    out = tmp_path / "stats"
    assert main(["vqa", "stats", str(rows), "--out", str(out), "--information", "--faithfulness", "5",
                 "--images", str(crops)]) == 0  # fmt: skip
    assert "100.00%" in capsys.readouterr().out
    held = json.loads((out / "faithfulness.json").read_text())
    assert (held["rows"], held["share"]) == (5, 1.0)
    assert "readings" in json.loads((out / "information.json").read_text())
    assert "Faithfulness: " in (out / "stats.md").read_text()
    assert {p.name for p in out.iterdir()} == {
        "stats.md", "stats.json", "cloud.png", "faithfulness.json", "information.json", "sample.md"
    }  # fmt: skip


def test_bad_use(rows, crops, tmp_path, capsys):
    assert main(["vqa", "stats", str(rows), "--faithfulness", "5"]) == 2
    assert "go together; give both" in capsys.readouterr().err
    assert main(["vqa", "generate", str(tmp_path), "--out", str(tmp_path / "o.jsonl")]) == 1
    assert "`ffaa data build` makes one" in capsys.readouterr().err
    assert main(["vqa", "generate", str(crops), "--out", str(tmp_path / "o.jsonl"), "--split", "test2"]) == 1
    assert "no faces in the split 'test2'" in capsys.readouterr().err
    assert main(["vqa", "stats", str(tmp_path / "none.jsonl")]) == 1
    error = capsys.readouterr().err
    assert "none.jsonl" in error
    assert "Traceback" not in error
