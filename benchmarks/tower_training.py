"""What a step of a tower's training costs: seconds of 32 crops, forward to optimizer, on random crops of 224 pixels.

Steps with freed memory kept (`ffaa.mllm.memory`, as `ffaa train` has it) and given back, each in a process of its own,
in turns. Run: python benchmarks/tower_training.py [--lite lite0] [--threads 1] [--steps 8] [--rounds 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from resource import RUSAGE_SELF, getrusage


def steps(options: argparse.Namespace) -> None:
    """Seconds of each step but the first, and the peak of memory in GiB, as JSON."""
    import torch
    from torch import nn

    from ffaa.mllm.memory import keep_memory
    from ffaa.mllm.precision import bf16_where_fast
    from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
    from ffaa.mllm.tower_heads import TowerHeads

    if options.only == "kept":
        keep_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tower = ForensicVisionModel(ForensicVisionConfig(lite=options.lite)).to(memory_format=torch.channels_last)
    both = nn.ModuleDict({"tower": tower, "heads": TowerHeads(tower.config.hidden_size)}).train()
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3)
    pixels = (torch.rand(32, 3, 224, 224) * 2 - 1).to(memory_format=torch.channels_last)
    fake, kinds = torch.randint(0, 2, (32,)).float(), torch.randint(0, 4, (32,))
    bf16, seconds = bf16_where_fast(True), []
    for _ in range(options.steps + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = tower(pixels).hidden_states
        loss = both["heads"].loss(hidden, fake, kinds, torch.full((32, 7, 7), -1.0), 0.5)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds[1:], "peak": getrusage(RUSAGE_SELF).ru_maxrss / 2**20, "bf16": bf16}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite", choices=["lite0", "lite1", "lite2"], default="lite0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=["kept", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        steps(options)
        return
    found: dict[str, list[dict]] = {"kept": [], "plain": []}
    for _ in range(options.rounds):
        for name in found:
            answer = subprocess.check_output([sys.executable, __file__, *sys.argv[1:], "--only", name], text=True)
            found[name].append(json.loads(answer.splitlines()[-1]))
            print(f"{name}: {statistics.median(found[name][-1]['seconds']):.2f} s a step", flush=True)
    result = {
        "lite": options.lite, "threads": options.threads, "bf16": found["kept"][0]["bf16"], "crops": 32,
        **{name: {"seconds_per_step": round(statistics.median(s for run in runs for s in run["seconds"]), 3),
                  "peak_gib": round(max(run["peak"] for run in runs), 2)} for name, runs in found.items()},
        "versions": {"torch": version("torch"), "python": platform.python_version()},
        "command": " ".join(["python", *sys.argv]),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
