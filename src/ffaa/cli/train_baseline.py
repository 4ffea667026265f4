"""`ffaa train baseline`: one of the published detectors, trained on a built set."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import begin_training, needs


class Name(StrEnum):
    """`ffaa.baselines.BASELINES`, which `--help` does not wait for."""

    XCEPTION = "xception"
    RECCE = "recce"
    IMPLICIT = "implicit"
    FEDFORGERY = "fedforgery"
    EXPOSING = "exposing"
    NPR = "npr"
    CLIPPING = "clipping"


def baseline(
    name: Annotated[Name, typer.Argument(metavar="NAME", help=f"One of {', '.join(Name)}.")],
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/baselines/.")],
    data: Annotated[Path, typer.Option(help="The built set (`ffaa data build`) that the recipe's manifest lies in.")],
    run: Annotated[Path | None, typer.Option(help="The folder to write; default runs/NAME of the recipe.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; one GPU is used.")] = "auto",
) -> None:
    """Train a published detector on split train; split val chooses its checkpoint and its threshold.

    Writes RUN/baseline.safetensors and RUN/baseline.json, which `ffaa bench run --detector RUN` takes.
    """
    with needs("train"):
        from ffaa.baselines.recipe import load_recipe
        from ffaa.baselines.train import train_baseline

    begin_training(threads)
    settings = load_recipe(recipe, name.value)
    folder = run or Path("runs") / settings.name
    with needs("train"):
        card = train_baseline(settings, data, folder, device, shlex.join(["ffaa", *sys.argv[1:]]))
    best = card.chosen
    typer.echo(
        f"{folder}: {card.name}, step {best.step} of {card.steps}, val AUC {best.auc:.4f}, ACC {best.acc:.4f}, "
        f"balanced ACC {best.balanced_acc:.4f} at {best.threshold:.4f}"
    )
