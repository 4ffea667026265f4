import os
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = """
import os, resource, statistics, sys
import torch
from ffaa.mllm.memory import keep_memory

def faults():
    "Pages that a tensor of 64 MB needs of the system after the first one: the median of 20."
    torch.ones(1 << 24).sum()
    counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(20):
        torch.ones(1 << 24).sum()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return int(statistics.median(b - a for a, b in zip(counts, counts[1:])))

torch.set_num_threads(1)
if "keep" in sys.argv:
    keep_memory()
print(faults(), os.environ.get("MALLOC_TRIM_THRESHOLD_"), os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""


def run(*words, **settings):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_", "GLIBC_"))}
    environment = clean | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")} | settings
    command = [sys.executable, "-c", KEPT, *words]
    pages, *rest = subprocess.check_output(command, text=True, env=environment).split()
    return int(pages), rest


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_taken_again_without_asking_the_system():
    plain, _ = run()
    kept, told = run("keep")
    assert plain > 500  # else this says nothing
    assert kept < plain / 10
    assert told == ["2147483647", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_the_user_has_set_stays():
    pages, told = run("keep", THP_MEM_ALLOC_ENABLE="0", MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536")
    assert pages > 500
    assert told == ["0", "0"]
