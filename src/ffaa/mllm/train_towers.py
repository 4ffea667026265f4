"""Training of several towers, at once where the machine has the cores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import torch

from ffaa.data import manifest
from ffaa.data.processes import ProcessPool
from ffaa.errors import FFAAError
from ffaa.mllm.train_tower import TowerArgs, imagenet_tower, load_tower, train_tower


@dataclass(frozen=True)
class TowerJob:
    """One tower from its start on. rows: a manifest, whose crops lie under `root`; weights: the published file of
    `args.start`; out, held, seed: as of `train_tower`; before: file of the tower that it goes on from, if of one."""

    args: TowerArgs
    rows: Path
    root: Path
    weights: Path
    out: Path
    held: float
    seed: int
    before: Path | None = None

    def run(self) -> None:
        untrained = imagenet_tower(torch.load(self.weights, weights_only=True), self.seed, self.args.start)
        start = load_tower(self.before) if self.before else untrained
        rows = manifest.read(self.rows)
        train_tower(self.args, rows, self.root, self.out, start, self.held, self.seed, untrained[0].state_dict())


def train_towers(jobs: Sequence[TowerJob], at_once: int = 1) -> None:
    """Train them all, each after the one that it goes on from; one killed with its parent goes on from its checkpoint
    when it is asked for again.

    at_once: how many, each in a process of its own that has an even share of this one's threads; 1: here, in turn.
    Raises InputError, as `train_tower` does, and FFAAError where a process was ended from outside.
    """
    count = min(at_once, len(jobs))
    if count < 2:
        for job in sorted(jobs, key=lambda job: job.before is not None):
            job.run()
        return
    with ProcessPool(count) as pool:
        crew = _Crew(pool, jobs, max(1, torch.get_num_threads() // count))
        crew.work(count)
        crew.finish()


@contextmanager
def towers_beside(jobs: Sequence[TowerJob], at_once: int = 1) -> Iterator[None]:
    """Train towers beside what the caller does meanwhile; on leaving they are trained. Raises as `train_towers` does.

    at_once: the caller's work and `at_once` - 1 towers, each in a process with an even share of the threads, and one
    tower more when the caller has done; 1: the towers in turn, here, when the caller has done.
    """
    if at_once < 2 or not jobs:
        yield
        train_towers(jobs)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // at_once)
    with ProcessPool(min(at_once, len(jobs))) as pool:
        crew = _Crew(pool, jobs, share)
        crew.work(at_once - 1)
        torch.set_num_threads(max(1, threads - (at_once - 1) * share))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        crew.work(at_once)
        crew.finish()


class _Crew:
    """Processes that take one job after the other, in order, but none before the one that it goes on from is done."""

    def __init__(self, pool: ProcessPool, jobs: Sequence[TowerJob], threads: int):
        self._pool, self._todo, self._threads, self._places = pool, list(jobs), threads, 0
        self._under_way, self._failed = dict[Future[None], TowerJob](), list[Future[None]]()
        self._lock = RLock()

    def work(self, places: int) -> None:
        """From now on so many jobs at a time."""
        with self._lock:
            self._places = places
            self._fill()

    def finish(self) -> None:
        """Wait for all jobs; raise what the first one that failed raised."""
        while True:
            with self._lock:
                if self._failed:
                    _raise(self._failed[0])
                under_way = set(self._under_way)
            if not under_way:
                return
            wait(under_way, return_when=FIRST_COMPLETED)

    def _fill(self) -> None:
        while len(self._under_way) < self._places and (job := self._next()):
            self._todo.remove(job)
            future = self._pool.submit(_train, job, self._threads, logging.getLogger().getEffectiveLevel())
            self._under_way[future] = job
            future.add_done_callback(self._done)

    def _next(self) -> TowerJob | None:
        to_come = {job.out / "tower.safetensors" for job in (*self._todo, *self._under_way.values())}
        return next((job for job in self._todo if job.before not in to_come), None)

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            del self._under_way[future]
            if future.cancelled() or future.exception():
                self._failed.append(future)
                self._todo.clear()
            else:
                self._fill()


def _raise(failed: Future[None]) -> None:
    try:
        failed.result()
    except BrokenProcessPool:
        raise FFAAError(
            "a process that trained a tower was ended from outside, perhaps for want of memory; "
            "the same command goes on from its checkpoint, with --at-once 1 one at a time"
        ) from None


def _train(job: TowerJob, threads: int, level: int) -> None:
    torch.set_num_threads(threads)
    lines = f"%(asctime)s {job.out.name}: %(message)s"
    logging.basicConfig(level=level, format=lines, datefmt="%H:%M:%S", force=True)
    job.run()
