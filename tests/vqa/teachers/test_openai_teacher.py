import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.vqa.openai_server import ANSWER, completion, error, serve
from tests.vqa.teachers.asks import PARSE, make, teacher

from ffaa.errors import InputError, MissingExtraError, UsageError
from ffaa.types import Label
from ffaa.vqa.prompting import prompt_version, source_prompt, system_prompt
from ffaa.vqa.teachers import TEACHERS
from ffaa.vqa.teachers.chat import OpenAIArgs, Reply, image_tokens, is_refusal
from ffaa.vqa.teachers.limits import CapReachedError

ROOT = Path(__file__).parents[3]
PRICES = {"price_in": 1000.0, "price_out": 5000.0}  # 1000 + 200 tokens: 2.00 a reply


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "replies.sqlite"


def once(*replies):
    """A script: the first attempts of every request get these, then plain answers."""
    return lambda seed, attempt: replies[attempt] if attempt < len(replies) else None


def test_a_reply_becomes_a_row(cache):
    with serve() as server:
        made = teacher(server.url, cache)
        [row] = made.teach(make(1, first=7))
    assert made.name == row.teacher == "openai:tiny-vision"
    assert row.prompt_version == prompt_version()
    assert (row.image, row.sha256, row.question, row.seed) == ("7.png", "0007", "question 7", 7)
    assert (row.raw, row.tokens) == (ANSWER, (1000, 200))
    assert (row.result, row.probability, row.stated_type) == (Label.REAL, 0.9, row.forgery_type)
    assert [s.part for s in row.sentences] == ["description"] * 2 + ["reasoning"] * 2
    assert row.description == "A woman looks at the camera. Her hair is short."
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_the_request_states_the_truth_first_and_shows_reference_mask_and_picture(cache):
    [plain] = make(1, label=Label.FAKE)
    mask, original = np.zeros((32, 32), np.uint8), np.ascontiguousarray(plain.image[::-1])
    mask[4:9] = 255
    with serve() as server:
        list(
            teacher(server.url, cache, temperature=0.3).teach(make(1, label=Label.FAKE, mask=mask, reference=original))
        )
        list(teacher(server.url, cache).teach(make(1, first=1, mask=mask, reference=original)))
    body, real = server.requests
    assert (body["model"], body["temperature"], body["seed"], body["max_completion_tokens"]) == (
        "tiny-vision", 0.3, 0, 800,
    )  # fmt: skip
    assert body["messages"][0] == {"role": "system", "content": system_prompt()}
    parts = body["messages"][1]["content"]
    assert parts[0]["text"] == source_prompt(plain.row)
    assert [p["type"] for p in parts] == ["text", *["text", "image_url"] * 3]
    for part, pixels in zip(parts[2::2], (original, mask, plain.image), strict=True):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if decoded.ndim == 3 else decoded
        np.testing.assert_array_equal(decoded, pixels)
    assert sum(p["type"] == "image_url" for p in real["messages"][1]["content"]) == 1
    assert "question 0" not in json.dumps(body)


def test_photos_can_go_as_jpeg(cache):
    with serve() as server:
        list(teacher(server.url, cache, jpeg_quality=90, send_seed=False, max_tokens_name="max_tokens").teach(make(1)))
    [body] = server.requests
    assert body["messages"][1]["content"][2]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert "seed" not in body
    assert body["max_tokens"] == 800


def test_retry_after_is_honoured(cache):
    waits = []
    with serve(once((429, error("slow down"), {"Retry-After": "7"}))) as server:
        made = teacher(server.url, cache, sleep=waits.append)
        [row] = made.teach(make(1))
    assert row.result is Label.REAL
    assert (made.counts.attempts, made.counts.retried) == (2, 1)
    assert 7 <= waits[0] < 8


@pytest.mark.parametrize("headers", [{"retry-after-ms": "2500"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_other_forms_of_retry_after(cache, headers):
    waits = []
    with serve(once((503, error("busy"), headers))) as server:
        assert len(list(teacher(server.url, cache, sleep=waits.append).teach(make(1)))) == 1
    low = 2.5 if "retry-after-ms" in headers else 0
    assert low <= waits[0] < low + 1


def test_a_wait_that_is_too_long_ends_the_run(cache):
    with (
        serve(once((429, error("daily limit"), {"Retry-After": "7200"}))) as server,
        pytest.raises(UsageError, match="asks to wait 7200 s"),
    ):
        list(teacher(server.url, cache).teach(make(1)))


def test_server_errors_are_tried_again_with_growing_waits(cache):
    waits = []
    with serve(once((500, error("oops"), {}), (502, "<html>", {}), (529, error("overloaded"), {}))) as server:
        made = teacher(server.url, cache, sleep=waits.append)
        [row] = made.teach(make(1))
    assert row.result is Label.REAL
    assert len(waits) == 3
    assert all(low <= wait <= 2 * low for low, wait in zip((0.5, 1, 2), waits, strict=True))


def test_a_timeout_is_tried_again_and_counts_as_billed(cache):
    release = threading.Event()

    def script(seed, attempt):
        return None if attempt else release.wait(20) and None

    with serve(script) as server:
        made = teacher(server.url, cache, timeout=1.0, **PRICES)
        [row] = made.teach(make(1))
        release.set()
    assert row.result is Label.REAL
    assert made.counts.attempts == 2
    assert made.budget.spent > 2.0 + 800 * PRICES["price_out"] / 1e6
    assert made.budget.held == pytest.approx(0)


@pytest.mark.parametrize(
    "reply",
    [
        (200, completion(text=None, refusal="I can't help with that."), {}),
        (200, completion(text="", finish="content_filter"), {}),
        (200, completion(text="I’m sorry, but I can’t assist with analysing people."), {}),
        (400, error("filtered", "content_filter"), {}),
    ],
)
def test_refusals_are_counted_and_kept(cache, reply):
    with serve(lambda seed, attempt: reply if seed == 1 else None) as server:
        made = teacher(server.url, cache)
        rows = list(made.teach(make(3)))
        assert [r.result for r in rows] == [Label.REAL, None, Label.REAL]
        assert (made.counts.refused, made.counts.failed) == (1, 0)
        again = teacher(server.url, cache)
        assert list(again.teach(make(3))) == rows
    assert again.counts.refused == 1
    assert len(server.requests) == 3


def test_a_readable_answer_that_speaks_of_inability_is_no_refusal():
    assert not is_refusal(Reply(text=f"{ANSWER} I cannot identify"), parsed=True)
    assert is_refusal(Reply(text="Sorry, no."), parsed=False)
    assert not is_refusal(Reply(text="The face is real."), parsed=False)


def test_a_truncated_reply_does_not_count_even_if_it_can_be_read(cache):
    with serve(lambda seed, attempt: (200, completion(finish="length"), {})) as server:
        made = teacher(server.url, cache)
        [row] = made.teach(make(1))
    assert (row.raw, row.result, row.sentences) == (ANSWER, None, [])
    assert made.counts.truncated == 1


@pytest.mark.parametrize("text", ["", "The face is fine.", "Image description: a\nAnalysis result: maybe", '{"a": 1}'])
def test_text_that_is_no_answer_becomes_a_row_without_result(cache, text):
    with serve(lambda seed, attempt: (200, completion(text=text), {})) as server:
        made = teacher(server.url, cache)
        [row] = made.teach(make(1))
    assert (row.raw, row.result, row.probability, row.stated_type) == (text, None, None, None)
    assert made.counts.unparsed == 1


@pytest.mark.parametrize("body", ["{not json", "[]", "null", '{"choices": []}', '{"choices": [{"message": 3}]}'])
def test_malformed_json_is_tried_again_and_then_given_up_without_a_crash(cache, body):
    with serve(lambda seed, attempt: (200, body, {}) if seed == 0 or attempt == 0 else None) as server:
        made = teacher(server.url, cache, retries=2)
        rows = list(made.teach(make(2)))
        assert [r.result for r in rows] == [None, Label.REAL]
        assert rows[0].raw == body
        assert made.counts.failed == 1
        assert sum(made.counts.reasons.values()) == 1
        list(teacher(server.url, cache, retries=0).teach(make(2)))
    assert [r["seed"] for r in server.requests].count(0) == 4  # it was not paid for, so it is asked again
    assert [r["seed"] for r in server.requests].count(1) == 2


def test_content_in_parts_and_no_usage(cache):
    body = completion(text=[{"type": "text", "text": ANSWER}], usage=None)
    with serve(lambda seed, attempt: (200, body, {})) as server:
        made = teacher(server.url, cache, **PRICES)
        [row] = made.teach(make(1))
    assert (row.result, row.tokens) == (Label.REAL, (0, 0))
    assert made.counts.prompt_tokens > 1000  # the estimate
    assert made.budget.spent > 1


def test_a_rerun_costs_nothing_and_gives_the_same_rows(cache):
    with serve() as server:
        first = list(teacher(server.url, cache).teach(make(6)))
        made = teacher(server.url, cache)
        assert list(made.teach(make(6))) == first
        assert len(server.requests) == 6
        assert (made.counts.cached, made.counts.attempts) == (6, 0)
        for change in ({"temperature": 0.5}, {"model": "other"}, {"max_tokens": 700}, {"detail": "low"}):
            list(teacher(server.url, cache, **change).teach(make(1)))
    assert len(server.requests) == 10


def test_another_question_is_not_paid_again_and_the_same_ask_twice_is_paid_once(cache):
    with serve() as server:
        made = teacher(server.url, cache)
        rows = list(made.teach([*make(1), *make(1)]))
    assert rows[0] == rows[1]
    assert (made.counts.attempts, made.counts.cached) == (1, 1)


def test_order_is_kept_and_so_many_requests_run_at_a_time(cache):
    together = threading.Barrier(3)

    def script(seed, attempt):
        together.wait(20)  # passes only when three requests are under way
        return 200, completion(text=ANSWER.replace("short", f"short {seed}")), {}

    with serve(script) as server:
        rows = list(teacher(server.url, cache, concurrency=3).teach(make(12)))
    assert server.most == 3
    assert [f"short {r.seed}." in r.raw for r in rows] == [True] * 12
    assert [r.seed for r in rows] == list(range(12))


def test_asks_are_taken_as_they_are_needed(cache):
    taken = []

    def asks():
        for ask in make(200):
            taken.append(ask.seed)
            yield ask

    with serve() as server:
        rows = teacher(server.url, cache, concurrency=2).teach(asks())
        next(rows)
        rows.close()
        assert len(taken) <= 9
        assert sorted(server.answered) == sorted(set(server.answered))
        assert len(list(teacher(server.url, cache, concurrency=2).teach(make(10)))) == 10
    assert sorted(server.answered) == list(range(10))  # what was under way when the first run was closed was kept


def test_the_cap_stops_before_it_is_passed(cache):
    with serve() as server:
        made = teacher(server.url, cache, cap=20.0, concurrency=4, **PRICES)
        with pytest.raises(CapReachedError, match="cap of 20 is reached"):
            list(made.teach(make(50)))
        assert made.budget.spent == pytest.approx(2.0 * len(server.answered))
        assert 12 < made.budget.spent <= 20
        paid = len(server.answered)
        more = teacher(server.url, cache, cap=20.0, **PRICES)
        assert len(list(more.teach(make(paid)))) == paid == len(server.answered)
    assert more.budget.spent == 0


def test_the_cap_gives_every_row_before_the_one_that_did_not_fit(cache):
    seeds = []
    with serve() as server:
        with pytest.raises(CapReachedError):
            seeds.extend(r.seed for r in teacher(server.url, cache, cap=20.0, concurrency=4, **PRICES).teach(make(50)))
        assert sorted(server.answered) == seeds


def test_an_estimate_that_was_too_low_is_learnt(cache):
    with serve(lambda s, a: (200, completion(usage={"prompt_tokens": 9000, "completion_tokens": 200}), {})) as server:
        made = teacher(server.url, cache, cap=25.0, concurrency=4, **PRICES)
        with pytest.raises(CapReachedError):
            list(made.teach(make(9)))
        assert len(server.answered) == 2  # 10.00 each, and a third could cost 13.00
    assert made.budget.spent == pytest.approx(20.0)


def test_the_estimate_counts_what_is_not_paid_yet(cache):
    with serve() as server:
        list(teacher(server.url, cache).teach(make(2)))
        made = teacher(server.url, cache, **PRICES)
        estimate = made.estimate([*make(5), *make(5)])
        assert len(server.requests) == 2
    assert (estimate.asks, estimate.to_pay, estimate.output_tokens) == (10, 3, 900)
    assert estimate.money == pytest.approx(estimate.input_tokens / 1000 + 900 / 200)
    assert estimate.at_most == pytest.approx(estimate.input_tokens / 1000 + 2400 / 200)
    assert 1500 < estimate.input_tokens / 3 < 3500


@pytest.mark.parametrize(
    ("height", "width", "tokens"), [(1024, 1024, 765), (4096, 2048, 1105), (224, 224, 765), (512, 2048, 85 + 170 * 12)]
)
def test_image_tokens_by_the_tile_rule(height, width, tokens):
    assert image_tokens(height, width, OpenAIArgs()) == tokens
    assert image_tokens(height, width, OpenAIArgs(detail="low")) == 85


def test_a_killed_run_resumes_without_a_doubled_request(cache):
    release = threading.Event()

    def script(seed, attempt):
        if seed >= 3 and not release.is_set():
            release.wait(20)
            return 503, error("the asker is gone"), {}
        return None

    with serve(script) as server:
        command = [sys.executable, "-m", "tests.vqa.teachers.asks", server.url, str(cache), "8"]
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
        assert [process.stdout.readline().strip() for _ in range(3)] == ["0", "1", "2"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        release.set()
        rows = list(teacher(server.url, cache, concurrency=2).teach(make(8)))
    assert [r.seed for r in rows] == list(range(8))
    assert all(r.result is Label.REAL for r in rows)
    assert sorted(server.answered) == list(range(8))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, error("bad key"), "the key is not accepted"),
        (403, error("not in your country"), "not allowed .* not in your country"),
        (404, error("no such model"), "no model 'tiny-vision'.*ends in /v1"),
        (429, error("You exceeded your quota", "insufficient_quota"), "no money left"),
    ],
)
def test_what_no_request_can_survive_ends_the_run_in_one_line(cache, status, body, message):
    with serve(lambda seed, attempt: (status, body, {})) as server:
        with pytest.raises(UsageError, match=message) as told:
            list(teacher(server.url, cache, concurrency=2).teach(make(20)))
        assert len(server.requests) <= 2
    assert "\n" not in str(told.value)


def test_an_address_where_nobody_listens(cache):
    with serve() as server:
        url = server.url
    with pytest.raises(InputError, match=r"cannot be reached .*; is OPENAI_BASE_URL right\?"):
        list(teacher(url, cache).teach(make(3)))


def test_one_bad_request_costs_one_row_and_many_end_the_run(cache):
    with serve(lambda seed, attempt: (400, error("bad picture"), {}) if seed in (1, *range(4, 20)) else None) as server:
        made, seeds = teacher(server.url, cache, give_up=3, concurrency=1), []
        with pytest.raises(InputError, match="no reply for 3 rows in a row; the last: .*bad picture"):
            seeds.extend((row.seed, row.result is None) for row in made.teach(make(20)))
    assert seeds == [(0, False), (1, True), (2, False), (3, False), (4, True), (5, True), (6, True)]


def test_settings_from_the_environment(cache, monkeypatch):
    make_one = TEACHERS["openai"]
    with pytest.raises(UsageError, match="needs OPENAI_MODEL"):
        make_one(OpenAIArgs(), PARSE, cache)
    monkeypatch.setenv("OPENAI_MODEL", "from-env")
    with pytest.raises(UsageError, match="needs OPENAI_API_KEY"):
        make_one(OpenAIArgs(), PARSE, cache)
    with serve() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        [row] = make_one(OpenAIArgs(), PARSE, cache).teach(make(1))
    assert row.teacher == "openai:from-env"
    assert server.requests[0]["model"] == "from-env"


def test_a_cap_without_prices_is_an_error(cache):
    with pytest.raises(UsageError, match="a cap needs prices"):
        teacher("http://127.0.0.1:1/v1", cache, cap=1.0)


def test_without_the_client_the_extra_is_named(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "ffaa.vqa.teachers.endpoint", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'ffaa\[vqa\]'"):
        teacher("http://127.0.0.1:1/v1", cache)
