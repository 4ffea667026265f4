"""A model behind an OpenAI-compatible endpoint: requests limited, retried, and every paid reply kept."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffaa.data.forge.base import pixel_hash
from ffaa.errors import FFAAError, InputError, MissingExtraError
from ffaa.eval.detectors import About
from ffaa.vqa.cache import Cache, content_key
from ffaa.vqa.teachers.chat import Reply, data_url, from_environment
from ffaa.vqa.teachers.limits import RateLimit, back_off

if TYPE_CHECKING:
    from ffaa.eval.asked import Asking


class EndpointModel:
    """replies: the file of paid replies, by model, prompt, pixels and parameters. Raises UsageError without key,
    MissingExtraError without the client."""

    def __init__(self, model: str, url: str, asking: Asking, replies: Path):
        try:
            from ffaa.vqa.teachers.endpoint import Endpoint
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"this needs the extra 'vqa' ({error.name} is missing); run: pip install "
                                    "'ffaa[vqa]'") from error  # fmt: skip
        key = from_environment("", "OPENAI_API_KEY", "sk-... (any word for a server that asks for none)")
        self.asking, self._replies = asking, replies
        self._endpoint = Endpoint(url, model, key, asking.timeout)
        self._rate, self._random = RateLimit(asking.requests_per_minute, None), random.Random()
        self._stop, self._answered = threading.Event(), False
        settings = asking.model_dump(include={"max_tokens", "temperature", "send_seed"})
        self.about = About(
            kind="asked", files={}, image_size=None, parameters=None, device=f"{model} at {url} {settings}"
        )

    def __call__(self, images: Sequence[np.ndarray], prompt: str) -> list[Reply]:
        """Replies about uint8 RGB images (H, W, 3), in order.

        Raises UsageError where no request can succeed, InputError where one gets no reply: what is no answer of the
        model is never counted as one. Replies that came are kept; the next run asks for the others alone.
        """
        self._stop.clear()
        with Cache(self._replies) as cache, ThreadPoolExecutor(self.asking.concurrency) as pool:
            waiting = [pool.submit(self._reply, cache, image, prompt) for image in images]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _reply(self, cache: Cache, image: np.ndarray, prompt: str) -> Reply:
        parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}, {"type": "image_url"}]
        body: dict[str, Any] = {
            "model": self._endpoint.model, "messages": [{"role": "user", "content": parts}],
            self.asking.max_tokens_name: self.asking.max_tokens,
        }  # fmt: skip
        if self.asking.temperature is not None:
            body["temperature"] = self.asking.temperature
        if self.asking.send_seed:
            body["seed"] = 0
        key = content_key([self._endpoint.base_url, body, pixel_hash(image)])
        if (kept := cache.get(key)) is not None:
            return Reply.model_validate_json(kept)
        parts[1]["image_url"] = {"url": data_url(image, None), "detail": "high"}
        reply = self._ask(body)
        cache.put(key, reply.model_dump_json())
        return reply

    def _ask(self, body: dict[str, Any]) -> Reply:
        from ffaa.vqa.teachers.endpoint import RequestError, as_error

        attempt = 0
        while True:
            self._wait(self._rate.delay(0))
            try:
                reply = self._endpoint.ask(body)
                self._answered = True
                return reply
            except RequestError as error:
                if error.kind == "refused":
                    return Reply(text="", finish="content_filter", refusal=error.message)
                self._answered = self._answered or not error.offline
                if error.kind in ("stop", "row") or not self._answered:
                    raise self._ended(as_error(error)) from error
                if attempt == self.asking.retries:
                    told = f"{error.message}; given up after {attempt + 1} attempts, run again: replies are kept"
                    raise self._ended(InputError(told)) from error
                if error.wait is not None:
                    self._rate.pause(error.wait)
                seconds, attempt = back_off(attempt, self._random), attempt + 1
                self._wait(seconds if error.wait is None else error.wait)

    def _ended(self, error: FFAAError) -> FFAAError:
        self._stop.set()  # nobody waits for an attempt that will not be needed
        return error

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise CancelledError
