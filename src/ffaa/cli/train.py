"""`ffaa train`: the stages of a recipe, one by one or all; for a recipe with a base, its tuning."""

from __future__ import annotations

import logging
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import begin_training, needs
from ffaa.errors import UsageError


class Stage(StrEnum):
    """The stages in order; each one runs those before it where they are not up to date."""

    FACES = "faces"
    TOWER = "tower"
    CONVERSATIONS = "conversations"
    MLLM = "mllm"
    MINE = "mine"
    MIDS = "mids"
    ALL = "all"


def train(
    stage: Annotated[Stage, typer.Argument(help="How far to go; 'all' also packs the model folder.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/.")],
    data: Annotated[Path | None, typer.Option(help="Folder that the recipe's manifest lies in.")] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Of a recipe with a base: rows of `ffaa vqa`, plain or exported.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Of a recipe with a base: the built set of the rows.")] = None,
    run: Annotated[Path | None, typer.Option(help="Where to work; default runs/NAME.")] = None,
    out: Annotated[Path | None, typer.Option(help="The model folder that 'all' writes; default RUN/model.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")] = 0,
) -> None:
    """Train a model. A stage that is up to date is skipped; a killed one goes on where it stopped.

    A recipe with a base (LLaVA): ffaa train mllm RECIPE --rows ROWS --images SET, also under torchrun or accelerate;
    after ffaa mine, ffaa train mids RECIPE --images SET.
    """
    with needs("train"):
        from ffaa.recipe import load_recipe
        from ffaa.stages import Stages, tune_base

    begin_training(threads)
    settings = load_recipe(recipe)
    folder = run or Path("runs") / settings.name
    if settings.base:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        if stage is Stage.MLLM and rows is not None and images is not None:
            with needs("train"):
                tune_base(settings, rows, images, folder, shlex.join(["ffaa", *sys.argv[1:]]))
        elif stage is Stage.MIDS and images is not None:
            with needs("train"):
                Stages(settings, images, folder).mids()
        else:
            raise UsageError(
                "of a recipe with a base: ffaa train mllm RECIPE --rows ROWS --images SET, then ffaa mine RECIPE "
                "--data SET, then ffaa train mids RECIPE --images SET"
            )
        return
    if data is None:
        raise UsageError("--data is missing; it names the folder that holds the recipe's manifest")
    stages = Stages(settings, data, folder)
    with needs("train"):
        if stage is Stage.ALL:
            stages.pack(out or folder / "model")
        else:
            getattr(stages, stage.value)()
