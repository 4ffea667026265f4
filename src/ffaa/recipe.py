"""A recipe: one YAML that names data, sizes and settings, and the stages that turn it into a model folder.

Each stage writes into the run folder and is skipped when its output is there for the same inputs (a hash of the
settings it depends on). A killed stage goes on where it stopped, unless its inputs have changed since. What another run
has made of the same inputs is shared with it (hard links), not made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ffaa import weights
from ffaa.errors import UsageError
from ffaa.files import write
from ffaa.mids.train import MidsArgs
from ffaa.mllm.nano import BodyArgs
from ffaa.mllm.train import MllmArgs
from ffaa.mllm.train_tower import TowerArgs
from ffaa.mllm.tune import BaseArgs, TuneArgs
from ffaa.settings import load_yaml

log = logging.getLogger(__name__)


class DataArgs(BaseModel):
    """Which photos. `manifest` may be given relative to the folder that the command's --data names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest: str = Field("manifest.csv", description="a manifest of `ffaa data build`, or a CSV of photos beside them")
    held: float = Field(0.15, ge=0, lt=1, description="share of training photos kept for MIDS alone")
    limit: int | None = Field(None, ge=8, description="of a CSV at most this many photos per split and label")


class TeachArgs(BaseModel):
    """Conversations of the grounded teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: int = Field(1, ge=1, description="augmented copies of every photo, each with its own conversation")
    blend: float = Field(0.1, ge=0, le=1, description="share of real photos turned into self-blended forgeries")
    blurred: float = Field(0.0, ge=0, le=1, description="share of samples whose fine detail is taken away")
    resist: float = Field(0.9, ge=0.5, le=1, description="tempered tower score from which a hypothesis is withstood")
    contrary: float = Field(0.4, ge=0, le=1, description="share of the hypotheses that are not true")
    temperature: float = Field(1.5, gt=0, description="of the tower's score in stated probabilities")
    without: list[str] = Field(
        default_factory=list,
        description="datasets that no conversation and no mined answer is about; what the tower has not learnt to see "
        "teaches the MLLM and MIDS to call forged what looks real",
    )


class Recipe(BaseModel):
    """All settings of one model. `base` names a LLaVA to tune; without it a nano is trained, from `tower` on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = 0
    base: BaseArgs | None = None
    tune: TuneArgs = TuneArgs()
    data: DataArgs = DataArgs()
    tower: TowerArgs = TowerArgs()
    more_towers: list[TowerArgs] = Field(
        default_factory=list,
        description="trained beside `tower`, from the same start; nano's is the mean of their weights",
    )
    teach: TeachArgs = TeachArgs()
    body: BodyArgs = BodyArgs()
    mllm: MllmArgs = MllmArgs()
    hypothesis_phase: MllmArgs | None = Field(None, description="a second phase, mostly hypothetical conversations")
    conversation_limit: int | None = Field(None, ge=1, description="a nano learns from at most so many, a seeded draw")
    mined_variants: int = Field(2, ge=1, description="augmented copies of the photos kept for MIDS")
    mids: MidsArgs = MidsArgs()
    mids_towers: list[list[TowerArgs]] = Field(
        default_factory=list,
        description="a nano's MIDS looks through these towers too, each trained by its settings, or the mean of a "
        "list's; what has the settings of another, or of one of `more_towers`, is trained once",
    )
    evaluate: Path | None = Field(
        None, description="a benchmark recipe, relative to this file, that `ffaa train all` ends with"
    )

    @field_validator("mids_towers", mode="before")
    @classmethod
    def _alone_or_several(cls, given: Any) -> Any:
        return [one if isinstance(one, list) else [one] for one in given] if isinstance(given, list) else given

    @model_validator(mode="after")
    def _has_room_for_more_towers(self) -> Recipe:
        if self.mids_towers and (self.base or self.mids.unfreeze):
            raise ValueError("mids_towers are for a nano (no base), and mids.unfreeze must be 0 with them")
        if any(args.start != "lite0" for args in (self.tower, *self.more_towers)):
            raise ValueError("start: lite0 is what the tower itself and more_towers have; others are for mids_towers")
        for one in self.mids_towers:
            if len({args.start for args in one}) != 1:
                raise ValueError("a list in mids_towers is the mean of its towers: it names some, with one `start`")
        own = [args for one in self.mids_towers for args in one]
        if any(args.after and args.after not in [*self.more_towers, *own] for args in own):
            raise ValueError("`after` of a tower in mids_towers gives all settings of another, there or in more_towers")
        if any(args.after for args in (self.tower, *self.more_towers)):
            raise ValueError("`after` is for mids_towers; the tower itself and more_towers start from ImageNet weights")
        return self

    @property
    def all_towers(self) -> list[TowerArgs]:
        """Whose weights are in a nano, alone or in a mean."""
        own = [args for one in self.mids_towers for args in one]
        return [self.tower, *self.more_towers, *own]


def _digest(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises UsageError naming the file and, for an unknown key, the nearest known one."""
    recipe = load_yaml(path, Recipe)
    if recipe.evaluate is None:
        return recipe
    return recipe.model_copy(update={"evaluate": path.parent / recipe.evaluate})


class Run:
    """A run folder and which of its stages are up to date.

    others: runs whose finished stages are taken over where they had the same inputs. The files become hard links, so
    they cost no space. A stage with work to do first removes what it shares, so no run writes into another's files.
    """

    def __init__(self, folder: Path, others: Sequence[Path] = ()):
        """Makes the folder. Raises UsageError when it cannot be made."""
        self.folder, self.others = folder, others
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be made ({str(error.strerror).lower()}); choose another --run"
            ) from error
        self._file = folder / "stages.json"
        self._done = _noted(folder)

    def inputs(self, seed: int, *files: str, **settings: Any) -> dict[str, Any]:
        """What a stage's work follows from: the hashes of `files` in the folder, and settings."""
        hashes = {name: weights.sha256(self.folder / name) for name in files}
        plain = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in settings.items()}
        return {"seed": seed, **hashes, **plain}

    def stage(
        self,
        name: str,
        inputs: dict[str, Any],
        outputs: list[str],
        work: Callable[[], None],
        unfinished: Sequence[str] = (),
    ) -> None:
        """Run `work` unless all outputs exist for the same inputs.

        unfinished: what a killed `work` goes on from; removed first when it belongs to other inputs.
        """
        if self.begin(name, inputs, outputs, unfinished):
            work()
            self.finish(name, inputs)

    def begin(self, name: str, inputs: dict[str, Any], outputs: Sequence[str], unfinished: Sequence[str] = ()) -> bool:
        """The first half of `stage`: whether there is work to do. `finish` is its other half."""
        digest = _digest(inputs)
        if self._is_done(self.folder, self._done, name, digest, outputs):
            log.info("%s: up to date", name)
            return False
        for other in self.others:
            if self._is_done(other, _noted(other), name, digest, outputs):
                self._share(other, outputs)
                self._note(name, digest)
                log.info("%s: as in %s", name, other)
                return False
        log.info("%s: started", name)
        begun = f"{name} begun"
        if self._done.get(begun, self._done.get(name, digest)) != digest:
            for path in (self.folder / u for u in unfinished):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._remove_shared([*outputs, *unfinished])
        self._done.pop(name, None)
        self._note(begun, digest)
        return True

    def finish(self, name: str, inputs: dict[str, Any]) -> None:
        """Note that the work is done."""
        self._note(name, _digest(inputs))
        log.info("%s: done", name)

    @staticmethod
    def _is_done(folder: Path, done: dict[str, str], name: str, digest: str, outputs: Sequence[str]) -> bool:
        return done.get(name) == digest and all((folder / o).exists() for o in outputs)

    def _share(self, other: Path, outputs: Sequence[str]) -> None:
        """Hard links to the outputs of another run; of one in a folder, to that folder's files."""
        for top in sorted({Path(o).parts[0] for o in outputs}):
            for file in _files(other / top):
                own = self.folder / file.relative_to(other)
                own.parent.mkdir(parents=True, exist_ok=True)
                own.unlink(missing_ok=True)
                os.link(file, own)

    def _remove_shared(self, paths: Sequence[str]) -> None:
        for top in {Path(p).parts[0] for p in paths}:
            for file in _files(self.folder / top):
                if file.stat().st_nlink > 1:
                    file.unlink()

    def _note(self, name: str, digest: str) -> None:
        self._done[name] = digest
        write(self._file, json.dumps(self._done, indent=1).encode())


def _noted(folder: Path) -> dict[str, str]:
    file = folder / "stages.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _files(path: Path) -> list[Path]:
    """The file, or all files in the folder; none where there is neither."""
    return [p for p in (sorted(path.rglob("*")) if path.is_dir() else [path]) if p.is_file()]
