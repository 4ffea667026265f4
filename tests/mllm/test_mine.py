import numpy as np
import pytest
import torch

from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import QUESTIONS, Mllm
from ffaa.mllm.mine import FromFeatures, FromImages, Mined, Seen, draw_anchor, mine, plan, targets
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.tower import pixel_tensor
from ffaa.types import Answer, ForgeryType, Label, Role
from ffaa.vqa.conversation import read_jsonl

ANCHORS = ["Is it real or fake?", "Real or fake? Why?", "Has this face been forged?"]
SEED = 5
NOTHING = Seen(frozenset(), frozenset())


def row(i, group=""):
    kind = (ForgeryType.REAL, ForgeryType.IDENTITY_EXCHANGE)[i % 2]
    return Row(
        path=f"{i}.jpg", sha256=f"{i:064x}", label=(Label.REAL, Label.FAKE)[i % 2], forgery_type=kind,
        dataset="a" if i < 6 else "b", group=group,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mllm(make_llava, tiny_tokenizer):
    return Mllm(make_llava(), tiny_tokenizer, TEMPLATES["nano-2"], AnswerConstraint(tiny_tokenizer, 6))


@pytest.fixture(scope="module")
def array(tiny_tower, tiny_crops):
    with torch.no_grad():
        hidden = torch.stack(tiny_tower(pixel_tensor(tiny_crops)).hidden_states, 1).half().numpy()
    return np.concatenate([hidden, hidden[:, :, ::-1]])[:11]


@pytest.fixture(scope="module")
def faces():
    return targets([row(i) for i in range(11)])


@pytest.fixture(scope="module")
def make_route(mllm, array, measured_words):
    return lambda batch=3: FromFeatures(mllm, array, measured_words, batch)


@pytest.fixture(scope="module")
def whole(make_route, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("mine") / "mined.jsonl"
    return out, mine(make_route(), faces, out, NOTHING, ANCHORS, SEED)


def test_three_answers_for_every_face(whole, mllm, array, faces, measured_words):
    out, found = whole
    assert [m.row for m in found] == list(range(11))
    assert list(read_jsonl(out, Mined)) == found
    for m, face in zip(found, faces, strict=True):
        assert face.model_dump() == m.model_dump(exclude={"answers"})
        assert [a.role for a in m.answers] == [Role.ANCHOR, Role.POSITIVE, Role.NEGATIVE]
        assert m.results == [a.result if isinstance(a, Answer) else None for a in m.answers]
        assert {a.prompt for a in m.answers[1:]} == set(QUESTIONS[1:])
    # row 6, on its own
    questions = (found[6].answers[0].prompt, *QUESTIONS[1:])
    features = mllm.project(torch.from_numpy(array[6:7, -1].copy()).float())
    (raws,) = mllm.generate(features, [measured_words(6)], questions)
    assert sorted(a.raw for a in found[6].answers) == sorted(raws)


def test_the_batch_size_changes_nothing(whole, make_route, faces, tmp_path):
    out = tmp_path / "mined.jsonl"
    assert mine(make_route(1), faces, out, NOTHING, ANCHORS, SEED) == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


def test_prompts_are_drawn_per_face_and_asked_together(faces):
    drawn = [draw_anchor(ANCHORS, SEED, i) for i in range(11)]
    assert set(drawn) == set(ANCHORS)
    assert drawn != [draw_anchor(ANCHORS, SEED + 1, i) for i in range(11)]
    counts = [sum(draw_anchor(ANCHORS, SEED, i) == a for i in range(3000)) for a in ANCHORS]
    assert min(counts) > 900
    batches = plan(faces, ANCHORS, SEED, 3)
    assert sorted(r for b in batches for r in b.rows) == list(range(11))
    assert all(b.anchor == drawn[r] for b in batches for r in b.rows)
    assert max(len(b.rows) for b in batches) == 3
    assert all(b.questions == (b.anchor, *QUESTIONS[1:]) for b in batches)


def test_variants_are_further_rows_with_their_own_label():
    rows = [row(0), row(1)]
    found = targets(rows, 2, [Label.REAL, Label.FAKE, Label.FAKE, Label.FAKE])
    assert [(t.row, t.variant, t.image) for t in found] == [
        (0, 0, "0.jpg"), (1, 0, "1.jpg"), (2, 1, "0.jpg"), (3, 1, "1.jpg"),
    ]  # fmt: skip
    assert found[2].label is Label.FAKE
    assert [t.label for t in targets(rows)] == [Label.REAL, Label.FAKE]


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_the_same(make_route, faces, whole, tmp_path, monkeypatch):
    calls, real = [], Mllm.generate
    sizes = [len(b.rows) for b in plan(faces, ANCHORS, SEED, 3)]

    def dying(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return real(self, *args)

    monkeypatch.setattr(Mllm, "generate", dying)
    out = tmp_path / "mined.jsonl"
    with pytest.raises(KilledError):
        mine(make_route(), faces, out, NOTHING, ANCHORS, SEED)
    assert len(out.read_text().splitlines()) == sum(sizes[:2])
    found = mine(make_route(), faces, out, NOTHING, ANCHORS, SEED)
    assert len(calls) == 3 + len(sizes) - 2  # the batches that were left
    assert found == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


@pytest.mark.parametrize("left", [0, 2, 5, 10])
def test_a_torn_line_or_a_half_batch_is_made_again(make_route, faces, whole, tmp_path, left):
    lines = whole[0].read_bytes().splitlines(keepends=True)
    out = tmp_path / "mined.jsonl"
    out.write_bytes(b"".join(lines[:left]) + lines[left][:50])
    assert mine(make_route(), faces, out, NOTHING, ANCHORS, SEED) == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


@pytest.mark.parametrize("order", [lambda lines: lines, lambda lines: lines[::-1], lambda lines: lines + lines[:4]])
def test_a_finished_run_asks_nothing_and_doubles_nothing(make_route, faces, whole, tmp_path, monkeypatch, order):
    monkeypatch.setattr(Mllm, "generate", None)
    out = tmp_path / "mined.jsonl"
    out.write_bytes(b"".join(order(whole[0].read_bytes().splitlines(keepends=True))))
    assert mine(make_route(), faces, out, NOTHING, ANCHORS, SEED) == whole[1]
    assert out.read_bytes() == whole[0].read_bytes()


def test_answers_of_another_run_are_not_mixed_in(make_route, faces, whole, tmp_path):
    out = tmp_path / "mined.jsonl"
    out.write_bytes(whole[0].read_bytes())
    with pytest.raises(InputError, match="other faces or with other prompts"):
        mine(make_route(), faces, out, NOTHING, ANCHORS, SEED + 1)
    with pytest.raises(InputError, match="other faces or with other prompts"):
        mine(make_route(), faces[1:], out, NOTHING, ANCHORS, SEED)
    assert out.read_bytes() == whole[0].read_bytes()


def test_an_image_the_mllm_was_tuned_on_is_refused(make_route, faces, tmp_path):
    out = tmp_path / "mined.jsonl"
    with pytest.raises(InputError, match="1 images to mine were used to tune the MLLM, e.g. 3.jpg"):
        mine(make_route(), faces, out, Seen.of([row(3), row(99)]), ANCHORS, SEED)
    assert not out.exists()


def test_another_frame_of_a_video_the_mllm_was_tuned_on_is_refused(make_route, tmp_path):
    faces = targets([row(0), row(1, "clip 7"), row(2, "clip 8")])
    out = tmp_path / "mined.jsonl"
    with pytest.raises(InputError, match="1 groups to mine hold images that tuned the MLLM, e.g. clip 7"):
        mine(make_route(), faces, out, Seen.of([row(50, "clip 7"), row(51)]), ANCHORS, SEED)
    assert not out.exists()
    # faces without a group share none
    Seen.of([row(50), row(51)]).refuse(faces)


class SilentRoute:
    """A route from which some batches get no reply."""

    batch = 3

    def __init__(self, real, silent):
        self.real, self.silent = real, silent

    def answer(self, batches):
        asked = list(batches)
        for one, found in zip(asked, self.real.answer(asked), strict=True):
            yield None if self.silent & set(one.rows) else found


def test_faces_without_reply_are_asked_again(make_route, faces, whole, tmp_path):
    out = tmp_path / "mined.jsonl"
    with pytest.raises(InputError, match="of 11 faces got no reply; run again"):
        mine(SilentRoute(make_route(), {0, 7}), faces, out, NOTHING, ANCHORS, SEED)
    left = [m.row for m in read_jsonl(out, Mined)]
    assert 0 not in left
    assert 7 not in left
    assert left
    assert mine(make_route(), faces, out, NOTHING, ANCHORS, SEED) == whole[1]


def test_a_llava_mines_from_images(tmp_path, tiny_crops, faces):
    from transformers import AutoTokenizer

    from ffaa.mllm.llava_import import import_llava, prepare_pixels
    from ffaa.mllm.llava_tiny import SIDE, write_tiny

    folder = write_tiny(tmp_path / "base", "llava_mistral")
    model = import_llava(folder, image_aspect_ratio="pad")
    with torch.no_grad():  # answers that depend on image and question
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    mllm = Mllm(model, AutoTokenizer.from_pretrained(folder), TEMPLATES["v1"], max_new_tokens=8)
    route = FromImages(mllm, tiny_crops.__getitem__, SIDE, 2)
    found = mine(route, faces[:6], tmp_path / "mined.jsonl", NOTHING, ANCHORS, SEED)
    questions = (found[4].answers[0].prompt, *QUESTIONS[1:])
    features = mllm.image_features(prepare_pixels(tiny_crops[4], SIDE))
    (raws,) = mllm.generate(features, [{}], questions)
    assert [a.raw for a in found[4].answers] == raws  # random weights: unread, so the order is that of the questions
    assert len({a.raw for m in found for a in m.answers}) > 6
