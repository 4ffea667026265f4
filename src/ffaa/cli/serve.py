"""`ffaa serve`: the web page and the API as a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ffaa.cli.extras import needs


def serve(
    config: Annotated[Path | None, typer.Option(help="YAML with any setting, see docs/serve.md; options win.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: a free one.  [default: 7860]")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API key hashes; without, only for this machine.")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let anybody ask who reaches --host.")] = False,
    jobs: Annotated[Path | None, typer.Option(help="Folder for jobs (/v1/jobs), shared by several servers.")] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="The API alone, without the web page.")] = False,
    history: Annotated[
        Path | None, typer.Option(help="SQLite file for results that visitors of the page ask to keep; else none are.")
    ] = None,
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch photos from public addresses.")] = False,
    model: Annotated[str | None, typer.Option(help="As of `ffaa analyze`.  [default: nano]")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="Where to compute.  [default: auto]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="CPU threads of the model; 0: as torch chooses.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make a key, add its hash to FILE, print it once, and end.")
    ] = None,
) -> None:
    """Answer over HTTP: photos in, verdicts out, on a web page and as JSON.

    Listens on this machine only, unless told otherwise. SIGTERM or Ctrl+C ends it when what it accepted is answered.
    """
    with needs("serve"):
        import logging

        from ffaa.serve import server
        from ffaa.serve.keys import new_key as make_key
        from ffaa.serve.settings import ServeSettings
        from ffaa.settings import load_yaml

    if new_key is not None:
        typer.echo(make_key(new_key))
        typer.echo(f"its hash is in {new_key}; the key itself is kept nowhere: note it now", err=True)
        return
    settings = ServeSettings.model_validate({}) if config is None else load_yaml(config, ServeSettings)
    given = {
        "host": host, "port": port, "keys": keys, "no_keys": no_keys or None, "jobs": jobs,
        "page": False if no_page else None, "history": history,
        "allow_urls": allow_urls or None, "model": model, "device": device, "threads": threads,
    }  # fmt: skip
    values = settings.model_dump() | {name: value for name, value in given.items() if value is not None}
    settings = ServeSettings.model_validate(values)
    if settings.page:
        with needs("serve"):
            import gradio  # noqa: F401 (said now, not when the server starts)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for noisy in ("httpx", "python_multipart", "uvicorn"):  # they tell of every client's mistake
        logging.getLogger(noisy).setLevel(logging.ERROR)
    server.run(settings, lambda address: typer.echo(f"{address} - Ctrl+C ends it", err=True))
