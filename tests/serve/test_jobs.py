import io
import json
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffaa.errors import InputError, UsageError
from ffaa.serve import jobs as module
from ffaa.serve import worker as work
from ffaa.serve.jobs import FullError, JobStore
from ffaa.serve.metrics import Metrics
from ffaa.serve.queue import Gatherer, Options
from ffaa.serve.worker import Worker


@pytest.fixture
def store(tmp_path, settings):
    return lambda **changes: JobStore(settings(jobs=tmp_path / "jobs", **changes))


def files(*names):
    return [(io.BytesIO(name.encode()), name) for name in names]


def spooled(store):
    return sorted(path.read_text() for path in store.spool.iterdir())


def age(store, seconds):
    """Lets time pass."""
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE files SET lease = lease - ?", (seconds,))
        db.execute("UPDATE jobs SET ended = ended - ?", (seconds,))


def test_a_job_from_its_files_to_its_results(store):
    kept = store()
    job = kept.accept("ann", files("a", "b"), Options(evidence=True))
    assert spooled(kept) == ["a", "b"]
    assert kept.look(job, "ann")["state"] == "queued"
    assert kept.waiting() == 2
    one, two = kept.claim("w", 5)
    assert (one.path.read_text(), one.name, one.options) == ("a", "a", Options(evidence=True))
    assert kept.claim("w2", 5) == []
    assert kept.end(one, "w", {"results": [1]})
    found = kept.look(job, "ann")
    assert found["state"] == "running"
    assert found["files"] == [{"name": "a", "state": "done", "results": [1]}, {"name": "b", "state": "running"}]
    assert found["ended"] is None
    assert kept.end(two, "w", {"error": {"code": "c", "message": "m"}})
    found = kept.look(job, "ann")
    assert (found["state"], found["files"][1]["error"]["code"]) == ("done", "c")
    assert found["ended"] >= found["created"]
    assert spooled(kept) == []
    assert kept.waiting() == 0


def test_a_job_is_its_owners(store):
    kept = store()
    job = kept.accept("ann", files("a"), Options())
    assert kept.look(job, "bob") is None
    assert not kept.delete(job, "bob")
    assert spooled(kept) == ["a"]
    assert kept.delete(job, "ann")
    assert kept.look(job, "ann") is None
    assert spooled(kept) == []
    assert kept.claim("w", 5) == []


def test_a_deleted_job_has_no_result(store):
    kept = store()
    job = kept.accept("", files("a"), Options())
    (claim,) = kept.claim("w", 1)
    assert kept.delete(job, "")
    assert not kept.end(claim, "w", {"results": []})
    assert kept.look(job, "") is None


def test_a_silent_workers_file_is_taken_up_and_judged_once(store):
    kept, again = store(), store()
    job = kept.accept("", files("a"), Options())
    (lost,) = kept.claim("dead", 1)
    kept.prolong("dead")
    assert again.claim("alive", 1) == []
    age(kept, 31)
    again.prolong("another")  # only its own
    (taken,) = again.claim("alive", 1)
    assert not kept.end(lost, "dead", {"results": ["late"]})
    assert taken.path.exists()
    assert again.end(taken, "alive", {"results": ["right"]})
    assert not kept.end(lost, "dead", {"results": ["late"]})
    assert not again.end(taken, "alive", {"results": ["twice"]})
    assert kept.look(job, "")["files"][0]["results"] == ["right"]


def test_a_file_that_kills_its_workers_is_given_up(store):
    kept = store(attempts=2)
    job = kept.accept("", files("bad", "good"), Options())
    for _ in range(2):
        assert [c.name for c in kept.claim("w", 1)] == ["bad"]
        age(kept, 31)
    assert [c.name for c in kept.claim("w", 1)] == ["good"]
    error = kept.look(job, "")["files"][0]["error"]
    assert error["code"] == "given_up"
    assert "2 times" in error["message"]
    assert spooled(kept) == ["good"]


def test_many_workers_share_the_files(store):
    kept = store()
    for number in range(5):
        kept.accept("", files(*(f"{number} {i}" for i in range(8))), Options())
    claimed = []

    def take(name):
        mine = store()
        while found := mine.claim(name, 3):
            claimed.extend(c.name for c in found)

    threads = [threading.Thread(target=take, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(claimed) == sorted(f"{n} {i}" for n in range(5) for i in range(8))


def test_too_much_is_refused_and_nothing_is_kept(store):
    kept = store(waiting_files=3, waiting_bytes=1024)
    kept.accept("", files("a", "b"), Options())
    with pytest.raises(FullError, match="2 files"):
        kept.accept("", files("c", "d"), Options())
    with pytest.raises(FullError, match="room"):
        kept.accept("", files("x" * 1023), Options())
    assert spooled(kept) == ["a", "b"]
    for claim in kept.claim("w", 2):
        kept.end(claim, "w", {"results": []})
    kept.accept("", files("c", "d"), Options())


def test_a_full_disk_leaves_nothing(store, monkeypatch):
    kept = store()

    def full(source, target):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        kept.accept("", files("a", "b"), Options())
    assert spooled(kept) == []
    assert kept.waiting() == 0


def test_results_expire(store):
    kept = store(keep_seconds=100)
    old, waiting = kept.accept("", files("a"), Options()), kept.accept("", files("b"), Options())
    kept.end(kept.claim("w", 1)[0], "w", {"results": []})
    age(kept, 90)
    kept.sweep()
    assert kept.look(old, "")
    age(kept, 20)
    kept.sweep()
    assert kept.look(old, "") is None
    assert kept.look(waiting, "")
    assert spooled(kept) == ["b"]


def test_what_a_cut_off_upload_left_is_swept(store):
    import os

    kept = store()
    kept.accept("", files("waits"), Options())
    for name, seconds in (("young", 60), ("old", 700)):
        (kept.spool / name).write_text(name)
        os.utime(kept.spool / name, (time.time() - seconds,) * 2)
    for path in kept.spool.iterdir():
        if path.read_text() == "waits":
            os.utime(path, (1, 1))
    kept.sweep()
    assert spooled(kept) == ["waits", "young"]


def test_what_a_worker_killed_behind_its_last_word_left_is_swept(store, monkeypatch):
    kept = store()
    kept.accept("", files("judged", "waits"), Options())
    claim = kept.claim("w", 1)[0]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        kept.end(claim, "w", {"results": []})
    assert spooled(kept) == ["judged", "waits"]
    kept.sweep()
    assert spooled(kept) == ["waits"]


def test_the_folder_is_for_its_owner_alone(store, tmp_path, settings):
    assert store().spool.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="another --jobs"):
        JobStore(settings(jobs=tmp_path / "file"))
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(UsageError, match="another version"):
        JobStore(settings(jobs=tmp_path / "other"))


# --- the worker ---


@pytest.fixture
def run(store, fake, settings, tmp_path):
    """Starts a worker on the store; returns both and its queue."""
    started = []

    def make(judge=work.judge_file, **changes):
        kept = store(**changes)
        queue = Gatherer(lambda: fake, kept.settings, Metrics())
        queue.start()
        worker = Worker(kept, queue, Metrics(), 8, judge)
        worker.start()
        started.append((worker, queue))
        return kept, worker

    yield make
    fake.gate.set()
    for worker, queue in started:
        if worker._claiming.is_alive():
            worker.close()
        queue.close()


def done(kept, job):
    return lambda: kept.look(job, "")["state"] == "done"


def test_a_worker_judges_in_batches(run, png, fake, wait_for):
    kept, worker = run()
    photos = [(io.BytesIO(png(i)), f"{i}.png") for i in range(12)]
    fake.gate.clear()
    job = kept.accept("", [*photos, (io.BytesIO(b"text"), "t.txt"), (io.BytesIO(b"\0\0\0\x18ftypisom"), "c.mp4")],
                      Options(whole_image=True))  # fmt: skip
    worker.wake()
    fake.began.acquire()
    assert kept.look(job, "")["state"] == "running"
    fake.gate.set()
    wait_for(done(kept, job))
    found = kept.look(job, "")["files"]
    for i in range(12):
        (record,) = found[i]["results"]
        assert record["source"]["path"] == f"{i}.png"
        assert record["crop"]["whole_image"]
    assert found[12]["error"]["code"] == "unreadable"
    assert "c.mp4: is a video" in found[13]["error"]["message"]
    assert sorted(name for batch in fake.batches for name in batch) == sorted(f"{i}.png" for i in range(12))
    assert max(map(len, fake.batches)) > 1
    assert list(kept.spool.iterdir()) == []


def test_a_video_is_judged_under_its_clients_name(tiny_assistant, hopper, make_clip, tmp_path):
    queue, spooled = SimpleNamespace(assistant=lambda: tiny_assistant), tmp_path / "0a1b2c3d"
    make_clip(tmp_path / "clip.mp4", [hopper[:, :512]] * 4).rename(spooled)
    (record,) = work.judge_file(queue, spooled, "mine.mp4", Options())
    assert (record["kind"], record["source"]["path"]) == ("clip_verdict", "mine.mp4")
    (person,) = record["people"]
    assert person["telling"][0]["verdict"]["source"]["path"] == "mine.mp4"
    spooled.write_bytes(spooled.read_bytes()[:400])
    with pytest.raises(InputError, match=r"^mine\.mp4") as told:
        work.judge_file(queue, spooled, "mine.mp4", Options())
    assert "0a1b2c3d" not in str(told.value)


def test_a_fault_of_ours_is_told_without_a_trace(run, png, wait_for):
    kept, _worker = run()
    job = kept.accept("", [(io.BytesIO(png()), "crash.png")], Options())
    wait_for(done(kept, job))
    assert kept.look(job, "")["files"][0]["error"]["code"] == "internal"
    assert "Traceback" not in json.dumps(kept.look(job, ""))


def test_leases_are_prolonged_while_a_file_is_judged(run, fake, png, wait_for, store):
    kept, _worker = run(lease_seconds=1)
    fake.gate.clear()
    job = kept.accept("", [(io.BytesIO(png()), "a.png")], Options())
    fake.began.acquire()
    time.sleep(1.5)  # longer than the lease
    assert store().claim("thief", 1) == []
    fake.gate.set()
    wait_for(done(kept, job))
    assert len(fake.batches) == 1


def test_closing_ends_the_files_in_work_and_leaves_the_others(run, fake, png, wait_for):
    kept, worker = run()
    fake.gate.clear()
    job = kept.accept("", [(io.BytesIO(png()), f"{i}") for i in range(20)], Options())
    fake.began.acquire()
    closing = threading.Thread(target=worker.close)
    closing.start()
    fake.gate.set()
    closing.join(20)
    states = [file["state"] for file in kept.look(job, "")["files"]]
    assert set(states) <= {"done", "queued"}
    assert states.count("done") >= 1
    kept2, _worker2 = run()
    wait_for(done(kept2, job))
    assert len([n for batch in fake.batches for n in batch]) == 20


def test_what_was_judged_is_written_when_the_disk_has_room_again(run, png, wait_for, monkeypatch):
    kept, _worker = run(lambda *args: [{"n": 1}])
    monkeypatch.setattr(work, "POLL_SECONDS", 0.05)
    real, tries = kept.end, []

    def end(*args):
        tries.append(1)
        if len(tries) < 3:
            raise sqlite3.OperationalError("database or disk is full")
        return real(*args)

    monkeypatch.setattr(kept, "end", end)
    job = kept.accept("", files("a"), Options())
    wait_for(done(kept, job))
    assert len(tries) == 3


def test_without_a_model_no_file_is_touched(store, settings, wait_for):
    kept = store()
    job = kept.accept("", files("a"), Options())

    def load():
        raise InputError("no weights")

    queue = Gatherer(load, kept.settings, Metrics())
    worker = Worker(kept, queue, Metrics(), 2)
    worker.start()
    queue.start()
    wait_for(lambda: queue.error)
    worker.close()
    assert kept.look(job, "")["state"] == "queued"
    queue.close()
