"""Files of work that may be killed or run out of disk: whole, or not there.

Where a file cannot be written every function raises the OSError that says why, with its name; torch and safetensors by
themselves raise errors of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor


def write(path: Path, data: bytes) -> None:
    """The whole file or none; folders are made."""
    with _replacing(path) as file:
        file.write(data)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, as a whole or not at all."""
    from safetensors.torch import save

    write(path, save(dict(tensors), metadata))


def write_state(path: Path, state: Any) -> None:
    """What `torch.load` reads back, as a whole or not at all."""
    import torch

    with _replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
    except BaseException as error:
        part.unlink(missing_ok=True)  # it would keep a full disk full
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    part.replace(path)
