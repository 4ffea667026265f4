import pytest

from ffaa.evidence.measure import MEASURES
from ffaa.mllm.template import hypothesis_prompt
from ffaa.types import Evidence, ForgeryType, Label
from ffaa.vqa.generate import MeasuredFace, conversations, stated_probability
from ffaa.vqa.grounded import phrases
from ffaa.vqa.trace import tower_words

ASK = {label: hypothesis_prompt(label) for label in Label}


@pytest.fixture(scope="module")
def faces(measured_words):
    def face(i):
        label = (Label.REAL, Label.FAKE)[i % 2]
        words = measured_words(i)
        return MeasuredFace(
            image=f"{i}.jpg", sha256=f"{i}", variant=i % 3, label=label,
            forgery_type=ForgeryType.REAL if label is Label.REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS, regions=(),
            evidence=[
                Evidence(name=n, value=0.0, unit=m.unit, region=m.region, method=m.method, word=words[n])
                for n, m in MEASURES.items()
            ],
            tower_score=(i % 50) / 50, tower_type=list(ForgeryType)[i % 4],
        )  # fmt: skip

    return [face(i) for i in range(400)]


@pytest.fixture(scope="module")
def told(faces):
    return list(conversations(faces, ASK, 1.5, 0.9, 0.4, 7))


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
        assert (c.label, c.forgery_type, c.seed) == (face.label, face.forgery_type, 7)
        assert c.evidence == {e.name: e.word for e in face.evidence} | tower_words(face.tower_score, face.tower_type)
        assert c.probability == stated_probability(face.tower_score, face.label, 1.5)
        assert c.teacher == f"grounded-{phrases()['version']}"
        assert len(c.links) >= 8


def test_questions_follow_the_hypothesis(told):
    for c in told:
        if c.hypothesis is None:
            assert c.question in phrases()["questions"]
        else:
            assert c.question == ASK[c.hypothesis]
    plain = [c for c in told if c.hypothesis is None]
    assert 0.6 < len(plain) / len(told) < 0.74
    assert {c.question for c in plain} == set(phrases()["questions"])


def test_contrary_hypotheses_only_where_the_evidence_is_strong(told):
    contrary = [c for c in told if c.hypothesis is c.label.opposite]
    assert contrary
    assert all(c.probability >= 0.9 for c in contrary)


def test_seeded_per_face(told, faces):
    assert list(conversations(faces, ASK, 1.5, 0.9, 0.4, 7)) == told
    assert list(conversations(faces[:9], ASK, 1.5, 0.9, 0.4, 7)) == told[:9]
    other = list(conversations(faces[:40], ASK, 1.5, 0.9, 0.4, 8))
    assert sum(a.description != b.description for a, b in zip(other, told, strict=False)) > 30
