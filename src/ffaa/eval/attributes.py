"""What a manifest holds about its photos beside the columns that everything reads: skin type, age group, sex ..."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from ffaa.data import manifest
from ffaa.errors import InputError
from ffaa.eval.benchmark import BenchRecipe, manifests, read_rows, sample

NONE = "(none)"
MOST = 30  # values; more are a measure, not groups


def read(recipe: BenchRecipe, data: Path) -> dict[str, list[str]]:
    """Attribute of the recipe -> its value of every sampled photo, in the sample's order; '(none)' where it is empty.

    Raises InputError where a manifest has no such column, or one of more than 30 values in the sample.
    """
    if not recipe.attributes:
        return {}
    rows = read_rows(recipe, data)
    values = [line for name in manifests(recipe) for line in _lines(data / name, recipe.attributes)]
    place = {id(row): i for i, row in enumerate(rows)}
    chosen = [values[place[id(row)]] for row in sample(recipe, rows)]
    found = {name: [line[n] or NONE for line in chosen] for n, name in enumerate(recipe.attributes)}
    for name, of in found.items():
        if len(set(of)) > MOST:
            raise InputError(
                f"attribute '{name}' has {len(set(of))} values, at most {MOST} are compared; put them into groups "
                "(20-29, 30-39 ...) in a column of their own"
            )
    return found


def _lines(file: Path, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The columns' values of every row of a manifest, in the order in which `read_rows` gives the rows."""
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            _check(file, names, reader.fieldnames or [])
            yield from (tuple((line[name] or "").strip() for name in names) for line in reader)
        return
    file = file / manifest.NAME if file.is_dir() else file
    with pyarrow.parquet.ParquetFile(file) as columns:
        _check(file, names, columns.schema_arrow.names)
        for batch in columns.iter_batches(manifest.ROW_GROUP, columns=list(dict.fromkeys(names))):
            for line in pa.Table.from_batches([batch]).to_pylist():
                yield tuple("" if line[name] is None else str(line[name]).strip() for name in names)


def _check(file: Path, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            raise InputError(f"{file}: no column '{name}' for the recipe's attributes; it has {', '.join(there)}")
