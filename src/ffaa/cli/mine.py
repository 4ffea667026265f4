"""`ffaa mine`: the three answers of a tuned MLLM to faces it was not tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import begin_training, needs
from ffaa.errors import UsageError


def mine(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A YAML file, see recipes/.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the recipe's manifest; of a base: the built set.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Where the MLLM was trained; default runs/NAME.")] = None,
    server: Annotated[
        Path | None, typer.Option(help="Of a base: a server answers; YAML (base_url, model, concurrency ...).")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Of a base: what it was tuned on; default what `ffaa train mllm` takes.")
    ] = None,
    keep_easy: Annotated[
        bool | None,
        typer.Option("--keep-easy/--no-easy", help="Count faces whose answers agree; default mids.keep_easy."),
    ] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Print the chat template for a server (Jinja), and end.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch chooses.")] = 0,
) -> None:
    """Mine answers for MIDS, and print how the four classes of Eq. 3 are filled. A killed run goes on."""
    with needs("train"):
        from ffaa.mids.report import report, table
        from ffaa.mllm.mine import Mined
        from ffaa.mllm.mine_server import ServerArgs, jinja_template
        from ffaa.mllm.template import TEMPLATES
        from ffaa.recipe import load_recipe
        from ffaa.settings import load_yaml
        from ffaa.stages import MINED, Stages
        from ffaa.vqa.conversation import read_jsonl

    if chat_template:
        typer.echo(jinja_template(TEMPLATES["v1"]), nl=False)
        return
    if recipe is None or data is None:
        raise UsageError("ffaa mine RECIPE --data FOLDER; the folder holds the manifest")
    begin_training(threads)
    settings = load_recipe(recipe)
    stages = Stages(settings, data, run or Path("runs") / settings.name)
    with needs("train"):
        stages.mine(load_yaml(server, ServerArgs) if server else None, rows)
    easy = settings.mids.keep_easy if keep_easy is None else keep_easy
    for file in MINED.values():
        found = list(read_jsonl(stages.folder / file, Mined))
        typer.echo(f"{stages.folder / file}\n{table(report(found, easy))}")
