"""One model, many clients: photos wait in a bounded queue, and the models take faces of several of them at once.

Photos are read and their faces found by a few threads; only the small face images wait. One thread runs the models.
The web page and the API share one `Gatherer`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from ffaa.data.images import Photo, load_bytes
from ffaa.errors import FFAAError, TooLargeError
from ffaa.serve.metrics import Metrics
from ffaa.serve.settings import ServeSettings
from ffaa.types import Analysis, Failure

log = logging.getLogger("ffaa.serve")
FIRST_GUESS = 1.0  # seconds per face, until one was measured


class Judge(Protocol):
    """What is needed of `ffaa.assistant.Assistant`."""

    def find(self, photo: Any, whole_image: bool = False) -> Any: ...

    def finish(self, found: Sequence[Any], evidence: bool = False) -> list[Analysis | Failure]: ...


@dataclass(frozen=True)
class Options:
    """As those of `Assistant.analyze`."""

    whole_image: bool = False
    evidence: bool = False


class BusyError(FFAAError):
    """The queue is full. retry_after: estimated seconds until there is room."""

    def __init__(self, message: str, retry_after: float):
        super().__init__(message)
        self.retry_after = retry_after


class OverTimeError(FFAAError):
    """A photo waited longer than allowed and was dropped."""


class ClosedError(FFAAError):
    """The server is shutting down, or has no model."""


@dataclass(eq=False)
class _Item:
    photo: bytes | Photo | IO[bytes] | None
    name: str
    options: Options
    until: float
    patient: bool
    future: Future[Analysis] = field(default_factory=Future)
    found: Any = None
    since: float = field(default_factory=time.monotonic)


class Gatherer:
    """Gathers waiting faces into batches. load: makes the assistant; called once, on the models' thread."""

    def __init__(self, load: Callable[[], Judge], settings: ServeSettings, metrics: Metrics):
        self._load, self._settings, self._metrics = load, settings, metrics
        self._judge: Judge | None = None
        self.error: Exception | None = None  # why the model could not be loaded
        self._loaded = threading.Event()
        self._change = threading.Condition()
        self._ready: deque[_Item] = deque()
        self._patient: deque[_Item] = deque()
        self._open = self._reading = 0  # photos of `queue`; photos of both kinds that are read now or next
        self._closed = False
        self._seconds_per_face: float | None = None
        self._readers = ThreadPoolExecutor(settings.decoders, "read")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Takes nothing more in; returns when all that was accepted is answered."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._readers.shutdown()

    @property
    def ready(self) -> bool:
        """The model is loaded."""
        return self._judge is not None and not self._closed

    @property
    def depth(self) -> int:
        """Photos accepted and not answered yet, those of jobs left out."""
        return self._open

    def assistant(self) -> Judge:
        """The assistant itself, which may be called from any thread. Waits until it is loaded; raises ClosedError."""
        self._loaded.wait()
        if self._judge is None:
            raise ClosedError("the model could not be loaded")
        return self._judge

    def check(self) -> None:
        """Raises BusyError when a photo would not be accepted now."""
        with self._change:
            self._refuse()

    def submit(
        self,
        photo: bytes | Photo | IO[bytes],
        options: Options = Options(),
        name: str = "photo",
        patient: bool = False,
    ) -> Future[Analysis]:
        """The analysis of a photo, later. Cancel the future to take it out of the queue.

        photo: a file's content (a file object is read and closed here), or a loaded Photo. name: what it is called in
        the result. patient: of a job; it is not counted in the queue, has no time limit, and gets the places in a batch
        that are left, at least one. The future fails with InputError (TooLargeError) for a photo that cannot be judged,
        OverTimeError, ClosedError, or FFAAError when the model's answers could not be read.
        Raises BusyError when the queue is full, ClosedError when the server is shutting down.
        """
        until = float("inf") if patient else time.monotonic() + self._settings.seconds
        item = _Item(photo, name, options, until, patient)
        with self._change:
            if self._closed or self.error:
                raise ClosedError("the server is shutting down")
            if not patient:
                self._refuse()
                self._count(1)
            self._reading += 1
            self._readers.submit(self._read, item)  # inside: `close` must not come between
        return item.future

    def wait_estimate(self) -> float:
        """Seconds until what waits now is judged."""
        faces = sum(len(item.found.faces) for item in self._ready)
        waiting = max(self._open - len(self._ready), 0) + faces
        return waiting * (self._seconds_per_face or FIRST_GUESS)

    def _refuse(self) -> None:
        wait = self.wait_estimate()
        if self._open >= self._settings.queue:
            raise BusyError(f"{self._open} photos wait already; try again later", max(1.0, wait))
        if wait > self._settings.seconds:
            raise BusyError("what waits already would take longer than allowed; try again later", wait)

    def _count(self, change: int) -> None:
        self._open += change
        self._metrics.queue.set(self._open)

    def _leave(self, item: _Item) -> None:
        with self._change:
            if not item.patient:
                self._count(-1)
            self._change.notify_all()

    def _fail(self, item: _Item, error: Exception) -> None:
        """Ends an item whose models did not run. `set_running` fails for one that was cancelled meanwhile."""
        self._leave(item)
        if item.future.set_running_or_notify_cancel():
            item.future.set_exception(error)

    def _read(self, item: _Item) -> None:
        """On a reading thread: bytes -> faces -> the queue."""
        try:
            error = self._find(item)
        except Exception as unexpected:
            error = unexpected
            if not isinstance(unexpected, FFAAError) and not item.future.cancelled():
                log.exception("reading a photo failed")
        done = error is None and not item.found.faces  # nothing for the models
        with self._change:
            self._reading -= 1
            if error is None and not done:
                item.since = time.monotonic()
                (self._patient if item.patient else self._ready).append(item)
            self._change.notify_all()
        if error is not None:
            self._fail(item, error)
        elif done and item.future.set_running_or_notify_cancel():
            self._judge_part([item], item.options.evidence)
        elif done:
            self._leave(item)

    def _find(self, item: _Item) -> Exception | None:
        photo, item.photo = item.photo, None
        if not isinstance(photo, bytes | Photo) and photo is not None:
            with photo as file:
                photo = b"" if item.future.cancelled() else file.read(self._settings.max_bytes + 1)
        if item.future.cancelled() or photo is None:
            return ClosedError("the client went away")
        if time.monotonic() > item.until:
            return self._late()
        judge = self.assistant()
        with self._metrics.stages.labels("read").time():
            if isinstance(photo, bytes):
                photo = load_bytes(photo, item.name, self._settings.limits)
            item.found = judge.find(photo, item.options.whole_image)
        count, most = len(item.found.faces), self._settings.max_faces
        if count > most:
            return TooLargeError(f"{item.name}: {count} faces, at most {most} are judged in a photo; cut it into parts")
        return None

    def _late(self) -> OverTimeError:
        self._metrics.dropped.labels("over_time").inc()
        return OverTimeError(f"not judged within {self._settings.seconds:g} s; try again later")

    # --- the models' thread ---

    def _run(self) -> None:
        try:
            self._judge = self._load()
        except Exception as error:
            self.error = error
        self._loaded.set()
        while batch := self._take():
            self._judge_all(batch)

    def _take(self) -> list[_Item]:
        """The next batch; empty when closed and nothing is left."""
        with self._change:
            while True:
                while not (self._ready or self._patient):
                    if self._closed and not self._reading:
                        return []
                    self._change.wait()
                self._gather()
                if batch := self._pick():
                    return batch

    def _gather(self) -> None:
        """Waits a moment for photos that are being read: they join the batch instead of waiting for its end."""
        until = time.monotonic() + self._settings.gather_seconds
        while self._reading and not self._full() and (left := until - time.monotonic()) > 0:
            self._change.wait(left)

    def _full(self) -> bool:
        waiting = (len(item.found.faces) for lane in (self._ready, self._patient) for item in lane)
        return sum(waiting) >= self._settings.batch

    def _pick(self) -> list[_Item]:
        batch: list[_Item] = []
        faces = 0

        def take(lane: deque[_Item], most: int) -> None:
            nonlocal faces
            while lane and most:
                if batch and faces + len(lane[0].found.faces) > self._settings.batch:
                    return
                item = lane.popleft()
                if not item.future.set_running_or_notify_cancel():
                    self._metrics.dropped.labels("client_gone").inc()
                    self._leave(item)
                elif time.monotonic() > item.until:
                    self._leave(item)
                    item.future.set_exception(self._late())
                else:
                    faces += len(item.found.faces)
                    most -= 1
                    batch.append(item)

        take(self._patient, 1)  # a job gets on however busy the server is
        take(self._ready, self._settings.batch)
        take(self._patient, self._settings.batch)
        return batch

    def _judge_all(self, batch: list[_Item]) -> None:
        started = time.monotonic()
        for item in batch:
            self._metrics.stages.labels("wait").observe(started - item.since)
        for evidence in (False, True):
            part = [item for item in batch if item.options.evidence is evidence]
            if part:
                self._judge_part(part, evidence)
        faces = sum(len(item.found.faces) for item in batch)
        if faces:
            seconds = time.monotonic() - started
            self._metrics.batch.observe(faces)
            self._metrics.faces.inc(faces)
            self._metrics.stages.labels("judge").observe(seconds)
            before = self._seconds_per_face
            now = seconds / faces
            self._seconds_per_face = now if before is None else 0.8 * before + 0.2 * now

    def _judge_part(self, part: list[_Item], evidence: bool) -> None:
        try:
            results: list[Any] = list(self.assistant().finish([item.found for item in part], evidence))
        except Exception as error:
            if len(part) > 1:  # one photo's trouble is not the others'
                for item in part:
                    self._judge_part([item], evidence)
                return
            if not isinstance(error, FFAAError):
                log.exception("judging a photo failed")
            results = [error]
        for item, result in zip(part, results, strict=True):
            self._leave(item)
            if isinstance(result, Failure):
                result = FFAAError(result.message)
            if isinstance(result, Exception):
                item.future.set_exception(result)
            else:
                item.future.set_result(result)
