"""The prompts for teachers that are models, and the questions of the conversations: text files, loaded and filled."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from ffaa.data.manifest import Row
from ffaa.types import ForgeryType, Label

FILES = ("system.txt", "sources.yaml", "references.yaml", "questions.yaml")


def _text(name: str) -> str:
    return files("ffaa.vqa").joinpath("prompts", "teacher", name).read_text(encoding="utf-8")


@cache
def _load(name: str) -> Any:
    return yaml.safe_load(_text(name))


@cache
def prompt_version() -> str:
    """'teacher-1-0a1b2c3d': the number in VERSION.txt, and a hash of the files so that no change goes unnoticed."""
    digest = hashlib.sha256("\0".join(_text(name) for name in FILES).encode())
    return f"teacher-{_text('VERSION.txt').strip()}-{digest.hexdigest()[:8]}"


@cache
def system_prompt() -> str:
    """The paper's four sections: role, forgery types, chain of thought (FFA-CoT), requirements."""
    return _text("system.txt").strip()


def source_prompt(row: Row) -> str:
    """What is known of a row: the truth first, then its collection, method (or type) and changed parts, then the task.

    For a collection or method that the files do not know, the generic text and that of the forgery type stand.
    """
    text = _load("sources.yaml")
    parts = [text["truth"][row.label.value], text["collections"].get(row.dataset, text["unknown"])]
    known = row.label is Label.FAKE and row.method in text["methods"]
    parts.append(text["methods"][row.method] if known else text["types"][row.forgery_type.value])
    if row.regions and row.label is Label.FAKE:
        parts.append(text["regions"].replace("{regions}", ", ".join(r.replace("_", " ") for r in row.regions)))
    parts.append(text["task"])
    filled = "\n".join(part.strip() for part in parts)
    return filled.replace("{type}", row.forgery_type.value).replace("{label}", row.label.value)


def picture_prompt(name: str) -> str:
    """What is said before a picture: 'reference' (the original face), 'mask' (the changed pixels) or 'image'."""
    return str(_load("references.yaml")[name]).strip()


def questions(hypothesis: Label | None = None) -> tuple[str, ...]:
    """The question prompts of one meaning, or those that presume `hypothesis`."""
    text = _load("questions.yaml")
    return tuple(text["hypothetical"][hypothesis.value] if hypothesis else text["plain"])


def draw_question(hypothesis: Label | None, rng: np.random.Generator) -> str:
    """One of `questions`, drawn evenly."""
    asked = questions(hypothesis)
    return asked[int(rng.integers(len(asked)))]


def explained() -> tuple[frozenset[str], frozenset[str], frozenset[ForgeryType]]:
    """(collections, methods, forgery types) that have a text of their own."""
    text = _load("sources.yaml")
    return frozenset(text["collections"]), frozenset(text["methods"]), frozenset(map(ForgeryType, text["types"]))
