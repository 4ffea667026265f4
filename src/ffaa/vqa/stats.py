"""What is in a set of conversations: counts, lengths, words, repetition, and the word cloud of the paper's Fig. 10."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from ffaa.data.stats import Quantiles, Table, markdown, number, quantiles
from ffaa.errors import InputError
from ffaa.types import Record
from ffaa.vqa.cloud import draw_cloud
from ffaa.vqa.row import VqaRow
from ffaa.vqa.words import pairs, sentences, words

PAPER_TOKENS = 203  # the paper's average per answer, by a tokenizer that it does not name
ORDERS = (1, 2, 3)
SHOWN = 20
K = TypeVar("K")


class Lengths(Record):
    """Of answers' texts (description and reasoning). mean and quantiles; None without an answer."""

    unit: str
    mean: float | None
    quantiles: Quantiles | None


class Pair(Record):
    """Words of a pair, in order of the text. kind: noun-verb or adjective-noun."""

    kind: str
    first: str
    second: str
    count: int


class CloudWord(Record):
    word: str
    kind: str
    count: int


class VqaStats(Record):
    """distinct: n -> share of different n-grams among all (falls as a set grows). distinct_sentences: the same for
    sentences. repeated_*: the most frequent, with counts."""

    rows: int
    answers: int
    by_type: dict[str, int]
    by_source: dict[str, int]
    by_teacher: dict[str, int]
    by_split: dict[str, int]
    by_hypothesis: dict[str, int]
    results_wrong: int
    lengths: list[Lengths]
    vocabulary: int
    distinct: dict[str, float | None]
    distinct_sentences: float | None
    repeated_sentences: list[tuple[str, int]]
    repeated_trigrams: list[tuple[str, int]]
    pairs: list[Pair]
    cloud: list[CloudWord]


@dataclass
class Tally:
    """One pass over rows. Memory grows with what is distinct: sentences and n-grams."""

    pieces: Callable[[str], int] | None = None
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("type", "source", "teacher", "split", "hypothesis")}
    )
    rows: int = 0
    wrong: int = 0
    spaced: array[int] = field(default_factory=lambda: array("l"))
    tokens: array[int] = field(default_factory=lambda: array("l"))
    grams: dict[int, Counter[tuple[str, ...]]] = field(default_factory=lambda: {n: Counter() for n in ORDERS})
    sentences: Counter[str] = field(default_factory=Counter)

    def add(self, row: VqaRow) -> None:
        self.rows += 1
        self.wrong += row.result is not row.label
        self.counts["type"][row.forgery_type.value] += 1
        self.counts["source"][row.dataset or "unnamed"] += 1
        self.counts["teacher"][row.teacher] += 1
        self.counts["split"][row.split or "none"] += 1
        self.counts["hypothesis"][row.hypothesis.value if row.hypothesis else "none"] += 1
        text = f"{row.description} {row.reasoning}".strip()
        if not text:
            return
        self.spaced.append(len(text.split()))
        if self.pieces is not None:
            self.tokens.append(self.pieces(text))
        for sentence in sentences(text):
            self.sentences[sentence] += 1
        spelt = words(text)
        for n, grams in self.grams.items():
            grams.update(zip(*(spelt[i:] for i in range(n))))


def tally(rows: Iterable[VqaRow], pieces: Callable[[str], int] | None = None) -> Tally:
    """Go through rows. pieces: how many tokens a text has for a model, beside those split at white space."""
    found = Tally(pieces)
    for row in rows:
        found.add(row)
    return found


def describe(found: Tally) -> VqaStats:
    """The numbers. Word classes are found once per distinct sentence (see `words`)."""
    noun_verb, adjective_noun = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for sentence, count in found.sentences.items():
        nv, an = pairs(sentence)
        for pair in nv:
            noun_verb[pair] += count
        for pair in an:
            adjective_noun[pair] += count
    cloud = Counter[tuple[str, str]]()
    for (noun, _), count in noun_verb.items():
        cloud[noun, "noun"] += count
    for (adjective, noun), count in adjective_noun.items():
        cloud[adjective, "adjective"] += count
        cloud[noun, "noun"] += count
    lengths = [_lengths("words, split at white space", found.spaced)]
    if found.pieces is not None:
        lengths.append(_lengths("tokens of the tokenizer", found.tokens))
    by = {name: _by_count(counts) for name, counts in found.counts.items()}
    return VqaStats(
        rows=found.rows, answers=len(found.spaced), by_type=by["type"], by_source=by["source"],
        by_teacher=by["teacher"], by_split=by["split"], by_hypothesis=by["hypothesis"], results_wrong=found.wrong,
        lengths=lengths, vocabulary=len(found.grams[1]),
        distinct={str(n): _distinct(grams) for n, grams in found.grams.items()},
        distinct_sentences=_distinct(found.sentences),
        repeated_sentences=_top(found.sentences),
        repeated_trigrams=[(" ".join(gram), count) for gram, count in _top(found.grams[3])],
        pairs=[
            Pair(kind=kind, first=a, second=b, count=count)
            for kind, counted in (("noun-verb", noun_verb), ("adjective-noun", adjective_noun))
            for (a, b), count in _top(counted)
        ],
        cloud=[CloudWord(word=w, kind=kind, count=n) for (w, kind), n in _top(cloud, 150)],
    )  # fmt: skip


def _lengths(unit: str, values: array[int]) -> Lengths:
    mean = round(float(np.mean(values)), 2) if len(values) else None
    return Lengths(unit=unit, mean=mean, quantiles=quantiles(values))


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _distinct(counts: Counter[K]) -> float | None:
    return round(len(counts) / counts.total(), 4) if counts else None


def _top(counts: Counter[K], number: int = SHOWN) -> list[tuple[K, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:number]  # type: ignore[operator,return-value]


def tables(stats: VqaStats) -> list[Table]:
    """For the terminal and Markdown."""
    by = {
        "Forgery type": stats.by_type, "Source": stats.by_source, "Teacher": stats.by_teacher,
        "Split": stats.by_split, "Hypothesis": stats.by_hypothesis,
    }  # fmt: skip
    title = f"{stats.rows:,} conversations, {stats.answers:,} with text"
    notes = [f"The result of {stats.results_wrong:,} is not the label."] if stats.results_wrong else []
    shares = [(f"distinct-{n}", share) for n, share in stats.distinct.items()]
    return [
        Table(title, notes=notes),
        *(Table(f"By {name.lower()}", [name.lower(), "conversations"], [[k, number(v)] for k, v in counts.items()])
          for name, counts in by.items()),
        Table(
            "Length of the text",
            ["unit", "mean", "min", "5 %", "median", "95 %", "max"],
            [[of.unit, *map(number, (of.mean, q.min, q.p05, q.median, q.p95, q.max))]
             for of in stats.lengths if (q := of.quantiles) is not None],
            [f"The paper's answers have {PAPER_TOKENS} tokens on average."],
        ),
        Table(
            "Variety",
            ["measure", "value"],
            [["vocabulary, words", number(stats.vocabulary)],
             *([name, number(share)] for name, share in [*shares, ("distinct sentences", stats.distinct_sentences)])],
            ["Shares of what is different among all; they fall as a set grows."],
        ),
        Table("Most repeated sentences", ["sentence", "times"], [[s, number(n)] for s, n in stats.repeated_sentences]),
        Table("Most repeated three words", ["words", "times"], [[s, number(n)] for s, n in stats.repeated_trigrams]),
        Table("Most frequent pairs", ["kind", "pair", "times"],
              [[p.kind, f"{p.first} {p.second}", number(p.count)] for p in stats.pairs]),
        Table("Nouns and adjectives of the pairs", ["word", "kind", "times"],
              [[w.word, w.kind, number(w.count)] for w in stats.cloud[:SHOWN]]),
    ]  # fmt: skip


def sample(rows: Iterable[VqaRow], count: int = 20, seed: int = 0) -> str:
    """Markdown of `count` rows, each as likely as any other (one pass, only they are kept), in their order."""
    rng = np.random.default_rng((seed, 11))
    drawn: dict[int, VqaRow] = {}
    for i, row in enumerate(rows):
        if len(drawn) < count:
            drawn[i] = row
        elif (place := int(rng.integers(i + 1))) < count:
            drawn.pop(list(drawn)[place])
            drawn[i] = row
    texts = []
    for i, row in sorted(drawn.items()):
        kind = f"{row.dataset}, {row.method or row.label.value}: {row.forgery_type.value}"
        texts.append(f"## Row {i + 1:,} ({kind})\n\n*{row.question}*\n\n" + row.raw.strip().replace("\n", "\n\n"))
    return f"# {len(drawn)} rows drawn at random (seed {seed})\n\n" + "\n\n".join(texts) + "\n"


def write_report(
    out: Path,
    stats: VqaStats,
    more: Mapping[str, tuple[Record, Table]] = MappingProxyType({}),
    drawn: str = "",
) -> None:
    """Write stats.md, stats.json and cloud.png into `out`; more: name -> what goes into NAME.json and its table; drawn:
    a `sample`, for sample.md.

    Raises InputError when `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw_cloud({(w.word, w.kind): w.count for w in stats.cloud}).save(out / "cloud.png")
        picture = Table("Word cloud", notes=["![nouns and adjectives](cloud.png)", "Nouns blue, adjectives red."])
        shown = [table for _, table in more.values()]
        (out / "stats.md").write_text(markdown([*tables(stats), *shown, picture]), encoding="utf-8")
        if drawn:
            (out / "sample.md").write_text(drawn, encoding="utf-8")
        for name, found in {"stats": stats, **{name: found for name, (found, _) in more.items()}}.items():
            text = json.dumps(found.model_dump(mode="json"), indent=1) + "\n"
            (out / f"{name}.json").write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{out}: cannot be written ({reason}); make room, or choose another --out") from error
