"""Training of several towers, at once where the machine has the cores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from ffaa.data import manifest
from ffaa.data.processes import end_with_parent
from ffaa.errors import InputError
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
        if self.before:
            start = load_tower(self.before)
        else:
            start = imagenet_tower(torch.load(self.weights, weights_only=True), self.seed, self.args.start)
        train_tower(self.args, manifest.read(self.rows), self.root, self.out, start, self.held, self.seed)


def train_towers(jobs: Sequence[TowerJob], at_once: int = 1) -> None:
    """Train them all; one killed with its parent goes on from its checkpoint when it is asked for again.

    at_once: how many, each in a process of its own that has an even share of this one's threads; 1: here, in turn.
    Raises InputError, as `train_tower` does, and torch's ProcessException where a process ended otherwise.
    """
    count = min(at_once, len(jobs))
    if count < 2:
        for job in jobs:
            job.run()
        return
    with _apart(jobs, count, max(1, torch.get_num_threads() // count)):
        pass


@contextmanager
def towers_beside(jobs: Sequence[TowerJob], at_once: int = 1) -> Iterator[None]:
    """Train towers beside what the caller does meanwhile; on leaving they are trained. Raises as `train_towers` does.

    at_once: the caller's work and `at_once` - 1 towers, each in a process with an even share of the threads; 1: the
    towers in turn, here, when the caller has done.
    """
    count = min(at_once - 1, len(jobs))
    if count < 1:
        yield
        train_towers(jobs)
        return
    threads = torch.get_num_threads()
    share = max(1, threads // at_once)
    with _apart(jobs, count, share):
        torch.set_num_threads(max(1, threads - count * share))
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _apart(jobs: Sequence[TowerJob], count: int, threads: int) -> Iterator[None]:
    """`count` processes train the jobs; they are waited for on leaving, and ended if the caller fails."""
    failed = multiprocessing.get_context("spawn").SimpleQueue()
    level = logging.getLogger().getEffectiveLevel()
    shares = [jobs[i::count] for i in range(count)]
    started: Any = multiprocessing.spawn(_train, (shares, threads, level, failed), count, join=False)
    try:
        yield
        while not started.join():
            pass
    except multiprocessing.ProcessExitedException:
        if failed.empty():
            raise
        raise InputError(failed.get()) from None
    finally:
        for process in started.processes:
            process.terminate()
            process.join()


def _train(
    place: int, shares: Sequence[Sequence[TowerJob]], threads: int, level: int, failed: multiprocessing.SimpleQueue
) -> None:
    end_with_parent()
    torch.set_num_threads(threads)
    for job in shares[place]:
        lines = f"%(asctime)s {job.out.name}: %(message)s"
        logging.basicConfig(level=level, format=lines, datefmt="%H:%M:%S", force=True)
        try:
            job.run()
        except InputError as error:
            failed.put(str(error))
            raise SystemExit(1) from None
