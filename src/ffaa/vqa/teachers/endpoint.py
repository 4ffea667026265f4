"""The official client, with its many errors sorted by what is to be done about them. Needs the extra 'vqa'."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import openai

from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.vqa.teachers.chat import Reply, decode_reply

# stop: no request of this run can succeed. retry: later, and nothing was billed. uncertain: later, but it may have been
# billed. refused: the provider's filter declined the content. row: this request cannot succeed, others may.
Kind = Literal["stop", "retry", "uncertain", "refused", "row"]
LONGEST_WAIT = 600.0  # seconds; a provider that asks for more is told to the user


class RequestError(Exception):
    """A request without a reply. wait: seconds that the provider asks to wait. raw: what came instead of a reply."""

    def __init__(self, kind: Kind, message: str, wait: float | None = None, raw: str = "", offline: bool = False):
        super().__init__(message)
        self.kind, self.message, self.wait, self.raw, self.offline = kind, message, wait, raw, offline


class Endpoint:
    """An OpenAI-compatible endpoint. Its methods may be called from any thread."""

    def __init__(self, base_url: str, model: str, key: str, timeout: float):
        self.client = openai.OpenAI(api_key=key, base_url=base_url, timeout=timeout, max_retries=0)
        self.base_url, self.model = base_url, model

    def ask(self, body: dict[str, Any]) -> Reply:
        """One chat completion, one attempt. Raises RequestError."""
        try:
            text = self.client.chat.completions.with_raw_response.create(**body).text
        except openai.OpenAIError as error:
            raise self.sort(error) from error
        reply = decode_reply(text)
        if reply is None:
            raise RequestError("uncertain", f"{self.base_url}: no chat completion came back: {text[:80]!r}", raw=text)
        return reply

    def sort(self, error: openai.OpenAIError) -> RequestError:
        """What the client raised, as a RequestError with a line for users."""
        if isinstance(error, openai.APITimeoutError):
            return RequestError("uncertain", f"{self.base_url}: no reply in time; allow a longer timeout")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return RequestError(
                "retry", f"{self.base_url}: cannot be reached ({cause}); is OPENAI_BASE_URL right?", offline=True
            )
        if not isinstance(error, openai.APIStatusError):
            return RequestError("row", f"{self.base_url}: {_line(str(error))}")
        told = error.body.get("message") if isinstance(error.body, dict) else None
        status, said = error.status_code, _line(str(told or error.message))
        if status == 401:
            return RequestError("stop", f"{self.base_url}: the key is not accepted (401); check OPENAI_API_KEY")
        if status == 403:
            return RequestError("stop", f"{self.base_url}: not allowed (403): {said}")
        if status in (404, 405):
            return RequestError(
                "stop", f"{self.base_url}: no model {self.model!r}, or no such address ({status}): {said}; check "
                "OPENAI_MODEL, and OPENAI_BASE_URL, which most often ends in /v1"
            )  # fmt: skip
        if status == 402 or error.code == "insufficient_quota":
            return RequestError("stop", f"{self.base_url}: the account has no money left ({said}); top it up")
        if error.code in ("content_filter", "content_policy_violation"):
            return RequestError("refused", said)
        if status in (408, 409, 425, 429) or status >= 500:
            wait = _retry_after(error.response.headers)
            if wait is not None and wait > LONGEST_WAIT:
                return RequestError("stop", f"{self.base_url}: asks to wait {wait:.0f} s ({said}); run again then")
            return RequestError("retry", f"{self.base_url}: {status}: {said}", wait)
        return RequestError("row", f"{self.base_url}: {status}: {said}")


def as_error(error: RequestError) -> FFAAError:
    """The error that ends a run."""
    return UsageError(error.message) if error.kind == "stop" else InputError(error.message)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def _retry_after(headers: Any) -> float | None:
    """Seconds that the headers ask to wait: retry-after-ms, or Retry-After as seconds or a date (RFC 9110)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name)) / unit
        except (TypeError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after")).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
