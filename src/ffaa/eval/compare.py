"""Two rows of a result against each other, on the same photos."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from ffaa.data.stats import Table
from ffaa.errors import UsageError
from ffaa.eval.bootstrap import McNemar, Paired, aucs, mcnemar, means, paired
from ffaa.eval.figures import groups_of, resampled, right
from ffaa.eval.result import Result
from ffaa.types import Record


class Comparison(Record):
    """A minus B in one set or pool; auc None where only one class is there."""

    photos: int
    acc: Paired
    mcnemar: McNemar
    auc: Paired | None


def compare(found: Result, a: str, b: str) -> dict[str, Comparison]:
    """Set or pool -> comparison. Raises UsageError for a row that the result does not have."""
    photos = found.photos
    for row in (a, b):
        if row not in photos.says:
            raise UsageError(f"no row '{row}' in this result; it has {', '.join(photos.says)}")
    drawn = resampled(photos, found.bootstrap.resamples, found.bootstrap.seed)
    true = [right(photos.says[row], photos.fake) for row in (a, b)]
    score = [np.array(photos.says[row].score) for row in (a, b)]
    fake, out = np.array(photos.fake), {}
    sets, pools = groups_of(photos)
    for name, inside in (sets | pools).items():
        part, truth = drawn[:, inside], fake[inside]
        one, two = (t[inside] for t in true)
        auc = None
        if 0 < truth.sum() < len(truth):
            scores = [s[inside] for s in score]
            value_a, value_b = (float(roc_auc_score(truth, s)) for s in scores)
            again_a, again_b = (aucs(truth, s, part) for s in scores)
            auc = paired(value_a, value_b, again_a, again_b)
        out[name] = Comparison(
            photos=int(inside.sum()),
            acc=paired(float(one.mean()), float(two.mean()), means(one, part), means(two, part)),
            mcnemar=mcnemar(one, two),
            auc=auc,
        )
    return out


def table(a: str, b: str, found: dict[str, Comparison]) -> Table:
    """One line per set and pool."""

    def gap(one: Paired | None) -> list[str]:
        if one is None:
            return ["-", "-"]
        return [f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]", f"{one.p:.3f}"]

    head = ["set", "photos", "ACC difference", "p", f"only {a} right", f"only {b} right", "McNemar p",
            "AUC difference", "p"]  # fmt: skip
    rows = [
        [name, str(c.photos), *gap(c.acc), str(c.mcnemar.only_a), str(c.mcnemar.only_b), f"{c.mcnemar.p:.3f}",
         *gap(c.auc)]
        for name, c in found.items()
    ]  # fmt: skip
    tests = len(found)
    notes = [
        "Differences with paired bootstrap 95 % intervals and p; McNemar's exact test on the determinations. "
        f"{tests} lines are {tests} tests: judge a single set's p against 0.05 / {tests} = {0.05 / tests:.4f}."
    ]
    return Table(f"{a} minus {b}", head, rows, notes)
