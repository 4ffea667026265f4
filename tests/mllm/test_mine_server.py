"""Mining through a local server that speaks the OpenAI protocol. The seed in a request is 3 * face + question."""

import base64
import threading

import cv2
import jinja2
import numpy as np
import pytest
from tests.vqa.openai_server import completion, error, serve

from ffaa.data.manifest import Row
from ffaa.errors import InputError, UsageError
from ffaa.mllm.answer import format_answer
from ffaa.mllm.generate import QUESTIONS
from ffaa.mllm.mine import Mined, Seen, draw_anchor, mine, targets
from ffaa.mllm.mine_server import FromServer, ServerArgs, jinja_template
from ffaa.mllm.template import TEMPLATES
from ffaa.types import Answer, ForgeryType, Label, Role, UnparsedAnswer
from ffaa.vqa.conversation import read_jsonl

REAL, FAKE = Label.REAL, Label.FAKE
ANCHORS = ["Is it real or fake?", "Has this face been forged?"]
NOTHING = Seen(frozenset(), frozenset())
V1 = TEMPLATES["v1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def text(label, number=0):
    kind = ForgeryType.REAL if label is REAL else ForgeryType.IDENTITY_EXCHANGE
    return format_answer(f"Face {number}.", f"It seems {label}.", label, 0.8, kind)


def answers(seed, attempt):
    """Odd faces: the anchor says fake. A hypothesis is agreed with."""
    face, place = divmod(seed, 3)
    return 200, completion(text([(REAL, FAKE)[face % 2], REAL, FAKE][place], seed)), {}


def image(row):
    return np.full((8, 8, 3), 20 * row + 5, np.uint8)


def make_faces(count):
    return targets(
        [Row(path=f"{i}.png", sha256=f"{i:064x}", label=FAKE, forgery_type=ForgeryType.IDENTITY_EXCHANGE)
         for i in range(count)]
    )  # fmt: skip


def route(url, folder, waits=None, **changes):
    args = ServerArgs(base_url=url, model="ffaa", **({"concurrency": 4} | changes))
    sleep = None if waits is None else waits.append
    return FromServer(args, V1, image, folder / "replies.sqlite", sleep)


def test_three_requests_a_face_the_anchor_first(tmp_path):
    together, first = threading.Barrier(4), iter(range(4))

    def script(seed, attempt):
        if seed % 3 == 0 and next(first, None) is not None:
            together.wait(10)  # broken, and the test with it, unless four faces are under way
        return answers(seed, attempt)

    with serve(script) as server:
        found = mine(route(server.url, tmp_path), make_faces(9), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
    assert [m.row for m in found] == list(range(9))
    assert list(read_jsonl(tmp_path / "m.jsonl", Mined)) == found
    for m in found:
        said = (REAL, FAKE)[m.row % 2]
        assert m.results == [said, said, said.opposite]
        assert [a.role for a in m.answers] == list(Role)
        assert [a.prompt for a in m.answers] == [
            draw_anchor(ANCHORS, 0, m.row), *(QUESTIONS[1:] if said is REAL else QUESTIONS[:0:-1]),
        ]  # fmt: skip
    asked = [r["seed"] for r in server.requests]
    assert sorted(asked) == list(range(27))
    for row in range(9):
        assert [s for s in asked if s // 3 == row] == [3 * row, 3 * row + 1, 3 * row + 2]
    assert server.most == 4


def test_what_the_server_is_asked(tmp_path):
    with serve(answers) as server:
        mine(route(server.url, tmp_path, max_tokens=77), make_faces(2), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
    body = next(r for r in server.requests if r["seed"] == 4)
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("ffaa", 0, 77)
    system, user = body["messages"]
    assert system == {"role": "system", "content": V1.system}
    picture, question = user["content"]
    assert question == {"type": "text", "text": QUESTIONS[1]}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(pixels[..., ::-1], image(1))


@pytest.mark.parametrize("as_parts", [True, False])
def test_the_chat_template_gives_the_prompt_the_model_was_tuned_on(as_parts):
    question = 'Real or fake? Say "why".'
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": question}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": V1.system}] if as_parts else V1.system},
        {"role": "user", "content": parts if as_parts else f"<image>\n{question}"},
    ]
    rendered = jinja2.Environment().from_string(jinja_template(V1)).render(messages=messages, bos_token="<s>")
    assert rendered == "<s>" + V1.prompt(question)


def test_rate_limits_and_errors_are_waited_for(tmp_path):
    def script(seed, attempt):
        if seed == 3 and attempt == 0:
            return 429, error("slow down"), {"Retry-After": "7"}
        if seed == 7 and attempt < 2:
            return 500, error("oops"), {}
        return answers(seed, attempt)

    waits = []
    with serve(script) as server:
        found = mine(route(server.url, tmp_path, waits), make_faces(3), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
    assert all(isinstance(a, Answer) for m in found for a in m.answers)
    assert [r["seed"] for r in server.requests].count(3) == 2
    assert [r["seed"] for r in server.requests].count(7) == 3
    assert any(7 <= w <= 8 for w in waits)


def test_refused_cut_and_odd_replies_are_unread_answers(tmp_path):
    def script(seed, attempt):
        return {
            1: (200, completion("I'm sorry, but I can't help with identifying people."), {}),
            3: (200, completion(text(FAKE), finish="length"), {}),
            8: (400, error("filtered", "content_filter"), {}),
            10: (200, completion("Perhaps."), {}),
            14: (400, error("the image is too large"), {}),
        }.get(seed) or answers(seed, attempt)

    with serve(script) as server:
        options = route(server.url, tmp_path, concurrency=1)
        found = mine(options, make_faces(5), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
    unread = {(m.row, a.role): a for m in found for a in m.answers if isinstance(a, UnparsedAnswer)}
    assert {key: a.reason.split(":")[0] for key, a in unread.items()} == {
        (0, Role.POSITIVE): "refused", (1, Role.ANCHOR): "cut after 512 tokens", (2, Role.NEGATIVE): "refused",
        (3, Role.NEGATIVE): "none of the five keys was found", (4, Role.NEGATIVE): "refused",
    }  # fmt: skip
    assert unread[0, Role.POSITIVE].raw.startswith("I'm sorry")
    assert "too large" in unread[4, Role.NEGATIVE].raw
    # the cut anchor said fake: it must not decide which hypothesis is the positive one
    assert found[1].results == [None, REAL, FAKE]
    assert server.requests


def test_a_face_without_reply_is_asked_again_and_no_reply_twice(tmp_path):
    out, down = tmp_path / "m.jsonl", True

    def script(seed, attempt):
        return (503, error("busy"), {}) if seed == 5 and down else answers(seed, attempt)

    with serve(script) as server:
        with pytest.raises(InputError, match="1 of 4 faces got no reply"):
            mine(route(server.url, tmp_path, [], retries=2), make_faces(4), out, NOTHING, ANCHORS, 0)
        assert [m.row for m in read_jsonl(out, Mined)] == [0, 2, 3]
        assert [r["seed"] for r in server.requests].count(5) == 3
        down = False
        found = mine(route(server.url, tmp_path), make_faces(4), out, NOTHING, ANCHORS, 0)
    assert [m.row for m in found] == [0, 1, 2, 3]
    assert sorted(server.answered) == list(range(12))  # face 1's first two replies came from the cache


def test_a_server_that_takes_nothing_ends_the_run_and_leaves_no_records(tmp_path):
    """A wrong chat template is the server's fault, not the faces'."""
    with serve(lambda seed, attempt: (400, error("the chat template has no system role"), {})) as server:
        with pytest.raises(InputError, match="no reply for 3 faces in a row; .* no system role"):
            mine(route(server.url, tmp_path, give_up=3), make_faces(9), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
        assert (tmp_path / "m.jsonl").read_text() == ""
    with serve(lambda seed, attempt: (401, error("who are you"), {})) as server:  # noqa: SIM117
        with pytest.raises(UsageError, match="check OPENAI_API_KEY"):
            mine(route(server.url, tmp_path), make_faces(9), tmp_path / "n.jsonl", NOTHING, ANCHORS, 0)


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be reached"):
        mine(route("http://127.0.0.1:9/v1", tmp_path, []), make_faces(2), tmp_path / "m.jsonl", NOTHING, ANCHORS, 0)
    with pytest.raises(UsageError, match="base_url or OPENAI_BASE_URL"):
        route("", tmp_path)
    with pytest.raises(UsageError, match="reads measured words"):
        FromServer(ServerArgs(base_url="http://x/v1", model="m"), TEMPLATES["nano-2"], image, tmp_path / "r.sqlite")
