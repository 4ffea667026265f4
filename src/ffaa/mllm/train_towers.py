"""Training of several towers, at once where the machine has the cores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import multiprocessing

from ffaa.data import manifest
from ffaa.errors import InputError
from ffaa.mllm.train_tower import TowerArgs, imagenet_tower, train_tower


@dataclass(frozen=True)
class TowerJob:
    """One tower from its ImageNet weights on. rows: a manifest, whose crops lie under `root`; weights: the published
    file of `args.start`; out, held, seed: as of `train_tower`."""

    args: TowerArgs
    rows: Path
    root: Path
    weights: Path
    out: Path
    held: float
    seed: int

    def run(self) -> None:
        start = imagenet_tower(torch.load(self.weights, weights_only=True), self.seed, self.args.start)
        train_tower(self.args, manifest.read(self.rows), self.root, self.out, start, self.held, self.seed)


def train_towers(jobs: Sequence[TowerJob], at_once: int = 1) -> None:
    """Train them all; one killed with its parent goes on from its checkpoint when it is asked for again.

    at_once: how many, each in a process of its own that has an even share of this one's threads; 1: here, in turn.
    Raises InputError, as `train_tower` does, and torch's ProcessException where a process ended otherwise.
    """
    for first in range(0, len(jobs), at_once):
        part = jobs[first : first + at_once]
        if len(part) == 1:
            part[0].run()
            continue
        threads = max(1, torch.get_num_threads() // len(part))
        failed = multiprocessing.get_context("spawn").SimpleQueue()
        level = logging.getLogger().getEffectiveLevel()
        try:
            multiprocessing.spawn(_apart, (part, threads, level, failed), len(part))
        except multiprocessing.ProcessExitedException:
            if failed.empty():
                raise
            raise InputError(failed.get()) from None


def _apart(place: int, jobs: Sequence[TowerJob], threads: int, level: int, failed: multiprocessing.SimpleQueue) -> None:
    job = jobs[place]
    logging.basicConfig(level=level, format=f"%(asctime)s {job.out.name}: %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    try:
        job.run()
    except InputError as error:
        failed.put(str(error))
        raise SystemExit(1) from None
