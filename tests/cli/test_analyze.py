import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from ffaa.types import Failure, NoFace, Support, Verdict


def test_text_of_a_clear_case(run, photo):
    result = run("analyze", photo("two.png"))
    assert result.code == 0
    for words in (
        "two.png",
        "Face 1 of 2, box 10,20 to 110,140 (100 x 120 px)",
        "Face 2 of 2",
        "FAKE - entire face synthesis",
        "0.95, strong",
        "Forgery score   0.95",
        "easy (all three answers agree)",
        "brown hair",
        "line is blurred",
    ):
        assert words in result.out
    assert "uncertain" not in result.out
    assert "\x1b" not in result.out
    assert max(map(len, result.out.splitlines()[1:])) <= 80
    assert result.err == ""


@pytest.mark.parametrize("name", ["hard.png", "weak.png", "hard-real.png", "weak-real.png"])
def test_an_uncertain_case_does_not_read_like_a_finding(run, photo, name):
    out = run("analyze", photo(name)).out
    assert f"leans {'real' if 'real' in name else 'fake'}, uncertain" in out
    assert "not a finding" in out
    assert "FAKE" not in out
    assert "REAL" not in out
    assert ("the three answers disagree" in out) == ("hard" in name)
    assert ("0.55, weak" in out) == ("weak" in name)


def test_real_and_no_face(run, photo):
    result = run("analyze", photo("real.png"), photo("empty.png"))
    assert result.code == 0
    assert "REAL - no sign of forgery was found" in result.out
    assert "no face found; is it a photo of a face?" in result.out


def test_all_answers(run, photo):
    out = run("analyze", "--answers", photo("a.png")).out
    assert "Anchor answer (chosen)" in out
    assert "Positive answer" in out
    assert "Negative answer" in out
    assert "Not readable" in out
    assert "states probability 0.90" in out
    assert "\x1b" not in out  # of the raw text


def test_evidence_marks_the_sentences_in_words(run, photo):
    plain = run("analyze", photo("a.png")).out
    assert "not measurable" not in plain
    assert "Unusual" not in plain
    out = run("analyze", "--evidence", photo("a.png")).out
    lines = out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "     not measurable A woman looks? into the camera." in lines
    assert any(line.startswith("     supported      The lips are relaxed.") for line in lines)
    assert "     CONTRADICTED   She smiles. (measured: smile none)" in lines
    listed = [line.strip() for line in lines if line.endswith("face sizes (mouth)")]
    assert listed[:2] == ["mouth width: relaxed, 0.5 face sizes (mouth)", "smile: none, 0.0123 face sizes (mouth)"]
    assert len(listed) == 5
    assert "teeth" not in out


def test_json_and_files_carry_the_evidence(run, photo, tmp_path):
    result = run("analyze", "--evidence", "--json", photo("a.png"), "--out", tmp_path / "out")
    (record,) = result.records()
    verdict = Verdict.model_validate_json((tmp_path / "out" / "a-face0.json").read_text())
    assert json.loads(verdict.model_dump_json()) == record
    assert verdict.examined.items["teeth"].reason == "closed"
    assert [s.support for s in verdict.sentences] == [
        Support.NOT_MEASURABLE, Support.SUPPORTED, Support.CONTRADICTED
    ]  # fmt: skip


def test_json_lines_are_the_schema(run, photo, tmp_path):
    (tmp_path / "bad.jpg").write_text("text")
    result = run("analyze", "--json", photo("two.png"), photo("empty.png"), tmp_path / "bad.jpg", photo("z.png"))
    assert result.code == 1
    records = result.records()
    assert [r["kind"] for r in records] == ["verdict", "verdict", "no_face", "error", "verdict"]
    adapter = TypeAdapter(Verdict | NoFace | Failure)
    assert all(adapter.validate_python(r, strict=False) for r in records)
    assert {r["schema_version"] for r in records} == {"1.3"}
    assert len(result.err.splitlines()) == 1


def test_bad_files_are_said_and_the_others_analysed(run, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "zero.jpg").touch()
    result = run("analyze", tmp_path / "text.jpg", photo("a.png"), tmp_path / "none.jpg", tmp_path / "zero.jpg")
    assert result.code == 1
    assert "FAKE" in result.out
    lines = result.err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("text.jpg", "none.jpg", "zero.jpg"), strict=True):
        assert line.startswith("ffaa: ")
        assert line.count(name) == 1


def test_nothing_to_do(run, tmp_path, assistant):
    (tmp_path / "folder").mkdir()
    for args in ([tmp_path / "folder"], [tmp_path / "*.jpg"], [], ["--heatmap-without-text", "a.jpg"]):
        result = run("analyze", *args)
        assert result.code == 2
        assert result.err.startswith("ffaa: ")
        assert len(result.err.splitlines()) == 1
    assert assistant.made is None


def test_a_pattern_without_a_match_beside_good_photos(run, photo, tmp_path):
    result = run("analyze", photo("a.png"), tmp_path / "*.heic")
    assert result.code == 1
    assert "FAKE" in result.out
    assert "no photo in it" in result.err


def test_paths_from_stdin(run, photo, monkeypatch):
    lines = f"{photo('été.png')}\n{photo('b.png')}\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    result = run("analyze", "--json", "-")
    assert result.code == 0
    assert [r["source"]["path"].endswith(n) for r, n in zip(result.records(), ("été.png", "b.png"), strict=True)]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    assert run("analyze", "-").code == 2


def test_options_reach_the_assistant(run, photo, assistant):
    run("analyze", photo("a.png"), "--model", "mine", "--device", "cpu", "--seed", 3, "--min-face", 64)
    made = assistant.made
    assert (made.model, made.device, made.seed, made.min_face) == ("mine", "cpu", 3, 64)
    for args in (["--device", "tpu"], ["--min-face", "0"], ["--nonsense"]):
        result = run("analyze", photo("a.png"), *args)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1


def test_out(run, photo, tmp_path, assistant):
    out = tmp_path / "new" / "out"
    result = run("analyze", photo("two.png"), "--out", out, "--heatmap-without-text")
    assert result.code == 0
    names = sorted(p.name for p in out.iterdir())
    endings = ("-heatmap-without-text.png", "-heatmap.png", ".json")
    assert names == [f"two-face{face}{ending}" for face in (0, 1) for ending in endings]
    written = Verdict.model_validate_json((out / "two-face1.json").read_text())
    assert written.face_index == 1
    assert written.heatmap == str(out / "two-face1-heatmap.png")
    assert written.timings.heatmap > 0
    assert np.array(Image.open(written.heatmap)).mean() == 200
    assert assistant.made.heatmaps == [(0, True), (0, False), (1, True), (1, False)]
    assert "two-face0-heatmap.png" in result.out


def test_names_in_out_are_safe_and_unique(run, photo, tmp_path):
    long = "名" * 80
    names = ["a/x.png", "b/x.png", "c/X.jpg", "a/x-2.png", "a/.-.png", "a/-rf *?.png", f"a/{long}.png"]
    out = tmp_path / "out"
    result = run("analyze", *[photo(name) for name in names], "--out", out, "--json")
    assert result.code == 0
    written = {os.path.basename(r["heatmap"]).removesuffix("-face0-heatmap.png") for r in result.records()}
    assert len(written) == len(names)
    assert {"x", "x-2", "X-3", "x-2-2", "photo", "rf"} <= written
    assert all(len(p.name.encode()) < 200 and p.is_file() for p in out.iterdir())
    for record in result.records():
        assert json.loads(Path(record["heatmap"].replace("-heatmap.png", ".json")).read_text("utf-8")) == record


def test_out_that_cannot_be_written(run, photo, tmp_path, assistant):
    (tmp_path / "file").touch()
    result = run("analyze", photo("a.png"), "--out", tmp_path / "file")
    assert result.code == 2
    assert "cannot be written" in result.err
    assert assistant.made is None  # said before anything is loaded


def test_progress_only_for_several_files_and_a_terminal(run, photo, monkeypatch):
    files = [photo("a.png"), photo("b.png")]
    assert "analysing" not in run("analyze", *files).err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    result = run("analyze", "--json", *files)
    assert "analysing" in result.err
    assert len(result.records()) == 2
    assert "analysing" not in run("analyze", files[0]).err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_unicode(run, photo, tmp_path):
    good, bad = (os.path.join(os.fsencode(tmp_path), name) for name in (b"caf\xe9.png", b"caf\xe9.jpg"))
    os.rename(photo("a.png"), good)
    with open(bad, "wb") as file:
        file.write(b"text")
    for options in ([], ["--json", "--out", tmp_path / "out"]):
        result = run("analyze", os.fsdecode(good), os.fsdecode(bad), *options)
        assert result.code == 1
        assert "caf\\xe9.jpg" in result.err
        assert "unexpected" not in result.err
    assert [r["kind"] for r in result.records()] == ["verdict", "error"]
