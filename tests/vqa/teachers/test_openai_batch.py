import pytest
from tests.vqa.openai_server import ANSWER, completion, error, serve
from tests.vqa.teachers.asks import make, teacher

from ffaa.errors import InputError
from ffaa.types import Label
from ffaa.vqa.teachers.limits import CapReachedError

PRICES = {"price_in": 1000.0, "price_out": 5000.0}  # 2.00 a reply


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "replies.sqlite"


def numbered(seed, attempt):
    return 200, completion(text=ANSWER.replace("short", f"short {seed}")), {}


def test_rows_come_in_order_from_several_batches_and_a_rerun_hands_in_none(cache):
    with serve(numbered) as server:
        made = teacher(server.url, cache, batch=True, batch_size=3, batches=2, **PRICES)
        rows = list(made.teach([*make(7), *make(2)]))
        assert [r.seed for r in rows] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
        assert all(f"short {r.seed}." in r.raw and r.result is Label.REAL for r in rows)
        assert len(server.batches) == 3
        assert ("POST", "/v1/chat/completions") not in server.calls
        assert made.counts.cached == 2
        assert made.budget.spent == pytest.approx(14.0)
        assert made.budget.held == pytest.approx(0)
        singly = teacher(server.url, cache)  # both ways share the cache
        assert list(singly.teach(make(7))) == rows[:7]
        list(teacher(server.url, cache, batch=True).teach(make(7)))
    assert sorted(server.answered) == list(range(7))


def test_files_stay_below_their_size(cache):
    with serve() as server:
        assert len(list(teacher(server.url, cache, batch=True, batch_bytes=12_000).teach(make(4)))) == 4
    assert len(server.batches) > 1


def test_a_run_killed_while_it_waits_finds_its_batch_again(cache):
    def killed(seconds):
        raise KeyboardInterrupt

    with serve(numbered) as server:
        server.batch_status = "in_progress"
        with pytest.raises(KeyboardInterrupt):
            list(teacher(server.url, cache, sleep=killed, batch=True).teach(make(3)))
        server.batch_status = "completed"
        rows = list(teacher(server.url, cache, batch=True).teach(make(5)))
    assert [r.seed for r in rows] == list(range(5))
    assert sorted(server.answered) == list(range(5))
    assert len(server.batches) == 2


@pytest.mark.parametrize("handed_in", [True, False])
def test_a_batch_whose_number_was_never_heard_is_searched_for(cache, monkeypatch, handed_in):
    with serve(numbered) as server:
        make_batch = server.make_batch

        def torn(body):
            if handed_in:
                make_batch(body)
            raise ConnectionAbortedError

        monkeypatch.setattr(server, "make_batch", torn)
        with pytest.raises(InputError, match="cannot be reached"):
            list(teacher(server.url, cache, batch=True).teach(make(3)))
        monkeypatch.undo()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        rows = list(teacher(server.url, cache, batch=True).teach(make(3)))
    assert [r.seed for r in rows] == [0, 1, 2]
    assert len(server.batches) == 1
    assert sorted(server.answered) == [0, 1, 2]


def test_failed_lines_are_rows_without_result_and_are_asked_again(cache):
    def script(seed, attempt):
        if seed == 1 and attempt == 0:
            return 500, error("oops"), {}
        return (400, error("filtered", "content_filter"), {}) if seed == 2 else None

    with serve(script) as server:
        made = teacher(server.url, cache, batch=True)
        assert [r.result for r in made.teach(make(4))] == [Label.REAL, None, None, Label.REAL]
        assert (made.counts.failed, made.counts.refused) == (1, 1)
        assert made.counts.reasons == {"500: oops": 1}
        again = [r.result for r in teacher(server.url, cache, batch=True).teach(make(4))]
        assert again == [Label.REAL, Label.REAL, None, Label.REAL]
    assert [r["seed"] for r in server.requests].count(1) == 2
    assert len(server.requests) == 5


def test_a_batch_that_is_refused_as_a_whole(cache):
    with serve() as server:
        server.batch_status = "failed"
        with pytest.raises(InputError, match="batch batch_0 was refused: file too odd"):
            list(teacher(server.url, cache, batch=True).teach(make(2)))
        server.batch_status = "completed"
        assert len(list(teacher(server.url, cache, batch=True).teach(make(2)))) == 2


def test_the_cap_holds_for_batches(cache):
    seeds = []
    with serve() as server:
        made = teacher(server.url, cache, batch=True, batch_size=100, cap=20.0, **PRICES)
        with pytest.raises(CapReachedError):
            seeds.extend(row.seed for row in made.teach(make(50)))
        assert 12 < made.budget.spent <= 20
    assert seeds == sorted(server.answered)
    assert seeds
