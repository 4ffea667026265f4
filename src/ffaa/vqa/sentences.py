"""The sentence file of the grounded writer, expanded: every wording with the item and word it states."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any, NamedTuple

import yaml

from ffaa.types import EvidenceRecord, ForgeryType

_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")


class Claim(NamedTuple):
    """What a clause states: that an item has a word. Of words joined by '|', any may hold: free text is vaguer."""

    item: str
    word: str

    @property
    def words(self) -> list[str]:
        return self.word.split("|")


@cache
def sentence_file() -> dict[str, Any]:
    """prompts/sentences.yaml, parsed."""
    return read_prompt("sentences.yaml")


@cache
def lean_file() -> dict[str, dict[str, dict[str, float]]]:
    """prompts/leans.yaml: forgery type or method -> item -> word -> ln P(word | forged so) / P(word | real)."""
    return read_prompt("leans.yaml")


UNSEEN = "unseen"


@cache
def read_items() -> tuple[str, ...]:
    """The items that a model reads beside the face: all that the sentences speak of, but for those that need the
    photo's own pixels, which an augmented crop has lost."""
    names = [name for part in ("describe", "reason") for name in sentence_file()[part]]
    return tuple(name for name in names if not name.startswith("jpeg_"))


def read_words(record: EvidenceRecord) -> dict[str, str]:
    """item -> word of `read_items`, 'unseen' where it could not be measured."""
    return {name: record.word(name) or UNSEEN for name in read_items()}


@cache
def file_version() -> str:
    """'grounded-2-0a1b2c3d': the number in sentences.yaml, and a hash of both files."""
    text = "\0".join(_text(name) for name in ("sentences.yaml", "leans.yaml"))
    return f"grounded-{sentence_file()['version']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read_prompt(name: str) -> Any:
    """A YAML file of prompts/, parsed."""
    return yaml.safe_load(_text(name))


def _text(name: str) -> str:
    return files("ffaa.vqa").joinpath("prompts", name).read_text(encoding="utf-8")


@cache
def wordings(pattern: str) -> tuple[str, ...]:
    """All wordings of a pattern with {a|b} alternatives."""
    parts = _CHOICE.split(pattern)
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return tuple(" ".join("".join(choice).split()) for choice in product(*options))


def says(part: str, item: str, word: str) -> list[str]:
    """The patterns that state `word` of `item`; part: 'describe' or 'reason'."""
    entry = sentence_file()[part][item][word]
    return list(entry["say"] if isinstance(entry, dict) else entry)


def tails(item: str, word: str, kind: ForgeryType) -> list[str]:
    """Patterns of explanations why a face of this type has the word, that may follow in the reasoning."""
    entry = sentence_file()["reason"][item][word]
    found = list(entry.get("real" if kind is ForgeryType.REAL else "fake", []))
    return found + list(entry.get("synthesis", [])) if kind is ForgeryType.ENTIRE_FACE_SYNTHESIS else found


@cache
def claims() -> dict[str, Claim]:
    """Every wording of a measured clause -> what it states. A wording states one thing only (tested)."""
    found: dict[str, Claim] = {}
    for part in ("describe", "reason"):
        for item, words in sentence_file()[part].items():
            for word in words:
                for pattern in says(part, item, word):
                    for wording in wordings(pattern):
                        found[plain(wording)] = Claim(item, word)
    return found


def plain(text: str) -> str:
    """Lower case, words only, single spaces: what is compared."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "")))
