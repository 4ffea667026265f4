"""What is in a built set: types and sources (the paper's Tables 1 and 4), sizes, quality, and what was left out."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from ffaa.data import manifest
from ffaa.data.clean import SPLITS
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label, Record

REJECTED_NAME = "rejected.parquet"
SIZES = ("photo_short", "photo_long", "face_size")
QUALITY = ("sharpness", "brightness", "jpeg_quality", "bits_per_pixel", "abs_yaw")
# A 0 in the manifest's sizes stands for unknown.
MEASURES: dict[str, Callable[[Row], float | None]] = {
    "photo_short": lambda row: min(row.photo_width, row.photo_height) or None,
    "photo_long": lambda row: max(row.photo_width, row.photo_height) or None,
    "face_size": lambda row: row.face_size or None,
    "sharpness": lambda row: row.sharpness,
    "brightness": lambda row: row.brightness,
    "jpeg_quality": lambda row: row.jpeg_quality,
    "bits_per_pixel": lambda row: row.bits_per_pixel,
    "abs_yaw": lambda row: None if row.yaw is None else abs(row.yaw),
}
PIPED_WIDTH = 200
K = TypeVar("K")


class Kind(NamedTuple):
    """What the tables tell faces apart by. method: 'real' or 'fake' where the manifest names none."""

    forgery_type: ForgeryType
    label: Label
    dataset: str
    method: str
    split: str
    bench: str

    @classmethod
    def of(cls, row: Row) -> Kind:
        method = row.method or row.label.value
        return cls(row.forgery_type, row.label, row.dataset, method, row.split or "none", row.bench)


@dataclass
class Tally:
    """One pass over a manifest: 64 bytes a face. values: (dataset, label) -> measure -> what was measured.

    rejected: faces and items left out, by (dataset, kind of reason); None where the file is missing.
    """

    sha256: str
    kinds: Counter[Kind] = field(default_factory=Counter)
    values: dict[tuple[str, Label], dict[str, array[float]]] = field(default_factory=dict)
    rejected: Counter[tuple[str, str]] | None = None

    def add(self, row: Row) -> None:
        self.kinds[Kind.of(row)] += 1
        values = self.values.setdefault((row.dataset, row.label), {name: array("d") for name in MEASURES})
        for name, measure in MEASURES.items():
            if (value := measure(row)) is not None:
                values[name].append(value)

    def datasets(self) -> list[str]:
        return sorted({kind.dataset for kind in self.kinds})

    def of(self, dataset: str, name: str) -> np.ndarray:
        """A measure of a collection's faces of both labels, float64 (n,)."""
        found = [values[name] for (of, _), values in self.values.items() if of == dataset]
        return np.concatenate([np.array(v) for v in found])


def tally(folder: Path) -> Tally:
    """Go through the manifest in `folder` (or a manifest file) and the rejected.parquet beside it, row by row.

    Raises InputError when one of them cannot be read.
    """
    path = folder / manifest.NAME if folder.is_dir() else folder
    rows = manifest.scan(path)
    first = next(rows, None)  # the manifest's own message comes before any other
    with path.open("rb") as file:
        found = Tally(hashlib.file_digest(file, "sha256").hexdigest())
    if first is not None:
        found.add(first)
    for row in rows:
        found.add(row)
    if (path.parent / REJECTED_NAME).is_file():
        found.rejected = _rejected(path.parent / REJECTED_NAME)
    return found


def _rejected(path: Path) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not {"dataset", "kind"} <= set(file.schema_arrow.names):
                raise InputError(f"{path}: has no columns dataset and kind; build the set again")
            for batch in file.iter_batches(manifest.ROW_GROUP, columns=["dataset", "kind"]):
                counts.update((flat["dataset"], flat["kind"]) for flat in batch.to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: no Parquet file ({str(error).splitlines()[0]}); build the set again") from error
    return counts


class Quantiles(Record):
    """Of `count` measured faces; linear between neighbours."""

    count: int
    min: float
    p05: float
    median: float
    p95: float
    max: float


def quantiles(values: Sequence[float] | np.ndarray) -> Quantiles | None:
    """None where nothing was measured."""
    if not len(values):
        return None
    low, p05, median, p95, high = np.quantile(np.asarray(values, float), (0, 0.05, 0.5, 0.95, 1)).tolist()
    return Quantiles(count=len(values), min=low, p05=p05, median=median, p95=p95, max=high)


class Source(Record):
    """Faces of one type from one collection (a line of Table 4), or of one method of it. splits: split -> faces."""

    forgery_type: ForgeryType
    dataset: str
    method: str | None
    splits: dict[str, int]
    faces: int


class BenchSet(Record):
    """A column of Table 1."""

    name: str
    real: int
    fake: int
    sources: list[str]


class Measured(Record):
    """A collection's measures: of all its faces (label None; pixels), or of those of one label."""

    dataset: str
    label: Label | None
    faces: int
    measures: dict[str, Quantiles | None]


class Stats(Record):
    """What `ffaa data stats` says of a set. rejected: dataset -> kind of reason -> number; None: not known."""

    manifest_sha256: str
    faces: int
    real: int
    fake: int
    composition: list[Source]
    methods: list[Source]
    bench: list[BenchSet]
    sizes: list[Measured]
    quality: list[Measured]
    rejected: dict[str, dict[str, int]] | None


def describe(found: Tally) -> Stats:
    """The tables' numbers."""
    labels, datasets = _sums(found, lambda k: k.label), _sums(found, lambda k: k.dataset)
    rejected: dict[str, dict[str, int]] | None = None
    if found.rejected is not None:
        rejected = {}
        for (dataset, kind), count in sorted(found.rejected.items()):
            rejected.setdefault(dataset, {})[kind] = count
    return Stats(
        manifest_sha256=found.sha256,
        faces=found.kinds.total(),
        real=labels[Label.REAL],
        fake=labels[Label.FAKE],
        composition=_sources(found, by_method=False),
        methods=_sources(found, by_method=True),
        bench=_bench(found),
        sizes=[
            Measured(
                dataset=name, label=None, faces=datasets[name],
                measures={measure: quantiles(found.of(name, measure)) for measure in SIZES},
            )
            for name in found.datasets()
        ],
        quality=[
            Measured(
                dataset=name, label=label,
                faces=sum(n for k, n in found.kinds.items() if (k.dataset, k.label) == (name, label)),
                measures={measure: quantiles(values[measure]) for measure in QUALITY},
            )
            for (name, label), values in sorted(found.values.items(), key=lambda pair: _real_first(*pair[0]))
        ],
        rejected=rejected,
    )  # fmt: skip


def _real_first(dataset: str, label: Label) -> tuple[str, bool]:
    return dataset, label is Label.FAKE


def _sums(found: Tally, key: Callable[[Kind], K]) -> Counter[K]:
    sums: Counter[K] = Counter()
    for kind, count in found.kinds.items():
        sums[key(kind)] += count
    return sums


def _sources(found: Tally, by_method: bool) -> list[Source]:
    splits: dict[tuple[ForgeryType, str, str], Counter[str]] = {}
    for kind, count in found.kinds.items():
        key = (kind.forgery_type, kind.dataset, kind.method if by_method else "")
        splits.setdefault(key, Counter())[kind.split] += count
    order = list(ForgeryType)
    place = (
        (lambda key: (key[1], order.index(key[0]), key[2])) if by_method else lambda key: (order.index(key[0]), key[1])
    )
    return [
        Source(
            forgery_type=key[0], dataset=key[1], method=key[2] if by_method else None,
            splits={name: splits[key][name] for name in _split_names(splits[key])}, faces=splits[key].total(),
        )
        for key in sorted(splits, key=place)
    ]  # fmt: skip


def _split_names(splits: Iterable[str]) -> list[str]:
    """train, val, test, bench, and what else there is."""
    known = [name for name in reversed(SPLITS) if name in splits]
    return known + sorted(set(splits) - set(known))


def _bench(found: Tally) -> list[BenchSet]:
    names = sorted({kind.bench for kind in found.kinds if kind.bench})
    sums = _sums(found, lambda k: (k.bench, k.label))
    return [
        BenchSet(
            name=name, real=sums[name, Label.REAL], fake=sums[name, Label.FAKE],
            sources=sorted({kind.dataset for kind in found.kinds if kind.bench == name}),
        )
        for name in names
    ]  # fmt: skip


# --- the tables, for the terminal and for Markdown --------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column names the line; notes: sentences below it."""

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()


def number(value: float | None) -> str:
    """Three significant digits, whole numbers in full; '-' for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def tables(stats: Stats) -> list[Table]:
    """All tables of a set; those without a line are left out."""
    splits = _split_names({name for source in stats.composition for name in source.splits})
    shown = [
        Table("Faces by forgery type and source", ["type", "source", *splits, "all"], _composition(stats, splits)),
        Table(
            "Faces by method and split",
            ["collection", "method", "type", *splits, "all"],
            [[s.dataset, s.method or "", s.forgery_type.value, *_counts(s, splits)] for s in stats.methods],
        ),
        Table(
            "Benchmark sets",
            ["set", "real : fake", "sources"],
            [[b.name, f"{b.real} : {b.fake}", ", ".join(b.sources)] for b in stats.bench],
        ),
        Table(
            "Sizes in pixels of the photo",
            ["collection", "measure", "faces", "min", "5 %", "median", "95 %", "max"],
            [
                [m.dataset, name.replace("_", " "), *map(number, (q.count, q.min, q.p05, q.median, q.p95, q.max))]
                for m in stats.sizes
                for name, q in m.measures.items()
                if q is not None
            ],
        ),
        Table(
            "Quality: medians, and of how many faces where not of all",
            ["collection", "label", "faces", *(name.replace("_", " ") for name in QUALITY)],
            [
                [m.dataset, str(m.label), number(m.faces), *(_median(m, name) for name in QUALITY)]
                for m in stats.quality
            ],
        ),
        Table(
            "Left out",
            ["collection", "reason", "number"],
            [[name, kind, number(n)] for name, counts in (stats.rejected or {}).items() for kind, n in counts.items()],
        ),
    ]  # fmt: skip
    notes = [] if stats.faces else ["The manifest holds no face."]
    if stats.rejected is None:
        notes.append(f"{REJECTED_NAME} is not there: what was left out is not known.")
    title = f"{stats.faces:,} faces: {stats.real:,} real, {stats.fake:,} fake"
    return [Table(title, notes=notes), *(table for table in shown if table.rows)]


def _composition(stats: Stats, splits: Sequence[str]) -> list[list[str]]:
    lines = []
    for kind in ForgeryType:
        sources = [s for s in stats.composition if s.forgery_type is kind]
        if sources:
            sums = [sum(s.splits.get(name, 0) for s in sources) for name in splits]
            lines.append([kind.value, "all", *map(number, [*sums, sum(sums)])])
            lines += [["", s.dataset, *_counts(s, splits)] for s in sources]
    return lines


def _counts(source: Source, splits: Sequence[str]) -> list[str]:
    return [number(source.splits.get(name, 0)) for name in splits] + [number(source.faces)]


def _median(measured: Measured, name: str) -> str:
    found = measured.measures[name]
    if found is None:
        return "-"
    return number(found.median) + ("" if found.count == measured.faces else f" ({found.count:,})")


def show(shown: Iterable[Table], console: Console | None = None) -> None:
    """Print tables; piped, lines are as long as they need."""
    if console is None:
        console = Console(markup=False, highlight=False, emoji=False)
        if not console.is_terminal:
            console.width = PIPED_WIDTH
    for table in shown:
        console.print(f"\n{_clean(table.title)}", soft_wrap=True)
        if table.rows:
            numeric = [
                all(not any(c.isalpha() for c in row[i]) for row in table.rows) for i in range(len(table.header))
            ]
            grid = Grid(box=box.SIMPLE_HEAD, show_edge=False)
            for name, right in zip(table.header, numeric, strict=True):
                grid.add_column(name, justify="right" if right else "left", overflow="fold")
            for row in table.rows:
                grid.add_row(*map(_clean, row))
            console.print(grid)
        for note in table.notes:
            console.print(_clean(note), soft_wrap=True)


def markdown(shown: Iterable[Table]) -> str:
    """The same, GitHub style."""
    parts = []
    for table in shown:
        lines = [f"## {_clean(table.title)}", ""]
        if table.rows:
            lines += ["| " + " | ".join(table.header) + " |", "|---" * len(table.header) + "|"]
            lines += ["| " + " | ".join(_clean(cell).replace("|", "\\|") for cell in row) + " |" for row in table.rows]
            lines.append("")
        lines += [_clean(note) + "\n" for note in table.notes]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _clean(text: str) -> str:
    """Names come from collections: nothing that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)
