"""What the evidence items look like on training faces: quantiles, which way their words lean, AUC per collection.

Writes src/ffaa/evidence/norms.py and src/ffaa/vqa/prompts/leans.yaml, and prints the table.
Run: python benchmarks/evidence_norms.py MANIFEST_FOLDER --data PHOTOS [--count 1500] [--seed 1] [--write]
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import yaml
from sklearn.metrics import roc_auc_score

from ffaa.data import manifest
from ffaa.data.crops import plain_face, read_photo
from ffaa.evidence.examine import MEASURES, examine_face
from ffaa.types import EvidenceRecord, ForgeryType

LEVELS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995)
SOURCE = Path(__file__).parents[1] / "src/ffaa"
SMOOTHING = 3.0  # faces added to every word, so that a rare word leans little


def drawn(rows: list[manifest.Row], count: int, seed: int) -> list[manifest.Row]:
    """About `count` rows of split train with a face, as many of each collection, label and method."""
    kinds = defaultdict(list)
    for row in rows:
        if row.split == "train" and row.box is not None:
            kinds[row.dataset, row.label, row.method].append(row)
    rng = np.random.default_rng(seed)
    each = round(count / len(kinds))
    return [kinds[key][i] for key in sorted(kinds) for i in rng.permutation(len(kinds[key]))[:each]]


def table(rows: list[manifest.Row], records: list[EvidenceRecord]) -> None:
    """Prints per item the share of faces it can be measured on and the AUC of its value for 'fake' per method."""
    real = np.array([row.forgery_type is ForgeryType.REAL for row in rows])
    dataset = np.array([row.dataset for row in rows])
    method = np.array([row.method for row in rows])
    pairs = sorted({(d, m) for d, m in zip(dataset[~real], method[~real]) if real[dataset == d].any()})
    print(f"{'item':17s} seen%", *(f"{m[:10]:>11s}" for _, m in pairs), "       all")
    for name in MEASURES:
        values = np.array([record.items[name].value for record in records], float)
        seen = np.isfinite(values)
        cells = []
        groups = [(dataset == d) & (real | (method == m)) for d, m in pairs] + [np.ones(len(rows), bool)]
        for group in groups:
            chosen = group & seen
            both = min(real[chosen].sum(), (~real[chosen]).sum()) >= 10
            cells.append(f"{roc_auc_score(~real[chosen], values[chosen]):11.2f}" if both else f"{'-':>11s}")
        print(f"{name:17s} {100 * seen.mean():4.0f} ", *cells)


def write_norms(records: list[EvidenceRecord]) -> None:
    lines = []
    for name in MEASURES:
        values = np.array([record.items[name].value for record in records], float)
        values = values[np.isfinite(values)]
        # Too few faces to know (a crop is hardly ever unscaled): wide quantiles, so that the strength stays about 0.
        quantiles = np.quantile(values, LEVELS) if len(values) >= 50 else np.linspace(-1e9, 1e9, len(LEVELS))
        lines.append(f'    "{name}": ({", ".join(f"{q:.4g}" for q in quantiles)}),')
    text = (
        f'"""Quantiles of every item over {len(records)} training faces, by benchmarks/evidence_norms.py."""\n\n'
        f"LEVELS = {LEVELS}\n# fmt: off\n# ruff: noqa: E501\nQUANTILES: dict[str, tuple[float, ...]] = {{\n"
        + "\n".join(lines)
        + "\n}\n"
    )
    (SOURCE / "evidence/norms.py").write_text(text, encoding="utf-8")


def leans(rows: list[manifest.Row], records: list[EvidenceRecord]) -> dict[str, dict[str, dict[str, float]]]:
    """type or method -> item -> word -> ln P(word | forged so) / P(word | real).

    Only collections with real photos count, so that a collection's own look says nothing; a type is the mean of its
    methods, each against the reals of its collection.
    """
    real = {row.dataset for row in rows if row.forgery_type is ForgeryType.REAL}
    made = sorted({(row.forgery_type.value, row.dataset, row.method) for row in rows if row.method})
    pairs = [(kind, dataset, method) for kind, dataset, method in made if dataset in real]
    groups = {kind: [p for p in pairs if p[0] == kind] for kind in dict.fromkeys(p[0] for p in pairs)}
    groups |= {p[2]: [p] for p in pairs}
    found: dict[str, dict[str, dict[str, float]]] = {key: {} for key in groups}
    for name, measure in MEASURES.items():
        counts = {(row.dataset, row.method): np.zeros(len(measure.words)) for row in rows}
        for row, record in zip(rows, records):
            if record.word(name):
                counts[row.dataset, row.method][measure.words.index(record.word(name))] += 1
        for key, group in groups.items():
            shares = []
            for _, dataset, method in group:
                forged, genuine = counts[dataset, method], counts[dataset, ""]
                if min(forged.sum(), genuine.sum()) >= 20:
                    shares.append([(c + SMOOTHING) / (c + SMOOTHING).sum() for c in (forged, genuine)])
            odds = np.log(np.divide(*np.mean(shares, axis=0))) if shares else np.zeros(len(measure.words))
            found[key][name] = {word: round(float(v), 2) for word, v in zip(measure.words, odds)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="replace norms.py and leans.yaml")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows = drawn(manifest.read(args.manifest), args.count, args.seed)
    start = time.perf_counter()
    records = [examine_face(plain_face(read_photo(args.data, row), row, 224)) for row in rows]
    print(f"{len(rows)} faces, {(time.perf_counter() - start) / len(rows) * 1000:.0f} ms each with reading and mesh")
    table(rows, records)
    if args.write:
        write_norms(records)
        head = (
            "# Which way the measured words lean: ln P(word | forged so) / P(word | real), for types and methods.\n"
            "# Written by benchmarks/evidence_norms.py\n"
        )
        text = yaml.safe_dump(leans(rows, records), sort_keys=False, default_flow_style=None, width=110)
        (SOURCE / "vqa/prompts/leans.yaml").write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main()
