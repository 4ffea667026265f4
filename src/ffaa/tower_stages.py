"""The stages that train a recipe's towers: the one that MLLM and MIDS share, and those that MIDS has of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ffaa import weights
from ffaa.mllm.train_tower import TowerArgs, average_towers
from ffaa.mllm.train_towers import TowerJob, towers_beside, train_towers
from ffaa.recipe import Recipe, Run

SHARED = "tower.safetensors"


class Towers:
    """The towers of `recipe`, trained on the crops under `root` that RUN/faces.parquet lists.

    at_once: how many at the same time (`train_towers`, `towers_beside`).
    """

    def __init__(self, recipe: Recipe, root: Path, run: Run, at_once: int):
        self.recipe, self.root, self.run, self.folder, self._at_once = recipe, root, run, run.folder, at_once

    def shared(self) -> None:
        """Train the vision tower, or several, whose mean it is then."""
        recipe = self.recipe
        if not recipe.more_towers:
            self.run.stage(
                "tower", self._inputs(recipe.tower), [SHARED], lambda: self._job(recipe.tower, self.folder).run(),
                ["tower.state.pt"],
            )  # fmt: skip
            return
        with self._jobs(self._averaged()) as (files, jobs):
            train_towers(jobs, self._at_once)
        self._mean("tower", list(files.values()), SHARED)

    def own(self) -> list[str]:
        """Train MIDS's own towers; returns their files in the run's folder."""
        with self._jobs(self._for_mids()) as (files, jobs):
            train_towers(jobs, self._at_once)
        out = []
        for i, parts in enumerate(self.recipe.mids_towers):
            name = f"tower-mids-{i}"
            out.append(f"{name}.safetensors" if len(parts) > 1 else files[name])
            if len(parts) > 1:
                self._mean(name, [files[f"{name}-{j}"] for j in range(len(parts))], out[-1])
        return out

    @contextmanager
    def own_beside(self) -> Iterator[None]:
        """Train MIDS's own towers, or what their means are of, beside what the caller does meanwhile."""
        with self._jobs(self._for_mids()) as (_, jobs), towers_beside(jobs, self._at_once):
            yield

    def blurred(self) -> list[int]:
        """Which of the towers that MIDS looks through know of faces without fine detail, 0 the shared one."""
        if self.recipe.mids.unfreeze:  # then it looks through others than the heads are for
            return []
        towers = [[self.recipe.tower, *self.recipe.more_towers], *self.recipe.mids_towers]
        return [i for i, parts in enumerate(towers) if any(args.blurred for args in parts)]

    def _averaged(self) -> dict[str, TowerArgs]:
        """The towers of whose weights the MLLM's is the mean, by name; none where it is trained alone."""
        recipe = self.recipe
        towers = [recipe.tower, *recipe.more_towers] if recipe.more_towers else []
        return {f"tower-{i}": args for i, args in enumerate(towers)}

    def _for_mids(self) -> dict[str, TowerArgs]:
        """The towers that MIDS has of its own, and those of whose weights one of them is the mean, by name."""
        return {
            f"tower-mids-{i}-{j}" if len(parts) > 1 else f"tower-mids-{i}": args
            for i, parts in enumerate(self.recipe.mids_towers)
            for j, args in enumerate(parts)
        }

    def _mean(self, name: str, files: list[str], out: str) -> None:
        mean = partial(average_towers, [self.folder / file for file in files], self.folder / out)
        self.run.stage(name, self.run.inputs(self.recipe.seed, *files), [out], mean)

    @contextmanager
    def _jobs(self, towers: Mapping[str, TowerArgs]) -> Iterator[tuple[dict[str, str], list[TowerJob]]]:
        """(The towers' files in the run's folder, what of them is to train), each in a folder of its name; on leaving
        they count as trained. One with the settings of another before it, or of one of `more_towers`, is that one.
        """
        every = self._averaged() | dict(towers)
        first = {json.dumps(self._inputs(args)): name for name, args in reversed(every.items())}
        names = {name: first[json.dumps(self._inputs(args))] for name, args in towers.items()}
        files = {name: f"{one}/tower.safetensors" for name, one in names.items()}
        jobs = {}
        for name, args in towers.items():
            if names[name] == name and self.run.begin(name, self._inputs(args), [files[name]], [name]):
                before = first[json.dumps(self._inputs(args.after))] if args.after else None
                jobs[name] = self._job(args, self.folder / name, before)
        yield files, list(jobs.values())
        for name, job in jobs.items():
            self.run.finish(name, self._inputs(job.args))

    def _inputs(self, args: TowerArgs) -> dict[str, Any]:
        settings = _settings(args)
        del settings["after"]
        settings |= {"after": _settings(args.after)} if args.after else {}
        return self.run.inputs(self.recipe.seed, "faces.parquet", tower=settings, held=self.recipe.data.held)

    def _job(self, args: TowerArgs, out: Path, before: str | None = None) -> TowerJob:
        part = weights.part_folder(f"efficientnet-{args.start}")
        return TowerJob(
            args, self.folder / "faces.parquet", self.root, next(part.rglob("*.pth")), out, self.recipe.data.held,
            self.recipe.seed + args.seed, self.folder / before / "tower.safetensors" if before else None,
        )  # fmt: skip


def _settings(args: TowerArgs) -> dict[str, Any]:
    """Without what changes nothing, so that a run stays up to date."""
    return args.model_dump(exclude={"workers", "save_every"} | (set() if args.imagenet_share else {"imagenet_share"}))
