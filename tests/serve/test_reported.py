import os
import sys

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import FakeAssistant, make_verdict
from tests.serve.page import check

from ffaa.assistant import Assistant
from ffaa.clip import analyze_clip
from ffaa.data.images import load_photo
from ffaa.errors import InputError
from ffaa.serve.report import SHOWN_FACES, About, build_report
from ffaa.serve.reported import report_photos, reported_clip, with_credentials
from ffaa.types import Analysis, CredentialStatus, Face, Failure


class Pairs:
    """Analyses photos two at a time, as the real one does in batches; `after` runs when a batch is done."""

    def __init__(self, after=lambda: None):
        self.after, self.options = after, None

    def analyze_many(self, photos, **options):
        self.options, waiting = options, []
        for photo in photos:
            waiting.append(self._one(photo))
            if len(waiting) == 2:
                self.after()
                yield from waiting
                waiting = []
        yield from waiting

    def _one(self, photo):
        try:
            source = load_photo(photo).source
        except InputError as error:
            return Failure(path=photo, message=str(error))
        verdict = make_verdict(source)
        return Analysis(source, [verdict], faces=[Face(np.zeros((224, 224, 3), np.uint8), verdict.box, verdict.crop)])

    def heat(self, face, verdict):
        return np.ones((224, 224), np.float32)


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for level, path in enumerate(paths):
        Image.new("RGB", (200, 160), (level, 0, 0)).save(path)
    return [str(path) for path in paths]


def test_each_photo_with_its_own_picture_facts_and_credentials(photos, tmp_path):
    (tmp_path / "bad.jpg").write_text("text")
    given = [photos[0], str(tmp_path / "bad.jpg"), photos[1], str(tmp_path / "none.jpg"), photos[2]]
    assistant = Pairs()
    found = list(report_photos(assistant, given, evidence=True))
    assert assistant.options == {"whole_image": False, "evidence": True}
    good = found[::2]
    assert [one.pixels[0, 0, 0] for one in good] == [0, 1, 2]
    assert [one.facts.name for one in good] == ["a.png", "b.png", "c.png"]
    assert all(one.facts.sha256 == one.result.source.sha256 for one in good)
    assert all(one.heats[0].shape == (224, 224) for one in good)
    assert {one.credentials.status for one in good} == {CredentialStatus.ABSENT}
    assert all(isinstance(one.result, Failure) for one in found[1::2])
    assert found[1].facts.bytes == 4  # there, but no image
    assert found[3].facts is None


def test_a_file_that_changes_meanwhile_gets_no_verdict(photos):
    def change():
        Image.new("RGB", (200, 160), "white").save(photos[1])

    first, second, third = report_photos(Pairs(change), photos)
    assert isinstance(second.result, Failure)
    assert "changed while it was analysed" in second.result.message
    assert isinstance(first.result, Analysis)
    assert isinstance(third.result, Analysis)

    analysed = list(with_credentials(Pairs(lambda: os.unlink(photos[0])), photos))
    assert [one.source.credentials.status.value for one in analysed] == ["not_checked", "absent", "absent"]
    assert all(verdict.source == one.source for one in analysed for verdict in one)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_unicode(photos, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    os.rename(photos[0], path)
    (one,) = report_photos(Pairs(), [os.fsdecode(path)])
    assert one.facts.name == "caf\\xe9.png"
    assert one.pixels is not None


def test_heatmaps_of_the_largest_faces_only(photos):
    class Crowd(Pairs):
        def _one(self, photo):
            one, many = super()._one(photo), SHOWN_FACES + 3
            verdicts = [make_verdict(one.source, k, many) for k in range(many)]
            return Analysis(one.source, verdicts, faces=one.faces * many)

    (found,) = report_photos(Crowd(), photos[:1])
    assert (len(found.result), len(found.heats)) == (SHOWN_FACES + 3, SHOWN_FACES)


def test_a_video_with_its_heatmaps_and_the_credentials_of_its_file(make_clip, tmp_path):
    pictures = [np.full((128, 208, 3), 255, np.uint8)] * 8  # two faces for the fake
    path, assistant = make_clip(tmp_path / "a.mp4", pictures), FakeAssistant()
    analysis = analyze_clip(assistant, path, frames=4)
    found = reported_clip(assistant, analysis, path)
    assert found.result is analysis
    assert [len(of) for of in found.heats] == [len(p.telling) for p in analysis.verdict.people] == [3, 3]
    assert found.heats[0][0].shape == analysis.faces[0][0].image.shape[:2]
    assert (found.credentials.status, found.facts) == (CredentialStatus.ABSENT, None)

    failed = reported_clip(assistant, Failure(path=str(path), message="broken"), path)
    assert (failed.facts.sha256, failed.facts.name) == (analysis.verdict.source.sha256, "a.mp4")
    make_clip(path, pictures[:2])
    changed = reported_clip(assistant, analysis, path)
    assert "changed while it was analysed" in changed.result.message
    assert (changed.heats, changed.credentials) == ([], None)
    path.unlink()
    gone = reported_clip(assistant, analysis, path)
    assert "no such file" in gone.result.message


def test_the_released_model(tmp_path, hopper):
    path = tmp_path / "hopper.jpg"
    Image.fromarray(hopper).save(path, quality=95)
    assistant = Assistant("nano", device="cpu")
    (one,) = report_photos(assistant, [str(path)], evidence=True)
    assert (one.heats[0].max(), one.heats[0].shape) == (1, (224, 224))
    from datetime import UTC, datetime

    about = About("nano", assistant.engine.hashes, assistant.versions, 0, "ffaa report", datetime.now(UTC))
    page = check(build_report([one], about))
    verdict = one.result[0]
    for words in (verdict.description, verdict.reasoning, *assistant.engine.hashes.values()):
        assert words in page.text
    assert "nano:" not in page.text
