"""Does a text hold what the image holds? Sentences are read back and checked against a new measurement of the crop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.data.manifest import Row
from ffaa.data.stats import Table
from ffaa.errors import InputError
from ffaa.types import EvidenceRecord, ForgeryType, Record, Support
from ffaa.vqa.judge import judge
from ffaa.vqa.row import VqaRow
from ffaa.vqa.sentences import plain, sentence_file, wordings
from ffaa.vqa.stats import describe, tally
from ffaa.vqa.teachers.grounded_teacher import record_of
from ffaa.vqa.writer import balance, fill_regions

SHOWN = 10


class Faithfulness(Record):
    """Of sentences. by_source: what they speak of -> support -> count. share: supported among supported and
    contradicted, None without either. control: the same share of the sentences on measured items, each row's held
    against the face of another. distinct_sentences, distinct_trigrams: of the drawn rows, see `VqaStats`. contradicted:
    (image, sentence), at most 10."""

    rows: int
    sentences: int
    by_source: dict[str, dict[str, int]]
    share: float | None
    control: float | None
    distinct_sentences: float | None
    distinct_trigrams: float | None
    contradicted: list[tuple[str, str]]


def measure(rows: Sequence[VqaRow], folder: Path, count: int | None = None, seed: int = 0) -> Faithfulness:
    """Check `count` rows (a seeded draw; None: all) against the manifest and crops in `folder`.

    What a row says that it rests on is not looked at. Raises InputError for a row whose image the manifest lacks.
    """
    order = np.random.default_rng((seed, 10)).permutation(len(rows))
    chosen = [rows[i] for i in order[:count]]
    wanted = {row.image for row in chosen}
    known = {row.path: row for row in manifest.scan(folder) if row.path in wanted}
    found: dict[str, Counter[str]] = {}
    control = Counter[Support]()
    wrong: list[tuple[str, str]] = []
    before: VqaRow | None = None
    for row in chosen:
        if row.image not in known:
            raise InputError(f"{folder}: no {row.image} in its manifest; give the folder the rows were made from")
        face = known[row.image]
        record = record_of(face, read_photo(folder, face))
        for sentence in row.sentences:
            source, support = check(sentence.text, face, record)
            found.setdefault(source, Counter())[support.value] += 1
            if support is Support.CONTRADICTED:
                wrong.append((row.image, sentence.text))
        control.update(judge(sentence.text, record) for sentence in (before.sentences if before else ()))
        before = row
    total = sum(found.values(), Counter[str]())
    variety = describe(tally(chosen))
    return Faithfulness(
        rows=len(chosen), sentences=total.total(), by_source={k: dict(v) for k, v in sorted(found.items())},
        share=_share(total[Support.SUPPORTED.value], total[Support.CONTRADICTED.value]),
        control=_share(control[Support.SUPPORTED], control[Support.CONTRADICTED]),
        distinct_sentences=variety.distinct_sentences, distinct_trigrams=variety.distinct["3"],
        contradicted=wrong[:SHOWN],
    )  # fmt: skip


def _share(supported: int, contradicted: int) -> float | None:
    return round(supported / (supported + contradicted), 4) if supported + contradicted else None


def check(text: str, face: Row, record: EvidenceRecord) -> tuple[str, Support]:
    """(what the sentence speaks of: 'evidence', 'manifest', 'balance', 'frame' or 'other'; whether it holds)."""
    support = judge(text, record)
    if support is not Support.NOT_MEASURABLE:
        return "evidence", support
    said = plain(text)
    for source, options, true in _told(face, record):
        if said in {plain(wording) for pattern in options for wording in wordings(pattern)}:
            return source, Support.SUPPORTED if true else Support.CONTRADICTED
    return "other", Support.NOT_MEASURABLE


def _told(face: Row, record: EvidenceRecord) -> Iterator[tuple[str, list[str], bool]]:
    """(source, patterns, whether they hold) of all that the grounded writer says beside measurements."""
    text, side = sentence_file(), face.label.value
    yield "frame", text["frame"], True
    for name, options in text["stance"].items():
        yield "manifest", options, name == side
    for kind in ForgeryType:
        yield "manifest", text["kind"][kind.value], kind is face.forgery_type
    for name, options in text["method"].items():
        yield "manifest", options, name == face.method
    number = "one" if len(face.regions) == 1 else "several"
    if face.regions:
        yield "manifest", [fill_regions(w, face.regions) for p in text["regions"][number] for w in wordings(p)], True
    clear = balance(record, face)
    for name, levels in text["closing"].items():
        for level, options in levels.items():
            yield "balance", options, name == side and level == clear


def table(found: Faithfulness) -> Table:
    """For the terminal and Markdown."""
    columns = [support.value for support in Support]
    share, control = ("-" if value is None else f"{value:.2%}" for value in (found.share, found.control))
    return Table(
        f"Faithfulness: {found.sentences:,} sentences of {found.rows:,} rows, read back and measured anew",
        ["sentences on", *columns],
        [[source, *(f"{counts.get(c, 0):,}" for c in columns)] for source, counts in found.by_source.items()],
        [f"Supported among supported and contradicted: {share}; sentences on the evidence of another face: {control}.",
         f"Distinct sentences {found.distinct_sentences}, distinct 3-grams {found.distinct_trigrams}.",
         *(f"Contradicted: {image}: {sentence}" for image, sentence in found.contradicted)],
    )  # fmt: skip
