"""Generation end to end on a tiny built set: order, resuming, and what the grounded teacher's rows rest on."""

import pytest

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.errors import InputError
from ffaa.mllm.answer import format_answer, parse_strict
from ffaa.types import Support
from ffaa.vqa import produce
from ffaa.vqa.conversation import read_jsonl
from ffaa.vqa.judge import judge
from ffaa.vqa.row import VqaRow
from ffaa.vqa.teachers.grounded_teacher import STATED, GroundedTeacher, record_of
from ffaa.vqa.writer import BALANCE


def teacher():
    return GroundedTeacher(format_answer, 0)


def test_one_row_per_face_in_the_manifests_order(rows, crops):
    faces = manifest.read(crops)
    assert [(r.image, r.label, r.method, r.group, r.mask) for r in rows] == [
        (f.path, f.label, f.method, f.group, f.mask) for f in faces
    ]
    assert len({r.question for r in rows}) > 3


def test_rows_state_the_truth_in_five_lines(rows):
    for row in rows:
        assert (row.result, row.stated_type) == (row.label, row.forgery_type)
        assert 0.52 <= row.probability <= 0.99
        lines = row.raw.splitlines()
        assert len(lines) == 5
        assert parse_strict(row.raw) is not None
        assert lines[0].endswith(row.description)
        assert lines[1].endswith(row.reasoning)


def test_every_sentence_names_what_it_rests_on_and_it_holds(rows, crops):
    """Measured again from the file: no sentence may be contradicted, and those on items are supported."""
    faces = {f.path: f for f in manifest.read(crops)}
    supported = 0
    for row in rows:
        record = record_of(faces[row.image], read_photo(crops, faces[row.image]))
        for sentence in row.sentences:
            assert sentence.evidence
            found = judge(sentence.text, record)
            assert found is not Support.CONTRADICTED, sentence.text
            supported += found is Support.SUPPORTED
    assert supported > 4 * len(rows)


def test_every_balance_has_its_probabilities():
    assert set(STATED) == set(BALANCE)
    assert all(0.5 < low < high < 1 for low, high in STATED.values())


def test_the_description_does_not_know_the_label(rows, crops):
    """The same face under the other label is described in the same words."""
    from dataclasses import replace

    from ffaa.types import ForgeryType
    from ffaa.vqa.teachers.grounded_teacher import _teach

    asked = next(produce.asks(crops, manifest.read(crops), 0))
    other = asked.row.model_copy(
        update={"label": asked.row.label.opposite, "forgery_type": ForgeryType.IDENTITY_EXCHANGE}
    )
    one, two = (_teach(ask, format_answer) for ask in (asked, replace(asked, row=other)))
    assert one.description == two.description
    assert one.reasoning != two.reasoning


def test_workers_give_the_same_rows(rows, crops, tmp_path):
    produce.generate(crops, tmp_path / "r.jsonl", GroundedTeacher(format_answer, 2))
    assert list(read_jsonl(tmp_path / "r.jsonl", VqaRow)) == rows


def test_a_killed_run_goes_on_behind_its_rows(rows, crops, tmp_path):
    class KilledError(Exception):
        pass

    class Dying(GroundedTeacher):
        asked = 0

        def teach(self, asks):
            for row in super().teach(asks):
                if Dying.asked == 4:
                    raise KilledError
                Dying.asked += 1
                yield row

    out = tmp_path / "r.jsonl"
    with pytest.raises(KilledError):
        produce.generate(crops, out, Dying(format_answer, 0))
    with out.open("a") as file:
        file.write('{"image": "torn')
    seen = []

    class Counting(GroundedTeacher):
        def teach(self, asks):
            for row in super().teach(asks):
                seen.append(row.image)
                yield row

    assert produce.generate(crops, out, Counting(format_answer, 0)) == 9
    assert list(read_jsonl(out, VqaRow)) == rows
    assert seen == [r.image for r in rows[4:]]


def test_a_count_is_a_seeded_draw(crops):
    drawn = [[r.path for r in produce.chosen(crops, "train", 4, seed)] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({tuple(d) for d in drawn}) > 1
    assert all(len(d) == 4 for d in drawn)


def test_rows_of_another_run_are_refused(rows, crops, tmp_path):
    out = tmp_path / "r.jsonl"
    produce.generate(crops, out, teacher(), count=3, seed=1)
    with pytest.raises(InputError, match="another run"):
        produce.generate(crops, out, teacher(), seed=2)


def test_an_empty_split_and_a_manifest_without_crops(crops, tiny_rows, tmp_path):
    with pytest.raises(InputError, match="no faces in the split 'val'"):
        produce.generate(crops, tmp_path / "r.jsonl", teacher(), "val")
    manifest.write(tmp_path / "manifest.parquet", tiny_rows)
    with pytest.raises(InputError, match="build it with a crop size"):
        produce.generate(tmp_path, tmp_path / "r.jsonl", teacher())
