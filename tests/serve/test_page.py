"""The page in a real Chromium: apt-get install chromium; pip install playwright (its own browser is not needed)."""

import hashlib
import json
import re
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.serve.clip import reported_clip
from tests.serve.conftest import FakeAssistant

from ffaa.assistant import Assistant
from ffaa.serve import page as module
from ffaa.serve.keys import new_key
from ffaa.serve.results import AnalyzeReply
from ffaa.types import Analysis, Box, Face, Verdict
from ffaa.types_clip import ClipAnalysis

pytest.importorskip("gradio", reason="pip install 'ffaa[serve]'")
api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
HEAT = np.zeros((224, 224), np.float32)
HEAT[:60, 140:] = 1


class PageAssistant(FakeAssistant):
    """With faces to look at: side by side, each with a description of its own."""

    engine, versions, seed = SimpleNamespace(name="nano", hashes={"mids": "ab" * 32}), {"ffaa": "0.1.0"}, 0

    def finish(self, found, evidence=False):
        return [self._with_faces(one) if isinstance(one, Analysis) else one for one in super().finish(found, evidence)]

    def _with_faces(self, analysis):
        verdicts = [
            verdict.model_copy(
                update={"box": Box(left=20 + 70 * i, top=20, right=70 + 70 * i, bottom=70),
                        "description": f"This is face number {i + 1}."}
            )
            for i, verdict in enumerate(analysis)
        ]  # fmt: skip
        faces = [Face(np.full((224, 224, 3), 90, np.uint8), v.box, v.crop) for v in verdicts]
        return replace(analysis, verdicts=verdicts, faces=faces)

    def heat(self, face, verdict):
        return HEAT


@pytest.fixture
def fake():
    return PageAssistant()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """A tab at a server's page. .asked: addresses that it asked for; .said: errors on its console."""
    contexts = []

    def begin(server, page=True):
        context = browser.new_context(viewport={"width": 1100, "height": 900}, accept_downloads=True)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.asked, tab.said = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.goto(server.url)
        if page:
            tab.locator("#page-file").wait_for(state="attached")
        return tab

    yield begin
    for context in contexts:
        context.close()


def give(tab, name, content):
    tab.locator("#page-file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def says(tab, text):
    tab.locator("#page-status", has_text=text).wait_for()


def in_list(tab, name):
    """Waits for the list of what is kept, which comes after the page."""
    api.expect(tab.locator("#page-kept input")).to_have_value(re.compile(re.escape(name)), timeout=30_000)


def download(tab, button):
    with tab.expect_download() as found:
        tab.get_by_role("button", name=button).click()
    return found.value.suggested_filename, Path(found.value.path()).read_text("utf-8")


def shown(tab):
    """The titles of the faces that can be seen."""
    return tab.locator(".report article > section.face:visible > h3").all_inner_texts()


def test_a_photo_its_second_face_and_the_downloads(start, visit, png, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = start(page=True)
    tab = visit(server)
    name = "2-faces ${1+1}{{3}} <img src=x onerror=document.title='bad'>.png"
    give(tab, name, png(1, 1000))  # 3 MB: too large to be kept in memory while it is received
    says(tab, f"{name}: done.")
    assert f"Photo 1: {name}" in tab.locator(".report h2").inner_text()
    assert tab.title() != "bad"
    assert shown(tab) == ["Face 1 of 2"]
    assert "This is face number 1." in tab.locator(".report").inner_text()
    tab.locator(".report .box").nth(1).click()
    assert shown(tab) == ["Face 2 of 2"]
    assert "This is face number 2." in tab.locator(".report").inner_text()
    assert tab.get_by_role("radio").nth(1).is_checked()
    tab.get_by_role("radio").nth(1).focus()
    tab.keyboard.press("ArrowUp")
    assert shown(tab) == ["Face 1 of 2"]
    assert tab.locator(".report .box").nth(0).get_attribute("aria-pressed") == "true"
    box, photo = tab.locator(".report .box").nth(1).bounding_box(), tab.locator(".report .whole img").bounding_box()
    assert box["width"] / photo["width"] == pytest.approx(0.05, abs=0.01)
    assert (box["x"] - photo["x"]) / photo["width"] == pytest.approx(0.09, abs=0.01)

    file, report = download(tab, "Download the report")
    assert file == "ffaa-2-faces_1_1_3_img_src_x_onerror_document_title_bad.html"
    assert report.startswith("<!doctype html>")
    for words in (
        "This is face number 1.",
        "This is face number 2.",
        "ffaa serve (the web page)",
        "Heatmap over face 2",
    ):
        assert words in report, words
    assert "<img src=x" not in report
    file, data = download(tab, "Download the data")
    assert file.endswith(".json")
    results = AnalyzeReply.model_validate_json(data).results
    assert [one.description for one in results] == ["This is face number 1.", "This is face number 2."]
    assert results[0].source.path == name

    article = tab.locator(".report").inner_html()
    assert all(part in report for part in re.findall(r'<section class="face".*?</section>', report, re.DOTALL))
    assert article.count("Heatmap over face") == report.count("Heatmap over face") == 2
    assert {url.split("/")[2] for url in tab.asked if url.startswith("http")} == {f"127.0.0.1:{server.port}"}
    assert tab.said == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # nothing was ever given a name
    assert not server.app.state.tickets._held
    memory = [route.app.state_holder for route in server.app.routes if isinstance(route, module.PageMount)]
    assert not any(len(str(session.config_values)) > 100_000 for session in memory[0].session_data.values())


def test_what_cannot_be_judged_is_told_in_a_line(start, visit, png, fake, wait_for):
    server = start(page=True, queue=1, max_bytes=20_000, job_bytes=30_000)
    tab = visit(server)
    give(tab, "notes<b>.txt", b"no picture at all")
    says(tab, "Not analysed: notes<b>.txt")
    line = tab.locator("#page-status").inner_text()
    assert "\n" not in line.strip()
    assert "Traceback" not in line
    give(tab, "crash.png", png())
    says(tab, "The server failed on this file; its operator finds the reason in the log.")
    give(tab, "0-faces.png", png())
    says(tab, "0-faces.png: done.")
    assert "No verdict: no usable face" in tab.locator(".report").inner_text()
    assert "tick 'The photo is a face crop already' in the options" in tab.locator(".report").inner_text()
    give(tab, "large.png", bytes(25_000))
    says(tab, "Not analysed: large.png")
    give(tab, "larger.png", bytes(40_000))
    tab.locator("#page-drop .told", has_text="more than").wait_for()
    fake.gate.clear()
    waiting = threading.Thread(target=lambda: server.client.post("/v1/analyze", files={"file": ("a.png", png())}))
    waiting.start()
    wait_for(lambda: server.service.gatherer.depth == 1)
    give(tab, "b.png", png())
    tab.locator("#page-drop .told", has_text="photos wait already; try again later (in ").wait_for()
    fake.gate.set()
    waiting.join()
    give(tab, "b.png", png())
    says(tab, "b.png: done.")


def test_results_are_kept_only_when_asked_and_are_gone_when_deleted(start, visit, png, tmp_path):
    file = tmp_path / "history.sqlite"
    server = start(page=True, history=file)
    tab = visit(server)
    give(tab, "first.png", png(1, 200))
    says(tab, "first.png: done.")
    assert server.app.state.history.all() == []
    tab.get_by_label("Keep the next result").check()
    for name in ("second.png", "third.png"):
        give(tab, name, png(2, 200))
        says(tab, f"{name}: done. Kept in the list below.")
    assert b"second.png" in file.read_bytes()
    again = visit(server)
    again.get_by_role("button", name="Kept results").click()
    in_list(again, "third.png")
    again.get_by_role("button", name="Open", exact=True).click()
    says(again, "Kept result.")
    assert "Photo 1: third.png" in again.locator(".report h2").inner_text()
    assert "third" in download(again, "Download the report")[0]
    again.get_by_role("button", name="Delete", exact=True).click()
    says(again, "1 deleted.")
    assert again.locator(".report").inner_text() == ""
    assert [kept.name for kept in server.app.state.history.all()] == ["second.png"]
    assert b"third.png" not in file.read_bytes()
    again.once("dialog", lambda dialog: dialog.dismiss())
    again.get_by_role("button", name="Delete all").click()
    says(again, "Nothing was deleted.")
    again.once("dialog", lambda dialog: dialog.accept())
    again.get_by_role("button", name="Delete all").click()
    says(again, "1 deleted.")
    assert server.app.state.history.all() == []
    assert b"second.png" not in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["history.sqlite"]


def test_where_keys_are_in_force_the_page_asks_for_one(start, visit, png, tmp_path):
    key = new_key(tmp_path / "keys")
    server = start(page=True, keys=tmp_path / "keys")
    tab = visit(server, page=False)
    tab.get_by_label("Key").fill("ffaa_wrong")
    tab.get_by_role("button", name="Go on").click()
    tab.get_by_text("That key is not known here.").wait_for()
    tab.get_by_label("Key").fill(key)
    tab.keyboard.press("Enter")
    tab.locator("#page-file").wait_for(state="attached")
    give(tab, "a.png", png())
    says(tab, "a.png: done.")
    (cookie,) = tab.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
    # The cookie opens the page; the API still wants the header.
    assert tab.request.post(f"{server.url}/v1/analyze", multipart={"x": "y"}).status == 401
    tab.get_by_role("button", name="Forget my key").click()
    tab.get_by_label("Key").wait_for()
    assert tab.context.cookies() == []


def test_the_camera_and_an_example(start, visit, fake):
    server = start(page=True)
    tab = visit(server)
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_role("button", name="Take the photo").click()
    says(tab, "camera.png: done.")
    assert tab.locator(".report .whole img").evaluate("image => image.naturalWidth") > 100
    assert not tab.locator("#page-drop video").is_visible()
    tab.get_by_role("button", name="Real portrait: Grace Hopper").click()
    says(tab, "grace_hopper.jpg: done.")
    assert fake.batches[-1] == ["grace_hopper.jpg"]
    server.stop()  # an open tab does not keep it


def test_a_video(start, visit, png, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    judged = []

    def judge(gatherer, path, name, options):
        judged.append(Path(path))
        found = reported_clip(people=(({},) * 4, ({},) * 3), path=name).result
        source = found.verdict.source.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        return ClipAnalysis(found.verdict.model_copy(update={"source": source}), found.faces)

    monkeypatch.setattr(module, "judge_clip", judge)
    tab = visit(start(page=True))
    give(tab, "street.mp4", b"\0\0\0\x18ftypisom" + bytes(5000))
    says(tab, "street.mp4: done.")
    assert tab.locator(".report h2").inner_text() == "Video 1: street.mp4"
    assert shown(tab) == ["Person 1 of 2"]
    tab.get_by_role("radio").nth(1).check()
    assert shown(tab) == ["Person 2 of 2"]
    (result,) = json.loads(download(tab, "Download the data")[1])["results"]
    assert (result["kind"], len(result["people"])) == ("clip_verdict", 2)
    assert "Video 1: street.mp4" in download(tab, "Download the report")[1]
    assert not judged[0].exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nano_judges_a_portrait_on_the_page(start, visit, astronaut, tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(astronaut).save(path)
    tab = visit(start(assistant=Assistant("nano", "cpu"), page=True))
    give(tab, path.name, path.read_bytes())
    says(tab, "astronaut.png: done.")
    assert shown(tab) == ["Face 1 of 1"]
    data = json.loads(download(tab, "Download the data")[1])["results"]
    verdict = Verdict.model_validate(data[0])
    text = tab.locator(".report").inner_text()
    assert module.wording.headline(verdict) in text
    for role in ("Anchor", "Positive", "Negative"):
        assert role in text
    assert verdict.reasoning in text
    assert verdict.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert verdict.source.sha256 in download(tab, "Download the report")[1]
