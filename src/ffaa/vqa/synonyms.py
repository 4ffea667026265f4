"""Claims in free text: prompts/synonyms.yaml, read as patterns. Sooner silent than wrong: what is negated, supposed,
usual elsewhere or merely suggested is no claim.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from ffaa.vqa.sentences import Claim, plain, read_prompt

GAP = 4  # words that '*' may stand for
# A new clause begins: what was negated or supposed before ends here. A comma alone may stand in a list.
_CLAUSE = re.compile(
    r"[;:.!?()]|,\s+(?=(?:with|and|which|the|his|her|its|their|both)\b)"
    r"|\b(?:while|but|whereas|although|though|however|yet)\b|(?=\bas (?:if|though)\b)",
    re.IGNORECASE,
)
_NEGATION = (
    r"(?:not?|never|nor|neither|none|nothing|without|lacks?|lacking|absence|absent|free|cannot|cant|hardly|barely|"
    r"scarcely|(?:is|are|was|were|do|does|did|has|have)nt)"
)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|unless|would|could|should|might|may|usually|typically|often|normally|generally|expected|unclear|"
    r"generators|deepfakes|fakes|forgeries|real (?:photos|faces|images|people)|"
    r"typical of|characteristic of|common (?:in|for|among))\b"
)
_BEFORE = re.compile(
    rf"\b(?:{_NEGATION}|suggest\w*|indicat\w*|imply\w*|implies|unlike|instead|rather than|as in|in the background|"
    r"to (?:hide|smooth|mask|remove))\b"
)
_GAP_WORD = rf"(?!(?:{_NEGATION}|little|less|few|part(?:ly|ially)|than|and (?:the|an?|his|her|its|their|is|are))\b)\w+"


def free_claims(sentence: str) -> list[Claim]:
    """What a sentence states of measured items in words of its own, in order, each item once; [] for nothing."""
    found: dict[str, tuple[int, Claim]] = {}
    for number, clause in enumerate(_CLAUSE.split(sentence)):
        text = plain(clause).replace("color", "colour").replace("gray", "grey")
        if is_supposed(text):
            continue
        for item, claim, start in _matches(text):
            found.setdefault(item, (1000 * number + start, claim))
    return [claim for _, claim in sorted(found.values())]


def is_supposed(text: str) -> bool:
    """Does a text (in `plain` words) speak of what would or may be, or is so elsewhere?"""
    return _SUPPOSED.search(text) is not None


def _matches(text: str) -> list[tuple[str, Claim, int]]:
    """(item, claim, place) of a clause: per item the most definite, then the longest phrase that stands unblocked."""
    best: dict[str, tuple[tuple[int, int], Claim, int]] = {}
    for pattern, claim in _patterns():
        for match in pattern.finditer(text):
            rank = (-len(claim.words), match.end() - match.start())
            if not _BEFORE.search(text[: match.start()]) and (claim.item not in best or rank > best[claim.item][0]):
                best[claim.item] = (rank, claim, match.start())
    return [(item, claim, start) for item, (_, claim, start) in best.items()]


@cache
def _patterns() -> list[tuple[re.Pattern[str], Claim]]:
    content: dict[str, Any] = read_prompt("synonyms.yaml")
    names: dict[str, str] = content.pop("let")
    return [
        (_compiled(phrase, names), Claim(item, words))
        for item, by_words in content.items()
        for words, phrases in by_words.items()
        for phrase in phrases
    ]


def _compiled(phrase: str, names: dict[str, str]) -> re.Pattern[str]:
    while name := re.search(r"[A-Z]{2,}", phrase):
        phrase = phrase.replace(name.group(), names[name.group()])
    text = phrase.replace("{", "(?:").replace("}", ")").replace(" * ", rf" (?:{_GAP_WORD} ){{0,{GAP}}}")
    return re.compile(rf"\b(?:{text})(?!\w)")
