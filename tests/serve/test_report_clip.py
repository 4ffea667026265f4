"""Videos in a report: the same page checks as for photos, and wording that is never surer than the numbers."""

import io
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
from tests.serve.clip import REAL, reported_clip
from tests.serve.page import check
from tests.serve.test_report import ABOUT, CHROMIUM, EVIL, HEAT, facts, no_face, reported

from ffaa.serve.report import Counts, Reported, ReportedClip, build_report, write_report
from ffaa.types import Credentials, Difficulty, Face, Failure, Label
from ffaa.types_clip import ClipAnalysis

HARD = {"difficulty": Difficulty.HARD}


def own(page):
    """What stands between the overview and how it was made."""
    return page.text.split("How this report")[0]


def test_a_page_with_photos_and_videos():
    clips = [reported_clip([[{}] * 4, [{"label": Label.REAL}] * 5], with_examined=True), reported_clip([], "b.mkv")]
    clips[1] = replace(clips[1], result=ClipAnalysis(clips[1].result.verdict.model_copy(update={"message": "no face"})))
    bad = ReportedClip(Failure(path="x/c.mp4", message="x/c.mp4: no video that can be read"), [], facts(name="c.mp4"))
    results = [clips[0], reported(with_examined=True), clips[1], bad]
    html = build_report(results, ABOUT)
    page = check(html)
    assert [text for level, text in page.headings if level == 2][1:5] == [
        "Video 1: a.mp4", "Photo 2: a.jpg", "Video 3: b.mkv", "Video 4: c.mp4"
    ]  # fmt: skip
    for words in (
        "1 photo and 3 videos, 1 face and 2 people judged: 0 uncertain, 2 called fake, 1 called real. "
        "1 file without a usable face. 1 file could not be analysed.",
        "FAKE in 4 of 4 frames - entire face synthesis", "REAL - no sign of forgery was found in 5 of 5 frames",
        "Person 2 of 2 Seen in 5 of 12 frames, 0.25 s to 2.25 s, face 100 to 104 px wide",
        "0.95 (strong, mean over the frames; 0 real, 1 fake)", "4 of 4 say fake, 0 of 4 are hard",
        "12 of 60 frames were looked at", "2 people, told apart by place and looks; no face is recognised",
        "measured on photos only", "of the model", "Frame at 0.75 s", "CONTRADICTED", "she smiles".capitalize(),
        "What counts is the verdict on person 1, over all frames", "this frame says fake, entire face synthesis",
        "No verdict: no usable face no face", "Not analysed c.mp4: no video that can be read", "ef" * 32, "cd" * 32,
        "123,456 bytes, 640 x 360 px, h264", "6.00 s, 60 frames, 10 a second", "12 frames of 16 that were asked for",
        "The model has not been measured on videos as a whole",
    ):  # fmt: skip
        assert words in page.text, words
    assert "x/c.mp4" not in html
    alts = [attrs["alt"] for attrs in page.all("img")]
    assert sum(alt.startswith("Timeline of person") for alt in alts) == 2
    assert "Heatmap over person 1 at 0.25 s: the score is most sensitive in the upper right of the picture" in alts
    assert "Person 2 at 2.25 s as the model saw it" in alts
    assert len(alts) == 2 + 6 * 2 + 1 + 2
    assert html == build_report(results, ABOUT)
    assert "video" not in own(check(build_report([reported()], ABOUT))).lower()


def test_every_score_of_the_plot_stands_in_the_table():
    scores = [0.91, 0.82, 0.73, 0.94, 0.85]
    page = check(build_report([reported_clip([[{"match": s} for s in scores]])], ABOUT))
    for k, score in enumerate(scores):
        assert f"{0.25 + k / 2:.2f} s fake {score} {score} easy" in page.text
    assert "0.73 to 0.94, half of them 0.82 to 0.91" in page.text
    links = [attrs["href"] for attrs in page.all("a")]
    assert [link for link in links if link.startswith("#face")] == ["#face-1-1-1", "#face-1-1-2", "#face-1-1-3"]


@pytest.mark.parametrize(
    "frames",
    [
        [HARD] * 6, [REAL | HARD] * 6, [{"match": 0.55}] * 6, [REAL | {"match": 0.55}] * 6, [{}] * 3, [REAL] * 2,
        [{}] * 3 + [REAL] * 3, [{"match": 0.99}, *[{}] * 3, *[HARD] * 2],
        [{"match": 0.9}, *[REAL | {"match": 0.2}] * 5],
    ],
)  # fmt: skip
def test_an_uncertain_person_never_reads_like_a_finding(frames):
    text = own(check(build_report([reported_clip([frames], with_examined=True)], ABOUT)))
    assert "Undecided: " in text
    assert "no ground to act on" in text
    assert "[one reading among others, not a finding]" in text
    assert "uncertain" in text or "undecided: most frames say" in text
    assert not re.search(r"\b(FAKE|REAL)\b|no sign of forgery|called (real|fake)\W+[1-9]|, strong\b", text)
    assert "the model's opinion: check it" not in text.lower()
    assert "1 uncertain, 0 called fake, 0 called real" in text


def test_a_frame_that_speaks_against_the_verdict_is_no_second_verdict():
    text = own(check(build_report([reported_clip([[{"match": 0.99}] * 11 + [REAL]])], ABOUT)))
    assert text.count("FAKE in 11 of 12 frames") == 2  # overview and person
    assert "REAL" not in text
    assert "this frame says real" in text
    assert "the frames disagree: 11 of 12 say fake, 1 say real" in text


def test_what_is_broken_is_said_first_and_without_the_folder():
    path = "/home/somebody/secret/a.mkv"
    why = [f"the video is not whole: {path}: what can be read ends after 1.2 s", "the time limit of 600 s was reached"]
    html = build_report([reported_clip(path=path, cautions=why)], ABOUT)
    page = check(html)
    assert "somebody" not in html
    assert page.text.index("the video is not whole: a.mkv: what can be read") < page.text.index("Person 1 of 1")
    assert page.text.index("the time limit of 600 s was reached") < page.text.index("Person 1 of 1")


def test_strangers_texts_stay_texts():
    evil = {"description": EVIL, "reasoning": EVIL, "cautions": [EVIL]}
    one = reported_clip([[evil] * 4], path=EVIL, cautions=[EVIL], message=EVIL)
    one = replace(one, credentials=Credentials(status="invalid", signer=EVIL, problems=[EVIL]))
    html = build_report([one, ReportedClip(Failure(path=EVIL, message=EVIL))], ABOUT)
    assert check(html).text.count("<script>alert(1)</script>") > 10
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_credentials_of_a_video():
    found = {"status": "valid", "actions": [{"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia"}]}
    one = replace(reported_clip([[REAL] * 4]), credentials=Credentials.model_validate(found))
    overview, section = check(build_report([one], ABOUT)).text.split("Video 1: ")
    assert "its content credentials speak of generative AI" in overview
    assert section.index("this file was made by generative AI") < section.index("REAL - no sign")
    assert "Signed by" in section


def test_without_heatmaps_and_with_empty_ones():
    page = check(build_report([reported_clip(heats=False)], ABOUT))
    assert "heatmap" not in own(page).lower()
    empty = replace(reported_clip(), heats=[[HEAT * 0] * 3])
    assert own(check(build_report([empty], ABOUT))).count("No heatmap: no part of the picture") == 3


def test_one_video_is_held_at_a_time():
    alive, most = weakref.WeakSet(), 0

    class Pixels(np.ndarray):
        """Arrays can be told apart by identity only."""

        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def many():
        nonlocal most
        for i in range(6):
            one = reported_clip(path=f"{i}.mp4")
            images = [[Face(np.zeros((224, 224, 3), np.uint8).view(Pixels), f.box, f.crop) for f in of]
                      for of in one.result.faces]  # fmt: skip
            alive.update(face.image for of in images for face in of)
            most = max(most, len(alive))
            yield replace(one, result=ClipAnalysis(one.result.verdict, images))

    counts = write_report(many(), ABOUT, io.StringIO())
    assert counts == Counts(0, 0, 0, 0, {"fake": 6, "real": 0, "uncertain": 0}, clips=6, people=6)
    assert most <= 3 * 3


def test_a_video_takes_little_room():
    assert len(build_report([reported_clip()], ABOUT)) - len(build_report([], ABOUT)) < 150_000


def test_the_page_in_a_browser(tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    path = tmp_path / "r.html"
    long = reported_clip([[{"description": "y" * 400, "cautions": ["z" * 300]}] * 30], "x" * 240 + ".mp4", True, True)
    results = [long, reported_clip([[{}] * 4] * 3), Reported(no_face().result), reported_clip([])]
    path.write_text(build_report(results, ABOUT), "utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (320, 360, 1200):
            tab = browser.new_page(viewport={"width": width, "height": 780})
            asked = []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(path.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            box = tab.locator(".scroll").first
            box.focus()  # a narrow screen scrolls the plot, with the keyboard too
            assert tab.evaluate("document.activeElement.className") == "scroll"
            assert box.evaluate("node => node.scrollWidth > node.clientWidth") == (width < 640)
        printed = tab.pdf(format="A4")
        browser.close()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1 + len(results)
