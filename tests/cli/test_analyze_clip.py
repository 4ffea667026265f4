import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

import ffaa.clip  # before `ffaa.assistant` is replaced
from ffaa.cli import text_clip
from ffaa.types import Difficulty, Failure, NoFace, Verdict
from ffaa.types_clip import ClipVerdict

GREY, BLACK, WHITE = (np.full((128, 208, 3), level, np.uint8) for level in (128, 0, 255))


@pytest.fixture
def clip(make_clip, tmp_path):
    def write(name, pictures=(GREY,) * 8):
        return str(make_clip(tmp_path / name, pictures))

    return write


def lines(result):
    return [" ".join(line.split()) for line in result.out.splitlines()]


def test_text_of_a_clear_case(run, clip):
    result = run("analyze", clip("a.mp4"), "--frames", 4)
    assert (result.code, result.err) == (0, "")
    found = lines(result)
    assert result.out.splitlines()[0].endswith("a.mp4")
    for words in (
        "video, 0.8 s, 208 x 128 px, 10 frames a second, h264",
        "4 of 8 frames were looked at",
        "Person 1 of 1, in 4 of 4 frames, 0.10 s to 0.70 s, face 100 px wide",
        "Verdict FAKE in 4 of 4 frames - entire face synthesis",
        "Forgery score 0.95 (strong, mean over the frames; 0 real, 1 fake)",
        "Difficulty easy (the frames agree)",
        "Caution of the model",
    ):
        assert words in found
    assert "has not been measured on videos" in " ".join(found)
    assert result.out.count("Telling frame") == 3
    assert result.out.count("Reasoning") == 1
    assert "uncertain" not in result.out
    assert "\x1b" not in result.out
    assert max(map(len, result.out.splitlines()[1:])) <= 80


@pytest.mark.parametrize("name", ["hard.mp4", "weak.mp4", "hard-real.mp4", "weak-real.mp4", "few.mp4"])
def test_an_uncertain_case_does_not_read_like_a_finding(run, clip, name):
    out = run("analyze", clip(name), "--frames", 2 if name == "few.mp4" else 4).out
    assert f"leans {'real' if 'real' in name else 'fake'}, uncertain" in out
    assert "not a finding" in out
    assert "FAKE" not in out
    assert "REAL" not in out
    assert "strong," not in out
    assert ("weak," in out) == ("weak" in name)


def test_real(run, clip):
    assert "REAL - no sign of forgery was found in 4 of 4 frames" in run("analyze", clip("real.mp4"), "--frames", 4).out


def test_labels_against_scores_are_undecided(run, clip):
    (record,) = run("analyze", clip("a.mp4"), "--json", "--frames", 4).records()
    found = ClipVerdict.model_validate(record, strict=False)
    (person,) = found.people
    against = person.model_copy(update={"agreement": 0.25, "share_fake": 0.25, "difficulty": Difficulty.HARD})
    said = text_clip.describe(found.model_copy(update={"people": [against]}))
    assert "undecided: most frames say real, their scores lean to fake" in " ".join(said.split())
    assert "FAKE" not in said


def test_two_people_and_nobody(run, clip):
    out = run("analyze", clip("two.mp4", [WHITE] * 8), clip("none.mp4", [BLACK] * 8), "--frames", 4).out
    assert "Person 1 of 2" in out
    assert "Person 2 of 2" in out
    assert "2 people, told apart by place and looks; no face is recognised" in out
    assert "no face found in 4 frames" in out


def test_answers_and_evidence_are_those_of_the_telling_frames(run, clip, monkeypatch):
    monkeypatch.setattr("ffaa.clip.require_mesh", lambda: None)
    path = clip("a.mp4")
    out = run("analyze", path, "--frames", 4, "--answers").out
    assert out.count("Anchor answer (chosen)") == 3
    assert "what counts is the verdict on the person" in " ".join(out.split())
    assert "CONTRADICTED   She smiles." in run("analyze", path, "--frames", 4, "--evidence").out


def test_photos_and_clips_mixed_keep_their_order(run, photo, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    bare = tmp_path / "photo.jpg"  # known by its content
    bare.write_bytes((tmp_path / clip("b.mkv")).read_bytes())
    moving = tmp_path / "moving.gif"
    images = [Image.new("RGB", (200, 200), c) for c in ("gray", "red")]
    images[0].save(moving, save_all=True, append_images=images[1:])
    paths = [photo("1.png"), clip("2.mp4"), moving, tmp_path / "text.mp4", bare, photo("empty.png"), photo("3.png")]
    result = run("analyze", "--json", "--frames", 2, *paths)
    assert result.code == 1
    records = result.records()
    assert [r["kind"] for r in records] == [
        "verdict", "clip_verdict", "verdict", "error", "clip_verdict", "no_face", "verdict"
    ]  # fmt: skip
    adapter = TypeAdapter(Verdict | NoFace | ClipVerdict | Failure)
    assert all(adapter.validate_python(r, strict=False) for r in records)
    (line,) = result.err.splitlines()
    assert line.startswith("ffaa: ")
    assert "no video that can be read" in line


def test_folders_give_their_clips(run, photo, clip, tmp_path):
    photo("photos/a.png")
    clip("photos/b.mp4")
    result = run("analyze", tmp_path / "photos", "--json", "--frames", 2)
    assert [r["kind"] for r in result.records()] == ["verdict", "clip_verdict"]


def test_files_that_fail_are_one_line_each(run, clip, tmp_path, monkeypatch):
    good = clip("good.mp4")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(Path(good).read_bytes()[:-600])
    result = run("analyze", tmp_path / "zero.mp4", tmp_path / "cut.mp4", tmp_path / "none.webm", good, "--frames", 2)
    assert result.code == 1
    assert [line.startswith("ffaa: ") for line in result.err.splitlines()] == [True] * 3
    assert "FAKE" not in result.out  # two frames are too few
    assert "Person 1 of 1" in result.out
    result = run("analyze", good, "--whole-image")
    assert result.code == 1
    assert "--whole-image is for photos" in result.err
    short = ffaa.clip.ClipLimits(video=ffaa.clip.VideoLimits(max_seconds=0.5))
    monkeypatch.setattr(ffaa.clip, "ClipLimits", lambda seconds: short)
    result = run("analyze", good)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"ffaa: {good}: 1 s long, the limit is")
    assert result.err.count("\n") == 1


def test_a_truncated_clip_is_said_and_judged(run, clip, tmp_path):
    path = tmp_path / "a.mkv"
    rng = np.random.default_rng(0)
    noisy = [rng.integers(60, 200, GREY.shape, np.uint8) for _ in range(20)]
    whole = Path(clip("a.mkv", noisy)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    result = run("analyze", path, "--frames", 4)
    assert result.code == 0
    assert "note: the video is not whole" in result.out
    assert "Person 1 of 1, in 4 of 4 frames" in result.out


def test_options(run, clip):
    path = clip("a.mp4")
    for args in (["--frames", 0], ["--frames", 257], ["--time-limit", 0]):
        result = run("analyze", path, *args)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1


def test_interrupt(run, clip, tmp_path):
    result = run("analyze", clip("interrupt.mp4"), "--out", tmp_path / "out")
    assert result.code == 130
    assert "Traceback" not in result.err
    assert list((tmp_path / "out").iterdir()) == []


def test_out(run, clip, tmp_path, assistant):
    out = tmp_path / "out"
    path = clip("two.mp4", [WHITE] * 8)
    result = run("analyze", path, "--out", out, "--frames", 2, "--json", "--heatmap-without-text")
    assert result.code == 0
    names = {p.name for p in out.iterdir()}
    maps = {f"two-person{p}-frame{k}-heatmap{end}.png" for p in (1, 2) for k in (1, 2) for end in ("", "-without-text")}
    assert names == {"two-clip.json", "two-timeline.png"} | maps
    (record,) = result.records()
    assert json.loads((out / "two-clip.json").read_text("utf-8")) == record
    assert record["timeline"] == str(out / "two-timeline.png")
    assert Image.open(record["timeline"]).size[0] == 900
    written = [t["verdict"]["heatmap"] for p in record["people"] for t in p["telling"]]
    assert {str(out / name) for name in maps if "without" not in name} == set(written)
    assert np.array(Image.open(written[0])).mean() == 200
    assert record["timings"]["heatmap"] > 0
    plain = run("analyze", path, "--out", out, "--frames", 2).out
    assert "two-2-timeline.png" not in plain  # names are unique within a run
    assert "two-timeline.png" in plain
    assert "two-person2-frame2-heatmap.png" in plain


@pytest.mark.parametrize(("module", "hidden"), [("av", "ffaa.clip"), ("matplotlib", "ffaa.timeline")])
def test_a_missing_extra_is_one_line_and_photos_go_on(run, clip, photo, tmp_path, monkeypatch, module, hidden):
    path = clip("a.mp4")
    for name in [n for n in sys.modules if n == module or n.startswith((module + ".", "ffaa.data.stream", hidden))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("ffaa.data.video", "ffaa.data.stream"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("analyze", path, photo("a.png"), "--out", tmp_path / "out")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert f"needs the extra 'data' ({module}" in result.err
    assert "FAKE" in result.out
