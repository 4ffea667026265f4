import os
import sys

import numpy as np
import pytest
from tests.serve.page import check

import ffaa.clip  # noqa: F401 (before `ffaa.assistant` is replaced)
from ffaa.errors import WeightsError
from ffaa.types import Credentials

GREY, BLACK = (np.full((128, 208, 3), level, np.uint8) for level in (128, 0))


def page(path):
    return check(path.read_text("utf-8"))


def test_one_file_with_all_photos(run, photo, tmp_path):
    out = tmp_path / "new" / "r.html"
    (tmp_path / "bad<script>.jpg").write_text("text")
    result = run("report", photo("two.png"), photo("hard.png"), photo("empty.png"), tmp_path / "bad<script>.jpg",
                 "--out", out)  # fmt: skip
    assert result.code == 1
    assert result.out == f"{out}: 4 photos, 3 faces, 1 not analysed\n"
    (line,) = result.err.splitlines()
    assert line.count("bad<script>.jpg") == 1
    text = page(out).text
    for words in ("Photo 4: bad<script>.jpg", "FAKE - entire face synthesis", "leans fake, uncertain", "no face found"):
        assert words in text
    assert os.listdir(out.parent) == ["r.html"]
    assert str(tmp_path) not in out.read_text("utf-8")


def test_videos_and_photos_in_one_report(run, photo, make_clip, tmp_path):
    folder = tmp_path / "in"
    photo("in/1.png")
    make_clip(folder / "2.mp4", [GREY] * 8)
    make_clip(folder / "3-hard.mkv", [GREY] * 8)
    make_clip(folder / "4.mp4", [BLACK] * 8)
    (folder / "5.mp4").write_text("no video")
    photo("in/6-hard.png")
    out = tmp_path / "r.html"
    result = run("report", folder, "--out", out, "--frames", 4, "--time-limit", 90, "--no-evidence")
    assert result.code == 1
    assert result.out == f"{out}: 2 photos, 2 faces, 4 videos, 2 people, 1 not analysed\n"
    (line,) = result.err.splitlines()
    assert line.count("5.mp4") == 1
    found = page(out)
    assert [text for level, text in found.headings if level == 2][1:7] == [
        "Photo 1: 1.png", "Video 2: 2.mp4", "Video 3: 3-hard.mkv", "Video 4: 4.mp4", "Video 5: 5.mp4",
        "Photo 6: 6-hard.png",
    ]  # fmt: skip
    for words in (
        "FAKE in 4 of 4 frames - entire face synthesis", "leans fake, uncertain (if forged: perhaps entire face",
        "no face found in 4 frames", "--no-evidence --frames 4 --time-limit 90", "5.mp4: no video that can be read",
        "has not been measured on videos as a whole",
    ):  # fmt: skip
        assert words in found.text, words
    assert str(tmp_path) not in out.read_text("utf-8")
    out.unlink()
    assert run("report", folder / "2.mp4", "--out", out, "--frames", 2).code == 0
    assert "0 photos" not in page(out).text
    assert run("report", folder / "2.mp4", "--out", out, "--whole-image").code == 1
    assert "--whole-image is for photos" in page(out).text


def test_a_video_that_breaks_off_is_said_and_judged(run, make_clip, tmp_path):
    rng = np.random.default_rng(0)
    path = make_clip(tmp_path / "a.mkv", [rng.integers(60, 200, GREY.shape, np.uint8) for _ in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = tmp_path / "r.html"
    assert run("report", path, "--out", out, "--frames", 4).code == 0
    text = page(out).text
    assert "the video is not whole: a.mkv: what can be read ends after" in text
    assert "Seen in 4 of 4 frames" in text


def test_without_the_video_reader_photos_go_on(run, photo, make_clip, tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", [GREY] * 4)
    for name in [n for n in sys.modules if n == "av" or n.startswith(("av.", "ffaa.data.stream", "ffaa.data.video"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "ffaa.clip")
    monkeypatch.setitem(sys.modules, "av", None)
    out = tmp_path / "r.html"
    result = run("report", path, photo("a.png"), "--out", out)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "needs the extra 'data' (av" in result.err
    assert "Not analysed this needs the extra" in page(out).text
    assert "FAKE - entire face synthesis" in page(out).text


def test_options_reach_the_assistant_and_the_report(run, photo, tmp_path, assistant):
    out = tmp_path / "r.html"
    result = run("report", photo("a.png"), "--out", out, "--model", "mine", "--device", "cpu", "--seed", 3,
                 "--min-face", 64, "--no-evidence")  # fmt: skip
    assert result.code == 0, result.err
    made = assistant.made
    assert (made.model, made.device, made.seed, made.min_face) == ("mine", "cpu", 3, 64)
    text = page(out).text
    want = "ffaa report PATH... --out r.html --model mine --device cpu --seed 3 --min-face 64 --no-evidence"
    assert want in text
    assert "--no-evidence was given" in text
    assert "CONTRADICTED" not in text


def test_evidence_is_measured_where_the_mesh_is(run, photo, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    monkeypatch.setattr("ffaa.evidence.examine.require_mesh", lambda: None)
    assert run("report", photo("a.png"), "--out", out).code == 0
    assert "CONTRADICTED" in page(out).text

    def missing():
        raise WeightsError("the part 'face-mesh' is missing; run: pip install it")

    monkeypatch.setattr("ffaa.evidence.examine.require_mesh", missing)
    assert run("report", photo("a.png"), "--out", out).code == 0
    text = page(out).text
    assert "CONTRADICTED" not in text
    assert "not held against measurements: the part 'face-mesh' is missing" in text
    result = run("report", photo("a.png"), "--out", out, "--evidence")
    assert result.code == 1
    assert result.err == "ffaa: the part 'face-mesh' is missing; run: pip install it\n"


def test_a_run_that_is_stopped_leaves_the_old_report(run, photo, tmp_path):
    out = tmp_path / "out" / "r.html"
    assert run("report", photo("a.png"), "--out", out).code == 0
    before = out.read_bytes()
    assert run("report", photo("a.png"), photo("interrupt.png"), "--out", out).code == 130
    assert run("report", photo("a.png"), photo("crash.png"), "--out", out).code == 1
    assert out.read_bytes() == before
    assert os.listdir(out.parent) == ["r.html"]


def test_bad_use(run, photo, tmp_path, assistant):
    (tmp_path / "folder").mkdir()
    name = photo("a.png")
    for args in ([name], [tmp_path / "folder", "--out", tmp_path / "r.html"], [name, "--out", name],
                 [name, "--out", tmp_path / "a.png" / "r.html"], ["--out", tmp_path / "r.html"]):  # fmt: skip
        result = run("report", *args)
        assert result.code == 2, args
        assert result.err.startswith("ffaa: ")
        assert len(result.err.splitlines()) == 1
    assert assistant.made is None
    with open(name, "rb") as file:
        assert file.read(4) == b"\x89PNG"  # the photo that --out named is still one


def test_an_empty_folder_beside_good_photos(run, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("report", photo("a.png"), tmp_path / "empty", "--out", tmp_path / "r.html")
    assert result.code == 1
    assert "no photo in it" in result.err
    assert page(tmp_path / "r.html")


def test_credentials_and_the_trust_list(run, tmp_path, astronaut, monkeypatch):
    pytest.importorskip("c2pa", reason="pip install 'ffaa[report]'")
    from tests.data.signing import authority, jpeg, sign

    (tmp_path / "signed.jpg").write_bytes(sign(jpeg(astronaut[:200, :200])))
    (tmp_path / "roots.pem").write_text(authority()[1])
    (tmp_path / "text.pem").write_text("text")
    out = tmp_path / "r.html"
    assert run("report", tmp_path / "signed.jpg", "--out", out).code == 0
    assert "states the name Test Signer, Test Office; not confirmed" in page(out).text
    assert run("report", tmp_path / "signed.jpg", "--out", out, "--trust-list", tmp_path / "roots.pem").code == 0
    assert "Test Signer, Test Office (on the trust list that was given)" in page(out).text
    result = run("report", tmp_path / "signed.jpg", "--out", out, "--trust-list", tmp_path / "text.pem")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "PEM" in result.err
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert run("report", tmp_path / "signed.jpg", "--out", out).code == 0
    assert "Not checked: install ffaa[report] to check them." in page(out).text
    for args in (["report", "--out", out, "--trust-list", tmp_path / "roots.pem"], ["analyze", "--credentials"]):
        result = run(*args, tmp_path / "signed.jpg")
        assert (result.code, len(result.err.splitlines())) == (1, 1)
        assert "pip install 'ffaa[report]'" in result.err


def test_analyze_tells_the_credentials_only_when_asked(run, tmp_path, astronaut):
    pytest.importorskip("c2pa", reason="pip install 'ffaa[report]'")
    from tests.data.signing import created, jpeg, sign

    path = tmp_path / "signed.jpg"
    path.write_bytes(sign(jpeg(astronaut[:200, :200]), [created("trainedAlgorithmicMedia")]))
    assert "credentials" not in run("analyze", path).out
    (record,) = run("analyze", path, "--json").records()
    assert record["source"]["credentials"] is None
    out = " ".join(run("analyze", path, "--credentials").out.split())
    assert "credentials: The credentials say: this file was made by generative AI. Who says so is not confirmed" in out
    assert "credentials: Present, and the signature fits" in out
    (record,) = run("analyze", path, "--json", "--credentials").records()
    found = Credentials.model_validate(record["source"]["credentials"])
    assert (found.status.value, found.signer) == ("valid", "Test Signer")
