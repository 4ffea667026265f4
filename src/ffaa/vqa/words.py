"""Words, sentences and word classes of the answers' texts.

Word classes come from TextBlob's pattern tagger, a lexicon and Brill's rules inside its wheel (no download), with two
rules for what it gets wrong in such texts. Of the 192 words of the first sample in tests/vqa/test_words.py it puts 93 %
into the right class (noun, adjective, verb, other), with the rules 96 %; of the 111 words of the second, which the
rules were not made on, 95 % either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
CLASSES = {"N": "noun", "J": "adjective", "V": "verb"}


class Tagged(NamedTuple):
    """A word in lower case, plural nouns in the singular; kind: noun, adjective, verb, or other."""

    word: str
    kind: str


def words(text: str) -> list[str]:
    """The words of a text in lower case, without digits and marks."""
    return [word.lower() for word in _WORD.findall(text)]


def sentences(text: str) -> list[str]:
    """A text cut behind . ! and ?, where white space follows."""
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


@cache
def _tagger() -> Any:
    from textblob.taggers import PatternTagger

    return PatternTagger()


def tag(sentence: str) -> list[Tagged]:
    """The word class of every word."""
    from textblob.en.inflect import singularize

    spelt = words(sentence)
    if not spelt:
        return []
    tags = [tag for _, tag in _tagger().tag(" ".join(spelt), tokenize=False)]
    kinds = _mended([CLASSES.get(tag[0], "other") for tag in tags], tags)
    kinds = ["other" if word.endswith(("'s", "’s")) else kind for word, kind in zip(spelt, kinds)]  # possessives
    plural = [kind == "noun" and tag == "NNS" for kind, tag in zip(kinds, tags)]
    return [Tagged(singularize(w) if many else w, kind) for w, kind, many in zip(spelt, kinds, plural)]


def _mended(kinds: list[str], tags: Sequence[str]) -> list[str]:
    """A participle between article or adjective and noun is an adjective ('a blended face'); a noun right behind a
    plural, in a sentence without a verb so far and not at its end, is a verb ('the cheeks show residue')."""
    for i, tag in enumerate(tags):
        before = tags[i - 1] if i else "DT"
        if (
            tag in ("VBN", "VBG")
            and before[:2] in ("DT", "JJ", "PR")
            and tags[i + 1 : i + 2]
            and tags[i + 1][:2] in ("NN", "JJ")
        ):
            kinds[i] = "adjective"
        elif tag == "NN" and before == "NNS" and i + 1 < len(tags) and "verb" not in kinds[:i]:
            kinds[i] = "verb"
    return kinds


def pairs(sentence: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(noun, verb) where the verb follows at once or behind adverbs and the like; (adjective, noun) where only
    adjectives stand between them."""
    tagged = tag(sentence)
    noun_verb, adjective_noun = [], []
    for i, (word, kind) in enumerate(tagged):
        if kind == "noun":
            rest = tagged[i + 1 : i + 3]  # one word at most between them
            if rest and rest[0].kind == "other":
                rest = rest[1:]
            if rest and rest[0].kind == "verb":
                noun_verb.append((word, rest[0].word))
        elif kind == "adjective":
            noun = next((t for t in tagged[i + 1 :] if t.kind != "adjective"), None)
            if noun is not None and noun.kind == "noun":
                adjective_noun.append((word, noun.word))
    return noun_verb, adjective_noun
