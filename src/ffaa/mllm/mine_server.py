"""Mining through an OpenAI-compatible server, such as vLLM with a LLaVA checkpoint: three requests per face.

The anchor is asked first, then the two hypotheses: a server that caches prefixes then encodes the face once.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ffaa.errors import FFAAError, InputError, MissingExtraError, UsageError
from ffaa.mllm.answer import parse_answer
from ffaa.mllm.generate import assign_roles
from ffaa.mllm.mine import Batch, Three
from ffaa.mllm.template import ChatTemplate
from ffaa.types import Answer, Role, UnparsedAnswer
from ffaa.vqa.cache import Cache, content_key
from ffaa.vqa.teachers.chat import Reply, data_url, from_environment, is_refusal
from ffaa.vqa.teachers.limits import RateLimit, back_off


class ServerArgs(BaseModel):
    """How the server is asked. The key is no setting: it comes from OPENAI_API_KEY. Decoding is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("", description="of the server, e.g. http://127.0.0.1:8000/v1; default OPENAI_BASE_URL")
    model: str = Field("", description="as the server names it; default OPENAI_MODEL")
    max_tokens: int = Field(512, ge=1, description="of an answer; a longer one is cut and does not count")
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="how the request says it; older servers know max_tokens only"
    )
    size: int = Field(336, ge=32, description="side of the faces sent, pixels; as the served model sees them")
    jpeg_quality: int | None = Field(None, ge=1, le=100, description="of faces sent; default: PNG, without loss")
    concurrency: int = Field(16, ge=1, le=1024, description="faces at a time")
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(120.0, gt=0, description="seconds for a request")
    retries: int = Field(6, ge=0, description="further attempts after rate limits, server errors and timeouts")
    give_up: int = Field(10, ge=1, description="stop after so many faces in a row for which no reply came")


def jinja_template(template: ChatTemplate) -> str:
    """The chat template for the server (vLLM: --chat-template FILE) under which its model reads what `template` makes.

    It takes a system message with the template's text, and a user message: parts (image, text), or the string that a
    server makes of them, in which the image token stands before the question. It writes the start token too: a server
    adds none to what a chat template gives.
    """
    pieces = {
        "user": template.user_prefix, "image": template.image_token + template.image_suffix,
        "assistant": template.assistant_prefix,
    }  # fmt: skip
    quoted = {name: '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
              for name, text in pieces.items()}  # fmt: skip
    return (
        "{{ bos_token }}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}"
        "{{ message['content'] if message['content'] is string else message['content'][0]['text'] }}"
        "{%- else -%}"
        f"{{{{ {quoted['user']} }}}}"
        "{%- if message['content'] is string -%}{{ message['content'] }}"
        "{%- else -%}{%- for part in message['content'] -%}"
        f"{{{{ part['text'] if part['type'] == 'text' else {quoted['image']} }}}}"
        "{%- endfor -%}{%- endif -%}{%- endif -%}{%- endfor -%}"
        f"{{{{ {quoted['assistant']} }}}}"
    )


class _SilentError(Exception):
    """No reply came, and a later attempt may get one."""


class FromServer:
    """image: row -> uint8 RGB. cache: the file of replies, so that none is asked for twice. sleep: how to wait.

    A reply that is refused, cut or unreadable, and a face that the server cannot take, become an `UnparsedAnswer`.
    Raises UsageError for a template that reads measured words, and without model or key; MissingExtraError without the
    client.
    """

    batch = 1

    def __init__(
        self,
        args: ServerArgs,
        template: ChatTemplate,
        image: Callable[[int], np.ndarray],
        cache: Path,
        sleep: Callable[[float], object] | None = None,
    ):
        try:
            from ffaa.vqa.teachers.endpoint import Endpoint
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"this needs the extra 'vqa' ({error.name} is missing); run: pip install 'ffaa[vqa]'"
            ) from error
        if template.reads_evidence:
            raise UsageError(f"the template '{template.name}' reads measured words, which a server cannot; mine here")
        self.args, self.template, self.image, self._path = args, template, image, cache
        model = from_environment(args.model, "OPENAI_MODEL", "the name that the server gives it")
        key = from_environment("", "OPENAI_API_KEY", "any word for a server that asks for none")
        url = args.base_url or os.environ.get("OPENAI_BASE_URL", "")
        if not url:
            raise UsageError("mining needs the server's address; set base_url or OPENAI_BASE_URL")
        self.endpoint = Endpoint(url, model, key, args.timeout)
        self._rate, self._random = RateLimit(args.requests_per_minute, None), random.Random()
        self._ended, self._given_sleep = threading.Event(), sleep

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[Three] | None]:
        """Faces in threads, results in order. Raises UsageError for a wrong key, address or model, InputError when the
        server cannot be reached, `give_up` faces in a row got no reply, or another run uses the cache."""
        self._ended.clear()
        self._answered, self._served = False, False
        self._fatal: FFAAError | None = None
        self.sleep = self._given_sleep or self._ended.wait
        window: deque[Future[list[Three] | str]] = deque()
        failures = 0

        def result() -> list[Three] | None:
            nonlocal failures
            found = window.popleft().result()
            failures = failures + 1 if isinstance(found, str) else 0
            if isinstance(found, str) and failures == self.args.give_up:
                raise InputError(f"no reply for {failures} faces in a row; the last: {found}")
            return None if isinstance(found, str) else found

        with Cache(self._path) as cache:
            pool = ThreadPoolExecutor(self.args.concurrency)
            try:
                for one in batches:
                    window.append(pool.submit(self._face, one, cache))
                    while len(window) >= 2 * self.args.concurrency:
                        yield result()
                while window:
                    yield result()
            finally:
                self._ended.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _face(self, one: Batch, cache: Cache) -> list[Three] | str:
        """The three answers about a face, or why there are none."""
        (row,) = one.rows
        image = data_url(self.image(row), self.args.jpeg_quality)
        try:
            replies = [self._ask(image, q, 3 * row + place, cache) for place, q in enumerate(one.questions)]
        except _SilentError as error:
            return str(error)
        # A reply that does not count must not decide which hypothesis is the positive one.
        counted = [reply.text if not self._unread(reply) else "" for reply in replies]
        by_question = dict(zip(one.questions, replies, strict=True))
        return [[self._judged(a, by_question[a.prompt]) for a in assign_roles(counted, one.questions)]]

    def _unread(self, reply: Reply) -> str:
        """Why a reply does not count; '' where it does, or where only its text can tell."""
        parsed = isinstance(parse_answer(reply.text, Role.ANCHOR, ""), Answer)
        if is_refusal(reply, parsed):
            return f"refused: {reply.refusal or reply.text[:80] or reply.finish}"
        return f"cut after {self.args.max_tokens} tokens" if reply.finish == "length" else ""

    def _judged(self, answer: Answer | UnparsedAnswer, reply: Reply) -> Answer | UnparsedAnswer:
        why = self._unread(reply)
        if not why:
            return answer
        return UnparsedAnswer(role=answer.role, prompt=answer.prompt, raw=reply.text or reply.refusal, reason=why)

    def _body(self, image: str, question: str, seed: int) -> dict[str, Any]:
        parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": question}]
        return {
            "model": self.endpoint.model,
            "messages": [{"role": "system", "content": self.template.system}, {"role": "user", "content": parts}],
            self.args.max_tokens_name: self.args.max_tokens,
            "temperature": 0.0,
            "seed": seed,
        }

    def _ask(self, image: str, question: str, seed: int, cache: Cache) -> Reply:
        """One reply, from the cache or with retries. A request that cannot succeed counts as refused where others did;
        where none did yet, the fault may be the server's."""
        from ffaa.vqa.teachers.endpoint import RequestError, as_error

        body, attempt = self._body(image, question, seed), 0
        key = content_key([self.endpoint.base_url, body])
        if (stored := cache.get(key)) is not None:
            return Reply.model_validate_json(stored)
        while True:
            self._wait(self._rate.delay(0))
            try:
                reply = self.endpoint.ask(body)
                break
            except RequestError as error:
                self._answered = self._answered or not error.offline
                if error.kind == "refused" or (error.kind == "row" and self._served):
                    return Reply(text="", finish="content_filter", refusal=error.message)
                if error.kind == "stop" or not self._answered:
                    self._fatal = as_error(error)
                    self._ended.set()
                    raise self._fatal from error
                if error.kind == "row" or attempt == self.args.retries:
                    raise _SilentError(error.message) from error
                seconds = back_off(attempt, self._random)
                if error.wait is not None:
                    self._rate.pause(error.wait)
                    seconds = error.wait + self._random.uniform(0, 1)
                attempt += 1
                self._wait(seconds)
        self._answered = self._served = True
        cache.put(key, reply.model_dump_json())
        return reply

    def _wait(self, seconds: float) -> None:
        """Waits. Raises the error that ended the run meanwhile."""
        if seconds > 0:
            self.sleep(seconds)
        if self._ended.is_set():
            raise self._fatal or CancelledError()
