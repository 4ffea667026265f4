"""How a training on a CPU takes its memory."""

from __future__ import annotations

import ctypes
import os
import sys

_NEVER = 2**31 - 1
# glibc's thresholds for giving memory back: the variable that processes started later read, mallopt's number (malloc.h)
_THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch's switch


def keep_memory() -> None:
    """Let this process, and those that it starts, keep the memory that they free, in large pages where Linux has them.

    A step frees and takes gigabytes; giving them back each time costs a tenth of a tower's step. To be called
    before torch holds its first tensor. Variables that are set already stay as they are; elsewhere than with glibc it
    does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    os.environ.setdefault(_LARGE_PAGES, "1")
    for name, option in _THRESHOLDS.items():
        if name not in os.environ:
            os.environ[name] = str(_NEVER)
            mallopt(option, _NEVER)
