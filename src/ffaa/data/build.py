"""From collections to one manifest: list, extract (in parallel), finish. Resumes after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ffaa import weights
from ffaa.data import clean, manifest
from ffaa.data.engines import ENGINES, default_workers
from ffaa.data.extract import Job
from ffaa.data.finish import dataset_of, finish, split_of, tidy
from ffaa.data.manifest import Row
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources import SOURCES
from ffaa.data.sources.base import Item, SourceArgs, expect
from ffaa.data.work import Outcome, Work, disk
from ffaa.errors import InputError, UsageError
from ffaa.files import write

REPORT = "build.json"
Progress = Callable[[int, int], None]


def build(
    recipe: DataRecipe,
    data: Path,
    out: Path,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Build `out`/manifest.parquet, rejected.parquet and build.json from the collections under `data`.

    engine: a name of ENGINES. workers: processes, None: one per core, 0: this process. address: of a Ray cluster.
    progress: called with (items done, items). A killed build goes on where it stopped and ends with the same manifest;
    one that is complete is left as it is. Returns the report. Raises InputError (wrong layout, leaks, full disk, no
    face) and UsageError.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown engine '{engine}'; known: {', '.join(ENGINES)}")
    for args in recipe.sources:
        if args.kind not in SOURCES:
            raise UsageError(f"unknown kind of source '{args.kind}'; known: {', '.join(sorted(SOURCES))}")
    if recipe.pose:
        weights.part_folder("face-mesh")  # before the first photo, with the command that installs it
    job = Job(data.absolute(), out.absolute(), recipe)
    with disk(out), contextlib.closing(Work(out)) as work:
        _belongs(work, job)
        if work.get("finished") is None:
            _extract(work, job, engine, default_workers() if workers is None else workers, address, progress)
            _finish(work, job, command)
        tidy(job.out)
        return json.loads((out / REPORT).read_text(encoding="utf-8"))


def _belongs(work: Work, job: Job) -> None:
    """Refuse a folder that holds a build of another recipe."""
    settings = {"recipe": job.recipe.model_dump(mode="json"), "data": str(job.data)}
    before = json.loads(work.get("settings") or "null")
    if before is not None and work.get("finished") is None:  # stopped by a leak: what to do about it may be changed
        before["recipe"]["leaks"] = job.recipe.leaks
    if before is None or (work.get("finished") is None and before == settings):
        work.put("settings", json.dumps(settings))
    elif before != settings:
        raise InputError(f"{job.out}: holds a build with other settings or another --data; give another --out")


def listed(recipe: DataRecipe, data: Path) -> Iterator[tuple[int, str, int, Item]]:
    """(source, stratum of `per_class`, lot of `sample`, item) of every item of the recipe, in order."""
    for number, args in enumerate(recipe.sources):
        source, root = SOURCES[args.kind], data / args.root
        found = 0
        for item in source.read(expect(root, args.kind, source.obtain), args):
            split = split_of(args, item)
            stratum = "|".join((*split, dataset_of(args, item), item.label.value))
            found += 1
            yield number, stratum, clean.draw(recipe.seed, f"item:{args.root}/{item.path}"), item
        if not found:
            raise InputError(f"{root}: the source '{args.kind}' found nothing there; {source.obtain}")


def _extract(work: Work, job: Job, engine: str, workers: int, address: str | None, progress: Progress) -> None:
    started = time.monotonic()
    recipe = job.recipe
    if work.get("listed") is None:
        with work.transaction():
            work.list_items(listed(recipe, job.data))
            for number, args in enumerate(recipe.sources):
                work.keep_drawn(number, args.sample, args.per_class)
            work.put("listed", "yes")
    total, done = work.counts()
    progress(done, total)
    memory = _Memory(workers)
    spent = float(work.get("seconds") or 0)
    with contextlib.closing(ENGINES[engine](work.pending(), job, workers, address)) as outcomes:
        for some in outcomes:
            work.commit(some)
            memory.add(some)
            done += len(some)
            work.put("seconds", str(spent + time.monotonic() - started))
            progress(done, total)
    work.put("engine", f"{engine}, {workers} workers")
    work.put("memory", str(max(memory.peak(), int(work.get("memory") or 0))))


class _Memory:
    """Peak memory: this process's and its workers' together, an upper bound as the peaks need not coincide."""

    def __init__(self, workers: int):
        self._workers, self._worker = workers, 0

    def add(self, outcomes: list[Outcome]) -> None:
        self._worker = max([self._worker, *(o.memory for o in outcomes)])

    def peak(self) -> int:
        mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return mine + self._workers * self._worker


def _finish(work: Work, job: Job, command: str) -> None:
    started = time.monotonic()
    counts = finish(work, job)
    seconds = float(work.get("seconds") or 0) + time.monotonic() - started
    items, _ = work.counts()
    faces = sum(c.get("faces", 0) for c in counts.values())
    path = job.out / manifest.NAME
    report = {
        "name": job.recipe.name, "command": command, "seed": job.recipe.seed, "items": items, "faces": faces,
        "rejected": sum(n for c in counts.values() for kind, n in c.items() if kind != "faces"),
        "datasets": counts, "seconds": round(seconds, 1), "items_per_second": round(items / max(seconds, 1e-9), 1),
        "engine": work.get("engine"), "peak_memory_mb": round(int(work.get("memory") or 0) / 2**20),
        "manifest_version": manifest.VERSION, "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "versions": versions(), "recipe": job.recipe.model_dump(mode="json"),
    }  # fmt: skip
    write(job.out / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    work.put("finished", "yes")


def versions() -> dict[str, str]:
    """Of what decides over pixels and faces."""
    names = ("ffaa", "numpy", "opencv-python-headless", "pillow", "av", "dlib-bin", "ai-edge-litert", "pyarrow")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def csv_recipe(csv: Path, limit: int | None = None) -> DataRecipe:
    """The recipe of `ffaa train` for a plain CSV: every row, its photos where they are, nothing cut or removed.

    limit: at most so many rows per split, set and label.
    """
    source = SourceArgs(kind="csv", root=".", manifest=csv.name, per_class=limit)
    return DataRecipe(
        name=csv.stem, sources=[source], size=None, no_face="whole", pose=False, val=0, test=0, duplicates=False
    )


def rows_of_csv(csv: Path) -> list[Row]:
    """The rows of a plain CSV without faces, sizes and hashes: what a benchmark of whole photos needs."""
    recipe, rows = csv_recipe(csv), []
    if not csv.is_file():
        raise InputError(f"{csv}: no such manifest; give a CSV with the columns path, label, forgery_type ...")
    for _, _, _, item in listed(recipe, csv.parent):
        split, bench = split_of(recipe.sources[0], item)
        rows.append(
            Row(
                path=item.path,
                label=item.label,
                forgery_type=item.forgery_type,
                method=item.method,
                dataset=item.dataset,
                split=split,
                bench=bench,
                regions=item.regions,
                mask=item.mask,
                group=item.groups[0] if item.groups else "",
            )
        )
    return rows
