"""`ffaa bench`: figures on a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs

app = typer.Typer(help="Evaluate a model on a benchmark.", no_args_is_help=True)


@app.command("run")
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/bench/.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's manifest lies in.")],
    out: Annotated[Path, typer.Option(help="Result file (JSON); the photos' records lie beside it (.jsonl).")],
    model: Annotated[str, typer.Option(help="A name of `ffaa weights list`, or a model's folder.")] = "nano",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Analyse the benchmark's photos, write figures per set and pooled, print the table. Resumes after a kill."""
    with needs("train"):
        import json
        import logging
        import shlex
        import sys
        import time

        from ffaa.assistant import Assistant
        from ffaa.eval import benchmark

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    started = time.time()
    settings = benchmark.load_bench(recipe)
    assistant = Assistant(model, device=device)
    outcomes = benchmark.run(settings, data, assistant, out.with_suffix(".jsonl"))
    command = "ffaa " + shlex.join(sys.argv[1:])
    found = benchmark.result(settings, outcomes, assistant, command, started)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(benchmark.markdown(found))


@app.command("table")
def table(result: Annotated[Path, typer.Argument(metavar="RESULT", help="A file that `run` wrote.")]) -> None:
    """Print the table of a result file."""
    with needs("train"):
        from ffaa.eval import benchmark
    typer.echo(benchmark.markdown(benchmark.read_result(result)))
