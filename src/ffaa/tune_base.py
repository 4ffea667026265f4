"""The tuning of a recipe's base (LLaVA), the one stage of a published size that makes an adapter."""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from ffaa import __version__, weights
from ffaa.data import manifest
from ffaa.errors import UsageError
from ffaa.mllm.adapter import CARD, AdapterCard, save_adapter, weight_files
from ffaa.mllm.told import ImageConversations, read_told, split
from ffaa.mllm.tune import check_four_bit, find_base, image_of, load_learner, processes, tune
from ffaa.recipe import Recipe, Run

log = logging.getLogger(__name__)


def tune_base(recipe: Recipe, rows: Path, images: Path, folder: Path, command: str) -> Path:
    """Tune the recipe's base on `rows` about the built set `images`; returns the adapter's folder, `folder`/adapter.

    Every process of a launch calls it. Nothing is done where the adapter is there for the same inputs; a killed run
    goes on from its last checkpoint. Raises InputError for rows that cannot be learnt from, before anything is loaded.
    """
    if recipe.base is None:
        raise UsageError(f"the recipe '{recipe.name}' has no base; its MLLM is a stage")
    if recipe.mllm.lora is None:
        raise UsageError("mllm.lora is null; a base is tuned with LoRA")
    if recipe.tune.four_bit:
        check_four_bit()
    process, seed, out = processes(), recipe.seed, folder / "adapter"
    found = split(read_told(rows, recipe.tune.variant, seed), images, recipe.data.held, recipe.tune.evaluate_rows, seed)
    base = find_base(recipe.base, folder, seed)
    if not process.is_main_process:
        log.setLevel(logging.WARNING)
    log.info("%d conversations, %d for evaluation; left out: %s", len(found.train), len(found.val), found.left_out)
    needed, run, inputs = [True], None, dict[str, Any]()
    if process.is_main_process:
        run = Run(folder)
        inputs = {
            "rows": weights.sha256(rows), "manifest": weights.sha256(images / manifest.NAME), "seed": seed,
            "base": weight_files(base), "held": recipe.data.held, "mllm": recipe.mllm.model_dump(),
            "tune": recipe.tune.model_dump(), "template": recipe.base.template,
        }  # fmt: skip
        needed = [run.begin("tune", inputs, [f"adapter/{CARD}"], ["tune-steps", "samples.txt", "tensorboard"])]
    if not broadcast_object_list(needed)[0]:
        return out
    learner, mllm = load_learner(recipe.base, base, recipe.mllm, recipe.tune, seed)
    image = image_of(learner.llava)
    data, evaluation = (
        ImageConversations(part, images, mllm.tokenizer, mllm.template, image, recipe.tune.max_tokens)
        for part in (found.train, found.val)
    )
    done = tune(recipe.mllm, recipe.tune, learner, mllm, data, evaluation, folder / "tune-steps", seed)
    if run is not None:
        files = save_adapter(out, done.model, done.trained)
        card = AdapterCard(
            name=recipe.name, template=recipe.base.template, base=str(recipe.base), base_files=inputs["base"],
            recipe=recipe.model_dump(mode="json", include={"base", "mllm", "tune"}) | {"held": recipe.data.held},
            seed=seed,
            data={
                "rows": {rows.name: inputs["rows"]}, "manifest": inputs["manifest"], "train": len(data),
                "val": len(evaluation), "left_out": found.left_out,
            },
            versions={name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
            | {"ffaa": __version__, "python": sys.version.split()[0]},
            command=command, processes=process.num_processes, steps=done.steps, eval_loss=done.eval_loss, files=files,
        )  # fmt: skip
        (folder / "tune.json").write_text(json.dumps({"log": done.log}, indent=1))
        (out / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
        run.finish("tune", inputs)
        log.info("%s: evaluation loss %.4f at step %d", out, done.eval_loss, done.steps)
    process.wait_for_everyone()
    return out
