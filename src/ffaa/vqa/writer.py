"""The grounded writer: sentences from an evidence record and what the manifest says of the face.

A description is drawn before the label is looked at, topic by topic. The reasoning weighs each measured word by how
much more often it is met among forgeries of the row's type than among real photos (leans.yaml). It tells those that
can be explained on the side they lean to, since what collections happen to differ in is no reason, and a sign of the
other side where there is one; it closes with how clear the whole is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ffaa.types import EvidenceRecord, ForgeryType, Label
from ffaa.vqa.row import Sentence
from ffaa.vqa.sentences import lean_file, says, sentence_file, tails, wordings

NAME = "grounded"
DESCRIPTION_TOKENS, REASONING_TOKENS = (66, 86), (98, 126)
HALF = 7  # tokens, half a sentence: how near a text must come to its drawn length
LEANS = 0.15  # from here on a word speaks for a side; below, it settles nothing
ALL_REGIONS = {"left_eye", "right_eye", "nose", "mouth", "skin"}  # all of the face: not worth a list
# The least sum of all leans for each closing.
BALANCE = {"strong": 2.0, "medium": 0.8, "weak": 0.25, "open": -0.8, "against": -np.inf}
JOINED = 0.6  # of clauses on one topic that share a sentence
CLAUSE_JOINS = ("{a}, and {b}", "{a}, and {b}", "{a}; {b}")
LEADS = ("in addition, ", "likewise, ", "further, ", "looking closer, ", "besides, ")
AGAINST = ("on the other hand, ", "admittedly, ", "against this, ", "still, ")
LED = 0.5  # share of measured sentences of the reasoning that begin with one of them
SILENT = 2  # sentences at most on what settles nothing


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


def excuses(tail: str, kind: ForgeryType) -> bool:
    """Of a forgery, "so colour draws no seam"; of a real photo, "which shadow can cause"."""
    return tail.startswith("which " if kind is ForgeryType.REAL else "so ")


def explains(item: str, word: str, kind: ForgeryType) -> bool:
    """Whether the sentence file knows a sign of that type in the word, and not only how to excuse it."""
    return any(not excuses(tail, kind) for tail in tails(item, word, kind))


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
    text = sentence_file()
    low, high = DESCRIPTION_TOKENS
    target = int(rng.integers(low, high))
    found = [_sentence("description", _pick(text["frame"], rng), ["frame"])]
    names = [n for n in text["describe"] if record.word(n) and record.word(n) not in text["quiet"].get(n, ())]
    if not names:
        return found
    weights = np.array([0.35 + record.items[name].strength for name in names])
    drawn = [names[i] for i in rng.choice(len(names), len(names), replace=False, p=weights / weights.sum())]
    clauses: dict[str, str] = {}
    room = target - count_tokens(found[0].text)
    for name in drawn:
        if room <= HALF:
            break
        clauses[name] = _pick(says("describe", name, record.word(name)), rng)
        room -= count_tokens(clauses[name]) + 1
    topics = list(text["topics"].values())
    for i in rng.permutation(len(topics)):
        told = [name for name in topics[i] if name in clauses]
        while told:
            taken = [told.pop(0)]
            if told and rng.random() < JOINED:
                taken.append(told.pop(0))
            parts = [clauses[name] for name in taken]
            join = CLAUSE_JOINS[int(rng.integers(len(CLAUSE_JOINS)))]
            found.append(_sentence("description", parts[0] if len(parts) == 1 else join.format(a=parts[0], b=parts[1]),
                                   taken))  # fmt: skip
    return found


def _reason(record: EvidenceRecord, row: Truth, rng: np.random.Generator) -> list[Sentence]:
    text, side, kind = sentence_file(), row.label.value, row.forgery_type
    opening = [(_pick(text["stance"][side], rng), ["manifest:label"])]
    opening.append((_pick(text["kind"][kind.value], rng), ["manifest:forgery_type"]))
    if row.regions and not set(row.regions) >= ALL_REGIONS:
        pattern = _pick(text["regions"]["one" if len(row.regions) == 1 else "several"], rng)
        opening.append((fill_regions(pattern, row.regions), ["manifest:regions"]))
    if row.method in text["method"] and rng.random() < 0.75:
        opening.append((_pick(text["method"][row.method], rng), ["manifest:method"]))
    closing = (_pick(text["closing"][side][balance(record, row)], rng), ["balance"])
    low, high = REASONING_TOKENS
    room = int(rng.integers(low, high)) - sum(count_tokens(t) + 1 for t, _ in [*opening, closing])
    body = _weighed(record, row, room, rng)
    return [_sentence("reasoning", t, names) for t, names in [*opening, *body, closing]]


def fill_regions(pattern: str, regions: Sequence[str]) -> str:
    """A wording on changed regions with their names listed; there is at least one."""
    names = [region.replace("_", " ") for region in regions]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return pattern.replace("{regions}", listed)


def _weighed(record: EvidenceRecord, row: Truth, room: int, rng: np.random.Generator) -> list[tuple[str, list[str]]]:
    """Clauses on measured items with what they weigh, about `room` tokens."""
    names = [name for name in sentence_file()["reason"] if record.word(name)]
    weights = {name: lean(record, row, name) for name in names}
    ranked = sorted(names, key=lambda name: -weights[name] - 0.25 * rng.random())
    other = ForgeryType.REAL if row.label is Label.FAKE else ForgeryType.IDENTITY_EXCHANGE  # any: of forgeries at large
    told = {name: explains(name, record.word(name), row.forgery_type) for name in names}
    denied = {name: explains(name, record.word(name), other) for name in names}
    speaking = [name for name in ranked if weights[name] >= LEANS and told[name]]
    contrary = [name for name in reversed(ranked) if weights[name] <= -LEANS and denied[name]]
    silent = [name for name in ranked if abs(weights[name]) < LEANS]
    silent = [silent[i] for i in rng.permutation(len(silent))]
    explained = [name for name in silent if tails(name, record.word(name), row.forgery_type)]
    silent = sorted(silent, key=lambda name: name not in explained)[:SILENT]
    # One sign of the other side after the first two of this one, then whatever is left, what settles nothing last.
    order = speaking[:2] + contrary[:1] + speaking[2:5] + silent[:1] + contrary[1:2] + speaking[5:] + silent[1:]
    leads = [LEADS[i] for i in rng.permutation(len(LEADS))]
    against = [AGAINST[i] for i in rng.permutation(len(AGAINST))]
    found: list[tuple[str, list[str]]] = []
    while order and room > HALF:
        name = order.pop(0)
        options = against if weights[name] <= -LEANS else leads
        lead = options.pop() if found and options and rng.random() < LED else ""
        clause = lead + _weigh(record, row, name, weights[name], rng)
        found.append((clause, [name]))
        room -= count_tokens(clause) + 1
    return found


def _weigh(record: EvidenceRecord, row: Truth, name: str, weight: float, rng: np.random.Generator) -> str:
    text, side, word = sentence_file(), row.label.value, record.word(name)
    fact = _pick(says("reason", name, word), rng)
    if weight <= -LEANS:
        return f"{fact}, {_pick(text['contrary'][side], rng)}"
    known = tails(name, word, row.forgery_type)
    signs = [tail for tail in known if not excuses(tail, row.forgery_type)]
    if weight >= LEANS:
        return f"{fact}, {_pick(signs if rng.random() < 0.75 else text['support'][side], rng)}"
    own = [tail for tail in known if tail not in signs]
    return f"{fact}, {_pick(own if own and rng.random() < 0.75 else text['neutral'], rng)}"
