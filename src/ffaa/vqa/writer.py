"""The grounded writer: sentences from an evidence record and what the manifest says of the face.

A description is drawn before the label is looked at. The reasoning weighs each measured word by how much more often
it is met among forgeries of the row's type than among real photos (leans.yaml), says which way it points, names a
sign of the other side where there is one, and closes with how clear the whole is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ffaa.evidence.record import EvidenceRecord
from ffaa.types import ForgeryType, Label
from ffaa.vqa.row import Sentence
from ffaa.vqa.sentences import lean_file, says, sentence_file, tails, wordings

NAME = "grounded"
DESCRIPTION_TOKENS, REASONING_TOKENS = (66, 86), (98, 126)
HALF = 7  # tokens, half a sentence: how near a text must come to its drawn length
UNSURE = 0.15  # weight of a word that says it cannot decide
LEANS = 0.15  # from here on a word speaks for a side; below, it settles nothing
# The least sum of all leans for each closing.
BALANCE = {"strong": 2.0, "medium": 0.8, "weak": 0.25, "open": -0.8, "against": -np.inf}
JOINED = 0.45  # share of description sentences that hold two clauses
CLAUSE_JOINS = ("{a}, and {b}", "{a}, while {b}", "{a}; {b}")
LEADS = ("in addition, ", "likewise, ", "further, ", "looking closer, ", "besides, ", "", "", "", "", "")
AGAINST = ("on the other hand, ", "admittedly, ", "against this, ", "still, ")


class Truth(Protocol):
    """What the manifest knows of a face: a `manifest.Row` or a `VqaRow`."""

    @property
    def label(self) -> Label: ...
    @property
    def forgery_type(self) -> ForgeryType: ...
    @property
    def method(self) -> str: ...
    @property
    def regions(self) -> tuple[str, ...]: ...


def count_tokens(text: str) -> int:
    """Words and punctuation marks, close to what language models count for plain English."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def lean(record: EvidenceRecord, row: Truth, item: str) -> float:
    """How much the word of `item` speaks for the row's truth: positive for it, 0 where it cannot be measured.

    For a forgery: its method, or its type where the method is unknown, against real photos. For a real photo: against
    the three types alike.
    """
    word = record.word(item)
    if not word:
        return 0.0
    odds = lean_file()
    if row.label is Label.REAL:
        kinds = [kind.value for kind in ForgeryType if kind is not ForgeryType.REAL]
        return -float(np.mean([odds[kind][item][word] for kind in kinds]))
    return odds[row.method if row.method in odds else row.forgery_type.value][item][word]


def balance(record: EvidenceRecord, row: Truth) -> str:
    """How clearly all reasoning items together speak for the truth: a word of BALANCE."""
    total = sum(lean(record, row, item) for item in sentence_file()["reason"])
    return next(word for word, least in BALANCE.items() if total >= least)


def write(record: EvidenceRecord, row: Truth, rng: np.random.Generator) -> list[Sentence]:
    """The sentences of description and reasoning, in order; the same for the same record, truth and generator state.

    The description depends on the record and the generator alone.
    """
    description = _describe(record, rng)
    return description + _reason(record, row, rng)


def _pick(patterns: Sequence[str], rng: np.random.Generator) -> str:
    options = wordings(str(patterns[int(rng.integers(len(patterns)))]))
    return options[int(rng.integers(len(options)))]


def _sentence(part: str, clause: str, evidence: list[str]) -> Sentence:
    return Sentence.model_validate({"part": part, "text": clause[0].upper() + clause[1:] + ".", "evidence": evidence})


def _describe(record: EvidenceRecord, rng: np.random.Generator) -> list[Sentence]:
    low, high = DESCRIPTION_TOKENS
    target = int(rng.integers(low, high))
    found = [_sentence("description", _pick(sentence_file()["frame"], rng), ["frame"])]
    names = [name for name in sentence_file()["describe"] if record.word(name)]
    if not names:
        return found
    decided = [1.0 if record.word(name) != "unsure" else UNSURE for name in names]
    weights = np.array([0.35 + record.items[name].strength for name in names]) * decided
    order = [names[i] for i in rng.choice(len(names), len(names), replace=False, p=weights / weights.sum())]
    used = count_tokens(found[0].text)
    while order and used < target - HALF:
        taken = [order.pop(0)]
        if order and rng.random() < JOINED:
            taken.append(order.pop(0))
        clauses = [_pick(says("describe", name, record.word(name)), rng) for name in taken]
        text = clauses[0]
        if len(clauses) == 2:
            text = CLAUSE_JOINS[int(rng.integers(len(CLAUSE_JOINS)))].format(a=clauses[0], b=clauses[1])
        found.append(_sentence("description", text, taken))
        used += count_tokens(text) + 1
    return found


def _reason(record: EvidenceRecord, row: Truth, rng: np.random.Generator) -> list[Sentence]:
    text, side, kind = sentence_file(), row.label.value, row.forgery_type
    opening = [(_pick(text["stance"][side], rng), ["manifest:label"])]
    opening.append((_pick(text["kind"][kind.value], rng), ["manifest:forgery_type"]))
    if row.regions:
        pattern = _pick(text["regions"], rng)
        opening.append((_fill_regions(pattern, row.regions), ["manifest:regions"]))
    if row.method in text["method"] and rng.random() < 0.75:
        opening.append((_pick(text["method"][row.method], rng), ["manifest:method"]))
    closing = (_pick(text["closing"][side][balance(record, row)], rng), ["balance"])
    low, high = REASONING_TOKENS
    room = int(rng.integers(low, high)) - sum(count_tokens(t) + 1 for t, _ in [*opening, closing])
    body = _weighed(record, row, room, rng)
    return [_sentence("reasoning", t, names) for t, names in [*opening, *body, closing]]


def _fill_regions(pattern: str, regions: Sequence[str]) -> str:
    names = [region.replace("_", " ") for region in regions]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return pattern.replace("{regions}", listed)


def _weighed(record: EvidenceRecord, row: Truth, room: int, rng: np.random.Generator) -> list[tuple[str, list[str]]]:
    """Clauses on measured items with what they weigh, about `room` tokens."""
    names = [name for name in sentence_file()["reason"] if record.word(name)]
    weights = {name: lean(record, row, name) for name in names}
    ranked = sorted(names, key=lambda name: -weights[name] - 0.25 * rng.random())
    speaking = [name for name in ranked if weights[name] >= LEANS]
    contrary = [name for name in reversed(ranked) if weights[name] <= -LEANS]
    silent = [name for name in ranked if abs(weights[name]) < LEANS]
    silent = [silent[i] for i in rng.permutation(len(silent))]
    # One sign of the other side after the first two of this one, then a silent one, then whatever is left.
    order = speaking[:2] + contrary[:1] + speaking[2:4] + silent[:1] + speaking[4:6] + silent[1:] + contrary[1:2]
    found: list[tuple[str, list[str]]] = []
    while order and room > HALF:
        name = order.pop(0)
        clause = _weigh(record, row, name, weights[name], rng)
        found.append((clause, [name]))
        room -= count_tokens(clause) + 1
    return found


def _weigh(record: EvidenceRecord, row: Truth, name: str, weight: float, rng: np.random.Generator) -> str:
    text, side, word = sentence_file(), row.label.value, record.word(name)
    fact = _pick(says("reason", name, word), rng)
    if weight <= -LEANS:
        lead = AGAINST[int(rng.integers(len(AGAINST)))] if rng.random() < 0.6 else ""
        return f"{lead}{fact}, {_pick(text['contrary'][side], rng)}"
    lead = LEADS[int(rng.integers(len(LEADS)))]
    own = tails(name, word, side)
    # "so colour draws no seam" excuses a forgery's silence: it is no sign of one.
    excuses = [tail for tail in own if tail.startswith("so ") and row.label is Label.FAKE]
    if weight >= LEANS:
        own = [tail for tail in own if tail not in excuses]
        return f"{lead}{fact}, {_pick(own if own and rng.random() < 0.65 else text['support'][side], rng)}"
    return f"{lead}{fact}, {_pick([*text['neutral'], *excuses], rng)}"
