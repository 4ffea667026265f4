"""Mining and MIDS for a tuned LLaVA (a recipe with a base), on the faces of a built set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from ffaa import weights
from ffaa.data import manifest
from ffaa.data.crops import plain_face, read_photo
from ffaa.data.manifest import Row, held_for_mids
from ffaa.errors import InputError
from ffaa.mids.encoders import Encoder
from ffaa.mids.images import Crops
from ffaa.mllm.adapter import load_tuned, read_card
from ffaa.mllm.generate import Mllm
from ffaa.mllm.llava_import import prepare_pixels
from ffaa.mllm.mine import FromImages, Route, Seen, mine, targets
from ffaa.mllm.mine_server import FromServer, ServerArgs
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.told import read_told
from ffaa.mllm.tune import BaseArgs, find_base
from ffaa.vqa.export import Variant

REPLIES = "replies.sqlite"


def face(root: Path, rows: list[Row], size: int, index: int) -> np.ndarray:
    """The face image of a row, uint8 RGB (size, size, 3)."""
    return plain_face(read_photo(root, rows[index]), rows[index], size).image


@dataclass(frozen=True)
class LlavaSet:
    """A base, and the built set it was tuned on. folder: the run's. held: share of training faces kept for MIDS."""

    base: BaseArgs
    root: Path
    folder: Path
    held: float
    seed: int
    variant: Variant = "All"

    def parts(self) -> dict[str, list[Row]]:
        """The faces to mine: val, and mine (those kept for MIDS). Raises InputError where one has none."""
        rows = manifest.read(self.root)
        found = {
            "val": [r for r in rows if r.split == "val"],
            "mine": [r for r in rows if r.split == "train" and held_for_mids(r, self.held)],
        }
        if empty := [name for name, part in found.items() if not part]:
            raise InputError(f"{self.root}: no face for '{empty[0]}'; it needs a split 'val', and data.held above 0")
        return found

    def seen(self, tuned_on: Path | None) -> Seen:
        """What the MLLM was tuned on: all images of the rows in `tuned_on`; default: every training face that is not
        kept for MIDS, as `ffaa train mllm` takes them."""
        rows = manifest.read(self.root)
        if tuned_on is None:
            return Seen.of(r for r in rows if r.split == "train" and not held_for_mids(r, self.held))
        told = read_told(tuned_on, self.variant, self.seed)
        images = {t.image for t in told}
        known = Seen.of(r for r in rows if r.path in images)
        return Seen(known.hashes | {t.sha256 for t in told if t.sha256}, known.groups)

    def inputs(self, server: ServerArgs | None, tuned_on: Path | None, anchors: list[str]) -> dict[str, Any]:
        """What the mined answers depend on. Raises InputError for an adapter that was tuned on something else."""
        found: dict[str, Any] = {
            "seed": self.seed, "held": self.held, "manifest": weights.sha256(self.root / manifest.NAME),
            "questions": anchors, "tuned_on": tuned_on and weights.sha256(tuned_on),
        }  # fmt: skip
        if server:
            said = server.model_dump(include={"base_url", "model", "max_tokens", "jpeg_quality", "size"})
            return found | {"server": said}
        card = read_card(self.folder / "adapter")
        if (card.data["manifest"], card.recipe["held"]) != (found["manifest"], self.held):
            raise InputError(
                f"{self.folder / 'adapter'} was tuned on another set or with another data.held, so what it has seen is "
                "not known; tune it again, or give --rows"
            )
        return found | {"adapter": card.files}

    def mine(
        self, server: ServerArgs | None, tuned_on: Path | None, anchors: list[str], files: dict[str, Path]
    ) -> None:
        """Mine both parts into `files`."""
        seen, mllm = self.seen(tuned_on), None if server else self.load_mllm()
        for name, rows in self.parts().items():
            route: Route
            if server:
                image = partial(face, self.root, rows, server.size)
                route = FromServer(server, TEMPLATES[self.base.template], image, self.folder / REPLIES)
            else:
                assert mllm is not None
                config: Any = mllm.model.config
                side = config.vision_config.image_size
                route = FromImages(mllm, partial(face, self.root, rows, side), side)
            mine(route, targets(rows), files[name], seen, anchors, self.seed)

    def load_mllm(self) -> Mllm:
        """The base with the run's adapter, on the GPU (bfloat16) where there is one."""
        device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
        found = find_base(self.base, self.folder, self.seed)
        clip = weights.part_folder(self.base.clip) if self.base.clip else None
        model: Any = load_tuned(self.folder / "adapter", found, clip, dtype)
        return Mllm(model.to(device), AutoTokenizer.from_pretrained(found), TEMPLATES[self.base.template])

    def crops(self, name: str, image: Encoder) -> Crops:
        """What MIDS sees of a part: the faces at the image encoder's size."""
        config: Any = image.model.config
        read = partial(face, self.root, self.parts()[name], config.image_size)
        return Crops(read, partial(prepare_pixels, size=config.image_size))
