"""Where a training in bfloat16 is worth it."""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # of x86 the first two, of ARM the others


def bf16_where_fast(wanted: bool) -> bool:
    """`wanted`, unless the training would be on a processor without instructions for bfloat16, which takes several
    times as long with it as in float32."""
    if not wanted or torch.cuda.is_available() or not hasattr(torch.cpu, "get_capabilities"):
        return wanted
    known = torch.cpu.get_capabilities()
    if any(known.get(name) for name in INSTRUCTIONS):
        return True
    log.info("bf16: this processor has no instructions for it; float32 instead")
    return False
