"""Does a model's heatmap of "fake" find what was changed? On forged photos of a built set, without writing a text.

MIDS is asked with its text branch left out, so that many photos take little time; `ffaa bench explain` scores whole
answers. Beside the heatmap stands a map that only looks at the middle of the crop, on the same photos.
Run: python benchmarks/heatmaps.py SET --dataset ciplab --split test [--model nano] [--count 100] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from ffaa.data import manifest
from ffaa.engine import load_engine
from ffaa.eval import explain
from ffaa.eval.localise import score
from ffaa.eval.run import photo_and_face, versions
from ffaa.mids.cam import heatmap
from ffaa.types import Label

FIGURES = ("hit", "iou", "energy")
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    engine = load_engine(args.model, torch.device("cpu"))
    rows = [
        row
        for row in manifest.scan(args.set / manifest.NAME)
        if (row.dataset, row.split, row.label) == (args.dataset, args.split, Label.FAKE)
    ]
    scored = []
    for i in np.random.default_rng(SEED).permutation(len(rows)):
        photo, face, _ = photo_and_face(args.set, rows[i], engine.image_size)
        truth = explain.Truth(explain.Job(args.set, rows[i]), photo, face)
        if truth.mask is None:
            continue
        heat = heatmap(engine.mids, engine.pixels(face.image)[0], Label.FAKE, engine.image_size)
        found = score(heat, truth.mask)
        if found is not None:
            scored.append((truth.source, found))
        if len(scored) == args.count:
            break
    if not scored:
        raise SystemExit(f"no forged photo of {args.dataset}, {args.split}, has a mask or named regions")
    both = np.array([[[getattr(m, f) for f in FIGURES] for m in (s.found, s.middle)] for _, s in scored], float)
    draws = np.random.default_rng(SEED).integers(0, len(both), (1000, len(both)))
    low, high = np.percentile((both[:, 0] - both[:, 1])[draws].mean(1), (2.5, 97.5), 0).round(3)
    result = {
        "set": args.dataset, "split": args.split, "model": args.model, "photos": len(both),
        "truth": sorted({source for source, _ in scored}), "versions": versions(), "weights_sha256": engine.hashes,
        "seed": SEED, "command": shlex.join(["python", *sys.argv]),
        "heatmap": dict(zip(FIGURES, both[:, 0].mean(0).round(3).tolist(), strict=True)),
        "middle": dict(zip(FIGURES, both[:, 1].mean(0).round(3).tolist(), strict=True)),
        "heatmap - middle, 95 %": {name: [float(low[i]), float(high[i])] for i, name in enumerate(FIGURES)},
        "chance": {"hit, energy": round(float(np.mean([s.area for _, s in scored])), 3),
                   "iou": round(float(np.mean([s.chance_iou for _, s in scored])), 3)},
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
