"""What the routes share: the queue, jobs, keys, rates, and whether the server takes anything at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from fastapi import Request

from ffaa.errors import FFAAError, WeightsError
from ffaa.evidence.examine import require_mesh
from ffaa.serve.fetch_url import UrlError
from ffaa.serve.jobs import JobStore
from ffaa.serve.keys import Keys
from ffaa.serve.metrics import Metrics
from ffaa.serve.problems import ApiError, of_error
from ffaa.serve.queue import BusyError, ClosedError, Gatherer, Judge, Options, OverTimeError
from ffaa.serve.rate import RateLimit, address_group
from ffaa.serve.settings import ServeSettings
from ffaa.serve.worker import Worker
from ffaa.types import Analysis


class Service:
    """One server. `gatherer` is what a web page submits photos to; `draining` is set when the server shuts down."""

    def __init__(self, settings: ServeSettings, load: Callable[[], Judge]):
        self.settings, self.metrics = settings, Metrics()
        self.gatherer = Gatherer(load, settings, self.metrics)
        self.keys = None if settings.keys is None else Keys(settings.keys)
        self.rate = RateLimit(settings.rate_per_minute, settings.burst)
        self.store = None if settings.jobs is None else JobStore(settings)
        self.worker = None if self.store is None else Worker(self.store, self.gatherer, self.metrics, settings.batch)
        self.draining = False
        self.at_close: list[Callable[[], None]] = []  # after all that was accepted is answered
        self._uploads = 0

    def start(self) -> None:
        self.gatherer.start()
        if self.worker is not None:
            self.worker.start()

    def close(self) -> None:
        """Ends what was accepted; what waits of jobs is kept for the next start."""
        self.draining = True
        if self.worker is not None:
            self.worker.close()
        self.gatherer.close()
        for end in self.at_close:
            end()

    @property
    def status(self) -> str:
        if self.draining:
            return "draining"
        return "ready" if self.gatherer.ready else "loading"

    def who(self, request: Request) -> str:
        """The holder of the request's key; the address, where no keys are asked for. Raises ApiError 401."""
        if self.keys is None:
            return address_group(request.client.host if request.client else None)
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self.keys.owner(key.strip()) if kind.lower() == "bearer" else None
        if owner is None:
            raise ApiError(401, "a key is needed: send the header 'Authorization: Bearer KEY'")
        return owner

    def job_owner(self, request: Request) -> str:
        """Whose a job is: the key's. Without keys, whoever knows its id may ask for it."""
        return "" if self.keys is None else self.who(request)

    def enter(self, request: Request, who: str | None = None) -> str:
        """May this request send photos now? Returns who asks; who: that, where it is known. Raises ApiError 503, 401
        or 429."""
        if self.status != "ready":
            raise ApiError(503, f"the server is {self.status}; try again", retry_after=5)
        who = who or self.who(request)
        wait = self.rate.take(who)
        if wait:
            raise self.refuse("rate_limited", "too many photos in a short time; wait", wait)
        return who

    def refuse(self, code: str, message: str, retry_after: float) -> ApiError:
        return ApiError(429, message, code, retry_after)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Counts a body that is received. Raises ApiError 429 when too many are."""
        if self._uploads >= self.settings.uploads:
            raise self.refuse("busy", "too many uploads at once; try again", 1)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def check_options(self, options: Options) -> None:
        """Raises ApiError 422 for what this installation cannot do."""
        if options.evidence:
            try:
                require_mesh()
            except WeightsError:
                raise ApiError(422, "evidence needs the face mesh, which this server lacks", "no_evidence") from None

    def told(self, error: Exception) -> ApiError | None:
        """What a client is told for an error of the queue; None for one that is a fault of ours."""
        if isinstance(error, BusyError):
            return self.refuse("busy", str(error), error.retry_after)
        if isinstance(error, OverTimeError):
            return ApiError(504, str(error))
        if isinstance(error, ClosedError):
            return ApiError(503, str(error), retry_after=5)
        if isinstance(error, UrlError):
            return ApiError(422, str(error), "url")
        return of_error(error) if isinstance(error, FFAAError) else None

    async def answer(self, request: Request, future: Future[Analysis]) -> Analysis:
        """Waits for a result; takes the photo out of the queue when the client goes away or the time is over."""
        result = asyncio.wrap_future(future)
        gone = asyncio.create_task(_gone(request))
        either: set[asyncio.Future[Any]] = {result, gone}
        try:
            await asyncio.wait(either, timeout=self.settings.seconds, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if gone.done():
                raise ApiError(400, "the client went away", "gone")
            raise OverTimeError(f"not judged within {self.settings.seconds:g} s; try again later")
        finally:
            gone.cancel()
            result.cancel()  # hands on to the queue's future; nothing happens to one that is done


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
