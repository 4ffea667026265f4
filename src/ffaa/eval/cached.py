"""Evaluation of a run folder on a benchmark's crops: features, answers and decisions, each computed once and kept.

It decides what `Assistant` decides on the same crops; only the search for faces is left out.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffaa import __version__, weights
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.manifest import Row
from ffaa.engine import Engine
from ffaa.errors import InputError
from ffaa.eval.benchmark import BenchRecipe, sample
from ffaa.eval.detectors import Judgement, decided, finds, majority_says, scored, stated
from ffaa.eval.evaluation import Evaluation, Judged, summarise
from ffaa.eval.run import Outcome, outcome_of
from ffaa.mids.decide import Decision, decide, difficulty
from ffaa.mllm import features
from ffaa.mllm.answer import parse_answer
from ffaa.mllm.generate import QUESTIONS, Mllm, assign_roles
from ffaa.mllm.mine import Batch, Mined, Seen, Three, mine, targets
from ffaa.mllm.tower import ForensicVisionModel
from ffaa.mllm.tower_heads import TowerHeads
from ffaa.mllm.train_tower import load_tower
from ffaa.stages import DETAIL, Stages
from ffaa.types import Answer, Role, UnparsedAnswer
from ffaa.vqa.conversation import read_jsonl, write_jsonl
from ffaa.vqa.export import VARIANTS

FEATURES = "evaluate"
ANSWERS, JUDGEMENTS, RESULT = "evaluate-answers.jsonl", "evaluation.jsonl", "evaluation.json"
SIZE = 224


class Asked:
    """A `Route` that asks as `Assistant` does; an MLLM without MIDS is asked for its anchor answer alone.

    array (N, 2, tokens, C) and found: what `ffaa.mllm.features` computed. texts: that its answers hold.
    """

    def __init__(
        self, mllm: Mllm, array: np.ndarray, found: Sequence[features.FeatureRow], judged: Judged, texts: Sequence[str]
    ):
        self.mllm, self.array, self.found, self.judged, self.texts = mllm, array, found, judged, texts
        self.batch = 32

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[Three]]:
        for one in batches:
            hidden = torch.from_numpy(np.array(self.array[list(one.rows), -1])).to(self.mllm.model.device)
            seen, words = self.mllm.project(hidden), [self.found[i].words for i in one.rows]
            if self.judged == "ffaa":
                yield [assign_roles(raw, one.questions) for raw in self.mllm.generate(seen, words, one.questions)]
            else:
                raws = self.mllm.generate(seen, words, [one.anchor])
                yield [[parse_answer(raw, Role.ANCHOR, one.anchor, self.texts)] for (raw,) in raws]


def evaluate(stages: Stages, bench: BenchRecipe, judged: Judged = "ffaa") -> Evaluation:
    """Evaluate the model of a run folder, whose stages are done, on the photos of its own manifest that `bench` chooses
    (`bench.manifest` is not read). What is up to date is not made again; a killed evaluation goes on.

    Leaves features, answers, an `Outcome` per photo and the result in the folder. Raises InputError where no photo is
    chosen, or one that the MLLM was tuned on.
    """
    rows = [r for r in sample(bench, stages.rows) if r.split in (bench.in_domain, bench.open_world)]
    if not rows:
        splits = f"'{bench.in_domain}', '{bench.open_world}'"
        raise InputError(f"{bench.name}: the run's manifest has no photo of the splits {splits}; name other splits")
    seen = Seen.of(stages.part("tune"))
    seen.refuse(targets(rows))
    folder, run, recipe = stages.folder, stages.run, stages.recipe
    photos = hashlib.sha256("\n".join(r.sha256 for r in rows).encode()).hexdigest()

    def measure() -> None:
        tower, heads = half_tower(folder / "tower.safetensors")
        features.compute(
            folder, FEATURES, tower, heads, stages.source.parent, rows, range(1), None, recipe.seed,
            workers=recipe.tower.workers, dtype=np.float32,
        )  # fmt: skip

    files = [f"{FEATURES}.npy", f"{FEATURES}.jsonl"]
    inputs = {"photos": photos, **_hashes(folder, "faces.parquet", "tower.safetensors")}
    run.stage("evaluate features", inputs, files, measure, files)

    def ask() -> None:
        array, found = features.load(folder, FEATURES)
        mllm = stages.load_mllm()
        if torch.cuda.is_available():
            moved: Any = mllm.model
            moved.to("cuda")
        route = Asked(mllm, array, found, judged, VARIANTS[recipe.tune.variant])
        mine(route, targets(rows), folder / ANSWERS, seen, QUESTIONS[:1], recipe.seed)

    inputs = {"photos": photos, "judged": judged, **_hashes(folder, "mllm/model.safetensors", f"{FEATURES}.jsonl")}
    run.stage("evaluate answers", inputs, [ANSWERS], ask, [ANSWERS])

    names = ["faces.parquet", "tower.safetensors", "mllm/model.safetensors", ANSWERS]
    decides = [name for name in ("mids.safetensors", DETAIL) if judged == "ffaa" and (folder / name).is_file()]
    hashes = _hashes(folder, *names, *decides)
    about = {"recipe": recipe.model_dump(mode="json", exclude={"evaluate"}), "judged": judged, "hashes": hashes}

    def decide_all() -> None:
        found = judge(stages, rows, judged)
        result = Evaluation(
            **about, bench=bench, command=shlex.join(["ffaa", *sys.argv[1:]]), seed=recipe.seed, sample_sha256=photos,
            photos=len(found), **summarise(found, bench, judged),
            versions={name: version(name) for name in ("torch", "transformers", "numpy", "scikit-learn")}
            | {"ffaa": __version__, "python": sys.version.split()[0]},
        )  # fmt: skip
        write_jsonl(folder / JUDGEMENTS, found)
        (folder / RESULT).write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")

    run.stage("evaluate", {**about, "bench": bench.model_dump()}, [RESULT, JUDGEMENTS], decide_all)
    return read_evaluation(folder)


def read_evaluation(folder: Path) -> Evaluation:
    """What `evaluate` left in a run folder."""
    return Evaluation.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))


def half_tower(file: Path) -> tuple[ForensicVisionModel, TowerHeads]:
    """A tower and its heads as a packed model has them: rounded to half precision."""
    tower, heads = load_tower(file)
    return tower.half().float(), heads.half().float()


def engine_of(stages: Stages) -> Engine:
    """The models of a run folder, on the CPU, as `load_engine` gives those of the packed one."""
    mllm, folder = stages.load_mllm(), stages.folder
    mids, tokens = stages.load_mids(mllm)
    temperature = json.loads((folder / "mids.json").read_text(encoding="utf-8"))["temperature"]
    engine = Engine(
        stages.recipe.name, mllm, mids, tokens, SIZE, True, temperature, torch.device("cpu"), {},
        detail=stages.correction(),
    )  # fmt: skip
    if own := stages.mids_towers():
        engine.heads, *engine.own_heads = (half_tower(folder / name)[1] for name in ("tower.safetensors", *own))
    return engine


@torch.inference_mode()
def judge(stages: Stages, rows: Sequence[Row], judged: Judged) -> list[Outcome]:
    """What is decided about every photo from its answers in the folder, in the order of `rows`.

    says: 'ffaa' and 'majority' (with MIDS), 'anchor only', 'tower' (its linear head), and 'towers' where MIDS has
    more of them (the mean of all heads' logits).
    """
    array, found = features.load(stages.folder, FEATURES)
    answered = list(read_jsonl(stages.folder / ANSWERS, Mined))
    engine = engine_of(stages) if judged == "ffaa" else None
    out = []
    for i, (row, seen, m) in enumerate(zip(rows, found, answered, strict=True)):
        answers, anchor = m.answers[: stages.recipe.mids.answers], m.answers[0]
        says = {
            "anchor only": stated(anchor if isinstance(anchor, Answer) else None),
            "tower": scored(seen.tower_score),
        }
        chosen, level, finding = anchor, None, None
        if engine is not None:
            image = plain_face(read_photo(stages.source.parent, row), row, SIZE).image
            layers = _layers(engine, array[i], image)
            decision, level = _decided(engine, answers, layers, image), difficulty(m.results)
            finding = finds(engine, decision, level, image)
            chosen = anchor if decision is None else answers[decision.chosen_index]
            every = engine.towers_score(layers)
            says = {"ffaa": decided(decision), **says, "majority": majority_says(m.results)}
            says |= {} if every is None else {"towers": scored(every)}
        judgement = Judgement(
            says=says, seconds=0.0, results=m.results, difficulty=level, finding=finding,
            said_type=chosen.forgery_type if isinstance(chosen, Answer) else None,
        )  # fmt: skip
        out.append(outcome_of(row, judgement, row.sha256, row.box is None))
    return out


def _layers(engine: Engine, kept: np.ndarray, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """MIDS's (last, previous) of a face image: kept ones, or, where it has eyes of its own, computed."""
    if engine.mids.config.unfreeze or engine.mids.config.own_towers:
        return engine.mids.encode_image(engine.pixels(image))
    previous, last = torch.from_numpy(np.array(kept)).unsqueeze(1)
    return last, previous


def _decided(
    engine: Engine,
    answers: Sequence[Answer | UnparsedAnswer],
    layers: tuple[torch.Tensor, torch.Tensor],
    image: np.ndarray,
) -> Decision | None:
    """What MIDS decides by Eq. 1; None where no answer could be read."""
    results = [a.result if isinstance(a, Answer) else None for a in answers]
    return decide(engine.probabilities(answers, layers, image), results) if any(results) else None


def _hashes(folder: Path, *names: str) -> dict[str, str]:
    return {name: weights.sha256(folder / name) for name in names}
