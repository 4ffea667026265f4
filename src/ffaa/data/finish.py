"""The last step of a build: groups, duplicates, splits and leaks over all faces, then the manifest. Reads only what
`Work` holds, and gives the same files however often it runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ffaa.data import clean, manifest
from ffaa.data.clean import SPLITS, Dropped, Faces, Groups, LeakError
from ffaa.data.extract import Job, below
from ffaa.data.phash import DISTANCE
from ffaa.data.shards import ShardWriter
from ffaa.data.sources.base import Item, SourceArgs
from ffaa.data.work import Work
from ffaa.errors import InputError
from ffaa.types import Label

REJECTED = pa.schema(
    [(name, pa.string()) for name in ("dataset", "photo", "label", "method", "kind", "reason")]
    + [("time", pa.float64())],
    metadata={"ffaa_rejected": manifest.VERSION},
)
_COLUMNS = dict.fromkeys(manifest.SCHEMA.names)


def dataset_of(args: SourceArgs, item: Item) -> str:
    """What the manifest calls an item's collection."""
    return item.dataset or args.name or args.kind


def split_of(args: SourceArgs, item: Item) -> tuple[str, str]:
    """(split, benchmark set) that the recipe or the collection gives an item; '' where it has none."""
    if args.bench:
        return "bench", args.bench
    if args.split:
        return args.split, ""
    return (item.split, item.bench) if args.official else ("", "")


def group_keys(args: SourceArgs, item: Item, several: bool) -> tuple[str, ...]:
    """Keys of what no split may cut: the collection's, or the file's own where it gave several faces."""
    return item.groups or ((below(args.root, item.path),) if item.is_video or several else ())


class _Survey:
    """The first pass: everything about the faces that decides over them, as numbers."""

    def __init__(self, work: Work, job: Job):
        self.faces, self.groups, recipe = Faces(), Groups(), job.recipe
        strata: dict[tuple[str, str], int] = {}
        kinds: dict[tuple[Label, str], int] = {}
        official: dict[str, set[str]] = {}
        several = work.items_of_several_faces()
        faces = self.faces
        for source, number, item, flat in work.faces():
            args = recipe.sources[source]
            dataset, (split, _) = dataset_of(args, item), split_of(args, item)
            keys = group_keys(args, item, number in several)
            faces.item.append(number)
            faces.digest.append(int(flat["photo_sha256"][:16], 16))
            faces.hashes.append(bytes.fromhex(flat["phash"]))
            faces.fake.append(item.label is Label.FAKE)
            faces.kind.append(kinds.setdefault((item.label, item.method), len(kinds)))
            faces.stratum.append(strata.setdefault((dataset, item.forgery_type.value), len(strata)))
            faces.given.append(SPLITS.index(split) if split else len(SPLITS))
            faces.group.append(self.groups.join(keys) if keys else -1)
            faces.draw.append(clean.draw(recipe.seed, flat["photo"]))
            official.setdefault(dataset, set()).add(split)
        self.roots = np.array([self.groups.root(g) if g >= 0 else -2 - i for i, g in enumerate(faces.group)], np.int64)
        # A collection that brings a test split of its own gets no second one.
        self.shares = {
            number: (
                0.0 if "val" in official[dataset] else recipe.val,
                0.0 if "test" in official[dataset] else recipe.test,
            )
            for (dataset, _), number in strata.items()
        }


def finish(work: Work, job: Job) -> dict[str, Any]:
    """Write the manifest and what was rejected; returns the counts. Raises InputError where given splits cut groups."""
    recipe = job.recipe
    survey = _Survey(work, job)
    faces, roots = survey.faces, survey.roots
    if not len(faces):
        raise InputError(f"{job.out}: not one usable face was found; {_first_reasons(work)}")
    dropped = clean.duplicates(faces, roots, DISTANCE) if recipe.duplicates else {}
    kept = np.array([i for i in range(len(faces)) if i not in dropped], np.int64)
    if recipe.duplicates:
        roots = survey.roots = clean.related(faces, roots, kept, DISTANCE)
    try:
        leaks = clean.given_splits(faces, roots, kept, recipe.leaks == "drop")
    except LeakError as leak:
        named = _photos(work, {i for pair in leak.pairs[: clean.SHOWN] for i in pair})
        shown = [(named[a], named[b]) for a, b in leak.pairs[: clean.SHOWN]]
        text = clean.leak_message(shown, len(leak.pairs))
        raise InputError(f"{text}; mend the splits, or set `leaks: drop` in the recipe") from None
    dropped |= leaks
    kept = np.array([i for i in kept if i not in leaks], np.int64)
    splits = dict(zip(kept.tolist(), clean.assign(faces, roots, kept, survey.shares).tolist(), strict=True))
    return _write(work, job, survey, dropped, splits)


def _write(
    work: Work, job: Job, survey: _Survey, dropped: dict[int, Dropped], splits: dict[int, int]
) -> dict[str, Any]:
    recipe, names = job.recipe, survey.groups.names()
    roots, counts_of_root = survey.roots, Counter(survey.roots.tolist())
    counts: dict[str, Counter[str]] = {}
    photos = _photos(work, {d.of for d in dropped.values() if d.of >= 0})
    shards = ShardWriter(job.out, recipe.shards, recipe.shard_rows) if recipe.shards != "none" else None
    with (
        manifest.Writer(job.out / manifest.REJECTED_NAME, REJECTED) as rejected,
        manifest.Writer(job.out / manifest.NAME) as writer,
    ):
        for source, item, why in work.rejected():
            args = recipe.sources[source]
            counts.setdefault(dataset_of(args, item), Counter())[why.kind] += 1
            photo = below(args.root, item.path)
            rejected.add(_rejection(args, item, photo, why.kind, why.reason, why.time))
        for i, (source, _, item, flat) in enumerate(work.faces()):
            args = recipe.sources[source]
            dataset = dataset_of(args, item)
            count = counts.setdefault(dataset, Counter())
            if i in dropped:
                why_not = dropped[i]
                count[why_not.kind] += 1
                reason = f"{_REASONS[why_not.kind]} {photos.get(why_not.of, '')}"
                rejected.add(_rejection(args, item, flat["photo"], why_not.kind, reason, flat["time"]))
                continue
            count["faces"] += 1
            split = SPLITS[splits[i]]
            root = int(roots[i])
            joined = root < 0 and counts_of_root[root] > 1  # photos without a group of their own that nearly agree
            group = names.setdefault(root, flat["photo"]) if root >= 0 or joined else ""
            flat = _COLUMNS | _DEFAULTS | flat | {
                "label": item.label.value, "forgery_type": item.forgery_type.value, "method": item.method,
                "dataset": dataset, "split": split, "bench": split_of(args, item)[1] if split == "bench" else "",
                "group": group, "regions": list(item.regions),
            }  # fmt: skip
            if shards is not None:
                flat = shards.add(flat, (job.out / flat["path"]).read_bytes())
            writer.add(flat)
        if shards is not None:
            shards.close()
    return {name: dict(count) for name, count in sorted(counts.items())}


_DEFAULTS = {"shard": "", "offset": 0, "mask": "", "reference": "", "face_size": 0.0}
_REASONS = {
    "conflict": "the same file with the other label:",
    "duplicate": "the same file as",
    "near duplicate": "nearly equal to",
    "leak": "its group is held out by",
}


def _rejection(args: SourceArgs, item: Item, photo: str, kind: str, reason: str, time: float | None) -> dict[str, Any]:
    return {
        "dataset": dataset_of(args, item), "photo": photo, "label": item.label.value, "method": item.method,
        "kind": kind, "reason": reason, "time": time,
    }  # fmt: skip


def _photos(work: Work, places: set[int]) -> dict[int, str]:
    """Names of the photos of some faces."""
    return {i: flat["photo"] for i, (_, _, _, flat) in enumerate(work.faces()) if i in places}


def _first_reasons(work: Work) -> str:
    reasons = [f"{item.path}: {why.reason}" for _, item, why in islice(work.rejected(), 2)]
    return "; ".join(reasons)


def tidy(out: Path) -> None:
    """Remove crops that the manifest does not name (rejected ones, or those that were packed into shards)."""
    for name in ("crops", "masks", "references"):
        if (out / name).is_dir():
            column = {"crops": "path", "masks": "mask", "references": "reference"}[name]
            named = {_key(getattr(row, column)) for row in manifest.scan(out) if name != "crops" or not row.shard}
            for path in sorted((out / name).rglob("*.png*")):
                if _key(path.relative_to(out).as_posix()) not in named:
                    path.unlink()
            for folder in sorted((p for p in (out / name).rglob("*") if p.is_dir()), reverse=True):
                if not any(folder.iterdir()):
                    folder.rmdir()
            if not any((out / name).iterdir()):
                (out / name).rmdir()


def _key(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=8).digest()
