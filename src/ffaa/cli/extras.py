"""A missing extra becomes one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ffaa.errors import MissingExtraError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports inside that fail raise MissingExtraError with the command that installs the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "ffaa":
            raise
        raise MissingExtraError(
            f"this needs the extra '{extra}' ({error.name} is missing); run: pip install 'ffaa[{extra}]'"
        ) from error
