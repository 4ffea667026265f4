"""What the detectors said of all photos -> figures per set and pool, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ffaa.eval.benchmark import ALL, VALIDATION, BenchRecipe, sample_hash
from ffaa.eval.bootstrap import RESAMPLES, Bools, Estimate, Weights, aucs, estimate, means, weights
from ffaa.eval.detectors import UNSURE, Detector
from ffaa.eval.findings import findings
from ffaa.eval.metrics import best_threshold, sacc, set_metrics
from ffaa.eval.result import (
    FORMAT,
    AnswerFigures,
    Answers,
    Bootstrap,
    DetectorFigures,
    Figures,
    GroupFigures,
    Level,
    Photos,
    Result,
    RowFigures,
    Says,
    VideoFigures,
    images_per_second,
)
from ffaa.eval.run import Outcome, versions
from ffaa.types import Difficulty, ForgeryType, Label


def photos(recipe: BenchRecipe, outcomes: Mapping[str, Sequence[Outcome]]) -> Photos:
    """All detectors' outcomes as columns; scores have six decimals, as in the file: figures can be computed again."""
    first = next(iter(outcomes.values()))
    pools = {recipe.in_domain: recipe.in_domain_name, recipe.open_world: ALL, recipe.validation: VALIDATION}
    pool = [pools[o.split] for o in first]
    numbers: dict[str, int] = {}
    return Photos(
        set=[o.test_set if p == ALL else f"{p}/{o.test_set}" for o, p in zip(first, pool, strict=True)],
        pool=pool,
        fake=[o.label is Label.FAKE for o in first],
        forgery_type=[o.forgery_type.value for o in first],
        video=[numbers.setdefault(o.video, len(numbers)) if o.video else -1 for o in first],
        whole_image=[o.whole_image for o in first],
        says={
            row: Says(
                fake=[None if (said := o.says[row].label) is None else said is Label.FAKE for o in found],
                score=[round(o.says[row].score, 6) for o in found],
                refused=refused if any(refused := [o.says[row].refused for o in found]) else [],
            )
            for found in outcomes.values()
            for row in found[0].says
        },
        answers={
            name: Answers(
                easy=[o.difficulty is Difficulty.EASY for o in found],
                finding=None if any(o.finding is None for o in found) else [bool(o.finding) for o in found],
                said_type=[o.said_type.value if o.said_type else None for o in found],
                unread=[o.results.count(None) for o in found],
            )
            for name, found in outcomes.items()
            if found[0].results
        },
    )


def resampled(found: Photos, count: int = RESAMPLES, seed: int = 0) -> Weights:
    """(count, N): within every set and class, so that these stay as they are; frames of a video are drawn together."""
    strata = list(zip(found.set, found.fake, strict=True))
    units = [f"photo {i}" if video < 0 else video for i, video in enumerate(found.video)]
    return weights(strata, units, count, seed)


def groups_of(found: Photos) -> tuple[dict[str, Bools], dict[str, Bools]]:
    """Which photos are in every set and in every pool; those of validation are in none."""
    sets, pools = np.array(found.set), np.array(found.pool)
    names = dict.fromkeys(s for s, p in zip(found.set, found.pool, strict=True) if p != VALIDATION)
    own = [name for name in dict.fromkeys(found.pool) if name not in (ALL, VALIDATION)]
    return (
        {name: sets == name for name in names},
        {name: pools == name for name in [*own, ALL] if (pools == name).any()},
    )


def right(says: Says, fake: Sequence[bool]) -> Bools:
    """(N,) whether the determination is true; what could not be read is not."""
    return np.array([said is not None and said == truth for said, truth in zip(says.fake, fake, strict=True)], bool)


def summarise(found: Photos, own: Mapping[str, float | None], count: int = RESAMPLES, seed: int = 0) -> Figures:
    """All figures. own: row -> the threshold that its detector brings from its own validation, None: none."""
    drawn = resampled(found, count, seed)
    sets, pools = groups_of(found)
    limits = {row: _thresholds(found, row, own.get(row)) for row in found.says}
    figures = {name: _group(found, inside, drawn, limits) for name, inside in (sets | pools).items()}
    # The paper's seven: every open-world set, and the in-domain photos as one.
    spread = [inside for inside in sets.values() if not (inside & ~pools.get(ALL, ~inside)).any()]
    spread += [inside for name, inside in pools.items() if name != ALL]
    return Figures(
        sets={name: figures[name] for name in sets},
        pools={name: figures[name] for name in pools},
        sacc={row: _sacc(right(says, found.fake), spread, drawn) for row, says in found.says.items()},
        thresholds=limits,
    )


def make_result(
    recipe: BenchRecipe,
    outcomes: Mapping[str, Sequence[Outcome]],
    detectors: Sequence[Detector],
    command: str,
    batch: int,
    count: int = RESAMPLES,
    attributes: Mapping[str, list[str]] | None = None,
) -> Result:
    """The figures of a run and all that it takes to repeat it. attributes: see `ffaa.eval.attributes`."""
    found = photos(recipe, outcomes).model_copy(update={"attributes": dict(attributes or {})})
    own = {row: d.about.threshold if row == d.name else None for d in detectors for row in d.rows}
    return Result(
        format=FORMAT,
        recipe=recipe,
        sample_sha256=sample_hash([o.sha256 for o in outcomes[detectors[0].name]]),
        detectors={
            d.name: DetectorFigures(
                **d.about.model_dump(),
                rows=list(d.rows),
                images_per_second=images_per_second(outcomes[d.name]),
            )
            for d in detectors
        },
        versions=versions(),
        command=command,
        batch=batch,
        bootstrap=Bootstrap(resamples=count, seed=recipe.seed),
        photos=found,
        **summarise(found, own, count, recipe.seed).model_dump(),
    )


def _thresholds(found: Photos, row: str, own: float | None) -> dict[str, float]:
    limits = {"0.5": UNSURE} | ({} if own is None else {"validation": own})
    fake, score, pool = np.array(found.fake), np.array(found.says[row].score), np.array(found.pool)
    for name, where in (("pooled", VALIDATION), ("oracle", ALL)):
        inside = pool == where
        if inside.any():
            limits[name] = best_threshold(fake[inside].tolist(), score[inside].tolist())
    return limits


def _sacc(true: Bools, parts: Sequence[Bools], drawn: Weights) -> Estimate:
    value = sacc([float(true[inside].mean()) for inside in parts])
    again = np.std([means(true[inside], drawn[:, inside]) for inside in parts], axis=0)
    return estimate(value, again)


def _group(found: Photos, inside: Bools, drawn: Weights, limits: Mapping[str, Mapping[str, float]]) -> GroupFigures:
    fake = np.array(found.fake)[inside]
    return GroupFigures(
        real=int((~fake).sum()),
        fake=int(fake.sum()),
        whole_image=int(np.array(found.whole_image)[inside].sum()),
        rows={row: row_figures(found, row, inside, drawn[:, inside], limits[row]) for row in found.says},
        answers={name: _answers(found, name, inside, drawn[:, inside]) for name in found.answers},
    )


def row_figures(found: Photos, row: str, inside: Bools, drawn: Weights, limits: Mapping[str, float]) -> RowFigures:
    """A row's figures on some photos. inside: (N,) which. drawn: their resamples. limits: thresholds by name."""
    says = found.says[row]
    fake, score = np.array(found.fake)[inside], np.array(says.score)[inside]
    said = [s for s, take in zip(says.fake, inside, strict=True) if take]
    metrics = set_metrics(fake.tolist(), said, score.tolist(), limits)
    refused = np.array(says.refused or [False] * len(inside))[inside]
    hit = right(says, found.fake)[inside]
    acc = estimate(metrics.acc, means(hit, drawn))
    auc = None if metrics.auc is None else estimate(metrics.auc, aucs(fake, score, drawn))
    return RowFigures(
        **metrics.model_dump(),
        acc_interval=(acc.low, acc.high),
        auc_interval=auc and (auc.low, auc.high),
        unread=said.count(None) - int(refused.sum()),
        refused=int(refused.sum()),
        acc_answered=float(hit[~refused].mean()) if 0 < refused.sum() < len(refused) else None,
        video=_video(np.array(found.video)[inside], fake, score),
    )


def _video(video: NDArray[np.int_], fake: Bools, score: NDArray[np.float64]) -> VideoFigures | None:
    alone = np.where(video < 0, -1 - np.arange(len(video)), video)
    _, first, place, frames = np.unique(alone, return_index=True, return_inverse=True, return_counts=True)
    if frames.max() < 2:
        return None
    mean, truth = np.bincount(place, score) / frames, fake[first]
    return VideoFigures(
        videos=len(frames),
        acc=float(((mean >= UNSURE) == truth).mean()),
        auc=float(roc_auc_score(truth, mean)) if 0 < truth.sum() < len(truth) else None,
    )


def _answers(found: Photos, name: str, inside: Bools, drawn: Weights) -> AnswerFigures:
    given = found.answers[name]
    easy = np.array(given.easy)[inside]
    true = {
        part: right(found.says[row], found.fake)[inside]
        for part, row in (("mids", name), ("anchor", f"{name}/anchor"), ("majority", f"{name}/majority"))
    }
    kind = np.array(found.forgery_type)[inside]
    said = np.array([t or "none" for t in given.said_type])[inside]
    fakes = kind != ForgeryType.REAL.value
    hit = kind == said

    def share(part: Bools) -> float | None:
        return float(hit[part].mean()) if part.any() else None

    return AnswerFigures(
        easy=_level(easy, true, drawn),
        hard=_level(~easy, true, drawn),
        findings=None if given.finding is None else findings(
            np.array(given.finding)[inside], true["mids"], np.array(found.fake)[inside], drawn
        ),
        type_acc=float(hit.mean()),
        type_acc_of_fakes=share(fakes),
        type_acc_of_caught=share(fakes & true["mids"]),
        confusion={str(k): {str(s): int(((kind == k) & (said == s)).sum()) for s in np.unique(said[kind == k])}
                   for k in np.unique(kind)},
        unparsed_answers=int(np.array(given.unread)[inside].sum()),
    )  # fmt: skip


def _level(level: Bools, true: Mapping[str, Bools], drawn: Weights) -> Level:
    accs = {part: means(hits[level], drawn[:, level]) for part, hits in true.items()}
    here = {part: float(hits[level].mean()) if level.any() else float("nan") for part, hits in true.items()}
    return Level(
        count=int(level.sum()),
        share=estimate(float(level.mean()), means(level, drawn)),
        **{part: estimate(here[part], accs[part]) for part in true},
        **{f"gain_over_{part}": estimate(here["mids"] - here[part], accs["mids"] - accs[part])
           for part in ("anchor", "majority")},
    )  # fmt: skip
