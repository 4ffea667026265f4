from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ffaa import assistant as module
from ffaa.assistant import Assistant, choose_device
from ffaa.data.images import load_photo
from ffaa.errors import UsageError, WeightsError
from ffaa.evidence.examine import MEASURES, examine_face
from ffaa.mids.decide import decide, difficulty
from ffaa.mids.detail import fine_detail
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.types import Analysis, Answer, Failure, ForgeryType, Label, Role, Support, Verdict
from ffaa.vqa.sentences import read_items, says, wordings
from ffaa.weights import DetailCorrection, open_folder
from ffaa.wording import WEAK

BLANK = np.full((200, 260, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def pair(hopper, astronaut):
    """Both portraits side by side, and the photo's single ones."""
    photo = np.zeros((600, 1024, 3), np.uint8)
    photo[:512, :512] = astronaut
    photo[:600, 512:] = hopper
    return photo


@pytest.fixture(scope="module")
def one(tiny_assistant, hopper):
    return tiny_assistant.analyze(hopper)


def plain(analysis):
    """Everything but the clock."""
    return [v.model_dump(exclude={"timings"}) for v in analysis]


def same(found, want):
    """Equal texts and choices; numbers up to rounding."""
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        assert [x.raw for x in a.answers] == [x.raw for x in b.answers]
        assert (a.label, a.chosen_index, a.difficulty, a.box, a.evidence, a.cautions) == (
            b.label, b.chosen_index, b.difficulty, b.box, b.evidence, b.cautions
        )  # fmt: skip
        assert np.allclose(a.probabilities, b.probabilities, atol=1e-6)
        assert a.forgery_score == pytest.approx(b.forgery_score, abs=1e-6)


def test_verdict_says_what_decide_decided(one, tiny_run):
    (v,) = one
    results = [a.result if isinstance(a, Answer) else None for a in v.answers]
    d = decide(v.probabilities, results)
    assert (v.label, v.chosen_index, v.match_score, v.forgery_score) == (
        d.label, d.chosen_index, d.match_score, d.forgery_score
    )  # fmt: skip
    assert v.match_scores == d.match_scores
    assert v.difficulty is difficulty(results)
    chosen = v.answers[v.chosen_index]
    assert (v.description, v.reasoning, v.forgery_type) == (chosen.description, chosen.reasoning, chosen.forgery_type)
    assert np.allclose(np.sum(v.probabilities, 1), 1)
    assert v.forgery_score == (v.match_score if v.label is Label.FAKE else 1 - v.match_score)
    record = examine_face(one.faces[0])
    assert {e.name: e.word for e in v.evidence} == {n: record.words[n] for n in read_items() if n in record.words}
    assert len(v.evidence) > 40
    assert (v.model, v.seed, v.face_index, v.face_count) == ("nano-tiny", 0, 0, 1)
    assert set(v.versions) == {"ffaa", "torch", "transformers", "numpy"}
    assert "mids.safetensors" in v.weights
    assert "part:minilm-l6" in v.weights
    assert v.weights["model.json:settings"] == open_folder(tiny_run.model).config.settings_hash
    assert v.timings.generate > 0
    assert v.timings.detect > 0


def test_a_tower_that_knows_faces_without_detail_is_asked(tiny_assistant, hopper, monkeypatch):
    """All but alone where nearly nothing is left of MIDS's share."""
    engine = tiny_assistant.engine
    face = tiny_assistant.analyze(hopper).faces[0].image
    hidden = engine.encode(face).layers[::-1]
    assert engine.heads is not None
    with torch.inference_mode():
        told = float(engine.heads.forgery_logit(hidden))
    correction = DetailCorrection(below=fine_detail(face) + 1, flatten=1e9, towers=[0], trust=2.0)
    monkeypatch.setattr(engine, "detail", correction)
    (v,) = tiny_assistant.analyze(hopper)
    for answer, row in zip(v.answers, v.probabilities, strict=True):
        fake = int(answer.result is Label.FAKE)
        assert np.log(row[2 + fake] / row[fake]) == pytest.approx(2 * told, abs=1e-3)
    if {answer.result for answer in v.answers} == set(Label):
        assert (v.label is Label.FAKE) == (told > 0)


def test_answers_are_parsed_from_their_raw_text(one):
    for role, a in zip(Role, one[0].answers, strict=True):
        assert a == parse_answer(a.raw, role, a.prompt)


def test_probabilities_are_tempered(tiny_assistant, hopper, monkeypatch):
    monkeypatch.setattr(tiny_assistant.engine, "detail", None)
    before = np.array(tiny_assistant.analyze(hopper)[0].probabilities)
    monkeypatch.setattr(tiny_assistant.engine, "temperature", tiny_assistant.engine.temperature / 2)
    sharper = np.array(tiny_assistant.analyze(hopper)[0].probabilities)
    want = before**2 / (before**2).sum(1, keepdims=True)
    assert np.allclose(sharper, want, atol=1e-6)
    assert not np.allclose(sharper, before)


def test_a_face_without_detail_is_judged_less_surely(tiny_assistant, hopper, monkeypatch):
    monkeypatch.setattr(tiny_assistant.engine, "detail", None)
    photos = hopper, cv2.GaussianBlur(hopper, (0, 0), 6)
    before = [tiny_assistant.analyze(photo)[0] for photo in photos]
    faces = [tiny_assistant.analyze(photo).faces[0].image for photo in photos]
    below = (fine_detail(faces[0]) + fine_detail(faces[1])) / 2
    correction = DetailCorrection(below=below, flatten=4.0)
    monkeypatch.setattr(tiny_assistant.engine, "detail", correction)
    sharp, blurred = (tiny_assistant.analyze(photo)[0] for photo in photos)
    assert sharp.probabilities == before[0].probabilities
    assert blurred.answers == before[1].answers
    less = 1 + 4 * (below - fine_detail(faces[1]))
    assert (blurred.label, blurred.chosen_index) == (before[1].label, before[1].chosen_index)
    assert abs(blurred.match_score - 0.5) < abs(before[1].match_score - 0.5)
    for answer, row, was in zip(blurred.answers, blurred.probabilities, before[1].probabilities, strict=True):
        fake = int(answer.result is Label.FAKE)
        odds, odds_before = (np.log(p[2 + fake] / p[fake]) for p in (row, was))
        assert odds == pytest.approx(odds_before / less)


def test_the_same_photo_gives_the_same_verdict(tiny_assistant, hopper, one, tmp_path):
    assert plain(tiny_assistant.analyze(hopper)) == plain(one)
    path = tmp_path / "hopper.png"
    Image.fromarray(hopper).save(path)
    (v,) = tiny_assistant.analyze(path)
    assert v.source.path == str(path)
    assert len(v.source.sha256) == 64
    same([v], one.verdicts)


def test_the_two_halves_make_the_same_verdicts(tiny_assistant, hopper, pair):
    found = [tiny_assistant.find(p) for p in (load_photo(hopper), pair, BLANK, hopper)]
    assert [len(f.faces) for f in found] == [1, 2, 0, 1]
    halves = tiny_assistant.finish(found)
    assert all(isinstance(f, Analysis) for f in halves)
    whole = [tiny_assistant.analyze(p) for p in (hopper, pair, BLANK, hopper)]
    for a, b in zip(halves, whole, strict=True):
        same(a.verdicts, b.verdicts)
        assert a.message == b.message


def test_several_threads_may_call(tiny_assistant, hopper, one):
    inside, most = [], []
    generate = tiny_assistant.engine.mllm.generate

    def watched(*args):
        inside.append(1)
        most.append(len(inside))
        found = generate(*args)
        inside.pop()
        return found

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(tiny_assistant.engine.mllm, "generate", watched)
        found = list(pool.map(lambda _: tiny_assistant.analyze(hopper), range(6)))
    assert max(most) == 1
    for each in found:
        same(each.verdicts, one.verdicts)


def test_two_faces_largest_first(tiny_assistant, pair):
    found = tiny_assistant.analyze(pair)
    assert len(found) == len(found.faces) == 2
    assert [v.face_index for v in found] == [0, 1]
    assert {v.face_count for v in found} == {2}
    assert found[0].box.width > found[1].box.width
    assert found[0].box.left >= 512 > found[1].box.right
    assert [f.box for f in found.faces] == [v.box for v in found]


@pytest.fixture(scope="module")
def photos(hopper, astronaut, pair):
    return [np.ascontiguousarray(p) for p in (hopper, pair, BLANK, astronaut, hopper[:, ::-1], pair[:, ::-1])]


@pytest.fixture(scope="module")
def singly(tiny_assistant, photos):
    return [tiny_assistant.analyze(photo) for photo in photos]


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_batches_change_nothing(tiny_assistant, photos, singly, monkeypatch, at_once):
    monkeypatch.setattr(module, "FACES_AT_ONCE", at_once)
    together = list(tiny_assistant.analyze_many(photos))
    assert [len(a) for a in together] == [1, 2, 0, 1, 1, 2]
    for a, b in zip(together, singly, strict=True):
        same(a.verdicts, b.verdicts)
        assert a.message == b.message


def test_photos_are_analysed_as_they_come(tiny_assistant, hopper, monkeypatch):
    monkeypatch.setattr(module, "FACES_AT_ONCE", 2)
    taken = []

    def photos():
        for i in range(5):
            taken.append(i)
            yield hopper

    found = tiny_assistant.analyze_many(photos())
    next(found)
    assert len(taken) == 2
    assert len(list(found)) == 4
    assert len(taken) == 5


def saying(tiny_assistant, monkeypatch, description, reasoning):
    """From now on every answer says this."""
    text = format_answer(description, reasoning, Label.FAKE, 0.8, ForgeryType.IDENTITY_EXCHANGE)
    monkeypatch.setattr(tiny_assistant.engine.mllm, "generate", lambda features, *_: [[text] * 3 for _ in features])


def test_without_evidence_nothing_is_examined(one):
    assert one[0].examined is None
    assert one[0].sentences == []
    assert one[0].timings.examine == 0


def sentence(item, word):
    """One that states this word."""
    text = wordings(says("describe", item, word)[0])[0]
    return text[0].upper() + text[1:] + "."


def test_a_sentence_that_is_not_so_is_caught(tiny_assistant, hopper, one, monkeypatch):
    words = {e.name: e.word for e in one[0].evidence}
    wrong = next(word for word in MEASURES["warmth"].words if word != words["warmth"])
    right, lie = sentence("contrast", words["contrast"]), sentence("warmth", wrong)
    reasoning = "The traits fit a forged face. The head is turned far to the left of the picture, in profile."
    saying(tiny_assistant, monkeypatch, f"One face fills most of the picture. {right} {lie}", reasoning)
    (v,) = tiny_assistant.analyze(hopper, evidence=True)
    assert [(s.part, s.support, s.items) for s in v.sentences] == [
        ("description", Support.NOT_MEASURABLE, []),
        ("description", Support.SUPPORTED, ["contrast"]),
        ("description", Support.CONTRADICTED, ["warmth"]),
        ("reasoning", Support.NOT_MEASURABLE, []),
        ("reasoning", Support.CONTRADICTED, ["yaw"]),
    ]
    assert v.sentences[2].text == lie
    assert v.sentences[2].measured == {"warmth": words["warmth"]}
    assert v.sentences[4].measured == {"yaw": v.examined.word("yaw")}
    assert v.cautions[0] == "2 of 5 sentences of the answer are contradicted by what was measured"
    assert set(v.examined.items) == set(MEASURES)
    assert v.timings.examine > 0
    assert Verdict.model_validate_json(v.model_dump_json()) == v


def test_a_sentence_that_is_so_is_borne_out(tiny_assistant, hopper, one, monkeypatch):
    word = next(e.word for e in one[0].evidence if e.name == "contrast")
    saying(tiny_assistant, monkeypatch, sentence("contrast", word), "His lips are closed.")
    (found,) = tiny_assistant.analyze_many([hopper], evidence=True)
    assert [s.support for s in found[0].sentences] == [Support.SUPPORTED] * 2
    assert not any("contradicted by" in caution for caution in found[0].cautions)


def test_the_released_nano_says_what_was_measured(hopper):
    (v,) = Assistant("nano", device="cpu").analyze(hopper, evidence=True)
    assert {e.name: e.word for e in v.evidence}.items() <= v.examined.words.items()
    assert sum(s.support is Support.SUPPORTED for s in v.sentences) >= 4


def test_without_a_mesh_on_the_face_less_is_measured(tiny_assistant, hopper, monkeypatch):
    monkeypatch.setattr("ffaa.evidence.examine.landmarks", lambda *_: None)
    saying(tiny_assistant, monkeypatch, "The person smiles broadly.", sentence("warmth", "neutral"))
    (v,) = tiny_assistant.analyze(hopper, evidence=True)
    assert v.examined.items["smile"].value is None
    assert v.sentences[0].support is Support.NOT_MEASURABLE
    assert v.sentences[1].support is not Support.NOT_MEASURABLE


def test_a_missing_mesh_is_said_before_any_photo_is_read(tiny_assistant, monkeypatch):
    def missing(name):
        raise WeightsError(f"the part '{name}' is not installed")

    photos = iter([BLANK])
    with monkeypatch.context() as patch:
        patch.setattr("ffaa.weights.part_folder", missing)
        with pytest.raises(WeightsError, match="face-mesh"):
            tiny_assistant.analyze("nonesuch.jpg", evidence=True)
        with pytest.raises(WeightsError, match="face-mesh"):
            next(tiny_assistant.analyze_many(photos, evidence=True))
    assert next(photos) is BLANK


def test_a_bad_file_does_not_stop_the_others(tiny_assistant, hopper, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    found = list(tiny_assistant.analyze_many([tmp_path / "missing.jpg", hopper, str(broken), hopper]))
    assert [type(f) for f in found] == [Failure, Analysis, Failure, Analysis]
    assert found[0].path == str(tmp_path / "missing.jpg")
    assert "no such file" in found[0].message
    assert found[2].path == str(broken)
    assert found[2].kind == "error"
    same(found[1].verdicts, found[3].verdicts)


def test_no_face_is_a_message(tiny_assistant):
    found = tiny_assistant.analyze(BLANK)
    assert len(found) == 0
    assert found.faces == []
    assert "no face found" in found.message
    assert "--whole-image" in found.message
    assert (found.source.width, found.source.height) == (260, 200)


def test_a_small_face_is_a_message(tiny_assistant, hopper, monkeypatch):
    monkeypatch.setattr(tiny_assistant, "min_face", 400)
    found = tiny_assistant.analyze(hopper)
    assert len(found) == 0
    assert "216 px wide" in found.message
    assert "at least 400 px" in found.message


def test_whole_image(tiny_assistant, tiny_crops):
    (v,) = tiny_assistant.analyze(tiny_crops[0], whole_image=True)
    assert v.crop.whole_image
    assert v.detector == "none"
    assert v.box.width == 224
    assert any("whole image" in caution for caution in v.cautions)
    (found,) = tiny_assistant.analyze_many([BLANK], whole_image=True)
    assert len(found) == 1
    assert found.message == ""


@pytest.mark.parametrize("more", [-0.1, 0.1])
def test_a_face_without_fine_detail_is_told(tiny_assistant, hopper, monkeypatch, more):
    below = fine_detail(tiny_assistant.analyze(hopper).faces[0].image) + more
    monkeypatch.setattr(tiny_assistant.engine, "detail", DetailCorrection(below=below, flatten=1.0))
    (v,) = tiny_assistant.analyze(hopper)
    assert v.lacks_detail == any("lacks fine detail" in caution for caution in v.cautions) == (more > 0)
    monkeypatch.setattr(tiny_assistant.engine, "detail", None)
    assert not any("lacks fine detail" in caution for caution in tiny_assistant.analyze(hopper)[0].cautions)


def test_cautions(tiny_assistant, one, hopper, monkeypatch):
    (v,) = one
    assert any("low match score" in c for c in v.cautions) == (v.match_score < WEAK)
    assert any("hard case" in c for c in v.cautions) == (v.difficulty == "hard")
    assert not any("px wide" in c for c in v.cautions)
    monkeypatch.setattr(module, "SMALL_FACE", 300)
    monkeypatch.setattr(tiny_assistant.engine, "cautions", ["of the engine"])
    cautions = tiny_assistant.analyze(hopper)[0].cautions
    assert any("only 216 px wide" in c for c in cautions)
    assert cautions[-1] == "of the engine"


def test_an_unreadable_answer_is_counted_and_never_chosen(tiny_assistant, hopper, monkeypatch):
    real = tiny_assistant.engine.mllm.generate

    def torn(*args):
        return [["rubbish", *texts[1:]] for texts in real(*args)]

    monkeypatch.setattr(tiny_assistant.engine.mllm, "generate", torn)
    (v,) = tiny_assistant.analyze(hopper)
    assert v.answers[0].raw == "rubbish"
    assert v.probabilities[0] is None
    assert v.match_scores[0] is None
    assert v.chosen_index in (1, 2)
    assert v.difficulty == "hard"
    assert any("1 of 3 answers could not be read" in c for c in v.cautions)


def test_heatmap(tiny_assistant, one):
    face, verdict = one.faces[0], one[0]
    drawn = tiny_assistant.heatmap(face, verdict)
    assert drawn.shape == face.image.shape == (224, 224, 3)
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn, face.image)
    assert np.array_equal(drawn, tiny_assistant.heatmap(face, verdict))
    assert tiny_assistant.heatmap(face, verdict, with_text=False).shape == (224, 224, 3)
    (again,) = tiny_assistant.analyze(face.image, whole_image=True)  # no gradient is left switched on
    assert isinstance(again.forgery_score, float)


def test_the_trunk_runs_once_per_face(tiny_assistant, pair):
    calls = []
    hook = tiny_assistant.engine.mllm.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        tiny_assistant.analyze(pair)
    finally:
        hook.remove()
    assert len(calls) == 2
    assert tiny_assistant.engine.shared
    assert tiny_assistant.engine.mids.image_encoder is (tiny_assistant.engine.mllm.model.model.vision_tower)


def test_seed_and_smallest_face_are_kept(tiny_model, use_tiny_parts, hopper):
    found = Assistant(tiny_model, device="cpu", seed=5, min_face=60)
    assert (found.seed, found.min_face) == (5, 60)
    assert found.analyze(hopper)[0].seed == 5


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:0" if not torch.cuda.is_available() else "npu"):
        with pytest.raises(UsageError, match="not available"):
            choose_device(name)


def test_unknown_model_and_detector(tiny_model, use_tiny_parts):
    with pytest.raises(UsageError, match="unknown model"):
        Assistant("nonesuch")
    with pytest.raises(UsageError, match="unknown face detector"):
        Assistant(tiny_model, face_detector="none")
