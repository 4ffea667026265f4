"""A model behind any OpenAI-compatible endpoint writes the answers; every paid reply is kept and never paid again."""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from ffaa.errors import FFAAError, InputError, MissingExtraError, UsageError
from ffaa.types import Answer, Record
from ffaa.vqa.cache import Cache
from ffaa.vqa.prompting import prompt_version
from ffaa.vqa.row import VqaRow
from ffaa.vqa.teachers.base import Ask, Parse, row_of
from ffaa.vqa.teachers.chat import OpenAIArgs, Reply, Request, from_environment, is_refusal
from ffaa.vqa.teachers.limits import Budget, RateLimit, back_off

Sleep = Callable[[float], object]
DEFAULT_URL = "https://api.openai.com/v1"


class Estimate(Record):
    """What a run may cost. input_tokens, output_tokens, money: what is likely; at_most: with every reply as long as
    allowed and no retry."""

    asks: int
    to_pay: int
    input_tokens: int
    output_tokens: int
    money: float
    at_most: float


@dataclass
class Counts:
    """What a run did. rows: given; of these cached: without a request; refused, truncated, unparsed: with a reply that
    does not count; failed: without a reply. attempts: requests sent, of which retried. reasons: of failed rows."""

    rows: int = 0
    cached: int = 0
    refused: int = 0
    truncated: int = 0
    unparsed: int = 0
    failed: int = 0
    attempts: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """reply: None where none came, then `raw` is what came instead. fresh: paid for in this run."""

    reply: Reply | None
    fresh: bool = False
    raw: str = ""
    reason: str = ""


class OpenAITeacher:
    """parse: reads a reply (`ffaa.mllm.answer.parse_answer` with role and prompt filled in). cache: the file of paid
    replies. key: default OPENAI_API_KEY. sleep: seconds -> None, how to wait; default: until then, or the run's end.
    counts and budget: of the run under way, or the last.

    Raises UsageError without model or key, or for a cap without prices; MissingExtraError without the client.
    """

    cached = True

    def __init__(self, args: OpenAIArgs, parse: Parse, cache: Path, key: str = "", sleep: Sleep | None = None):
        try:
            from ffaa.vqa.teachers.endpoint import Endpoint
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"this needs the extra 'vqa' ({error.name} is missing); run: pip install "
                                    "'ffaa[vqa]'") from error  # fmt: skip
        if args.cap is not None and not (args.price_in or args.price_out):
            raise UsageError("a cap needs prices; give price_in and price_out, per million tokens")
        self.args, self._parse, self._cache = args, parse, cache
        self.model = from_environment(args.model, "OPENAI_MODEL", "gpt-4o")
        secret = from_environment(key, "OPENAI_API_KEY", "sk-... (any word for a server that asks for none)")
        self.name = f"openai:{self.model}"
        base_url = args.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self.endpoint = Endpoint(base_url, self.model, secret, args.timeout)
        self._rate = RateLimit(args.requests_per_minute, args.tokens_per_minute)
        self._random, self._sleep = random.Random(), sleep
        self._start()

    def _start(self) -> None:
        self.counts, self._lock = Counts(), threading.Lock()
        self.budget = Budget(self.args.price_in, self.args.price_out, self.args.cap)
        self._ended, self._answered = threading.Event(), False
        self._fatal: FFAAError | None = None
        self.sleep: Sleep = self._sleep or self._ended.wait

    def estimate(self, asks: Iterable[Ask]) -> Estimate:
        """What `teach` would cost for these asks, without a request. Prompt tokens are estimated rather high."""
        total, tokens, new = 0, 0, set[str]()
        with Cache(self._cache) as cache:
            for ask in asks:
                total, request = total + 1, Request.of(ask, self.args, self.model)
                if request.key not in new and cache.get(request.key) is None:
                    new.add(request.key)
                    tokens += request.tokens_in
        usual, most = len(new) * self.args.reply_tokens, len(new) * self.args.max_tokens
        return Estimate(
            asks=total, to_pay=len(new), input_tokens=tokens, output_tokens=usual,
            money=self.budget.cost(tokens, usual), at_most=self.budget.cost(tokens, most),
        )  # fmt: skip

    def teach(self, asks: Iterable[Ask]) -> Iterator[VqaRow]:
        """One row per ask, in order, as soon as it and those before it are there.

        A reply that is refused, truncated or cannot be read gives a row with result None, so does a request that fails
        for good (raw is then what came instead, and it is asked again in the next run). Raises CapReachedError when the
        next request could pass the cap, UsageError for a wrong key, address or model, InputError when the endpoint
        cannot be reached, gives up, or another run uses the cache. What was paid for until then is in the cache.
        """
        self._start()
        failures = 0
        with Cache(self._cache) as cache:
            requests = (Request.of(ask, self.args, self.model) for ask in asks)
            for ask, outcome in (self._batches if self.args.batch else self._singly)(requests, cache):
                failures = failures + 1 if outcome.reply is None else 0
                yield self._row(ask, outcome)
                if failures == self.args.give_up:
                    raise InputError(f"no reply for {failures} rows in a row; the last: {outcome.reason}")

    def _row(self, ask: Ask, outcome: Outcome) -> VqaRow:
        counts, reply = self.counts, outcome.reply
        counts.rows += 1
        if reply is None:
            counts.failed += 1
            counts.reasons[outcome.reason] = counts.reasons.get(outcome.reason, 0) + 1
            return row_of(ask, self.name, prompt_version(), outcome.raw, None)
        counts.cached += not outcome.fresh
        parsed = self._parse(reply.text)
        answer = parsed if isinstance(parsed, Answer) else None
        if is_refusal(reply, answer is not None):
            counts.refused += 1
            answer = None
        elif reply.finish == "length":
            counts.truncated += 1
            answer = None
        elif answer is None:
            counts.unparsed += 1
        tokens = (reply.prompt_tokens or 0, reply.completion_tokens or 0)
        return row_of(ask, self.name, prompt_version(), reply.text or reply.refusal, answer, tokens)

    def _batches(self, requests: Iterator[Request], cache: Cache) -> Iterator[tuple[Ask, Outcome]]:
        from ffaa.vqa.teachers.openai_batch import by_batch

        return by_batch(self, requests, cache)

    def _singly(self, requests: Iterator[Request], cache: Cache) -> Iterator[tuple[Ask, Outcome]]:
        """Requests in threads; a window of them is under way or waits for an earlier one."""
        window: deque[tuple[Ask, Future[Outcome], bool]] = deque()
        asked: dict[str, Future[Outcome]] = {}

        def first() -> tuple[Ask, Outcome]:
            ask, future, own = window.popleft()
            outcome = future.result()
            return ask, outcome if own else Outcome(outcome.reply, False, outcome.raw, outcome.reason)

        pool = ThreadPoolExecutor(self.args.concurrency)
        try:
            for request in requests:
                known = asked.get(request.key)
                if known is None and (stored := cache.get(request.key)) is not None:
                    known = Future()
                    known.set_result(Outcome(Reply.model_validate_json(stored)))
                if known is None:
                    while (held := self.budget.hold(request.tokens_in, self.args.max_tokens)) is None:
                        if not window:
                            raise self.budget.reached()
                        yield first()  # what comes back may have cost less than was held for it
                    asked[request.key] = future = pool.submit(self._request, request, held, cache)
                    window.append((request.ask, future, True))
                    if self.args.cap is not None and len(asked) == 1:
                        wait([future])  # shows how the provider counts, before many requests rest on an estimate
                else:
                    window.append((request.ask, known, False))
                while len(window) >= 4 * self.args.concurrency or (window and window[0][1].done()):
                    yield first()
                if len(asked) > 16 * self.args.concurrency:  # the others' replies are in the cache
                    asked = {key: future for key, future in asked.items() if not future.done()}
            while window:
                yield first()
        finally:
            self._ended.set()
            pool.shutdown(wait=True, cancel_futures=True)  # what is under way is paid for: wait and keep it

    def _request(self, request: Request, held: float, cache: Cache) -> Outcome:
        """One request with its retries, in a thread. held: what the budget holds back for it."""
        from ffaa.vqa.teachers.endpoint import RequestError, as_error

        body, attempt = request.body(), 0
        while True:
            self._wait(self._rate.delay(request.tokens_in + self.args.max_tokens))
            now = self.budget.hold_again(held, request.tokens_in, self.args.max_tokens)
            if now is None:
                raise self.budget.reached()
            held = now
            with self._lock:
                self.counts.attempts += 1
                self.counts.retried += attempt > 0
            try:
                reply = self.endpoint.ask(body)
                break
            except RequestError as error:
                self._answered = self._answered or not error.offline
                if error.kind == "refused":
                    reply = Reply(text="", finish="content_filter", refusal=error.message)
                    break
                # A reply that was not waited for may have been billed.
                self.budget.settle(held, held if error.kind == "uncertain" else 0)
                if error.kind == "stop" or not self._answered:
                    self._fatal = as_error(error)
                    self._ended.set()
                    raise self._fatal from error
                if error.kind == "row" or attempt == self.args.retries:
                    return Outcome(None, raw=error.raw, reason=error.message)
                seconds = back_off(attempt, self._random)
                if error.wait is not None:
                    self._rate.pause(error.wait)
                    seconds = error.wait + self._random.uniform(0, 1)
                self._wait(seconds)
                again = self.budget.hold(request.tokens_in, self.args.max_tokens)
                if again is None:
                    raise self.budget.reached() from error
                held, attempt = again, attempt + 1
        self._answered = True
        cache.put(request.key, reply.model_dump_json())
        self.paid(request.tokens_in, reply, held)
        return Outcome(reply, fresh=True)

    def _wait(self, seconds: float) -> None:
        """Waits. Raises the error that ended the run meanwhile."""
        if seconds > 0:
            self.sleep(seconds)
        if self._ended.is_set():
            raise self._fatal or CancelledError()

    def paid(self, tokens_in: int, reply: Reply, held: float) -> None:
        """Counts what a reply really took. tokens_in: the estimate, which stands where the provider counted nothing."""
        if reply.prompt_tokens is not None:
            self.budget.learn(tokens_in, reply.prompt_tokens)
            tokens_in = reply.prompt_tokens
        tokens_out = reply.completion_tokens if reply.completion_tokens is not None else len(reply.text.encode()) // 3
        self.budget.settle(held, self.budget.cost(tokens_in, tokens_out))
        with self._lock:
            self.counts.prompt_tokens += tokens_in
            self.counts.completion_tokens += tokens_out
