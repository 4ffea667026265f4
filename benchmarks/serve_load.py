"""How much a server bears: clients that ask again and again, for a bounded time each; and what batches gain.

Every client sends one of the example photos, waits for the answer, and sends the next. Told 429, it waits as long as
Retry-After says. Then the same with a server that takes one face at a time, in the same run. Clients and server share
the machine.
Run: python benchmarks/serve_load.py [--clients 1 20 100] [--seconds 120] [--threads 2] [--out results/serve-load.json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from serving import PHOTOS, Running, serving, write


async def client(url: str, number: int, until: float, seconds: list[float], ends: Counter[str]) -> None:
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits, trust_env=False) as http:
        photos = [(path.name, path.read_bytes()) for path in PHOTOS]
        turn = number
        while time.perf_counter() < until:
            turn += 1
            started = time.perf_counter()
            try:
                answer = await http.post("/v1/analyze", files={"file": photos[turn % len(photos)]})
            except httpx.HTTPError as error:
                ends[type(error).__name__] += 1
                continue
            if answer.status_code == 200:
                seconds.append(time.perf_counter() - started)
                kinds = {one["kind"] for one in answer.json()["results"]}
                ends["200" if kinds == {"verdict"} else f"200 with {sorted(kinds)}"] += 1  # every photo has a face
            else:
                ends[str(answer.status_code)] += 1
                wait = float(answer.headers.get("retry-after", 1))
                await asyncio.sleep(min(wait, max(0.0, until - time.perf_counter())))


async def level(server: Running, clients: int, seconds: float) -> dict[str, Any]:
    """What `clients` got in `seconds`."""
    times: list[float] = []
    ends: Counter[str] = Counter()
    names = ("ffaa_batch_faces_sum", "ffaa_batch_faces_count")
    before, memory = [server.metric(name) for name in names], server.memory()
    started = time.perf_counter()
    await asyncio.gather(*(client(server.url, n, started + seconds, times, ends) for n in range(clients)))
    elapsed = time.perf_counter() - started
    faces, batches = (server.metric(name) - old for name, old in zip(names, before, strict=True))
    ordered = sorted(times) or [float("nan")]
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "answered": len(times),
        "per_second": round(len(times) / elapsed, 3),
        "p50_s": round(statistics.median(ordered), 2),
        "p95_s": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "max_s": round(ordered[-1], 2),
        "by_status": dict(ends),
        "faces_per_batch": round(faces / batches, 2) if batches else None,
        "memory_start_mib": memory["now"],
        "memory_end_mib": server.memory()["now"],
        "memory_most_mib": server.memory()["most"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2, help="of the model")
    parser.add_argument("--alone", type=int, default=20, help="clients of the run that takes one face at a time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with serving(threads=options.threads) as server:
        asyncio.run(level(server, 1, 1))  # warm
        levels = [asyncio.run(level(server, clients, options.seconds)) for clients in options.clients]
        batched = asyncio.run(level(server, options.alone, options.seconds))
    with serving(threads=options.threads, batch=1) as server:
        asyncio.run(level(server, 1, 1))
        alone = asyncio.run(level(server, options.alone, options.seconds))
    wrong = {kind for one in (*levels, batched, alone) for kind in one["by_status"]} - {"200", "429"}
    report = {
        "levels": levels,
        "batched": batched,
        "one_by_one": alone,
        "gain": round(batched["per_second"] / alone["per_second"], 2),
        "only_429": not wrong,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load_at_end": [round(one, 2) for one in os.getloadavg()],
    }
    write(options.out, report)
    if wrong:
        raise SystemExit(f"answers that should not be: {sorted(wrong)}")


if __name__ == "__main__":
    main()
