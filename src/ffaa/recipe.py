"""A recipe: one YAML that names data, sizes and settings, and the stages that turn it into a model folder.

Each stage writes into the run folder and is skipped when its output is there for the same inputs (a hash of the
settings it depends on). A killed stage goes on where it stopped, unless its inputs have changed since.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ffaa.errors import UsageError
from ffaa.mids.train import MidsArgs
from ffaa.mllm.nano import BodyArgs
from ffaa.mllm.train import MllmArgs
from ffaa.mllm.train_tower import TowerArgs

log = logging.getLogger(__name__)


class DataArgs(BaseModel):
    """Which photos. `manifest` may be given relative to the folder that the command's --data names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest: str = Field("manifest.csv", description="CSV with one row per photo; its folder is the photos' root")
    held: float = Field(0.15, ge=0, lt=1, description="share of training photos kept for MIDS alone")
    limit: int | None = Field(None, ge=8, description="at most this many photos per split and label, for small twins")


class TeachArgs(BaseModel):
    """Conversations of the grounded teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: int = Field(1, ge=1, description="augmented copies of every photo, each with its own conversation")
    blend: float = Field(0.1, ge=0, le=1, description="share of real photos turned into self-blended forgeries")
    resist: float = Field(0.9, ge=0.5, le=1, description="stated probability from which a hypothesis may be contrary")
    contrary: float = Field(0.4, ge=0, le=1, description="share of contrary hypotheses among those")
    temperature: float = Field(1.5, gt=0, description="of the tower's score in stated probabilities")


class Recipe(BaseModel):
    """All settings of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = 0
    data: DataArgs = DataArgs()
    tower: TowerArgs = TowerArgs()
    teach: TeachArgs = TeachArgs()
    body: BodyArgs = BodyArgs()
    mllm: MllmArgs = MllmArgs()
    hypothesis_phase: MllmArgs | None = Field(None, description="a second phase, mostly hypothetical conversations")
    mined_variants: int = Field(2, ge=1, description="augmented copies of the photos kept for MIDS")
    mids: MidsArgs = MidsArgs()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises UsageError naming the file and, for an unknown key, the nearest known one."""
    if not path.is_file():
        raise UsageError(f"{path}: no such recipe")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = ""
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(first["loc"][:-1]), 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{path}: {where}: {first['msg']}{hint}") from error


def _known_keys(place: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in place:
        kinds = model.model_fields[part].annotation
        model = next(kind for kind in (kinds, *get_args(kinds)) if hasattr(kind, "model_fields"))
    return list(model.model_fields)


class Run:
    """A run folder and which of its stages are up to date."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "stages.json"
        self._done: dict[str, str] = json.loads(self._file.read_text()) if self._file.exists() else {}

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
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        if self._done.get(name) == digest and all((self.folder / o).exists() for o in outputs):
            log.info("%s: up to date", name)
            return
        log.info("%s: started", name)
        begun = f"{name} begun"
        if self._done.get(begun, self._done.get(name, digest)) != digest:
            for path in (self.folder / u for u in unfinished):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._note(begun, digest)
        work()
        self._note(name, digest)
        log.info("%s: done", name)

    def _note(self, name: str, digest: str) -> None:
        self._done[name] = digest
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._done, indent=1))
        part.replace(self._file)
