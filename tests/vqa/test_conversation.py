import pytest
from pydantic import ValidationError

from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import Conversation, read_jsonl, resume_jsonl, write_jsonl


def conversation(i=0, **changes):
    values = {
        "image": f"{i}.jpg", "sha256": "0" * 64, "variant": 0, "label": Label.FAKE,
        "forgery_type": ForgeryType.IDENTITY_EXCHANGE, "question": "Real?\u2028“é”", "hypothesis": None,
        "description": "A face.", "reasoning": "A seam.", "probability": 0.8, "evidence": {"skin": "rough"},
        "links": ["crop"], "teacher": "t", "seed": 1,
    }  # fmt: skip
    return Conversation(**values | changes)


def test_round_trip(tmp_path):
    told = [conversation(i, hypothesis=(None, Label.REAL)[i % 2]) for i in range(5)]
    assert write_jsonl(tmp_path / "c.jsonl", iter(told)) == 5
    assert list(read_jsonl(tmp_path / "c.jsonl", Conversation)) == told
    assert len((tmp_path / "c.jsonl").read_bytes().splitlines()) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "c.jsonl"
    write_jsonl(path, [conversation()])

    def broken():
        yield conversation(1)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_jsonl(path, broken())
    assert list(read_jsonl(path, Conversation)) == [conversation()]


@pytest.mark.parametrize("line", ["{", "[]", "{}", conversation().model_dump_json()[:-1] + ', "more": 1}'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text(conversation().model_dump_json() + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"c\.jsonl:2: not a Conversation"):
        list(read_jsonl(path, Conversation))


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_jsonl(tmp_path / "c.jsonl", Conversation))


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_probability_is_checked(probability):
    with pytest.raises(ValidationError):
        conversation(probability=probability)


@pytest.mark.parametrize(
    ("lines", "tail", "multiple", "kept"),
    [(5, b"", 1, 5), (5, b'{"image": "x', 1, 5), (5, b"", 2, 4), (5, b'{"', 3, 3), (1, b"{", 4, 0), (0, b"{", 1, 0)],
)
def test_resume_cuts_behind_the_last_whole_batch(tmp_path, lines, tail, multiple, kept):
    path = tmp_path / "c.jsonl"
    told = [conversation(i) for i in range(5)]
    write_jsonl(path, told[:lines])
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert resume_jsonl(path, Conversation, multiple) == told[:kept]
    assert path.read_bytes() == b"".join(line + b"\n" for line in whole.split(b"\n")[:kept])


def test_resume_of_nothing(tmp_path):
    assert resume_jsonl(tmp_path / "c.jsonl", Conversation) == []
    assert list(tmp_path.iterdir()) == []
