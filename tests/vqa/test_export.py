import json

import pytest
from tests.vqa.rows import row, told

from ffaa.errors import UsageError
from ffaa.mllm.answer import format_answer, parse_strict
from ffaa.mllm.template import hypothesis_prompt
from ffaa.types import ForgeryType, Label
from ffaa.vqa.export import VARIANTS, answer, export, with_hypotheses

ASKED = {label: [hypothesis_prompt(label)] for label in Label}
ROWS = [row(i, label=Label(["fake", "real"][i % 2])) for i in range(600)]


def test_all_is_the_formatters_answer():
    of = row()
    text = answer(of, "All", format_answer)
    assert text == format_answer(of.description, of.reasoning, Label.FAKE, 0.9, ForgeryType.IDENTITY_EXCHANGE)
    assert parse_strict(text)["reasoning"] == of.reasoning


@pytest.mark.parametrize(("variant", "dropped"), [("R", {0, 1}), ("DR", {1}), ("FR", {0}), ("All", set())])
def test_variants_are_lines_of_the_same_answer(variant, dropped):
    lines = answer(row(), "All", format_answer).split("\n")
    assert answer(row(), variant, format_answer).split("\n") == [x for i, x in enumerate(lines) if i not in dropped]


def test_a_text_that_is_not_needed_may_be_missing():
    of = row(sentences=told(()))
    assert answer(of, "FR", format_answer).startswith("Forgery reasoning: ")
    with pytest.raises(UsageError, match="no description"):
        answer(of, "All", format_answer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_llava_json(tmp_path, variant):
    done = export(ROWS[:3], tmp_path / "a.json", "llava", variant, format_answer)
    assert (done.written, done.left_out) == (3, {})
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert len({r["id"] for r in read}) == 3
    assert [{k: v for k, v in r.items() if k != "id"} for r in read] == [
        {
            "image": of.image,
            "conversations": [
                {"from": "human", "value": "<image>\nIs it real?"},
                {"from": "gpt", "value": answer(of, variant, format_answer)},
            ],
        }
        for of in ROWS[:3]
    ]


def test_chat_messages(tmp_path):
    export(ROWS[:3], tmp_path / "a.jsonl", "chat", "All", format_answer)
    read = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["images"] for r in read] == [[of.image] for of in ROWS[:3]]
    user, assistant = read[0]["messages"]
    assert (user["role"], [part["type"] for part in user["content"]]) == ("user", ["image", "text"])
    assert user["content"][1]["text"] == "Is it real?"
    assert assistant == {
        "role": "assistant", "content": [{"type": "text", "text": answer(ROWS[0], "All", format_answer)}]
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["llava", "chat"])
def test_the_same_rows_give_the_same_bytes(tmp_path, kind):
    for name in "ab":
        export(iter(ROWS[:20]), tmp_path / name, kind, "All", format_answer)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_rows_that_are_not_fit_are_left_out_and_counted(tmp_path):
    rows = [
        row(0), row(1, result=Label.REAL), row(2, probability=None), row(3, stated_type=None),
        row(4, sentences=told(())), row(5, stated_type=ForgeryType.REAL),
    ]  # fmt: skip
    done = export(rows, tmp_path / "a.json", "llava", "All", format_answer)
    assert done.written == 1
    assert done.left_out == {"states what is not true": 2, "not parsed": 2, "no description": 1}
    assert export(rows, tmp_path / "a.json", "llava", "R", format_answer).written == 2
    assert export(rows[1:2], tmp_path / "a.json", "llava", "R", format_answer).written == 0
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_a_third_is_asked_under_a_true_hypothesis():
    asked = list(with_hypotheses(ROWS, ASKED, 5))
    hypothetical = [r for r in asked if r.hypothesis]
    assert 0.27 < len(hypothetical) / len(asked) < 0.4
    assert all(r.hypothesis is r.label and r.question == hypothesis_prompt(r.label) for r in hypothetical)
    assert [r for r in asked if not r.hypothesis] == [of for of, r in zip(ROWS, asked) if not r.hypothesis]


def test_the_draw_hangs_on_the_row_and_the_seed_alone():
    asked = list(with_hypotheses(ROWS, ASKED, 5))
    assert list(with_hypotheses(reversed(ROWS), ASKED, 5)) == asked[::-1]
    assert list(with_hypotheses(asked, ASKED, 5)) == asked
    assert list(with_hypotheses(ROWS, ASKED, 6)) != asked


def test_every_prompt_is_used():
    prompts = {label: [f"{label} {i}?" for i in range(3)] for label in Label}
    used = {r.question for r in with_hypotheses(ROWS, prompts, 5) if r.hypothesis}
    assert used == {text for texts in prompts.values() for text in texts}
