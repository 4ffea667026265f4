"""Conversations in every format, refused as a whole when one of them cannot be learnt from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.mllm.tuning import make_set, rows_of, write_rows

from ffaa.data import manifest
from ffaa.data.manifest import held_for_mids
from ffaa.errors import InputError, UsageError
from ffaa.mllm.answer import format_answer
from ffaa.mllm.llava_import import prepare_pixels
from ffaa.mllm.llava_tiny import write_tiny
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.told import ImageConversations, read_told, split
from ffaa.vqa.export import VARIANTS, answer, export

ALL_OF = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("told") / "set")


@pytest.fixture
def rows(folder):
    return rows_of(folder)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["llava", "chat"])
def test_an_export_is_read_as_it_was_written(rows, tmp_path, kind, variant):
    path = tmp_path / "rows.json"
    export(rows, path, kind, variant, format_answer)
    told = read_told(path, variant, 0)
    assert [(t.image, t.question, t.answer) for t in told] == [
        (row.image, row.question, answer(row, variant, format_answer)) for row in rows
    ]


def test_rows_get_a_third_of_hypotheses(rows, tmp_path):
    many = [row.model_copy(update={"seed": i}) for i in range(30) for row in rows]
    told = read_told(write_rows(tmp_path / "rows.jsonl", many), "All", 0)
    assert [t.sha256 for t in told] == [row.sha256 for row in many]
    for t, row in zip(told, many, strict=True):
        assert t.answer == answer(row, "All", format_answer)
        assert t.question in (row.question, f"This is a {row.label.value} human face. What evidence do you have?")
    asked = sum(t.question != row.question for t, row in zip(told, many, strict=True))
    assert 0.28 < asked / len(many) < 0.39
    assert read_told(tmp_path / "rows.jsonl", "All", 0) == told


def refused(path, variant="All"):
    with pytest.raises(InputError) as caught:
        read_told(path, variant, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unparsed_rows_are_counted_and_the_first_is_told(rows, tmp_path):
    rows[3] = rows[3].model_copy(update={"result": None})
    rows[7] = rows[7].model_copy(update={"result": rows[7].label.opposite})
    path = write_rows(tmp_path / "rows.jsonl", rows)
    assert f"{path}: 2 of 20 rows cannot be learnt from, the first is row 4: crops/3.png: not parsed" in refused(path)


def test_a_line_that_is_no_row(rows, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text() + '{"image": "x"}\n')
    assert "1 of 21 rows cannot be learnt from, the first is row 21: not a row of `ffaa vqa`" in refused(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["conversations"].pop(), "not the published LLaVA layout"),
        (lambda r: r["conversations"][0].update(value="no image here"), "not the published LLaVA layout"),
        (lambda r: r["conversations"].reverse(), "not one question of 'human'"),
        (lambda r: r["conversations"][1].update(value="It is fake."), "none of the five keys"),
        (lambda r: r["conversations"][1].update(value=r["conversations"][1]["value"] + "<image>"), "<image> in a text"),
        (lambda r: r["conversations"][1].update(value=r["conversations"][1]["value"].replace("0.90", "high")),
         "no probability"),
    ],
)  # fmt: skip
def test_an_export_with_a_bad_row(rows, tmp_path, change, why):
    path = tmp_path / "rows.json"
    export(rows, path, "llava", "All", format_answer)
    told = json.loads(path.read_text())
    change(told[2])
    path.write_text(json.dumps(told))
    message = refused(path)
    assert "1 of 20" in message
    assert "row 3: " in message
    assert why in message


def test_an_export_of_another_variant(rows, tmp_path):
    path = tmp_path / "rows.json"
    export(rows, path, "llava", "R", format_answer)
    assert "no text after 'Image description:'" in refused(path)
    export(rows, path, "llava", "All", format_answer)
    assert "has a description, which the variant R leaves out" in refused(path, "R")


@pytest.mark.parametrize("text", ["", "[]\n", "\n"])
def test_nothing_to_read(tmp_path, text):
    (tmp_path / "rows").write_text(text)
    assert "holds no rows" in refused(tmp_path / "rows")
    assert "no such file" in refused(tmp_path / "none")


def test_damaged_files(tmp_path):
    (tmp_path / "rows").write_text('[{"image": 1')
    assert "no JSON" in refused(tmp_path / "rows")
    (tmp_path / "rows").write_text('{"messages": 1}\n{"messages"')
    assert "2 of 2 rows" in refused(tmp_path / "rows")


# --- split -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(rows, tmp_path):
    return read_told(write_rows(tmp_path / "rows.jsonl", rows), "All", 0)


def test_the_manifest_says_what_is_trained_on(folder, told):
    found = split(told, folder, 0, ALL_OF, 0)
    assert [a.row.split for a in found.train] == ["train"] * 16
    assert [a.row.split for a in found.val] == ["val"] * 4
    assert [a.told for a in found.train + found.val] == told
    assert all(a.told.image == a.row.path for a in found.train)


def test_images_kept_for_mids_and_other_splits_are_left_out(folder, told, tmp_path):
    rows = manifest.read(folder)
    rows[0] = rows[0].model_copy(update={"split": "test"})
    manifest.write(tmp_path / manifest.NAME, rows)
    found = split(told, tmp_path, 0.5, ALL_OF, 0)
    kept = sum(held_for_mids(row, 0.5) for row in rows[1:16])
    assert 0 < kept < 15
    assert found.left_out == {"of the split 'test'": 1, "kept for MIDS": kept}
    assert not [a for a in found.train if held_for_mids(a.row, 0.5)]
    assert len(found.train) == 15 - kept


def test_a_draw_of_the_validation_rows_is_seeded(folder, told):
    some = split(told, folder, 0, 2, 0).val
    assert len(some) == 2
    assert some == split(told, folder, 0, 2, 0).val
    assert any(split(told, folder, 0, 2, seed).val != some for seed in range(1, 8))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": "crops/none.png"}, "1 of 20 rows are about images it does not hold, the first is crops/none.png"),
        ({"sha256": "0" * 64}, "1 images changed since the rows were written, the first is crops/5.png"),
        ({"image": "crops/4.png", "sha256": ""}, "1 answers are not true of their image, the first of crops/4.png"),
    ],
)
def test_rows_that_do_not_belong_to_the_set(folder, told, change, why):
    told[5] = told[5]._replace(**change)
    with pytest.raises(InputError, match=why):
        split(told, folder, 0, ALL_OF, 0)


def test_both_splits_are_needed(folder, told):
    with pytest.raises(InputError, match=r"to evaluate on \(split 'val'\)"):
        split(told[:16], folder, 0, ALL_OF, 0)
    with pytest.raises(InputError, match=r"to train on \(split 'train'\)"):
        split(told[16:], folder, 0, ALL_OF, 0)


def test_photos_are_no_crops(folder, told, tmp_path):
    manifest.write(tmp_path / manifest.NAME, [r.model_copy(update={"size": 0}) for r in manifest.read(folder)])
    with pytest.raises(InputError, match="build it with a crop size"):
        split(told, tmp_path, 0, ALL_OF, 0)


# --- what a model sees -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(write_tiny(tmp_path_factory.mktemp("base"), "llava_llama"))


def test_examples(folder, told, tokenizer):
    asked = split(told, folder, 0, ALL_OF, 0).train
    data = ImageConversations(asked, folder, tokenizer, TEMPLATES["v1"], (-200, 16, 56), 4096)
    assert len(data) == 16
    for i in (0, 5):
        example, (one, _) = data[i], asked[i]
        learnt = [label for label in example["labels"] if label != -100]
        assert tokenizer.decode(learnt) == f" {one.answer}</s>"
        before, after = TEMPLATES["v1"].split(one.question)
        prompt = example["input_ids"][: -len(learnt)]
        at = prompt.index(-200)
        assert prompt[at : at + 16] == [-200] * 16
        assert tokenizer.decode(prompt[:at]) == "<s>" + before
        assert tokenizer.decode(prompt[at + 16 :]) == after
        assert data.lengths[i] == len(example["input_ids"]) == len(example["labels"])
    pixels = np.array(data[1]["pixel_values"])
    assert pixels.shape == (3, 56, 56)
    assert data[0]["pixel_values"].mean() > data[1]["pixel_values"].mean() + 1  # real crops are light


def test_a_wide_image_is_padded(folder, told, tokenizer, monkeypatch):
    wide = np.full((10, 30, 3), 255, np.uint8)
    monkeypatch.setattr("ffaa.mllm.told.read_photo", lambda *_: wide)
    asked = split(told, folder, 0, ALL_OF, 0).train[:1]
    data = ImageConversations(asked, folder, tokenizer, TEMPLATES["v1"], (-200, 16, 56), 4096)
    assert np.array_equal(data[0]["pixel_values"], prepare_pixels(wide, 56)[0])
    assert data[0]["pixel_values"][0, 0].max() < 0.1  # CLIP's mean colour above and below
    assert data[0]["pixel_values"][0, 28].min() > 1.5


def test_long_conversations_are_refused(folder, told, tokenizer):
    asked = split(told, folder, 0, ALL_OF, 0).train
    longest = max(ImageConversations(asked, folder, tokenizer, TEMPLATES["v1"], (-200, 16, 56), 4096).lengths)
    ImageConversations(asked, folder, tokenizer, TEMPLATES["v1"], (-200, 16, 56), longest)
    with pytest.raises(UsageError, match=f"are longer than {longest - 1} tokens, the first is crops/"):
        ImageConversations(asked, folder, tokenizer, TEMPLATES["v1"], (-200, 16, 56), longest - 1)
