"""Other multimodal models as detectors: asked about a face crop with one plain prompt and with FFA-CoT's (Fig. 5)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ffaa.errors import UsageError
from ffaa.eval.detectors import UNSURE, About, Explanation, Judgement, Says, stated
from ffaa.evidence.examine import examine_face
from ffaa.mllm.answer import parse_answer, parse_plain
from ffaa.types import Answer, Face, Label, Role, UnparsedAnswer
from ffaa.vqa.judge import judge_text
from ffaa.vqa.teachers.chat import Reply, is_refusal

PROMPTS = ("ask_cot.txt", "ask_plain.txt")
OPENAI, HF = "openai:", "hf:"

# Asks about every image with one prompt; replies in order.
Ask = Callable[[Sequence[np.ndarray], str], list[Reply]]


class Asking(BaseModel):
    """How models are asked. The key comes from OPENAI_API_KEY."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(800, ge=1, description="of a reply; a longer one is cut")
    max_tokens_name: str = Field(
        "max_completion_tokens", description="how a request says it; older servers: max_tokens"
    )
    temperature: float | None = Field(0.0, ge=0, le=2, description="null: not sent, for models that refuse it")
    send_seed: bool = Field(True, description="false for servers that refuse it")
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time")
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(120.0, gt=0, description="seconds for a request")
    retries: int = Field(6, ge=0, description="further attempts after rate limits, server errors and timeouts")


class Asked:
    """A model that is asked. Its rows: NAME (FFA-CoT) and NAME/plain. A reply that declines is a refusal, one that
    cannot be read is unread; neither is guessed."""

    def __init__(self, name: str, ask: Ask, about: About):
        self.name, self._ask = name, ask
        self.rows: tuple[str, ...] = (name, f"{name}/plain")
        self.about = about.model_copy(update={"files": about.files | _prompt_hashes()})

    def judge(self, faces: Sequence[Face]) -> list[Judgement]:
        """The crops as they are, with both prompts."""
        images = [face.image for face in faces]
        started = time.perf_counter()
        cot, plain = (self._ask(images, prompt(name)) for name in PROMPTS)
        seconds = (time.perf_counter() - started) / len(faces)
        out = []
        for long, short in zip(cot, plain, strict=True):
            answer = _answer(long)
            says = {self.rows[0]: _says(long, answer), self.rows[1]: _says(short, parse_plain(short.text))}
            kind = answer.forgery_type if isinstance(answer, Answer) else None
            words = {self.rows[0]: long.refusal or long.text, self.rows[1]: short.refusal or short.text}
            out.append(Judgement(says=says, seconds=seconds, said_type=kind, words=words))
        return out

    def explain(self, face: Face) -> Explanation:
        """The FFA-CoT answer, its sentences held against what is measured. There is no heatmap."""
        answer = _answer(self._ask([face.image], prompt(PROMPTS[0]))[0])
        if not isinstance(answer, Answer):
            return Explanation(None, [answer], None, [], None)
        record = examine_face(face)
        sentences = judge_text(answer.description, record, "description")
        sentences += judge_text(answer.reasoning, record, "reasoning")
        return Explanation(answer.result, [answer], answer, sentences, None)


def _answer(reply: Reply) -> Answer | UnparsedAnswer:
    return parse_answer(reply.text, Role.ANCHOR, prompt(PROMPTS[0]))


def _says(reply: Reply, read: object) -> Says:
    if isinstance(read, Answer):
        return stated(read)
    if isinstance(read, Label):
        return Says(label=read, score=float(read is Label.FAKE))
    return Says(label=None, score=UNSURE, refused=is_refusal(reply, parsed=False))


def prompt(name: str) -> str:
    """A prompt of vqa/prompts."""
    return files("ffaa.vqa").joinpath("prompts", name).read_text(encoding="utf-8").strip()


def _prompt_hashes() -> dict[str, str]:
    return {name: hashlib.sha256(prompt(name).encode()).hexdigest() for name in PROMPTS}


def load_asked(which: str, device: str, name: str, asking: Asking, replies: Path | None) -> Asked:
    """`openai:MODEL@URL` or `hf:FOLDER`. replies: file that keeps an endpoint's paid replies.

    Raises UsageError for what is neither, and as the two do.
    """
    if which.startswith(HF):
        from ffaa.eval.asked_local import ImageTextModel

        folder = Path(which.removeprefix(HF))
        model = ImageTextModel(folder, device, asking.max_tokens)
        return Asked(name or plain_name(folder.resolve().name), model, model.about)
    from ffaa.eval.asked_endpoint import EndpointModel

    told, _, url = which.removeprefix(OPENAI).partition("@")
    if not told or not url or replies is None:
        raise UsageError(f"detector '{which}': give {OPENAI}MODEL@URL, e.g. openai:gpt-4o@https://api.openai.com/v1")
    if urlsplit(url).password is not None:
        raise UsageError(f"detector '{told}': no password in the address, results keep it; the key is OPENAI_API_KEY")
    endpoint = EndpointModel(told, url, asking, replies)
    return Asked(name or plain_name(told), endpoint, endpoint.about)


def plain_name(text: str) -> str:
    """Letters, digits and . _ + - alone: names stand in file names."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "-" for c in text)
    return kept.lstrip("._+-") or "model"
