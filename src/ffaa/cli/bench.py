"""`ffaa bench`: figures on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs

app = typer.Typer(help="Evaluate detectors on a benchmark.", no_args_is_help=True)

ResultFile = Annotated[Path, typer.Argument(metavar="RESULT", help="A file that `run` wrote.")]


class Format(StrEnum):
    MARKDOWN = "markdown"
    CSV = "csv"
    HTML = "html"


@app.command("run")
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/bench/.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's manifests lie in.")],
    out: Annotated[Path, typer.Option(help="Result file (JSON); what was said of each photo lies beside it.")],
    detector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]WHICH",
            help="A name of `ffaa weights list`, a model's folder or that of a trained baseline; may be given more "
            "than once. Default: nano.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Faces at once.")] = 8,
) -> None:
    """Judge the benchmark's photos, write figures per set and pooled, print the tables. Resumes after a kill."""
    with needs("train"):
        import logging
        import shlex
        import sys

        from ffaa.eval import benchmark, detectors, figures, result, tables
        from ffaa.eval import run as runs

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    settings = benchmark.load_bench(recipe)
    chosen = detectors.load_detectors(detector or ["nano"], device)
    outcomes = runs.run(settings, data, chosen, out.with_suffix(".records"), batch)
    found = figures.make_result(settings, outcomes, chosen, "ffaa " + shlex.join(sys.argv[1:]), batch)
    result.write_result(out, found)
    typer.echo(tables.as_markdown(found))


@app.command("table")
def table(
    result: ResultFile,
    format: Annotated[Format, typer.Option(help="csv: all figures, one line per set and detector.")] = Format.MARKDOWN,
) -> None:
    """Print the tables of a result."""
    with needs("train"):
        from ffaa.eval import tables
        from ffaa.eval.result import read_result

    found = read_result(result)
    if format is Format.CSV:
        typer.echo(tables.as_csv(found), nl=False)
    elif format is Format.HTML:
        typer.echo(tables.as_html(tables.tables(found)), nl=False)
    else:
        typer.echo(tables.as_markdown(found))


@app.command("compare")
def compare(
    result: ResultFile,
    a: Annotated[str, typer.Argument(metavar="A", help="A detector of the result, or a part: nano/anchor.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Two detectors on the same photos, per set and pool: paired bootstrap of ACC and AUC, McNemar's exact test."""
    with needs("train"):
        from ffaa.data.stats import markdown
        from ffaa.eval import compare as comparing
        from ffaa.eval.result import read_result

    typer.echo(markdown([comparing.table(a, b, comparing.compare(read_result(result), a, b))]))


@app.command("plot")
def plot(
    result: ResultFile,
    out: Annotated[Path, typer.Option(help="Folder to write: ROC, reliability, Easy and Hard, ACC per set (PNG).")],
) -> None:
    """Draw a result."""
    with needs("train"):
        from ffaa.eval import plots
        from ffaa.eval.result import read_result

    for path in plots.save(read_result(result), out):
        typer.echo(str(path))


@app.command("report")
def report(
    result: ResultFile,
    out: Annotated[Path, typer.Option(help="HTML file to write; it needs nothing beside it.")],
) -> None:
    """Tables, plots, command and hashes in one HTML file."""
    with needs("train"):
        from ffaa.errors import InputError
        from ffaa.eval import report as reports
        from ffaa.eval.result import read_result

    page = reports.report(read_result(result))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    typer.echo(str(out))
