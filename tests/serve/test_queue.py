import io
import threading

import numpy as np
import pytest

from ffaa.data.images import load_photo
from ffaa.errors import FFAAError, InputError, TooLargeError
from ffaa.serve.metrics import Metrics
from ffaa.serve.queue import BusyError, ClosedError, Gatherer, Options, OverTimeError


@pytest.fixture
def gather(settings, fake):
    """Makes started queues."""
    made = []

    def make(load=lambda: fake, **changes):
        found = Gatherer(load, settings(**changes), Metrics())
        found.start()
        made.append(found)
        return found

    yield make
    fake.gate.set()
    for one in made:
        one.close()


@pytest.fixture
def busy(gather, fake, png, wait_for):
    """A queue whose models are at work on 'first' until `fake.gate` is set."""

    def make(**changes):
        queue = gather(**changes)
        fake.gate.clear()
        first = queue.submit(png(), name="first")
        fake.began.acquire()
        return queue, first

    return make


def read(queue, wait_for):
    """Waits until all that was submitted is ready for the models."""
    wait_for(lambda: not queue._reading)


def test_what_waits_goes_together(busy, fake, png, wait_for):
    queue, first = busy()
    others = [queue.submit(png(i), name=f"other {i}") for i in range(5)]
    read(queue, wait_for)
    assert queue.depth == 6
    fake.gate.set()
    assert [f.result(20).source.path for f in [first, *others]] == ["first", *(f"other {i}" for i in range(5))]
    assert sorted(fake.batches[1]) == [f"other {i}" for i in range(5)]
    assert len(fake.batches) == 2
    wait_for(lambda: queue.depth == 0)


def test_a_batch_holds_so_many_faces_and_no_photo_is_cut(busy, fake, png, wait_for):
    queue, _ = busy(batch=4)
    futures = []
    for name in ("3-faces a", "2-faces b", "2-faces c", "9-faces d", "1-faces e"):
        futures.append(queue.submit(png(), name=name))
        read(queue, wait_for)
    fake.gate.set()
    assert [len(f.result(20)) for f in futures] == [3, 2, 2, 9, 1]
    assert fake.batches[1:] == [["3-faces a"], ["2-faces b", "2-faces c"], ["9-faces d"], ["1-faces e"]]


def test_a_batch_waits_a_moment_for_photos_that_are_read(gather, fake, png, monkeypatch):
    queue = gather(gather_seconds=5, decoders=2)
    slow, real = threading.Event(), fake.find
    both = threading.Barrier(2)

    def find(photo, whole):
        both.wait(20)  # both are being read
        if photo.source.path == "slow":
            assert slow.wait(20)
        return real(photo, whole)

    monkeypatch.setattr(fake, "find", find)
    one, two = queue.submit(png(), name="quick"), queue.submit(png(), name="slow")
    assert not fake.began.acquire(timeout=0.1)
    slow.set()
    one.result(20), two.result(20)
    assert fake.batches == [["quick", "slow"]]


def test_a_full_queue_refuses_with_an_estimate(busy, fake, png):
    queue, first = busy(queue=2)
    second = queue.submit(png())
    with pytest.raises(BusyError) as error:
        queue.submit(png())
    assert error.value.retry_after >= 1
    with pytest.raises(BusyError):
        queue.check()
    fake.gate.set()
    first.result(20), second.result(20)
    queue.submit(png()).result(20)  # there is room again


def test_what_would_come_too_late_is_refused_at_once(busy, fake, png, wait_for):
    queue, _first = busy(seconds=10)
    queue._seconds_per_face = 4.0
    queue.submit(png(), name="2-faces")
    read(queue, wait_for)
    with pytest.raises(BusyError, match="longer than allowed") as error:
        queue.submit(png())
    assert error.value.retry_after == 12


def test_the_estimate_is_what_was_measured(busy, fake, gather, png):
    queue = gather()
    queue.submit(png()).result(20)
    assert 0 < queue._seconds_per_face < 1  # the first guess is 1


def test_a_client_that_went_away_is_dropped(busy, fake, png, wait_for):
    queue, _first = busy()
    gone, stays = queue.submit(png(), name="gone"), queue.submit(png(), name="stays")
    read(queue, wait_for)
    assert gone.cancel()
    fake.gate.set()
    stays.result(20)
    assert fake.batches == [["first"], ["stays"]]
    wait_for(lambda: queue.depth == 0)


def test_what_waited_too_long_is_dropped(busy, fake, png, wait_for):
    queue, _first = busy(seconds=1)
    late = queue.submit(png(), name="late")
    read(queue, wait_for)
    queue._ready[0].until = 0
    fake.gate.set()
    with pytest.raises(OverTimeError):
        late.result(20)
    assert fake.batches == [["first"]]


def test_photos_of_jobs_take_what_is_left_and_at_least_one_place(busy, fake, png, wait_for):
    queue, _ = busy(batch=3, queue=6)
    jobs = [queue.submit(png(), name=f"job {i}", patient=True) for i in range(8)]  # not counted in the queue
    read(queue, wait_for)
    now = []
    for i in range(5):
        now.append(queue.submit(png(), name=f"now {i}"))
        read(queue, wait_for)
    assert queue.depth == 6
    fake.gate.set()
    for future in [*jobs, *now]:
        future.result(20)
    kinds = [sorted(name.split()[0] for name in batch) for batch in fake.batches[1:]]
    assert kinds == [["job", "now", "now"], ["job", "now", "now"], ["job", "job", "now"], ["job", "job", "job"],
                     ["job"]]  # fmt: skip


def test_no_face_needs_no_model(busy, png):
    queue, first = busy()
    found = queue.submit(png(), name="0-faces").result(20)  # while the models are at work
    assert not first.done()
    assert found.verdicts == []


def test_one_photos_trouble_is_not_the_others(busy, fake, png, wait_for):
    queue, _first = busy()
    bad, unread, good = (queue.submit(png(), name=name) for name in ("crash", "unread", "good"))
    read(queue, wait_for)
    fake.gate.set()
    assert good.result(20).verdicts
    with pytest.raises(RuntimeError):
        bad.result(20)
    with pytest.raises(FFAAError, match="could be read"):
        unread.result(20)
    assert queue.submit(png()).result(20)


def test_options_are_each_photos_own(busy, fake, png, wait_for):
    queue, _first = busy()
    futures = [queue.submit(png(), Options(evidence=e, whole_image=w)) for e in (True, False) for w in (True, False)]
    read(queue, wait_for)
    fake.gate.set()
    assert [f.result(20)[0].crop.whole_image for f in futures] == [True, False, True, False]
    assert fake.evidence[1:] == [False, True]


def test_bytes_files_and_loaded_photos(gather, png, settings):
    queue = gather()
    file = io.BytesIO(png(3))
    photo = load_photo(np.zeros((40, 30, 3), np.uint8))
    found = [queue.submit(p, name="n").result(20).source for p in (png(3), file, photo)]
    assert found[0] == found[1]
    assert (found[0].path, found[0].width, len(found[0].sha256)) == ("n", 32, 64)
    assert file.closed
    assert (found[2].width, found[2].height) == (30, 40)


def test_photos_that_cannot_be_judged(gather, png, fake):
    queue = gather(max_pixels=2000, max_bytes=9000, max_faces=2)
    for photo, name, kind in (
        (b"nonsense", "a", InputError),
        (b"", "b", InputError),
        (png(0, 64), "c", TooLargeError),
        (bytes(9001), "d", TooLargeError),
        (io.BytesIO(bytes(9001)), "e", TooLargeError),
        (png(), "3-faces", TooLargeError),
    ):
        with pytest.raises(kind, match=f"^{name}"):
            queue.submit(photo, name=name).result(20)
    assert fake.batches == []
    assert queue.depth == 0


def test_closing_ends_what_was_accepted(busy, fake, png, wait_for):
    queue, first = busy()
    later = [queue.submit(png(), patient=i % 2 == 0) for i in range(4)]
    closing = threading.Thread(target=queue.close)
    closing.start()
    wait_for(lambda: queue._closed)
    with pytest.raises(ClosedError):
        queue.submit(png())
    assert not queue.ready
    fake.gate.set()
    closing.join(20)
    assert all(f.done() and f.result().verdicts for f in [first, *later])


def test_a_model_that_cannot_be_loaded(gather, png):
    release = threading.Event()

    def load():
        assert release.wait(20)
        raise FFAAError("no weights")

    queue = gather(load)
    assert not queue.ready
    early = queue.submit(png())
    release.set()
    with pytest.raises(ClosedError):
        early.result(20)
    with pytest.raises(ClosedError):
        queue.submit(png())
    assert str(queue.error) == "no weights"
