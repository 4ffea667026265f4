"""The page in a real Chromium: apt-get install chromium; pip install playwright (its own browser is not needed)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import read_jsonl
from ffaa.vqa.decision import Choice
from ffaa.vqa.review import Store
from ffaa.vqa.row import Sentence, VqaRow

pytest.importorskip("gradio", reason="pip install 'ffaa[review]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SERVER = """
import sys
from pathlib import Path
from ffaa.serve.review_page import serve
from ffaa.vqa.review import Store
serve(Store(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
"""


def vqa_row(i, fake=True):
    label = Label.FAKE if fake else Label.REAL
    kind = ForgeryType.IDENTITY_EXCHANGE if fake else ForgeryType.REAL
    texts = (("description", f"Face {i} <b>in</b> soft light."), ("reasoning", f"A seam {i} runs along the jaw."))
    return VqaRow(
        image=f"{i}.png", sha256=str(i), label=label, forgery_type=kind, mask="mask.png" if i == 1 else "",
        method="swap", question="Is it real?", teacher="t", prompt_version="1", seed=0, raw="whole reply",
        sentences=[Sentence(part=part, text=text, evidence=["skin"]) for part, text in texts],
        result=label, probability=0.9, stated_type=kind,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, hopper):
    for name in ("1.png", "2.png", "3.png", "4.png", "mask.png"):
        Image.fromarray(np.ascontiguousarray(hopper[60:420, 90:450])).resize((96, 96)).save(tmp_path / name)
    Store(tmp_path / "review.sqlite", 1).add([vqa_row(i, i % 2 == 1) for i in (1, 2, 3, 4)])
    return tmp_path


class Server:
    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        source = str(Path(__file__).parents[2] / "src")
        args = [sys.executable, "-c", SERVER, str(self.folder / "review.sqlite"), str(self.folder), str(self.port)]
        self.process = subprocess.Popen(
            args, env=os.environ | {"PYTHONPATH": source}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(600):
            assert self.process.poll() is None, self.process.stderr.read().decode()
            try:
                with urllib.request.urlopen(self.url, timeout=5) as reply:
                    assert "default-src 'self'" in reply.headers["content-security-policy"]
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not answer")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def server(folder):
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tab():
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(30_000)
        yield tab
        browser.close()


def box(tab, name):
    return tab.locator(f"#review-{name} textarea, #review-{name} input").first


def has_text(tab, name, text):
    """Waits until a text box holds a text that ends so."""
    tab.wait_for_function(
        "([name, text]) => { const box = document.querySelector(`#review-${name} textarea, #review-${name} input`);"
        "return box && box.value.endsWith(text); }", arg=[name, text],
    )  # fmt: skip


def says(tab, text):
    tab.locator("#review-status", has_text=text).wait_for()


def test_rows_are_accepted_edited_and_rejected_and_nothing_is_lost(folder, server, tab):
    asked, errors = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(server.url)
    says(tab, "Enter your name")
    box(tab, "name").fill("ann")
    box(tab, "name").press("Enter")
    has_text(tab, "description", "Face 1 <b>in</b> soft light.")
    assert tab.locator("#review-photos img").count() == 2  # the photo and its mask
    assert tab.locator("#review-photos img").first.evaluate("image => image.naturalWidth") == 96
    assert "Identity exchange" in tab.locator("#review-truth").inner_text()
    assert box(tab, "result").input_value() == "fake, 0.90, Identity exchange"

    # A key in a text box is a letter; outside it decides.
    box(tab, "note").press_sequentially("ar")
    says(tab, "Draft kept")
    box(tab, "note").press("Escape")
    tab.keyboard.press("a")
    says(tab, "Accepted: row 1")
    has_text(tab, "description", "Face 2 <b>in</b> soft light.")

    # e edits; a reload in the middle of it finds the draft and the name again.
    tab.keyboard.press("e")
    tab.keyboard.press("End")
    tab.keyboard.type(" She smiles.")
    says(tab, "Draft kept")
    tab.wait_for_function("document.activeElement.value.endsWith('She smiles.')")
    tab.locator("#review-status .draft").wait_for()
    wait_for_draft(folder, 2, "She smiles.")
    tab.reload()
    has_text(tab, "description", "soft light. She smiles.")
    says(tab, "unsaved draft")
    assert box(tab, "name").input_value() == "ann"
    tab.keyboard.press("e")
    says(tab, "Edit saved: row 2")
    has_text(tab, "description", "Face 3 <b>in</b> soft light.")

    # A result against the truth is refused, and what was typed stays.
    box(tab, "result").fill("real, 0.80, Real")
    box(tab, "result").press("Control+Enter")
    says(tab, "the truth is fake, Identity exchange")
    assert box(tab, "result").input_value() == "real, 0.80, Real"
    box(tab, "result").fill("fake, 0.90, Identity exchange")
    box(tab, "reasoning").press("End")
    box(tab, "reasoning").press_sequentially(" It is weak.")
    wait_for_draft(folder, 3, "It is weak.")

    # The server dies in the middle of an edit and comes again: decisions, draft and lease are there.
    server.kill()
    server.start()
    tab.goto(server.url)
    has_text(tab, "reasoning", "along the jaw. It is weak.")
    tab.locator("#review-reject").focus()
    tab.keyboard.press("r")
    says(tab, "Rejected: row 3")
    has_text(tab, "description", "Face 4 <b>in</b> soft light.")
    tab.keyboard.press("k")
    has_text(tab, "reasoning", "It is weak.")
    says(tab, "You decided: reject")
    tab.keyboard.press("j")
    has_text(tab, "description", "Face 4 <b>in</b> soft light.")
    assert "3 of 4 rows settled: 2 kept, 1 rejected" in tab.locator("#review-progress").inner_text()
    tab.keyboard.press("a")
    says(tab, "Nothing is left")

    assert errors == []
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {f"127.0.0.1:{server.port}"}
    store = Store(folder / "review.sqlite")
    assert [(d.row, d.reviewer, d.decision, d.note) for d in store.log()] == [
        (1, "ann", Choice.ACCEPT, "ar"), (2, "ann", Choice.EDIT, ""), (3, "ann", Choice.REJECT, ""),
        (4, "ann", Choice.ACCEPT, ""),
    ]  # fmt: skip
    assert store.export(folder / "kept.jsonl", folder / "rejected.jsonl") == (3, 1)
    kept = list(read_jsonl(folder / "kept.jsonl", VqaRow))
    assert kept[1].description == "Face 2 <b>in</b> soft light. She smiles."
    assert [s.evidence for s in kept[1].sentences] == [["skin"], [], ["skin"]]
    assert [row.reviewed_by for row in kept] == [["ann"]] * 3
    rejected = json.loads((folder / "rejected.jsonl").read_text())
    assert rejected["decisions"][0]["after"]["reasoning"].endswith("It is weak.")


def wait_for_draft(folder, row, end):
    store = Store(folder / "review.sqlite")
    for _ in range(300):
        draft = store.view("ann", row).draft
        if draft and any(text.endswith(end) for text in draft.model_dump().values()):
            return
        time.sleep(0.05)
    raise AssertionError(f"no draft that ends with '{end}'")


def test_an_open_tab_keeps_what_is_typed_while_no_server_answers(folder, server, tab):
    tab.goto(server.url)
    box(tab, "name").fill("ann")
    box(tab, "name").press("Enter")
    has_text(tab, "description", "Face 1 <b>in</b> soft light.")
    server.kill()
    box(tab, "reasoning").press("End")
    box(tab, "reasoning").press_sequentially(" Typed to nobody.")
    server.start()
    wait_for_draft(folder, 1, "Typed to nobody.")
    says(tab, "unsaved draft")
    has_text(tab, "reasoning", "along the jaw. Typed to nobody.")
    server.kill()
    server.start()  # while the page is not in use: it goes on with the new one
    tab.locator("#review-reject").click()
    says(tab, "Rejected: row 1")
    has_text(tab, "description", "Face 2 <b>in</b> soft light.")
    assert [d.row for d in Store(folder / "review.sqlite").log()] == [1]


def test_two_reviewers_see_their_disagreement_and_agreement(folder, server, tab):
    store = Store(folder / "review.sqlite", 2)
    for reviewer, choices in (("bob", "ar"), ("cleo", "rr")):
        for row, choice in enumerate(choices, 1):
            text = store.view(reviewer, row).text
            store.decide(reviewer, row, {"a": Choice.ACCEPT, "r": Choice.REJECT}[choice], text, f"by {reviewer}")
    server.kill()
    server.start()
    tab.goto(server.url)
    box(tab, "name").fill("ann")
    box(tab, "name").press("Enter")
    says(tab, "Others disagree")
    has_text(tab, "description", "Face 1 <b>in</b> soft light.")
    truth = tab.locator("#review-truth").inner_text()
    assert "bob: accept" in truth
    assert "by cleo" in truth
    tab.get_by_text("Agreement of reviewers").click()
    tab.locator("#review-agreement td").first.wait_for()
    cells = tab.locator("#review-agreement td").all_inner_texts()
    assert cells == ["bob, cleo", "2", "1", "0.00", "0.00"]
    tab.locator("#review-status").click()
    tab.keyboard.press("a")
    says(tab, "Accepted: row 1")
    assert store.progress().kept == 1


def test_a_picture_that_is_missing_or_elsewhere_is_told(folder):
    from ffaa.serve.review_page import Photos

    photos = Photos(folder)
    assert '<img src="data:image/png;base64,' in photos.html("1.png", 'a "photo"')
    assert 'alt="a &quot;photo&quot;"' in photos.html("1.png", 'a "photo"')
    assert "no such" in photos.html("none.png", "x")
    assert "lies outside" in photos.html("../1.png", "x")
    (folder / "bad.png").write_bytes(b"<script>")
    assert "<img" not in photos.html("bad.png", "x")


def test_a_crop_in_a_shard_is_found(tmp_path, hopper):
    from ffaa.data import manifest
    from ffaa.data.shards import ShardWriter
    from ffaa.serve.review_page import Photos

    Image.fromarray(np.ascontiguousarray(hopper[60:420, 90:450])).resize((64, 64)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    row = manifest.Row(
        path="crops/a.png", label=Label.REAL, forgery_type=ForgeryType.REAL, split="train", length=len(data), size=64
    )
    shards = ShardWriter(tmp_path, "webdataset", 10)
    flat = shards.add(manifest.record(row), data)
    shards.close()
    manifest.write(tmp_path / manifest.NAME, [manifest.row_of(flat)])
    assert "<img" in Photos(tmp_path).html("crops/a.png", "x")
    assert "<img" not in Photos(tmp_path).html("crops/b.png", "x")


def test_a_taken_port_is_told(folder):
    from ffaa.errors import UsageError
    from ffaa.serve.review_page import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="give another with --port"):
            serve(Store(folder / "review.sqlite"), folder, taken.getsockname()[1])
