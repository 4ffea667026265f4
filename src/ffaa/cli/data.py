"""`ffaa data`: collections to one manifest; what is in it; forgeries of our own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs

app = typer.Typer(help="Build, check and describe a set of face crops; make forgeries.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that `build` wrote.")]


class Engine(StrEnum):
    LOCAL = "local"
    RAY = "ray"


@app.command("build")
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/data/.")],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's collections lie in.")],
    out: Annotated[Path, typer.Option(help="Folder to write: crops, manifest.parquet, rejected.parquet, build.json.")],
    engine: Annotated[Engine, typer.Option(help="Both give the same manifest.")] = Engine.LOCAL,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; default one per core; 0: this one.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster, for --engine ray.")] = None,
) -> None:
    """Find, crop, clean and split the faces of all collections. A killed build goes on where it stopped."""
    with needs("data"):
        import shlex
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from ffaa.data.build import build as run
        from ffaa.data.recipe import DataRecipe
        from ffaa.settings import load_yaml

    settings = load_yaml(recipe, DataRecipe)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar, needs("data"):
        task = bar.add_task("photos and videos", total=None)
        report = run(
            settings, data, out, engine.value, workers, address, "ffaa " + shlex.join(sys.argv[1:]),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    typer.echo(_told(report))


def _told(report: dict) -> str:
    lines = [
        f"{report['faces']} faces of {report['items']} photos and videos, {report['rejected']} left out, "
        f"{report['seconds']} s ({report['items_per_second']} a second), peak memory {report['peak_memory_mb']} MB"
    ]
    for name, counts in report["datasets"].items():
        left_out = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()) if kind != "faces")
        lines.append(f"  {name}: {counts.get('faces', 0)} faces" + (f"; left out: {left_out}" if left_out else ""))
    return "\n".join(lines)


@app.command("verify")
def verify(
    folder: Folder,
    data: Annotated[Path | None, typer.Option(help="The photos' folder, for manifests without crops.")] = None,
) -> None:
    """Check hashes, labels and leaks again. Exit code 1 when something is wrong."""
    with needs("data"):
        from ffaa.data import manifest
        from ffaa.data.verify import verify as run

    problems = 0
    for line in run(folder, data):
        typer.echo(line)
        problems += 1
    if problems:
        typer.echo(f"{problems} problems", err=True)
        raise typer.Exit(1)
    typer.echo(f"all {sum(1 for _ in manifest.scan(folder))} rows are in order")


@app.command("sources")
def sources() -> None:
    """The collections that can be read, where their files are expected, and how one gets them."""
    with needs("data"):
        from ffaa.data.sources import SOURCES
    for name, source in sorted(SOURCES.items()):
        typer.echo(f"{name}\n  {source.about}\n  expects: {source.layout}\n  obtain: {source.obtain}")


@app.command("stats")
def stats(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder to write: stats.md, stats.json, plots, examples.")] = None,
    shortcuts: Annotated[
        bool, typer.Option("--shortcuts", help="Is the label told by file size, aspect, colour or native size?")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="The photos' folder, for examples of faces without crops.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the examples and the shortcut check.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the tables.")] = False,
) -> None:
    """What a set holds: types, sources, methods, benchmark sets, sizes, quality, what was left out; its shortcuts."""
    with needs("data"):
        from json import dumps

        from ffaa.data import plots
        from ffaa.data import shortcuts as check
        from ffaa.data import stats as counted

    tally = counted.tally(folder)
    found = counted.describe(tally)
    told = check.check(folder, seed) if shortcuts else None
    tables = counted.tables(found) + (check.tables(told) if told else [])
    numbers = {"stats": found.model_dump(mode="json"), "shortcuts": told and told.model_dump(mode="json")}
    if json:
        typer.echo(dumps({"seed": seed, **numbers}))
    else:
        counted.show(tables)
    if out is not None:
        for note in plots.write_report(out, folder, tally, tables, numbers, data, seed):
            typer.echo(note, err=True)


@app.command("forge")
def forge(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Photos of real faces, folders of them, or a manifest.csv: its real photos of split train.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: real/, fake/, masks/, manifest.csv, recipes.jsonl.")],
    operation: Annotated[
        list[str] | None, typer.Option(help="May be given more than once; default: all. See docs/forge.md.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="At most so many photos, a seeded draw.")] = None,
    seed: Annotated[int, typer.Option(help="Decides over everything that is drawn.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
) -> None:
    """Make forgeries with exact masks from photos of real faces. A killed run goes on where it stopped."""
    with needs("data"):
        from rich.console import Console
        from rich.progress import Progress

        from ffaa.data.engines import default_workers
        from ffaa.data.forge.folder import forge_folder
        from ffaa.data.forge.operations import OPERATIONS
        from ffaa.data.images import expand_paths
        from ffaa.data.sources.csv_file import real_photos

    nothing: list[str] = []
    lists = [name for name in photos if name.endswith(".csv")]
    paths = list(expand_paths([name for name in photos if name not in lists], nothing.append))
    paths += [str(photo) for name in lists for photo in real_photos(Path(name))]
    for name in nothing:
        typer.echo(f"{name}: no photos there", err=True)
    with Progress(console=Console(stderr=True)) as bar, needs("data"):
        tasks = {stage: bar.add_task(stage, total=None) for stage in ("faces", "forgeries")}
        written = forge_folder(
            paths, out, operation or tuple(OPERATIONS), count, seed, workers=workers or default_workers(),
            progress=lambda stage, done, total: bar.update(tasks[stage], completed=done, total=total),
        )  # fmt: skip
    typer.echo(f"{written}; build it with the source kind csv, or give it to training as it is")
