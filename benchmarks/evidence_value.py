"""Does what is measured on a face say more of its forgery than the vision tower knows?

A logistic regression learns from the photos kept for MIDS of a run (`ffaa train all RECIPE --run RUN`), which the tower
has not learnt from: of the tower's own logit, of the measured items, of both. It is judged on the run's evaluation.
Run: python benchmarks/evidence_value.py RUN [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ffaa import weights
from ffaa.eval.bootstrap import aucs, estimate, paired
from ffaa.eval.bootstrap import weights as resamples
from ffaa.eval.cached import FEATURES, JUDGEMENTS
from ffaa.eval.run import Outcome, versions
from ffaa.mllm.features import FeatureRow
from ffaa.types import Label
from ffaa.vqa.conversation import read_jsonl

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse, of the regularisation; chosen on the validation photos


def columns(rows: Sequence[FeatureRow], names: Sequence[str], tower: bool) -> NDArray[np.float64]:
    """(N, items [+ 1]): the items in the order of `names`, nan where one could not be measured; the tower's logit."""
    items = np.array([[row.values.get(name, np.nan) for name in names] for row in rows], float).reshape(len(rows), -1)
    score = np.clip([row.tower_score for row in rows], 1e-6, 1 - 1e-6)
    return np.column_stack([items, logit(score)]) if tower else items


def fakes(rows: Sequence[FeatureRow]) -> NDArray[np.bool_]:
    return np.array([row.label is Label.FAKE for row in rows])


def fit(x: NDArray, fake: NDArray, other: NDArray, other_fake: NDArray) -> tuple[Pipeline, float]:
    """The model of the strength with the best AUC on the `other` photos, and that strength."""
    models = {
        c: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=c, max_iter=5000)).fit(x, fake)
        for c in STRENGTHS
    }
    found = {c: roc_auc_score(other_fake, model.decision_function(other)) for c, model in models.items()}
    best = max(found, key=found.__getitem__)
    return models[best], best


def measure(run: Path) -> dict:
    """Figures of a run folder, per pool."""
    parts = {name: list(read_jsonl(run / f"{name}.jsonl", FeatureRow)) for name in ("mine", "val", FEATURES)}
    split = {o.sha256: o.split for o in read_jsonl(run / JUDGEMENTS, Outcome)}
    where = np.array([split[row.sha256] for row in parts[FEATURES]])
    groups = [f"{s} {row.label}" for s, row in zip(where, parts[FEATURES], strict=True)]
    drawn = resamples(groups, list(range(len(groups))))
    truth = {name: fakes(rows) for name, rows in parts.items()}
    names = sorted({name for row in parts["mine"] for name in row.values})
    scores, chosen = {}, {}
    for kind, items, tower in (("tower", [], True), ("evidence", names, False), ("both", names, True)):
        x = {part: columns(rows, items, tower) for part, rows in parts.items()}
        model, chosen[kind] = fit(x["mine"], truth["mine"], x["val"], truth["val"])
        scores[kind] = model.decision_function(x[FEATURES])
    pools = {}
    for pool in sorted(set(where)):
        inside = where == pool
        fake = truth[FEATURES][inside]
        value = {kind: float(roc_auc_score(fake, score[inside])) for kind, score in scores.items()}
        again = {kind: aucs(fake, score[inside], drawn[:, inside]) for kind, score in scores.items()}
        pools[pool] = {
            "photos": int(inside.sum()),
            "auc": {kind: estimate(value[kind], again[kind]).model_dump() for kind in scores},
            "both - tower": paired(value["both"], value["tower"], again["both"], again["tower"]).model_dump(),
        }
    return {"learnt from": len(parts["mine"]), "items": len(names), "strength": chosen, "pools": pools}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    hashes = {name: weights.sha256(args.run / name) for name in ("tower.safetensors", JUDGEMENTS)}
    about = {"seed": 0, "versions": versions(), "hashes": hashes}
    result = {**measure(args.run), "command": shlex.join(["python", *sys.argv]), **about}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
