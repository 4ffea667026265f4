"""The provider's batch endpoint: requests go in a file, replies come in a file, within a day and for less.

A batch is noted in the cache before it is handed in and carries its own id as metadata, so that a killed run finds it
again instead of paying for a second one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import openai

from ffaa.errors import InputError
from ffaa.vqa.cache import Cache, OpenBatch, content_key
from ffaa.vqa.teachers.base import Ask
from ffaa.vqa.teachers.chat import Reply, Request, read_reply
from ffaa.vqa.teachers.endpoint import as_error

if TYPE_CHECKING:
    from ffaa.vqa.teachers.openai_teacher import OpenAITeacher, Outcome

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MARK = "ffaa"
LOOK_BACK = 1000  # batches searched for one whose id was not noted


@dataclass(eq=False)
class Chunk:
    """A batch, while it is filled (no name), under way and done. held: by the budget. failed: key -> why."""

    keys: dict[str, int] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    held: float = 0.0
    name: str = ""
    batch: str = ""
    done: bool = False
    failed: dict[str, str] = field(default_factory=dict)


class Batches:
    """The batches of one run."""

    def __init__(self, teacher: OpenAITeacher, cache: Cache):
        self._teacher, self._cache, self._args = teacher, cache, teacher.args
        self._client = teacher.endpoint.client
        self._filling = Chunk()
        self._open: deque[Chunk] = deque()
        self._chunks: dict[str, Chunk] = {}

    def rows(self, requests: Iterator[Request]) -> Iterator[tuple[Ask, Outcome]]:
        """Every request with its outcome, in order."""
        queue: deque[tuple[Ask, str, bool]] = deque()
        for request in requests:
            fresh = self._find(request.key)
            while fresh and not self._add(request):
                if self._filling.keys:
                    self._hand_in()
                elif self._open:
                    self._fetch(self._open[0])
                else:
                    yield from self._ready(queue)
                    raise self._teacher.budget.reached()
            queue.append((_light(request.ask), request.key, fresh))
            yield from self._ready(queue)
        if self._filling.keys:
            self._hand_in()
        while queue:
            yield from self._ready(queue)
            if queue:
                self._fetch(self._chunks[queue[0][1]])

    def _find(self, key: str) -> bool:
        """Whether `key` must be paid for: it is neither in the cache nor in a batch of this or of an earlier run."""
        if self._cache.get(key) is not None or key in self._chunks:
            return False
        noted = self._cache.batch_of(key)
        return noted is None or not self._adopt(noted)

    def _ready(self, queue: deque[tuple[Ask, str, bool]]) -> Iterator[tuple[Ask, Outcome]]:
        from ffaa.vqa.teachers.openai_teacher import Outcome

        while queue:
            ask, key, fresh = queue[0]
            stored, chunk = self._cache.get(key), self._chunks.get(key)
            if stored is not None:
                outcome = Outcome(Reply.model_validate_json(stored), fresh)
            elif chunk is not None and chunk.done:
                outcome = Outcome(None, reason=chunk.failed.get(key, "the batch gave no reply"))
            else:
                return
            queue.popleft()
            yield ask, outcome

    def _add(self, request: Request) -> bool:
        """Puts a request into the batch that is being filled; False where the budget does not allow it now."""
        held = self._teacher.budget.hold(request.tokens_in, self._args.max_tokens)
        if held is None:
            return False
        body = {"custom_id": request.key, "method": "POST", "url": URL, "body": request.body()}
        line = json.dumps(body).encode() + b"\n"
        if self._filling.keys and self._filling.size + len(line) > self._args.batch_bytes:
            self._hand_in()
        chunk = self._filling
        chunk.keys[request.key] = request.tokens_in
        chunk.lines.append(line)
        chunk.size, chunk.held = chunk.size + len(line), chunk.held + held
        self._chunks[request.key] = chunk
        if len(chunk.keys) == self._args.batch_size:
            self._hand_in()
        return True

    def _hand_in(self) -> None:
        chunk, self._filling = self._filling, Chunk()
        while len(self._open) >= self._args.batches:
            self._fetch(self._open[0])
        chunk.name = content_key(sorted(chunk.keys))[:32]
        data = b"".join(chunk.lines)
        chunk.lines.clear()
        with self._errors():
            file = self._client.with_options(max_retries=3).files.create(
                file=(f"{chunk.name}.jsonl", data), purpose="batch"
            )
            self._cache.open_batch(
                chunk.name, list(chunk.keys), sum(chunk.keys.values()), len(chunk.keys) * self._args.max_tokens
            )
            batch = self._client.batches.create(
                input_file_id=file.id, endpoint=URL, completion_window="24h", metadata={MARK: chunk.name}
            )
        self._cache.name_batch(chunk.name, batch.id)
        chunk.batch = batch.id
        self._open.append(chunk)
        self._teacher.counts.attempts += len(chunk.keys)

    def _adopt(self, noted: OpenBatch) -> bool:
        """Takes over a batch of an earlier run; False, and forgets it, where it was never handed in."""
        number = noted.batch or self._search(noted.chunk)
        if number is None:
            self._cache.close_batch(noted.chunk, {})
            return False
        self._cache.name_batch(noted.chunk, number)
        held = self._teacher.budget.hold(noted.tokens_in, noted.tokens_out, force=True) or 0.0
        each = noted.tokens_in // len(noted.keys)
        chunk = Chunk(keys=dict.fromkeys(noted.keys, each), held=held, name=noted.chunk, batch=number)
        self._chunks.update(dict.fromkeys(noted.keys, chunk))
        self._open.append(chunk)
        return True

    def _search(self, name: str) -> str | None:
        with self._errors():
            for place, batch in enumerate(self._client.with_options(max_retries=3).batches.list(limit=100)):
                if (batch.metadata or {}).get(MARK) == name and batch.status != "failed":
                    return batch.id
                if place >= LOOK_BACK:
                    break
        return None

    def _fetch(self, chunk: Chunk) -> None:
        """Waits for a batch and stores its replies. Raises InputError when the provider refused the whole batch."""
        client = self._client.with_options(max_retries=3)
        with self._errors():
            while (batch := client.batches.retrieve(chunk.batch)).status not in (
                "completed", "failed", "expired", "cancelled",
            ):  # fmt: skip
                self._teacher.sleep(self._args.poll)
            names = [name for name in (batch.output_file_id, batch.error_file_id) if name]
            texts = [client.files.content(name).text for name in names]
        if batch.status == "failed":
            self._cache.close_batch(chunk.name, {})
            said = batch.errors.data[0].message if batch.errors and batch.errors.data else "no reason given"
            raise InputError(f"{self._teacher.endpoint.base_url}: batch {chunk.batch} was refused: {said}")
        replies: dict[str, Reply] = {}
        for line in (line for text in texts for line in text.splitlines() if line.strip()):
            key, reply, reason = _read_line(line)
            if key not in chunk.keys:
                continue
            if reply is None:
                chunk.failed[key] = reason
            else:
                replies[key] = reply
        self._cache.close_batch(chunk.name, {key: reply.model_dump_json() for key, reply in replies.items()})
        self._teacher.budget.settle(chunk.held, 0)
        for key, reply in replies.items():
            self._teacher.paid(chunk.keys[key], reply, 0)
        chunk.done = True
        self._open.remove(chunk)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what the client raises inside into one line for users."""
        try:
            yield
        except openai.OpenAIError as error:
            raise as_error(self._teacher.endpoint.sort(error)) from error


def by_batch(teacher: OpenAITeacher, requests: Iterator[Request], cache: Cache) -> Iterator[tuple[Ask, Outcome]]:
    """Every request with its outcome, in order, by batches."""
    return Batches(teacher, cache).rows(requests)


def _read_line(line: str) -> tuple[str, Reply | None, str]:
    """(key, reply, why there is none) of a line of an output or error file."""
    try:
        entry = json.loads(line)
        key, response = str(entry["custom_id"]), entry.get("response") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None, "unreadable"
    body = response.get("body") or {}
    if response.get("status_code") == 200:
        return key, read_reply(body), "no chat completion came back"
    error = entry.get("error") or body.get("error") or {}
    if error.get("code") in ("content_filter", "content_policy_violation"):
        return key, Reply(text="", finish="content_filter", refusal=str(error.get("message", ""))), ""
    return key, None, f"{response.get('status_code', 'no status')}: {error.get('message', 'no reason given')}"


def _light(ask: Ask) -> Ask:
    """The ask without its pictures, which went into the batch."""
    return replace(ask, image=np.empty((0, 0, 3), np.uint8), mask=None, reference=None)
