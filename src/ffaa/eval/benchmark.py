"""A benchmark: which photos of which manifests, and how they are grouped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from ffaa.data import manifest
from ffaa.data.build import rows_of_csv
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.eval.corruptions import CORRUPTIONS
from ffaa.settings import load_yaml
from ffaa.types import Label

ALL, VALIDATION = "ALL", "validation"  # pools of the open world, and of photos that only a threshold is chosen on


class Robustness(BaseModel):
    """What `ffaa bench robustness` does to the photos."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strengths: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="corruption -> strengths, weak to strong; default: all, at their usual ones"
    )
    per_class: int | None = Field(None, ge=1, description="at most this many of the sample's photos per set and label")

    @model_validator(mode="after")
    def _known(self) -> Robustness:
        if strange := [name for name in self.strengths if name not in CORRUPTIONS]:
            raise ValueError(f"no corruption '{strange[0]}'; known: {', '.join(CORRUPTIONS)}")
        for name, given in self.strengths.items():
            low, high = CORRUPTIONS[name].limits
            if not given or len(set(given)) < len(given) or not all(low <= s <= high for s in given):
                raise ValueError(f"{name}: strengths are different numbers from {low:g} to {high:g}")
        return self

    @property
    def chosen(self) -> dict[str, tuple[float, ...]]:
        """Corruption -> strengths."""
        return self.strengths or {name: found.strengths for name, found in CORRUPTIONS.items()}


class BenchRecipe(BaseModel):
    """Which photos of one or more manifests, and how they are grouped.

    A manifest is a CSV of photos, or a set of `ffaa data build` (its folder or file), relative to --data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = Field("", description="shown with the table")
    manifest: str | tuple[str, ...] = "manifest.csv"
    in_domain: str = Field("test", description="the split reported as in domain")
    in_domain_name: str = Field("in domain", description="what its pool is called")
    open_world: str = Field("bench", description="the split whose sets are pooled as ALL")
    validation: str | None = Field(None, description="the split that one threshold for all sets is chosen on")
    per_class: int | None = Field(None, ge=1, description="at most this many photos per open-world set and label")
    in_domain_per_class: int | None = Field(None, ge=1, description="the same for every in-domain set and label")
    in_domain_count: int | None = Field(None, ge=1, description="this many in-domain photos, whatever set and label")
    validation_per_class: int | None = Field(None, ge=1, description="the same for every validation set and label")
    counts: dict[str, dict[Label, PositiveInt]] = Field(
        default_factory=dict, description="open-world set -> label -> photos, exactly; other sets are left out"
    )
    size: int = Field(224, ge=32, description="side of the face crop that all detectors see, pixels")
    seed: int = 0
    attributes: tuple[str, ...] = Field((), description="columns of the manifests by which errors are compared")
    robustness: Robustness = Field(default_factory=Robustness, description="read by `ffaa bench robustness` alone")

    @model_validator(mode="after")
    def _own_splits(self) -> BenchRecipe:
        if len({self.in_domain, self.open_world, self.validation}) < 3:
            raise ValueError("in_domain, open_world and validation are three different splits")
        if self.in_domain_name in (ALL, VALIDATION):
            raise ValueError(f"in_domain_name: '{self.in_domain_name}' is the name of another pool; choose another one")
        return self


def load_bench(path: Path) -> BenchRecipe:
    """Read a benchmark recipe; UsageError names what is wrong."""
    return load_yaml(path, BenchRecipe)


def read_rows(recipe: BenchRecipe, data: Path) -> list[Row]:
    """All rows of the recipe's manifests; paths, shards and masks are relative to `data`. Raises InputError."""
    return [row for name in manifests(recipe) for row in _rows(data, name)]


def manifests(recipe: BenchRecipe) -> tuple[str, ...]:
    """The manifests' names."""
    return (recipe.manifest,) if isinstance(recipe.manifest, str) else recipe.manifest


def _rows(data: Path, name: str) -> Iterator[Row]:
    file = data / name
    plain = file.suffix == ".csv"
    folder = Path(name) if file.is_dir() else Path(name).parent
    for row in rows_of_csv(file) if plain else manifest.scan(file):
        if plain or row.size:  # without crops, a built manifest's paths are relative to the photos' folder already
            place = "shard" if row.shard else "path"
            row = row.model_copy(update={place: (folder / getattr(row, place)).as_posix()})
        if row.mask and (plain or row.size):
            row = row.model_copy(update={"mask": (folder / row.mask).as_posix()})
        yield row


def sample(recipe: BenchRecipe, rows: Sequence[Row]) -> list[Row]:
    """The rows to judge: in domain, open world, validation; where there is a limit, a seeded draw per set and label.

    Raises InputError when a set has fewer photos than `counts` or `in_domain_count` ask for.
    """
    chosen = _in_domain(recipe, rows)
    chosen += _counted(recipe, rows) if recipe.counts else _drawn(recipe, rows, recipe.open_world, recipe.per_class)
    if recipe.validation is not None:
        chosen += _drawn(recipe, rows, recipe.validation, recipe.validation_per_class)
    return chosen


def thin(recipe: BenchRecipe, rows: Sequence[Row], limit: int | None) -> list[Row]:
    """At most `limit` of the sampled photos per set and label, a seeded draw; those of validation are left out."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.split != recipe.validation:
            groups.setdefault((row.split, row.test_set, row.label.value), []).append(row)
    return [row for (_, *key), of in groups.items() for row in _draw(of, limit, _seed(recipe, *key))]


def _in_domain(recipe: BenchRecipe, rows: Sequence[Row]) -> list[Row]:
    own = [row for row in rows if row.split == recipe.in_domain]
    if recipe.in_domain_count is not None:
        if len(own) < recipe.in_domain_count:
            raise InputError(
                f"{recipe.in_domain_name}: {recipe.in_domain_count} photos wanted, the split '{recipe.in_domain}' has "
                f"{len(own)}; build a larger one, or lower in_domain_count"
            )
        return _draw(own, recipe.in_domain_count, (recipe.seed, *recipe.in_domain_name.encode()))
    if recipe.in_domain_per_class is None:
        return own
    return _drawn(recipe, rows, recipe.in_domain, recipe.in_domain_per_class)


def _drawn(recipe: BenchRecipe, rows: Sequence[Row], split: str, limit: int | None) -> list[Row]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.split == split:
            groups.setdefault((row.test_set, row.label.value), []).append(row)
    return [row for key in sorted(groups) for row in _draw(groups[key], limit, _seed(recipe, *key))]


def _counted(recipe: BenchRecipe, rows: Sequence[Row]) -> list[Row]:
    groups: dict[tuple[str, Label], list[Row]] = {}
    for row in rows:
        if row.split == recipe.open_world:
            groups.setdefault((row.test_set, row.label), []).append(row)
    wanted = {(name, label): n for name, of in recipe.counts.items() for label, n in of.items()}
    short = [
        f"{name} has {len(groups.get((name, label), []))} {label.value} of {n}"
        for (name, label), n in wanted.items()
        if len(groups.get((name, label), [])) < n
    ]
    if short:
        raise InputError(f"too few photos: {', '.join(short)}; add photos to these sets, or lower `counts`")
    return [row for key, n in wanted.items() for row in _draw(groups[key], n, _seed(recipe, key[0], key[1].value))]


def _seed(recipe: BenchRecipe, name: str, label: str) -> tuple[int, ...]:
    return (recipe.seed, *name.encode(), *label.encode())


def _draw(rows: Sequence[Row], limit: int | None, seed: tuple[int, ...]) -> list[Row]:
    """At most `limit` rows, in their order. The seed holds the set's name: no set's draw depends on another's size."""
    order = np.random.default_rng(seed).permutation(len(rows))[: limit or len(rows)]
    return [rows[i] for i in sorted(order)]


def sample_hash(hashes: Sequence[str]) -> str:
    """sha256 over the sha256 of all photos, in order: names the sample."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
