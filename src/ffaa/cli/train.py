"""`ffaa train`: the stages of a recipe, one by one or all; for a recipe with a base, its tuning; a baseline."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffaa.cli import train_baseline
from ffaa.cli.extras import begin_training, needs
from ffaa.errors import UsageError

if TYPE_CHECKING:
    from ffaa.stages import Stages


app = typer.Typer(
    help="Train a model stage by stage, or a baseline. What is up to date is skipped; what was killed goes on.",
    no_args_is_help=True,
)
app.command("baseline")(train_baseline.baseline)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/.")]
Data = Annotated[Path | None, typer.Option(help="Folder that the recipe's manifest lies in.")]
Images = Annotated[Path | None, typer.Option(help="Of a recipe with a base: the built set of the rows.")]
Run = Annotated[Path | None, typer.Option(help="Where to work; default runs/NAME.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")]
AtOnce = Annotated[
    int,
    typer.Option(
        min=1,
        help="Towers trained at the same time, or beside the MLLM; each in a process with its share of the threads.",
    ),
]


@app.command("faces")
def faces(recipe: RecipeFile, data: Data = None, run: Run = None, threads: Threads = 0) -> None:
    """Find the faces of the recipe's photos."""
    _train("faces", recipe, data, run, threads)


@app.command("tower")
def tower(recipe: RecipeFile, data: Data = None, run: Run = None, threads: Threads = 0, at_once: AtOnce = 1) -> None:
    """Train the vision tower, after the stage before it."""
    _train("tower", recipe, data, run, threads, at_once=at_once)


@app.command("conversations")
def conversations(recipe: RecipeFile, data: Data = None, run: Run = None, threads: Threads = 0) -> None:
    """Write the conversations to learn from, after the stages before."""
    _train("conversations", recipe, data, run, threads)


@app.command("mllm")
def mllm(
    recipe: RecipeFile,
    data: Data = None,
    rows: Annotated[
        Path | None, typer.Option(help="Of a recipe with a base: rows of `ffaa vqa`, plain or exported.")
    ] = None,
    images: Images = None,
    run: Run = None,
    threads: Threads = 0,
) -> None:
    """Train the MLLM, after the stages before; of a recipe with a base (LLaVA), tune it.

    A base: ffaa train mllm RECIPE --rows ROWS --images SET, also under torchrun or accelerate.
    """
    _train("mllm", recipe, data, run, threads, rows=rows, images=images)


@app.command("mine")
def mine(recipe: RecipeFile, data: Data = None, run: Run = None, threads: Threads = 0) -> None:
    """Collect the MLLM's answers that MIDS learns from, after the stages before; of a base: ffaa mine."""
    _train("mine", recipe, data, run, threads)


@app.command("mids")
def mids(
    recipe: RecipeFile,
    data: Data = None,
    images: Images = None,
    run: Run = None,
    threads: Threads = 0,
    at_once: AtOnce = 1,
) -> None:
    """Train MIDS, after the stages before; of a base, after ffaa mine: ffaa train mids RECIPE --images SET."""
    _train("mids", recipe, data, run, threads, images=images, at_once=at_once)


@app.command("all")
def all_stages(
    recipe: RecipeFile,
    data: Data = None,
    run: Run = None,
    out: Annotated[Path | None, typer.Option(help="The model folder to write; default RUN/model.")] = None,
    threads: Threads = 0,
    at_once: AtOnce = 1,
) -> None:
    """Run every stage and pack the model folder.

    Ends with the recipe's benchmark (`evaluate`), prints its figures and leaves them in RUN/evaluation.json.
    """
    _train("all", recipe, data, run, threads, out=out, at_once=at_once)


def _train(
    stage: str,
    recipe: Path,
    data: Path | None,
    run: Path | None,
    threads: int,
    rows: Path | None = None,
    images: Path | None = None,
    out: Path | None = None,
    at_once: int = 1,
) -> None:
    with needs("train"):
        from ffaa.mllm.tune import processes
        from ffaa.recipe import load_recipe
        from ffaa.stages import Stages
        from ffaa.tune_base import tune_base

    begin_training(threads)
    settings = load_recipe(recipe)
    folder = run or Path("runs") / settings.name
    if settings.base:
        logging.getLogger("transformers").setLevel(logging.ERROR)
        if stage == "mllm" and rows is not None and images is not None:
            with needs("train"):
                tune_base(settings, rows, images, folder, shlex.join(["ffaa", *sys.argv[1:]]))
                processes().destroy_process_group()  # before the interpreter takes its threads away
        elif stage == "mids" and images is not None:
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
    stages = Stages(settings, data, folder, at_once=at_once)
    with needs("train"):
        if stage == "all":
            _all(stages, out or folder / "model")
        else:
            getattr(stages, stage)()


def _all(stages: Stages, out: Path) -> None:
    from ffaa.eval.benchmark import load_bench
    from ffaa.eval.cached import evaluate
    from ffaa.eval.evaluation import table
    from ffaa.pack import pack

    settings = stages.recipe.evaluate
    bench = None if settings is None else load_bench(settings)  # what is wrong with it is said before the training
    pack(stages, out)
    if bench is not None:
        typer.echo(table(evaluate(stages, bench)))
