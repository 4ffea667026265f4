"""What commands that need extras have in common: a missing one becomes one line that names it."""

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


def begin_training(threads: int) -> None:
    """Progress on stderr, without the libraries' own; threads: of the CPU, 0 as torch chooses."""
    with needs("train"):
        import logging

        import torch

        from ffaa.mllm.memory import keep_memory

    keep_memory()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("httpx", "huggingface_hub", "openai", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if threads:
        torch.set_num_threads(threads)
