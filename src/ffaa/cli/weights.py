"""`ffaa weights`: list, pull, import, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, pull, import and verify weights.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the models and parts, and where they lie."""
    from ffaa import weights
    from ffaa.errors import WeightsError

    typer.echo("Models")
    for name in weights.model_names():
        known = weights.MODELS.get(name)
        try:
            folder = weights.resolve(name)
        except WeightsError as error:
            place = str(error)
        else:
            place = str(folder.path)
        typer.echo(f"  {name:20} {known.about if known else 'imported'}\n  {'':20} {place}")
    typer.echo("Parts")
    for name, part in weights.PARTS.items():
        found = weights.find_part(name)
        typer.echo(f"  {name:20} {part.about} ({part.licence})")
        typer.echo(f"  {'':20} {found or 'not installed; run: ' + part.command(name)}")


@app.command()
def pull(name: Annotated[str, typer.Argument(help="A model or part of `ffaa weights list`.")]) -> None:
    """Fetch a model and its parts, or one part, from the hub into the cache."""
    from ffaa.fetch import pull

    for folder in pull(name):
        typer.echo(folder)


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A model folder, a published checkpoint with mids.pth, or a part.")],
    name: Annotated[str, typer.Option(help="Its name from now on; the name of a part for a part.")],
) -> None:
    """Copy weights that were fetched elsewhere into the cache, and check them."""
    from ffaa.fetch import import_model

    typer.echo(import_model(folder, name))


@app.command()
def verify(
    models: Annotated[
        list[str] | None, typer.Argument(help="Names or folders; all that is here when left out.")
    ] = None,
) -> None:
    """Check the sha256 of every weight file; exit code 1 when one differs."""
    from ffaa import weights
    from ffaa.errors import WeightsError

    checks = [(name, weights.verify(weights.resolve(name))) for name in models] if models else weights.verify_all()
    for name, problems in checks:
        typer.echo(f"{name}: {'ok' if not problems else 'DAMAGED'}")
    if found := [str(problem) for _, problems in checks for problem in problems]:
        raise WeightsError(f"{'; '.join(found)}; fetch or import again what is damaged")
