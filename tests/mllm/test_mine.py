import numpy as np
import pytest
import torch

from ffaa.errors import InputError
from ffaa.evidence.measure import MEASURES
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.features import FeatureRow
from ffaa.mllm.generate import QUESTIONS, Mllm
from ffaa.mllm.mine import Mined, mine
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.tower import pixel_tensor
from ffaa.types import Answer, Evidence, ForgeryType, Label, Role
from ffaa.vqa.conversation import read_jsonl

ANCHORS = ["Is it real or fake?", "Real or fake? Why?", "Has this face been forged?", "Genuine?"]


@pytest.fixture(scope="module")
def mllm(make_llava, tiny_tokenizer):
    return Mllm(make_llava(), tiny_tokenizer, TEMPLATES["nano"], AnswerConstraint(tiny_tokenizer, 6))


@pytest.fixture(scope="module")
def array(tiny_tower, tiny_crops):
    with torch.no_grad():
        hidden = torch.stack(tiny_tower(pixel_tensor(tiny_crops)).hidden_states, 1).half().numpy()
    return np.concatenate([hidden, hidden[:, :, ::-1]])[:11]


@pytest.fixture(scope="module")
def faces(measured_words):
    def evidence(i):
        words = measured_words(i)
        return [
            Evidence(name=n, value=0.0, unit=m.unit, region=m.region, method=m.method, word=words[n])
            for n, m in MEASURES.items()
        ]

    return [
        FeatureRow(
            image=f"{i}.jpg", sha256=f"{i:064x}", variant=0, label=(Label.REAL, Label.FAKE)[i % 2],
            forgery_type=ForgeryType.REAL, regions=(), evidence=evidence(i), tower_score=i / 11,
            tower_type=list(ForgeryType)[i % 4],
        )
        for i in range(11)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(mllm, array, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("mine") / "mined.jsonl"
    return out, mine(mllm, array, faces, out, {"other"}, ANCHORS, 5, batch=4)


def test_three_answers_for_every_face(whole, mllm, array, faces):
    out, found = whole
    assert [m.row for m in found] == list(range(11))
    assert list(read_jsonl(out, Mined)) == found
    for m, face in zip(found, faces, strict=True):
        assert (m.image, m.sha256, m.label) == (face.image, face.sha256, face.label)
        assert [a.role for a in m.answers] == [Role.ANCHOR, Role.POSITIVE, Role.NEGATIVE]
        assert m.results == [a.result if isinstance(a, Answer) else None for a in m.answers]
        assert m.answers[0].prompt in ANCHORS
        assert {a.prompt for a in m.answers[1:]} == set(QUESTIONS[1:])
    # the anchor question is drawn once a batch
    asked = [m.answers[0].prompt for m in found]
    assert len(set(asked[:4])) == len(set(asked[4:8])) == len(set(asked[8:])) == 1 < len(set(asked))
    # row 6, on its own
    questions = (asked[6], *QUESTIONS[1:])
    features = mllm.project(torch.from_numpy(array[6:7, -1].copy()).float())
    (raws,) = mllm.generate(features, [faces[6].words], questions)
    assert sorted(a.raw for a in found[6].answers) == sorted(raws)


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_the_same(mllm, array, faces, whole, tmp_path, monkeypatch):
    calls, real = [], Mllm.generate

    def dying(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return real(self, *args)

    monkeypatch.setattr(Mllm, "generate", dying)
    out = tmp_path / "mined.jsonl"
    with pytest.raises(KilledError):
        mine(mllm, array, faces, out, set(), ANCHORS, 5, batch=4)
    assert len(out.read_text().splitlines()) == 8
    found = mine(mllm, array, faces, out, set(), ANCHORS, 5, batch=4)
    assert len(calls) == 4  # one batch was left
    assert found == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


@pytest.mark.parametrize("left", [2, 5])
def test_a_torn_line_or_a_half_batch_is_made_again(mllm, array, faces, whole, tmp_path, left):
    lines = whole[0].read_bytes().splitlines(keepends=True)
    out = tmp_path / "mined.jsonl"
    out.write_bytes(b"".join(lines[:left]) + lines[left][:50])
    assert mine(mllm, array, faces, out, set(), ANCHORS, 5, batch=4) == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


def test_a_finished_run_doubles_nothing(mllm, array, faces, whole, tmp_path):
    out = tmp_path / "mined.jsonl"
    out.write_bytes(whole[0].read_bytes())
    assert mine(mllm, array, faces, out, set(), ANCHORS, 5, batch=4) == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


def test_a_photo_the_mllm_was_tuned_on_is_refused(mllm, array, faces, tmp_path):
    out = tmp_path / "mined.jsonl"
    with pytest.raises(InputError, match=f"1 images .* {faces[3].sha256}"):
        mine(mllm, array, faces, out, {faces[3].sha256, "other"}, ANCHORS, 5)
    assert not out.exists()
