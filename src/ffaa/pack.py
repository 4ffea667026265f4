"""A trained nano as a model folder: everything that runs, in half precision, with hashes and a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from ffaa import weights
from ffaa.data.manifest import Row
from ffaa.files import write_tensors
from ffaa.mllm.train_tower import load_tower
from ffaa.recipe import Recipe
from ffaa.stages import TEXT_MAX_TOKENS, TEXT_PART, Stages


def pack(stages: Stages, out: Path) -> None:
    """Run what of `stages` is not up to date and put the model into the folder `out`; a card.md in it stays."""
    stages.detail()
    (out / "mllm").mkdir(parents=True, exist_ok=True)
    for file in (stages.folder / "mllm").iterdir():
        shutil.copyfile(file, out / "mllm" / file.name)
    shutil.copyfile(stages.folder / "mids.safetensors", out / "mids.safetensors")
    own = {f"own-heads-{i}.safetensors": file for i, file in enumerate(stages.mids_towers())}
    for name, tower in ({"heads.safetensors": "tower.safetensors"} | own).items():
        state = load_tower(stages.folder / tower)[1].state_dict()
        write_tensors(out / name, {k: v.half() for k, v in state.items()})
    figures = json.loads((stages.folder / "mids.json").read_text())
    config = weights.ModelConfig(
        name=stages.recipe.name, template=stages.template.name, image_size=224, constrained=True,
        heads="heads.safetensors", own_heads=list(own), text_encoder=weights.PartRef(part=TEXT_PART),
        text_max_tokens=TEXT_MAX_TOKENS, temperature=figures["temperature"], detail=stages.correction(),
        licence="Apache-2.0", card="card.md" if (out / "card.md").exists() else None,
        trained_on=trained_on(stages.recipe, stages.rows),
        files={str(f.relative_to(out)): weights.sha256(f) for f in sorted(out.rglob("*"))
               if f.is_file() and f.name != weights.MODEL_FILE},
    )  # fmt: skip
    (out / weights.MODEL_FILE).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def trained_on(recipe: Recipe, rows: Iterable[Row]) -> list[str]:
    """Datasets that a tower or the teacher has taken anything from."""
    nowhere = set(recipe.teach.without).intersection(*(t.without for t in recipe.all_towers))
    return sorted({r.dataset for r in rows if r.split == "train"} - nowhere)
