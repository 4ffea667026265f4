"""`ffaa ablate`: a recipe's rows, trained and evaluated, beside the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import begin_training, needs


def ablate(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/ablations/.")],
    data: Annotated[Path, typer.Option(help="Folder that the base recipe's manifest lies in.")],
    run: Annotated[Path, typer.Option(help="The run of the base recipe; rows go into RUN/ablations.")],
    only: Annotated[list[str] | None, typer.Option(help="Run this row alone; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")] = 0,
) -> None:
    """Run an ablation and print its table, the paper's figures beside ours.

    A row is the base recipe with some settings changed. What does not depend on them is taken from RUN, which stays as
    it is. A row that is up to date is skipped; a killed one goes on.
    """
    with needs("train"):
        from ffaa.eval.ablation import Ablation, table

    begin_training(threads)
    ablation = Ablation(recipe)
    with needs("train"):
        typer.echo(table(ablation.run(data, run, only or ())))
