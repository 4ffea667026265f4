"""A request of the chat completions protocol: its content, its key, what it may cost, and what comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ffaa.errors import UsageError
from ffaa.types import Label, Record
from ffaa.vqa.cache import content_key
from ffaa.vqa.prompting import picture_prompt, source_prompt, system_prompt
from ffaa.vqa.teachers.base import Ask

# How models decline; only ever asked of replies that are no five-line answer.
_REFUSALS = re.compile(
    r"\A\W*(?:(?:i'?m|i am)\s+(?:(?:very |so )?sorry|unable|not able|not comfortable)|sorry\b|(?:my )?apologies|"
    r"i apologi[sz]e|(?:unfortunately,? )?i (?:can(?:'?t|not| not)|won'?t|must decline|have to decline|don'?t feel)|"
    r"as an ai\b)|\b(?:can(?:'?t|not)|unable to) (?:assist|help|comply|identify|analy[sz]e|provide)\b",
    re.IGNORECASE,
)


class OpenAIArgs(BaseModel):
    """How the `openai` teacher asks. The key is no setting: it comes from OPENAI_API_KEY or as an argument."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("", description="of the endpoint, e.g. http://127.0.0.1:8000/v1; default OPENAI_BASE_URL")
    model: str = Field("", description="default OPENAI_MODEL")
    temperature: float | None = Field(None, ge=0, le=2, description="default: the provider's")
    max_tokens: int = Field(800, ge=1, description="of a reply; a longer one is cut and does not count")
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="how the request says it; older servers know max_tokens only"
    )
    send_seed: bool = Field(True, description="some servers refuse the parameter")
    detail: Literal["high", "low", "auto"] = "high"
    jpeg_quality: int | None = Field(None, ge=1, le=100, description="of photos sent; default: PNG, without loss")
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0, description="of prompt and reply, estimated before a request")
    timeout: float = Field(120.0, gt=0, description="seconds for a request")
    retries: int = Field(6, ge=0, description="further attempts after rate limits, server errors and timeouts")
    give_up: int = Field(10, ge=1, description="stop after so many rows in a row for which no reply came")
    price_in: float = Field(0.0, ge=0, description="of a million prompt tokens")
    price_out: float = Field(0.0, ge=0, description="of a million reply tokens")
    cap: float | None = Field(None, gt=0, description="what one run may spend, in the prices' currency")
    reply_tokens: int = Field(300, ge=1, description="of a usual reply, for the estimate")
    image_base_tokens: int = Field(85, ge=0, description="GPT-4o's; see `image_tokens`")
    image_tile_tokens: int = Field(170, ge=0, description="GPT-4o's")
    batch: bool = Field(False, description="the provider's batch endpoint: cheaper, within a day; give its prices")
    batch_size: int = Field(500, ge=1, le=50_000, description="requests a batch")
    batch_bytes: int = Field(100_000_000, ge=1, description="of a batch file; providers take 200 MB")
    batches: int = Field(4, ge=1, description="batches under way at a time")
    poll: float = Field(60.0, gt=0, description="seconds between two looks at a batch")


class Reply(Record):
    """What the provider gave and counted. finish: 'stop', 'length', 'content_filter' ...; tokens None: not counted."""

    text: str
    finish: str = ""
    refusal: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_reply(body: Any) -> Reply | None:
    """The reply in a decoded chat completion; None where it is none."""
    try:
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        text = message.get("content") or ""
        if isinstance(text, list):
            text = "".join(part.get("text") or "" for part in text)
        return Reply(
            text=text,
            finish=choice.get("finish_reason") or "",
            refusal=message.get("refusal") or "",
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None


def decode_reply(text: str) -> Reply | None:
    """The reply in a chat completion's JSON; None where it is none."""
    try:
        return read_reply(json.loads(text))
    except (ValueError, RecursionError):
        return None


def is_refusal(reply: Reply, parsed: bool) -> bool:
    """Whether the provider or the model declined. parsed: the text is a five-line answer, so its words do not count."""
    declined = reply.finish == "content_filter" or bool(reply.refusal)
    return declined or (not parsed and bool(_REFUSALS.search(reply.text.replace("’", "'")[:300])))


def image_tokens(height: int, width: int, args: OpenAIArgs) -> int:
    """Tokens of a picture by OpenAI's tile rule for GPT-4o, to the letter: detail low is the base alone; else the
    shorter side is brought to 768 px, and each 512 px tile counts. A 224 px crop: 765 (255 where a provider does not
    enlarge). Other models count otherwise: set `image_base_tokens` and `image_tile_tokens`."""
    if args.detail == "low":
        return args.image_base_tokens
    scale = 768 / min(height, width)
    tiles = math.ceil(round(height * scale) / 512) * math.ceil(round(width * scale) / 512)
    return args.image_base_tokens + args.image_tile_tokens * tiles


def data_url(pixels: np.ndarray, jpeg_quality: int | None) -> str:
    """A picture, uint8 RGB or grey, as a data URL: PNG, or JPEG of this quality for colour."""
    colour = pixels.ndim == 3
    jpeg = jpeg_quality is not None and colour
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if colour else pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if jpeg and jpeg_quality else []
    _, data = cv2.imencode(".jpg" if jpeg else ".png", ordered, options)
    return f"data:image/{'jpeg' if jpeg else 'png'};base64,{base64.b64encode(data.tobytes()).decode()}"


def _pixel_key(pixels: np.ndarray) -> str:
    return hashlib.sha256(repr((pixels.shape, str(pixels.dtype))).encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Request:
    """An ask as the endpoint gets it. key: content hash of model, messages, pictures and parameters. tokens_in: an
    estimate, rather high: a token per 3 bytes of text, and `image_tokens`."""

    ask: Ask
    key: str
    tokens_in: int
    args: OpenAIArgs
    model: str

    @classmethod
    def of(cls, ask: Ask, args: OpenAIArgs, model: str) -> Request:
        content = _body(ask, args, model, _pixel_key)
        parts = content["messages"][1]["content"]
        text = content["messages"][0]["content"] + "".join(p["text"] for p in parts if p["type"] == "text")
        tokens = len(text.encode()) // 3 + 16
        tokens += sum(image_tokens(pixels.shape[0], pixels.shape[1], args) for _, pixels in _pictures(ask))
        return cls(ask, content_key([content, args.jpeg_quality]), tokens, args, model)

    def body(self) -> dict[str, Any]:
        """The request's JSON, pictures included."""
        return _body(self.ask, self.args, self.model, lambda pixels: data_url(pixels, self.args.jpeg_quality))


def _pictures(ask: Ask) -> list[tuple[str, np.ndarray]]:
    """(name, pixels) in the order they are shown. Real rows were made from nothing else and have no mask."""
    shown = []
    if ask.row.label is Label.FAKE:
        shown = [(n, p) for n, p in (("reference", ask.reference), ("mask", ask.mask)) if p is not None]
    return [*shown, ("image", ask.image)]


def _body(ask: Ask, args: OpenAIArgs, model: str, url: Callable[[np.ndarray], str]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": source_prompt(ask.row)}]
    for name, pixels in _pictures(ask):
        parts.append({"type": "text", "text": picture_prompt(name)})
        parts.append({"type": "image_url", "image_url": {"url": url(pixels), "detail": args.detail}})
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": system_prompt()}, {"role": "user", "content": parts}],
        args.max_tokens_name: args.max_tokens,
    }
    if args.temperature is not None:
        body["temperature"] = args.temperature
    if args.send_seed:
        body["seed"] = ask.seed
    return body


def from_environment(given: str, name: str, example: str) -> str:
    """A setting, or the environment variable of that name. Raises UsageError when neither is set."""
    value = given or os.environ.get(name, "")
    if not value:
        raise UsageError(f"the openai teacher needs {name}; set it in the environment, e.g. {name}={example}")
    return value
