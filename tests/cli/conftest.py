import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ffaa.assistant
import ffaa.eval.detectors  # takes the real assistant, whichever test is the first
from ffaa.cli.main import main
from ffaa.data.faces import Detection, cut
from ffaa.data.images import load_photo
from ffaa.errors import InputError
from ffaa.types import (
    Analysis,
    Answer,
    Box,
    Crop,
    Difficulty,
    EvidenceItem,
    EvidenceRecord,
    Face,
    Failure,
    ForgeryType,
    JudgedSentence,
    Label,
    Role,
    Support,
    Timings,
    UnparsedAnswer,
    Verdict,
)


def make_verdict(source, index=0, count=1, label=Label.FAKE, match=0.95, difficulty=Difficulty.EASY, **changes):
    fake = label is Label.FAKE
    kind = ForgeryType.ENTIRE_FACE_SYNTHESIS if fake else ForgeryType.REAL
    answer = Answer(
        role=Role.ANCHOR,
        prompt="The image is a human face image. Is it real or fake? Why?",
        raw="...",
        description="A woman with brown hair looks into the camera. " * 3,
        reasoning="The skin is smooth beyond what a camera gives, and the hair line is blurred.",
        result=label,
        probability=0.9,
        forgery_type=kind,
    )
    unread = UnparsedAnswer(
        role=Role.NEGATIVE, prompt="This is a real human face.", raw="?\x1b[31m", reason="no result"
    )
    values: dict = dict(  # noqa: C408
        source=source,
        face_index=index,
        face_count=count,
        box=Box(left=10, top=20, right=110, bottom=140),
        crop=Crop(region=Box(left=0, top=10, right=120, bottom=150), padding=10, size=224),
        detector="fake",
        label=label,
        forgery_type=kind,
        match_score=match,
        forgery_score=match if fake else 1 - match,
        difficulty=difficulty,
        description=answer.description,
        reasoning=answer.reasoning,
        answers=[answer, answer.model_copy(update={"role": Role.POSITIVE}), unread],
        probabilities=[[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], None],
        match_scores=[match, match / 2, None],
        chosen_index=0,
        model="fake",
        weights={},
        versions={},
        seed=0,
        timings=Timings(),
    )
    return Verdict(**(values | changes))


def examined(verdict):
    """The verdict as --evidence leaves it: one sentence of each kind, an item that could not be measured."""
    item = {"unit": "face sizes", "method": "m", "region": "mouth"}
    items = [
        EvidenceItem(name="smile", value=0.0123456, word="none", strength=0.4, **item),
        EvidenceItem(name="mouth_width", value=0.5, word="relaxed", strength=0.9, **item),
        EvidenceItem(name="teeth", value=None, reason="closed", **item),
        *(EvidenceItem(name=f"x_{i}", value=float(i), word="w", strength=0.1, **item) for i in range(4)),
    ]
    told = [
        JudgedSentence(part="description", text="A woman looks\x1b into the camera.", support=Support.NOT_MEASURABLE),
        JudgedSentence(part="description", text="The lips are relaxed. " * 4, support=Support.SUPPORTED, items=["x"]),
        JudgedSentence(
            part="reasoning", text="She smiles.", support=Support.CONTRADICTED, items=["smile"],
            measured={"smile": "none"},
        ),
    ]  # fmt: skip
    record = EvidenceRecord(items={i.name: i for i in items}, versions={"evidence": "1"})
    return verdict.model_copy(update={"examined": record, "sentences": told})


def told(name):
    options = {"difficulty": Difficulty.HARD} if "hard" in name else {}
    if "weak" in name:
        options["match"] = 0.55
    if "real" in name:
        options["label"] = Label.REAL
    return options


class FakeAssistant:
    """The engine's interface. What it finds is told by the photo's name: 'two' faces, 'empty', 'hard' ..."""

    made = None
    versions = {"ffaa": "0.1.0"}  # noqa: RUF012
    engine = SimpleNamespace(name="fake", hashes={"a.safetensors": "0" * 64})

    def __init__(self, model="nano", device="auto", seed=0, min_face=40):
        type(self).made = SimpleNamespace(model=model, device=device, seed=seed, min_face=min_face, heatmaps=[])

    def analyze(self, photo, whole_image=False, evidence=False):
        loaded = load_photo(photo)
        source = loaded.source
        if "crash" in source.path:
            raise RuntimeError("something\nbroke")
        if "interrupt" in source.path:
            raise KeyboardInterrupt
        if "empty" in source.path:
            return Analysis(source, [], "no face found; is it a photo of a face?")
        count = 2 if "two" in source.path else 1
        verdicts = [make_verdict(source, i, count, **told(source.path)) for i in range(count)]
        if evidence:
            verdicts = [examined(v) for v in verdicts]
        image = np.zeros((224, 224, 3), np.uint8)
        return Analysis(source, verdicts, faces=[Face(image, v.box, v.crop) for v in verdicts])

    def analyze_many(self, photos, whole_image=False, evidence=False):
        for photo in photos:
            try:
                yield self.analyze(photo, whole_image, evidence)
            except InputError as error:
                yield Failure(path=photo, message=str(error))

    # For videos: a face in every frame that is not black, and a second one in white frames.
    engine = SimpleNamespace(name="fake", hashes={}, cautions=["of the model"])
    versions, seed, min_face = {"ffaa": "0"}, 0, 40

    def detect(self, pixels):
        boxes = [Box(left=10, top=10, right=110, bottom=110), Box(left=150, top=20, right=200, bottom=70)]
        return [Detection(box, 1.0) for box in boxes[: 0 if pixels.max() < 20 else 2 if pixels.min() > 200 else 1]], []

    def cut(self, pixels, found):
        return cut(pixels, found, 64, "fake")

    def verdicts_of(self, placed):
        if "interrupt" in placed[0].source.path:
            raise KeyboardInterrupt
        return [make_verdict(p.source, p.index, p.count, box=p.face.box, **told(p.source.path)) for p in placed]

    def examine(self, face, verdict):
        return examined(verdict)

    def heatmap(self, face, verdict, with_text=True):
        self.made.heatmaps.append((verdict.face_index, with_text))
        return np.full((224, 224, 3), 200 if with_text else 100, np.uint8)

    def heat(self, face, verdict, with_text=True):
        side = face.image.shape[0]
        return np.linspace(0, 1, side * side, dtype=np.float32).reshape(side, side)


@pytest.fixture(autouse=True)
def assistant(monkeypatch, tmp_path):
    monkeypatch.setattr(ffaa.assistant, "Assistant", FakeAssistant)
    monkeypatch.setenv("FFAA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FFAA_DEBUG", raising=False)
    FakeAssistant.made = None
    return FakeAssistant


@pytest.fixture
def photo(tmp_path):
    def write(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 200), "gray").save(path)
        return str(path)

    return write


@pytest.fixture
def run(capsys):
    """Runs the command line: code, stdout, stderr, and the lines of stdout as JSON."""

    def call(*args):
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return SimpleNamespace(
            code=code, out=out, err=err, records=lambda: [json.loads(line) for line in out.splitlines()]
        )

    return call
