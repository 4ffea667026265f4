"""`ffaa schema`: the JSON Schema of what `ffaa analyze --json` prints."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of one line of `ffaa analyze --json`."""
    import json
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    from ffaa.types import SCHEMA_VERSION, Failure, NoFace, Verdict
    from ffaa.types_clip import ClipVerdict

    adapter: TypeAdapter[Verdict | NoFace | ClipVerdict | Failure] = TypeAdapter(
        Annotated[Verdict | NoFace | ClipVerdict | Failure, Field(discriminator="kind")]
    )
    described = adapter.json_schema(mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ffaa analyze --json, schema version {SCHEMA_VERSION}",
    }
    typer.echo(json.dumps(head | described, indent=2))
