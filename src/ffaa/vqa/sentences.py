"""The sentence file of the grounded writer, expanded: every wording with the item and word it states."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any, NamedTuple

import yaml

_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")


class Claim(NamedTuple):
    """What a clause states: that an item has a word."""

    item: str
    word: str


@cache
def sentence_file() -> dict[str, Any]:
    """prompts/sentences.yaml, parsed."""
    return _read("sentences.yaml")


@cache
def lean_file() -> dict[str, dict[str, dict[str, float]]]:
    """prompts/leans.yaml: forgery type or method -> item -> word -> ln P(word | forged so) / P(word | real)."""
    return _read("leans.yaml")


def _read(name: str) -> Any:
    return yaml.safe_load(files("ffaa.vqa").joinpath("prompts", name).read_text(encoding="utf-8"))


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


def tails(item: str, word: str, side: str) -> list[str]:
    """Patterns of explanations that may follow in the reasoning; side: 'real' or 'fake'."""
    return list(sentence_file()["reason"][item][word].get(side, []))


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
