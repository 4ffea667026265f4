"""`ffaa train`: the stages of a recipe, one by one or all."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs


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
    data: Annotated[Path, typer.Option(help="Folder that the recipe's manifest lies in.")],
    run: Annotated[Path | None, typer.Option(help="Where to work; default runs/NAME.")] = None,
    out: Annotated[Path | None, typer.Option(help="The model folder that 'all' writes; default RUN/model.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")] = 0,
) -> None:
    """Train a model. A stage that is up to date is skipped; a killed one goes on where it stopped."""
    with needs("train"):
        import logging

        import torch

        from ffaa.recipe import load_recipe
        from ffaa.stages import Stages

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("httpx", "huggingface_hub", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if threads:
        torch.set_num_threads(threads)
    settings = load_recipe(recipe)
    folder = run or Path("runs") / settings.name
    stages = Stages(settings, data, folder)
    with needs("train"):
        if stage is Stage.ALL:
            stages.pack(out or folder / "model")
        else:
            getattr(stages, stage.value)()
