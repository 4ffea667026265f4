import numpy as np
import pytest

from ffaa.evidence.examine import MEASURES
from ffaa.mllm.template import hypothesis_prompt
from ffaa.types import ForgeryType, Label, Support
from ffaa.vqa.generate import MeasuredFace, conversations, stated_probability, tempered
from ffaa.vqa.judge import judge
from ffaa.vqa.sentences import UNSEEN, file_version, read_items
from ffaa.vqa.trace import tower_words

ANCHORS = ("Is it real?", "Real or fake?", "Is this face genuine?")
ASK = {label: hypothesis_prompt(label) for label in Label}


@pytest.fixture(scope="module")
def faces(measured_words):
    def face(i):
        label = (Label.REAL, Label.FAKE)[i % 2]
        words, rng = measured_words(i), np.random.default_rng(i)
        values = {}
        for n in read_items():
            m = MEASURES[n]
            cuts = (m.cuts[0] - 1, *m.cuts, m.cuts[-1] + 1)
            place = m.words.index(words[n])
            values[n] = float(rng.uniform(cuts[place] + 1e-6, cuts[place + 1]))
        return MeasuredFace(
            image=f"{i}.jpg", sha256=f"{i}", variant=i % 3, label=label,
            forgery_type=ForgeryType.REAL if label is Label.REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS, values=values,
            tower_score=(i % 50) / 50, tower_type=list(ForgeryType)[i % 4],
        )  # fmt: skip

    return [face(i) for i in range(400)]


@pytest.fixture(scope="module")
def told(faces):
    return list(conversations(faces, ANCHORS, ASK, 1.5, 0.9, 0.4, 7))


@pytest.mark.parametrize(
    ("score", "label", "temperature", "want"),
    [
        (0.8, Label.FAKE, 1.0, 0.8),
        (0.2, Label.REAL, 1.0, 0.8),
        (0.8, Label.FAKE, 2.0, 0.67),  # odds 4 -> 2
        (0.1, Label.FAKE, 1.0, 0.55),  # the tower disagrees: the truth is still told, with the least certainty
        (0.5, Label.REAL, 1.0, 0.55),
        (0.0, Label.REAL, 1.0, 0.99),
        (1.0, Label.FAKE, 1.0, 0.99),
    ],
)
def test_stated_probability(score, label, temperature, want):
    assert stated_probability(score, label, temperature) == want


def test_fields_come_from_the_face(told, faces):
    assert len(told) == len(faces)
    for c, face in zip(told, faces, strict=True):
        assert (c.image, c.sha256, c.variant) == (face.image, face.sha256, face.variant)
        if c.hypothesis is None:
            assert (c.label, c.forgery_type) == (face.label, face.forgery_type)
        assert (c.label is Label.REAL) is (c.forgery_type is ForgeryType.REAL)
        assert c.seed == 7
        assert c.evidence == face.record.words | tower_words(face.tower_score, face.tower_type)
        assert c.probability == stated_probability(face.tower_score, c.label, 1.5)
        assert c.teacher == file_version()
        assert len(c.links) >= 8


def test_questions_follow_the_hypothesis(told):
    for c in told:
        if c.hypothesis is None:
            assert c.question in ANCHORS
        else:
            assert c.question == ASK[c.hypothesis]
    plain = [c for c in told if c.hypothesis is None]
    assert 0.6 < len(plain) / len(told) < 0.74
    assert {c.question for c in plain} == set(ANCHORS)


def test_a_hypothesis_is_withstood_where_the_tower_is_sure_and_followed_elsewhere(told, faces):
    against = yielded = 0
    for c, face in zip(told, faces, strict=True):
        if c.hypothesis is None or c.hypothesis is face.label:
            assert c.label is face.label
            continue
        fake = tempered(face.tower_score, 1.5)
        sure = max(fake, 1 - fake) >= 0.9
        assert c.label is (face.label if sure else c.hypothesis)
        against, yielded = against + sure, yielded + (not sure)
    assert min(against, yielded) > 0


def test_an_answer_that_argues_for_a_forgery_names_the_type_that_the_tower_sees(told, faces):
    pairs = [(c, f) for c, f in zip(told, faces, strict=True) if c.label is Label.FAKE and f.label is Label.REAL]
    seen = [(c, f) for c, f in pairs if f.tower_type is not ForgeryType.REAL]
    assert seen
    assert all(c.forgery_type is f.tower_type for c, f in seen)
    assert len({c.forgery_type for c, f in pairs if f.tower_type is ForgeryType.REAL}) > 1


def test_seeded_per_face(told, faces):
    assert list(conversations(faces, ANCHORS, ASK, 1.5, 0.9, 0.4, 7)) == told
    assert list(conversations(faces[:9], ANCHORS, ASK, 1.5, 0.9, 0.4, 7)) == told[:9]
    other = list(conversations(faces[:40], ANCHORS, ASK, 1.5, 0.9, 0.4, 8))
    assert sum(a.description != b.description for a, b in zip(other, told, strict=False)) > 30


def test_sentences_hold(told, faces):
    for c, face in zip(told[:40], faces, strict=False):
        sentences = [part.strip() + "." for part in f"{c.description} {c.reasoning}".split(".") if part.strip()]
        assert len(sentences) == len(c.links)
        for sentence, link in zip(sentences, c.links, strict=True):
            if link.split("+")[0] in MEASURES:
                assert judge(sentence, face.record) is Support.SUPPORTED, sentence
        assert not any(link.startswith(("manifest:method", "manifest:regions")) for link in c.links)


def test_what_was_not_measured_is_read_as_unseen(faces):
    bare = faces[0].model_copy(update={"values": {"yaw": 3.0, "jpeg_blocks": 1.0}})
    assert bare.words["yaw"] == "front"
    assert set(bare.words.values()) == {"front", UNSEEN} | set(tower_words(bare.tower_score, bare.tower_type).values())
    assert "jpeg_blocks" not in bare.words
    assert "jpeg_blocks" not in bare.record.values
