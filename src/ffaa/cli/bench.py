"""`ffaa bench`: figures on a benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs

app = typer.Typer(help="Evaluate detectors on a benchmark.", no_args_is_help=True)

ResultFile = Annotated[Path, typer.Argument(metavar="RESULT", help="A file that `run` wrote.")]
AnyResult = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A file that `run`, `robustness` or `explain` wrote.")
]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/bench/.")]
Data = Annotated[Path, typer.Option(help="Folder that the recipe's manifests lie in.")]
Out = Annotated[Path, typer.Option(help="Result file (JSON); what was said of each photo lies beside it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Batch = Annotated[int, typer.Option(min=1, help="Faces at once.")]
Asking = Annotated[
    Path | None, typer.Option(help="YAML: how other models are asked (requests_per_minute ...), see docs/bench.md.")
]
Detectors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]WHICH",
        help="A name of `ffaa weights list`, a model's folder or that of a trained baseline, the tower.safetensors "
        "of a run; or another model to ask: "
        "openai:MODEL@URL (key: OPENAI_API_KEY), hf:FOLDER. May be given more than once. Default: nano.",
    ),
]


class Format(StrEnum):
    MARKDOWN = "markdown"
    CSV = "csv"
    HTML = "html"


@app.command("run")
def run(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    detector: Detectors = None,
    device: Device = "auto",
    batch: Batch = 8,
    asking: Asking = None,
) -> None:
    """Judge the benchmark's photos, write figures per set and pooled, print the tables. Resumes after a kill."""
    with needs("train"):
        from ffaa.eval import attributes, benchmark, detectors, figures, result, tables
        from ffaa.eval import run as runs

    command = _begin()
    settings = benchmark.load_bench(recipe)
    told = attributes.read(settings, data)
    chosen = detectors.load_detectors(detector or ["nano"], device, asking, _replies(out))
    outcomes = runs.run(settings, data, chosen, out.with_suffix(".records"), batch)
    found = figures.make_result(settings, outcomes, chosen, command, batch, attributes=told)
    result.write_result(out, found)
    typer.echo(tables.as_markdown(found))


@app.command("robustness")
def robustness(
    recipe: RecipeFile,
    data: Data,
    out: Out,
    detector: Detectors = None,
    device: Device = "auto",
    batch: Batch = 8,
    asking: Asking = None,
) -> None:
    """The benchmark's photos as they are and corrupted at graded strengths: compression, scaling, blur, noise, light,
    colour, video, another cut. Faces are found once. Resumes after a kill."""
    with needs("train"):
        from ffaa.data.stats import markdown
        from ffaa.eval import benchmark, curves, detectors, result
        from ffaa.eval import robustness as runs

    command = _begin()
    settings = benchmark.load_bench(recipe)
    chosen = detectors.load_detectors(detector or ["nano"], device, asking, _replies(out))
    seen = runs.run(settings, data, chosen, out.with_suffix(".records"), batch)
    found = runs.make_result(settings, seen, chosen, command, batch)
    result.write_result(out, found)
    typer.echo(markdown(curves.tables(found)))


@app.command("explain")
def explain(
    out: Out,
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="[RECIPE|SET]", help="A YAML file, see recipes/bench/, or a set of `ffaa data build`."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that the recipe's manifests lie in.")] = None,
    people: Annotated[
        Path | None, typer.Option(help="Folder of DD-VQA: answers are held against what people wrote about its frames.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many photos per set and label, and frames per label.")
    ] = None,
    detector: Detectors = None,
    device: Device = "auto",
    asking: Asking = None,
) -> None:
    """Score explanations: heatmaps against masks, areas named against areas changed, sentences against what was
    measured, words against people's; contradictions and unread answers. Resumes after a kill."""
    with needs("train"):
        from ffaa.data.stats import markdown
        from ffaa.errors import UsageError
        from ffaa.eval import benchmark, detectors, reasons, result
        from ffaa.eval import explain as runs

    command = _begin()
    if recipe is None and people is None:
        raise UsageError("nothing to explain: give a recipe, a set, or --people FOLDER")
    settings, folder = (None, Path()) if recipe is None else runs.recipe_of(recipe, data)
    todo = runs.jobs(settings, folder, people, limit)
    chosen = runs.explainers(detectors.load_detectors(detector or ["nano"], device, asking, _replies(out)))
    named = settings or benchmark.BenchRecipe(name="people")
    told = runs.settings_of(settings, people, limit)
    found = runs.run(told, todo, named.size, chosen, out.with_suffix(".records"))
    scored = reasons.make_result(named, found, chosen, command)
    result.write_result(out, scored)
    typer.echo(markdown(reasons.tables(scored)))


def _replies(out: Path) -> Path:
    return out.with_suffix(".records") / "replies.sqlite"


def _begin() -> str:
    """Progress on stderr; the command, for the result."""
    import logging
    import shlex
    import sys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    return "ffaa " + shlex.join(sys.argv[1:])


@app.command("table")
def table(
    result: AnyResult,
    format: Annotated[Format, typer.Option(help="csv: all figures, one line per set and detector.")] = Format.MARKDOWN,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="ATTRIBUTE", help="False positives and found fakes by a column of the recipe's attributes."
        ),
    ] = None,
) -> None:
    """Print the tables of a result."""
    with needs("train"):
        from ffaa.data.stats import markdown
        from ffaa.eval import fairness, kinds, tables
        from ffaa.eval.result import read_result

    if by is not None:
        shown = fairness.table(read_result(result), by)
        made = {Format.CSV: tables.cells_as_csv, Format.HTML: lambda t: tables.as_html([t])}
        typer.echo(made.get(format, lambda t: markdown([t]))(shown), nl=False)
        return
    kind, found = kinds.read_any(result)
    if format is Format.CSV:
        typer.echo(kind.as_csv(found), nl=False)
    elif format is Format.HTML:
        typer.echo(tables.as_html(kind.tables(found)), nl=False)
    else:
        typer.echo(markdown(kind.tables(found)))


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
    result: AnyResult,
    out: Annotated[Path, typer.Option(help="Folder to write; ROC, reliability, Easy and Hard, ACC per set; curves.")],
) -> None:
    """Draw a result (PNG; command, seeds and hashes stand in the files)."""
    with needs("train"):
        from ffaa.eval import kinds, plots

    kind, found = kinds.read_any(result)
    for path in plots.save(kind.figures(found), found, out):
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


@app.command("sheet")
def sheet(
    result: ResultFile,
    data: Annotated[Path, typer.Option(help="The folder that `run` had as --data.")],
    out: Annotated[Path, typer.Option(help="HTML file to write, or PNG (without the answers).")],
    detector: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose easy and hard faces; default: the first with answers.")
    ] = None,
    per: Annotated[int, typer.Option(min=1, max=20, help="Faces per set and level.")] = 5,
    photos: Annotated[int, typer.Option(min=0, max=200, help="Photos with all detectors' answers.")] = 6,
) -> None:
    """Faces with truth and verdict, easy and hard; answers side by side. It holds photos: not to be passed on."""
    with needs("train"):
        from ffaa.eval import sheets
        from ffaa.eval.result import read_result

    found = read_result(result)
    sheets.write(found, data, out, result.with_suffix(".records"), sheets.answering(found, detector), per, photos)
    typer.echo(str(out))
