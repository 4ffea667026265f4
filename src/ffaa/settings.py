"""Settings from YAML: typed, checked, and an error that names the nearest known key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ffaa.errors import UsageError

M = TypeVar("M", bound=BaseModel)


def load_yaml(path: Path, model: type[M]) -> M:
    """The settings in `path`. Raises UsageError naming the file and, for an unknown key, the nearest known one."""
    if not path.is_file():
        raise UsageError(f"{path}: no such recipe")
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        wrong = error.errors()
        # A misspelt key is told before the missing one that it was meant for.
        first = next((e for e in wrong if e["type"] == "extra_forbidden"), wrong[0])
        where = ".".join(str(part) for part in first["loc"])
        hint = ""
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(model, first["loc"][:-1]), 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{path}: {where + ': ' if where else ''}{first['msg']}{hint}") from error


def _known_keys(model: Any, place: tuple[Any, ...]) -> list[str]:
    for part in place:
        if isinstance(part, int):  # a place in a list
            continue
        kinds = [model.model_fields[part].annotation]
        while not hasattr(kinds[0], "model_fields"):  # a list or an optional one
            kinds = [*get_args(kinds[0]), *kinds[1:]]
        model = kinds[0]
    return list(model.model_fields)
