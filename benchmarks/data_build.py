"""Times `ffaa data build` against a plain loop with dlib in one process, on the photos of a CSV manifest.

    python benchmarks/data_build.py --data FOLDER --out results/data-build.json

FOLDER holds manifest.csv and the photos. Each part runs in a process of its own, one after the other: the loop (read,
detect, cut, write a PNG; nothing else) on all photos, the build on `--few` of them and on all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from ffaa.data.build import build, versions
from ffaa.data.engines import default_workers
from ffaa.data.faces import cut, detector, split_by_size
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs


def loop(data: Path, out: Path) -> dict[str, float]:
    """What one writes first: one photo after the other."""
    cv2.setNumThreads(1)
    find, started, faces = detector(), time.monotonic(), 0
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    for i, path in enumerate(paths):
        photo = cv2.cvtColor(cv2.imread(str(data / path)), cv2.COLOR_BGR2RGB)
        usable, _ = split_by_size(find(photo))
        if usable:
            face = cut(photo, usable[0], 224, find.name)
            cv2.imwrite(str(out / f"{i:06}.png"), cv2.cvtColor(face.image, cv2.COLOR_RGB2BGR))
            faces += 1
    seconds = time.monotonic() - started
    return {"photos": len(paths), "faces": faces, "seconds": round(seconds, 1),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}  # fmt: skip


def build_part(data: Path, out: Path, few: int | None) -> dict[str, object]:
    source = SourceArgs(kind="csv", root=".", sample=few)
    recipe = DataRecipe(name="benchmark", sources=[source], val=0, test=0, leaks="drop")
    report = build(recipe, data, out)
    names = ("items", "faces", "rejected", "datasets", "seconds", "items_per_second", "engine", "peak_memory_mb")
    return {name: report[name] for name in names}


def run(part: str, data: Path, few: int) -> dict[str, object]:
    """A part in a fresh process; wall time of the whole process in `wall_s`."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--data", str(data), "--part", part, "--out", folder, "--few", str(few)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        wall = time.monotonic() - started
    print(part, round(wall, 1), "s", flush=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"wall_s": round(wall, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--part", choices=["loop", "few", "all"])
    args = parser.parse_args()
    if args.part == "loop":
        print(json.dumps(loop(args.data, args.out)))
    elif args.part:
        print(json.dumps(build_part(args.data, args.out, args.few if args.part == "few" else None)))
    else:
        found = {part: run(part, args.data, args.few) for part in ("few", "loop", "all")}
        result = {
            "command": f"python benchmarks/data_build.py --data FOLDER --out {args.out} --few {args.few}",
            "cores": default_workers(), "machine": os.uname().machine, "versions": versions(), "parts": found,
            "ratio_wall": round(found["loop"]["wall_s"] / found["all"]["wall_s"], 2),
        }  # fmt: skip
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"ratio of wall times, loop to build: {result['ratio_wall']}")


if __name__ == "__main__":
    main()
