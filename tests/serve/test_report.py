import io
import os
import re
import shutil
import weakref
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.cli.conftest import examined, make_verdict
from tests.serve.page import Page, check

from ffaa.data.facts import FileFacts
from ffaa.errors import UsageError
from ffaa.serve.pictures import FACE_SIDE, heat_picture, where, with_boxes
from ffaa.serve.report import SHOWN_FACES, About, Counts, Reported, build_report, replacing, write_report
from ffaa.types import (
    Analysis,
    Box,
    Credentials,
    Difficulty,
    Evidence,
    Face,
    Failure,
    Ingredient,
    Label,
    Source,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ABOUT = About(
    model="nano", weights={"mids.safetensors": "ab" * 32}, versions={"ffaa": "0.1.0", "torch": "2"}, seed=3,
    command="ffaa report PATH... --out r.html", made=datetime(2026, 5, 4, 3, 2, tzinfo=UTC),
)  # fmt: skip
HEAT = np.zeros((224, 224), np.float32)
HEAT[10:60, 160:210] = 1
EVIL = "</h2><script>alert(1)</script>\" onerror='x'\u202e\x1b.jpg"


def reported(path="photos/a.jpg", photo=None, count=1, heats=True, with_examined=False, facts=None, **options):
    pixels = np.full((200, 240, 3), 120, np.uint8) if photo is None else photo
    source = Source(path=path, sha256="0" * 64, width=pixels.shape[1], height=pixels.shape[0], notes=["animated: x"])
    verdicts = [make_verdict(source, i, count, **options) for i in range(count)]
    verdicts = [examined(v) for v in verdicts] if with_examined else verdicts
    faces = [Face(np.full((224, 224, 3), 90, np.uint8), v.box, v.crop) for v in verdicts]
    return Reported(Analysis(source, verdicts, faces=faces), pixels, [HEAT] * count * heats, facts)


def facts(**changes):
    values = {"name": "a.jpg", "sha256": "cd" * 32, "bytes": 1234, "kind": "JPEG", "width": 240, "height": 200}
    return FileFacts(**(values | changes))


def no_face(path="b.jpg"):
    source = Source(path=path, width=240, height=200)
    return Reported(Analysis(source, [], "no face found (frontal faces only)"), np.zeros((200, 240, 3), np.uint8))


def test_a_page_that_is_whole_and_needs_nothing():
    bad = Failure(path="c.jpg", message="c.jpg: the file is empty (zero bytes)")
    html = build_report([reported(count=2, with_examined=True, facts=facts()), no_face(), Reported(bad)], ABOUT)
    page = check(html)
    assert [text for _, text in page.headings if "Photo" in text] == [
        "Photo 1: a.jpg", "Photo 2: b.jpg", "Photo 3: c.jpg"
    ]  # fmt: skip
    for words in (
        "3 photos, 2 faces judged: 0 uncertain, 2 called fake, 0 called real. 1 photo without a usable face. "
        "1 file could not be analysed.",
        "Face 2 of 2", "no face found (frontal faces only)", "No verdict: no usable face",
        "c.jpg: the file is empty (zero bytes)", "Not analysed", "2026-05-04 03:02 UTC, model nano", "ab" * 32,
        "Seed 3", "ffaa 0.1.0, torch 2", "ffaa report PATH... --out r.html", "animated: x",
        "Fairness between groups of people has not been measured.", "where the score is sensitive, not where",
    ):  # fmt: skip
        assert words in page.text, words
    alts = [attrs["alt"] for attrs in page.all("img")]
    assert "The photo a.jpg, reduced, with 2 numbered boxes around the judged faces" in alts
    assert "Heatmap over face 1: the score is most sensitive in the upper right of the picture" in alts
    assert len(alts) == 1 + 2 * 2 + 1
    assert html == build_report([reported(count=2, with_examined=True, facts=facts()), no_face(), Reported(bad)], ABOUT)


def test_a_clear_case_and_what_it_rests_on():
    text = check(build_report([reported(with_examined=True)], ABOUT)).text
    for words in (
        "FAKE - entire face synthesis", "check it by other means", "0.95, strong", "0.95 (0 real, 1 fake)",
        "easy (all three answers agree)", "The anchor answer has the highest match score: 0.95, against 0.47",
        "Anchor (chosen)", "not readable", "no result", "fake, entire face synthesis, states probability 0.90",
        "She smiles. CONTRADICTED smile: none, 0.0123 face sizes (mouth)", "mouth width relaxed, 0.5 face sizes",
        "A woman looks? into the camera. not measurable nothing",
    ):  # fmt: skip
        assert words in text, words
    assert "uncertain (" not in text
    assert "teeth" not in text
    real = check(build_report([reported(label=Label.REAL)], ABOUT)).text
    assert "REAL - no sign of forgery was found" in real
    assert "Absence of traces is not authenticity" in real.split("How this report")[0]


@pytest.mark.parametrize("label", [Label.FAKE, Label.REAL])
@pytest.mark.parametrize("options", [{"difficulty": Difficulty.HARD}, {"match": 0.55}])
def test_an_uncertain_case_never_reads_like_a_finding(label, options):
    text = check(build_report([reported(label=label, **options)], ABOUT)).text
    own = text.split("How this report")[0]
    assert f"leans {label.value}, uncertain" in own
    assert "Undecided: " in own
    assert "no ground to act on" in own
    assert "[one reading among others, not a finding]" in own
    assert ("the three answers disagree" in own) == ("difficulty" in options)
    assert ("0.55, weak" in own) == ("match" in options)
    assert not re.search(r"\b(FAKE|REAL)\b|no sign of forgery|called real\W+[1-9]", own)
    assert "1 uncertain, 0 called fake, 0 called real" in own


def test_strangers_texts_stay_texts():
    evil = {"camera": EVIL, "software": EVIL, "taken": EVIL, "note": EVIL}
    credentials = Credentials(
        status="invalid", signer=EVIL, generator=EVIL, problems=[EVIL], reader=EVIL,
        ingredients=[Ingredient(title=EVIL, relationship=EVIL, problems=[EVIL])],
    )  # fmt: skip
    photo = reported(EVIL, facts=facts(name=EVIL, **evil), description=EVIL, cautions=[EVIL], reasoning=EVIL)
    photo = Reported(photo.result, photo.pixels, photo.heats, photo.facts, credentials)
    html = build_report([photo, Reported(Failure(path=EVIL, message=EVIL))], ABOUT)
    page = check(html)
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_folders_and_places_are_not_told():
    path = "/home/somebody/secret case/c.jpg"
    bad = Failure(path=path, message=f"{path}: no such file; check the path")
    html = build_report([reported("/home/somebody/x/a.jpg", facts=facts(has_place=True)), Reported(bad)], ABOUT)
    assert "somebody" not in html
    page = check(html)
    assert "c.jpg: no such file" in page.text
    assert "GPS present, not shown here" in page.text
    assert "GPS" not in check(build_report([reported(facts=facts())], ABOUT)).text


def test_file_facts():
    text = check(build_report([reported(facts=facts(camera="Acme One", taken="2026:01:02", software="E"))], ABOUT)).text
    for words in ("1,234 bytes, 240 x 200 px, JPEG", "cd" * 32, "Camera Acme One", "Taken 2026:01:02", "Software E"):
        assert words in text
    assert "Anybody can change them" in text
    assert "says nothing for or against the photo" in check(build_report([reported(facts=facts())], ABOUT)).text


@pytest.mark.parametrize(
    ("credentials", "told", "never"),
    [
        ({"status": "absent"}, "Most files carry none", "Signed by"),
        ({"status": "not_checked", "reason": "install ffaa[report]"}, "checked: install ffaa[report].", "Signed by"),
        ({"status": "unreadable", "reason": "broken"}, "Unreadable: broken", "Signed by"),
        ({"status": "valid", "signer": "Ann"}, "not confirmed: no trust list was given", "INVALID"),
        ({"status": "valid", "signer": "Ann", "trusted": True}, "Ann (on the trust list", "not confirmed"),
        (
            {"status": "invalid", "problems": ["assertion.dataHash.mismatch: x"]},
            "INVALID: the file was changed after it was signed", "signature fits",
        ),
        (
            {"status": "valid", "actions": [{"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia"}]},
            "The credentials say: this file was made by generative AI. Who says so is not confirmed.", "INVALID",
        ),
    ],
)  # fmt: skip
def test_content_credentials(credentials, told, never):
    one = reported()
    found = Credentials.model_validate(credentials)
    page = check(build_report([Reported(one.result, one.pixels, one.heats, None, found)], ABOUT))
    text = page.text.split("How this report")[0]
    assert told in text
    assert never not in text
    assert "suspicious" not in text


def test_generative_ai_in_the_credentials_is_said_before_the_verdict():
    found = {"status": "valid", "actions": [{"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia"}]}
    one = reported(label=Label.REAL)
    page = check(
        build_report([Reported(one.result, one.pixels, [], None, Credentials.model_validate(found)), one], ABOUT)
    )
    overview, first, second = re.split("Photo [12]: ", page.text)
    assert overview.count("found (its content credentials speak of generative AI)") == 1
    assert first.index("made by generative AI") < first.index("REAL - no sign")
    assert "generative AI" not in second


def test_without_evidence_it_is_said_why_and_what_the_model_was_told():
    item = Evidence(name="sharpness", value=3.2, unit="log2", region="face", method="m", word="sharp")
    about = About(**{**vars(ABOUT), "not_measured": "the face mesh is not installed"})
    page = check(build_report([reported(evidence=[item])], about))
    assert page.text.count("the face mesh is not installed") == 2
    assert "sharpness sharp, 3.2 log2 (face)" in page.text


def test_a_heatmap_that_shows_nothing_is_said():
    one = reported()
    empty = Reported(one.result, one.pixels, [np.zeros((224, 224), np.float32)])
    page = check(build_report([empty], ABOUT))
    assert "No heatmap: no part of the picture speaks for the chosen answer." in page.text
    assert len(page.all("img")) == 2
    assert "heatmap:" not in check(build_report([reported(heats=False)], ABOUT)).text.lower()


def test_a_photo_takes_little_room(hopper):
    base = len(build_report([], ABOUT))
    large = np.ascontiguousarray(np.repeat(np.repeat(hopper, 4, 0), 4, 1))
    assert len(build_report([reported(photo=large)], ABOUT)) - base < 120_000
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8)
    assert len(build_report([reported(photo=noise)], ABOUT)) - base < 700_000


def test_one_photo_is_held_at_a_time():
    alive = weakref.WeakSet()
    most = 0

    class Pixels(np.ndarray):
        """Arrays can be told apart by identity only."""

        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def many():
        nonlocal most
        for i in range(30):
            photo = np.zeros((300, 300, 3), np.uint8).view(Pixels)
            alive.add(photo)
            most = max(most, len(alive))
            yield reported(f"{i}.jpg", photo)

    counts = write_report(many(), ABOUT, io.StringIO())
    assert counts == Counts(30, 30, 0, 0, {"fake": 30, "real": 0, "uncertain": 0})
    assert most <= 3


def test_what_is_not_finished_leaves_nothing(tmp_path):
    out = tmp_path / "new" / "r.html"
    with replacing(out) as file:
        file.write("first")
    assert out.read_text() == "first"

    def interrupted():
        with replacing(out) as file:
            file.write("half")
            file.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.read_text() == "first"
    assert os.listdir(out.parent) == ["r.html"]
    for path, words in ((tmp_path / "a.jpg", "ends in .html"), (out / "r.html", "cannot be written")):
        with pytest.raises(UsageError, match=words), replacing(path):
            pass
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="cannot be written"), replacing(tmp_path / "folder.html"):
        pass
    assert not (tmp_path / "a.jpg").exists()


def test_boxes_are_drawn_and_numbered_wherever_they_lie():
    photo = np.full((1000, 2000, 3), 100, np.uint8)
    boxes = [Box(left=400, top=200, right=1000, bottom=800), Box(left=-50, top=-50, right=2100, bottom=1100)]
    drawn = with_boxes(photo, [*boxes, Box(left=5, top=5, right=6, bottom=6)])
    assert drawn.shape == (360, 720, 3)
    row = drawn[180, :, 0].astype(int)
    edge = row[round(400 * 0.36) - 3 : round(400 * 0.36) + 3]
    assert edge.max() == 255
    assert edge.min() == 0  # white beside black, on any ground
    assert row[250] == 100
    assert (with_boxes(photo, []) == 100).all()


def test_heat_in_words_and_outlined():
    assert where(HEAT) == "upper right"
    assert where(HEAT[::-1]) == "lower right"
    assert where(HEAT.T) == "lower left"
    centre = np.zeros((224, 224), np.float32)
    centre[100:120, 100:120] = 1
    assert where(centre) == "centre"
    assert where(HEAT * 0) == ""
    grey = np.full((FACE_SIDE, FACE_SIDE, 3), 100, np.uint8)
    drawn = heat_picture(grey, HEAT)
    assert (drawn == 255).all(2).any()  # the line is white on black: it shows without colour
    assert not (heat_picture(grey, HEAT * 0) == 255).all(2).any()
    assert (grey == 100).all()


def test_of_many_faces_the_largest_are_shown_and_the_others_named():
    many = reported(count=SHOWN_FACES + 2)
    many = Reported(many.result, many.pixels, many.heats[:SHOWN_FACES], many.facts)
    page = check(build_report([many, reported("b.jpg", count=SHOWN_FACES)], ABOUT))
    first, second = re.split("Photo [12]: ", page.text)[1:]
    assert f"{2 * SHOWN_FACES + 2} faces judged" in page.text
    assert first.count("The three answers") == second.count("The three answers") == SHOWN_FACES
    assert "2 more faces" in first
    last = SHOWN_FACES + 2
    assert f"Face {last} of {last}, 100 x 120 px: FAKE - entire face synthesis" in first
    assert "more face" not in second
    overview = page.text.split("Photo 1: ")[0]
    assert "and 2 more faces" in overview
    assert overview.count("FAKE") == 2 * SHOWN_FACES


def test_the_page_in_a_browser(tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    path = tmp_path / "r.html"
    long = reported(
        "x" * 240 + ".jpg", facts=facts(name="x" * 240 + ".jpg"), description="y" * 400, cautions=["z" * 300]
    )
    photos = [long, reported(with_examined=True, count=2), no_face()]
    path.write_text(build_report(photos, ABOUT), "utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (320, 360, 1200):
            tab = browser.new_page(viewport={"width": width, "height": 780})
            asked, said = [], []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.goto(path.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert said == []
        printed = tab.pdf(format="A4")
        browser.close()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1 + len(photos)


def test_the_checker_sees_what_it_is_to_see():
    html = build_report([reported()], ABOUT)
    for old, new in (
        ('alt="Face 1 as', 'alt="" title="Face 1 as'), ("</h2>", "</h2><script></script>"),
        ('scope="row"', "class=row"), ('href="#limits"', 'href="http://x"'), ("<h4>", "<h6>"), ('lang="en"', ""),
        ("</article>", ""),
    ):  # fmt: skip
        changed = html.replace(old, new).replace("</h4>", "</h6>" if old == "<h4>" else "</h4>")
        assert changed != html
        with pytest.raises((AssertionError, KeyError, IndexError)):
            check(changed)
    assert Page("<p>a</p>").text == "a"
