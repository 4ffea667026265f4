"""The stages of a recipe, in order: faces, tower, features, conversations, MLLM, mining, MIDS, model folder."""

from __future__ import annotations

import json
import logging
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ffaa import weights
from ffaa.data import build, manifest
from ffaa.data.manifest import Row, held_for_mids
from ffaa.engine import FREE_TOKENS
from ffaa.errors import InputError
from ffaa.mids import checkpoint as mids_checkpoint
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mids.tokens import AnswerTokens
from ffaa.mids.train import train_mids
from ffaa.mllm import features, nano
from ffaa.mllm.answer import format_answer
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import Mllm
from ffaa.mllm.mine import Mined, mine
from ffaa.mllm.template import TEMPLATES, hypothesis_prompt
from ffaa.mllm.train import ConversationData, train_mllm
from ffaa.mllm.train_tower import load_tower, train_tower
from ffaa.recipe import Recipe, Run
from ffaa.types import Label
from ffaa.vqa.conversation import Conversation, read_jsonl, write_jsonl
from ffaa.vqa.generate import conversations
from ffaa.vqa.grounded import phrases
from ffaa.vqa.hypothesis import hypothesis_rows

log = logging.getLogger(__name__)
TEXT_PART = "minilm-l6"
TEXT_MAX_TOKENS = 256
FEATURE_SETS = ("tune", "val", "mine")


class Stages:
    """The stages of `recipe` on the photos under `data`, writing into `folder`."""

    def __init__(self, recipe: Recipe, data: Path, folder: Path):
        self.recipe, self.folder, self.run = recipe, folder, Run(folder)
        self.source = data / recipe.data.manifest
        self.template = TEMPLATES["nano"]

    @property
    def _root(self) -> Path:
        return self.source.parent

    @cached_property
    def rows(self) -> list[Row]:
        return manifest.read(self.folder / "faces.parquet")

    def faces(self) -> None:
        """Find the face of every photo of a CSV; a manifest of `ffaa data build` is taken as it is."""
        if not self.source.is_file():
            raise InputError(f"{self.source}: no such manifest; --data names the folder that holds it")
        inputs = {"manifest": weights.sha256(self.source), "data": self.recipe.data.limit}

        def work() -> None:
            found = self.source
            if self.source.suffix == ".csv":
                found = self.folder / "faces" / manifest.NAME
                build.build(build.csv_recipe(self.source, self.recipe.data.limit), self._root, found.parent)
            shutil.copyfile(found, self.folder / "faces.parquet")

        self.run.stage("faces", inputs, ["faces.parquet"], work, ["faces"])

    def tower(self) -> None:
        """Train the vision tower."""
        self.faces()
        recipe = self.recipe

        def work() -> None:
            part = weights.part_folder("efficientnet-lite0")
            state = torch.load(next(part.rglob("*.pth")), weights_only=True)
            train_tower(recipe.tower, self.rows, self._root, self.folder, state, recipe.data.held, recipe.seed)

        self.run.stage("tower", self._inputs("faces.parquet", tower=recipe.tower, held=recipe.data.held),
                       ["tower.safetensors"], work, ["tower.state.pt"])  # fmt: skip

    def part(self, name: str) -> list[Row]:
        """The rows of a feature set: tune (tower and MLLM), val, mine (kept for MIDS)."""
        held = self.recipe.data.held
        if name == "val":
            return [r for r in self.rows if r.split == "val"]
        return [r for r in self.rows if r.split == "train" and held_for_mids(r, held) == (name == "mine")]

    def features(self) -> None:
        """Compute tower features and evidence of augmented crops."""
        self.tower()
        teach, held = self.recipe.teach, self.recipe.data.held
        variants = {"tune": teach.variants, "val": 1, "mine": self.recipe.mined_variants}

        def work() -> None:
            tower, heads = load_tower(self.folder / "tower.safetensors")
            for name in FEATURE_SETS:
                features.compute(
                    self.folder, name, tower, heads, self._root, self.part(name), range(variants[name]),
                    0.0 if name == "val" else teach.blend, self.recipe.seed, workers=self.recipe.tower.workers,
                )  # fmt: skip

        files = [f"{name}.{kind}" for name in FEATURE_SETS for kind in ("npy", "jsonl")]
        inputs = self._inputs("faces.parquet", "tower.safetensors", held=held, variants=variants, blend=teach.blend)
        self.run.stage("features", inputs, files, work, files)

    def conversations(self) -> None:
        """Write the conversations of the grounded teacher."""
        self.features()
        teach, names = self.recipe.teach, ("tune", "val")

        def work() -> None:
            ask = {label: hypothesis_prompt(label) for label in Label}
            for name in names:
                found = features.load(self.folder, name)[1]
                written = conversations(found, ask, teach.temperature, teach.resist, teach.contrary, self.recipe.seed)
                write_jsonl(self.folder / f"conversations-{name}.jsonl", written)

        self.run.stage("conversations", self._inputs(*(f"{n}.jsonl" for n in names), teach=teach, phrases=phrases()),
                       [f"conversations-{n}.jsonl" for n in names], work)  # fmt: skip

    def mllm(self) -> None:
        """Train the tokenizer and the MLLM."""
        self.conversations()
        recipe, out = self.recipe, self.folder / "mllm"

        def work() -> None:
            told = {
                n: list(read_jsonl(self.folder / f"conversations-{n}.jsonl", Conversation)) for n in ("tune", "val")
            }
            texts = [" " + format_answer(c.description, c.reasoning, c.label, c.probability, c.forgery_type)
                     for c in told["tune"]]  # fmt: skip
            prompts = [self.template.prompt(c.question) for c in told["tune"][:2000]]
            tokenizer = nano.train_tokenizer([*texts, *prompts], recipe.body.vocab_size)
            tower, _ = load_tower(self.folder / "tower.safetensors")
            torch.manual_seed(recipe.seed)
            model = nano.build(recipe.body, tokenizer, tower)
            data = {
                n: ConversationData(
                    told[n], features.load(self.folder, n)[0], range(len(told[n])), tokenizer, self.template
                )
                for n in told
            }
            log.info("MLLM: %d conversations, %.1f M parameters", len(told["tune"]), model.num_parameters() / 1e6)
            figures = train_mllm(recipe.mllm, model, tokenizer, data["tune"], data["val"], self.folder / "mllm-steps",
                                 recipe.seed)  # fmt: skip
            if recipe.hypothesis_phase:
                rows = hypothesis_rows([c.hypothesis for c in told["tune"]], recipe.seed)
                second = ConversationData(
                    [told["tune"][i] for i in rows],
                    features.load(self.folder, "tune")[0],
                    rows,
                    tokenizer,
                    self.template,
                )
                figures["hypothesis_phase"] = train_mllm(
                    recipe.hypothesis_phase, model, tokenizer, second, data["val"], self.folder / "mllm-steps-2",
                    recipe.seed,
                )  # fmt: skip
            model.half().save_pretrained(out)
            tokenizer.save_pretrained(out)
            (self.folder / "mllm.json").write_text(json.dumps(figures, indent=1))

        self.run.stage("mllm", self._inputs("conversations-tune.jsonl", body=recipe.body, mllm=recipe.mllm,
                                            second=recipe.hypothesis_phase),
                       ["mllm/model.safetensors"], work, ["mllm-steps", "mllm-steps-2"])  # fmt: skip

    def load_mllm(self) -> Mllm:
        model = LlavaForConditionalGeneration.from_pretrained(self.folder / "mllm", dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder / "mllm")
        return Mllm(model.eval(), tokenizer, self.template, AnswerConstraint(tokenizer, FREE_TOKENS))

    def mine(self) -> None:
        """Collect the MLLM's three answers to photos it has not seen, and to the validation photos."""
        self.mllm()

        def work() -> None:
            mllm = self.load_mllm()
            tuned = {r.sha256 for r in self.part("tune")}
            for name in ("val", "mine"):
                array, found = features.load(self.folder, name)
                mine(mllm, array, found, self.folder / f"mined-{name}.jsonl", tuned, phrases()["questions"],
                     self.recipe.seed)  # fmt: skip

        files = ["mined-val.jsonl", "mined-mine.jsonl"]
        inputs = self._inputs("mllm/model.safetensors", "val.jsonl", "mine.jsonl", questions=phrases()["questions"])
        self.run.stage("mine", inputs, files, work, files)

    def mids(self) -> None:
        """Train MIDS on the mined answers."""
        self.mine()

        def work() -> None:
            folder = weights.part_folder(TEXT_PART)
            encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
            tokens = AnswerTokens(AutoTokenizer.from_pretrained(folder), TEXT_MAX_TOKENS)
            tower, _ = load_tower(self.folder / "tower.safetensors")
            torch.manual_seed(self.recipe.seed)
            model = MIDS(encoder, tower, MIDSConfig(dim=encoder.config.hidden_size, image_dim=tower.config.hidden_size,
                                                    unfreeze=0))  # fmt: skip
            sets = {n: (features.load(self.folder, n)[0], list(read_jsonl(self.folder / f"mined-{n}.jsonl", Mined)))
                    for n in ("mine", "val")}  # fmt: skip
            figures = train_mids(self.recipe.mids, model, tokens, sets["mine"], sets["val"], self.recipe.seed)
            mids_checkpoint.save(model.half(), self.folder / "mids.safetensors")
            (self.folder / "mids.json").write_text(json.dumps(figures, indent=1))

        self.run.stage("mids", self._inputs("mined-mine.jsonl", "mined-val.jsonl", mids=self.recipe.mids),
                       ["mids.safetensors"], work)  # fmt: skip

    def pack(self, out: Path) -> None:
        """Put everything that runs into one model folder, in half precision, with hashes and a card."""
        self.mids()
        (out / "mllm").mkdir(parents=True, exist_ok=True)
        for file in (self.folder / "mllm").iterdir():
            shutil.copyfile(file, out / "mllm" / file.name)
        shutil.copyfile(self.folder / "mids.safetensors", out / "mids.safetensors")
        _, heads = load_tower(self.folder / "tower.safetensors")
        save_file({k: v.half() for k, v in heads.state_dict().items()}, out / "heads.safetensors")
        figures = json.loads((self.folder / "mids.json").read_text())
        card = weights.ModelConfig(
            name=self.recipe.name, template=self.template.name, image_size=224, constrained=True,
            heads="heads.safetensors", text_encoder=weights.PartRef(part=TEXT_PART), text_max_tokens=TEXT_MAX_TOKENS,
            temperature=figures["temperature"], licence="Apache-2.0",
            card="card.md" if (out / "card.md").exists() else None,
            trained_on=sorted({r.dataset for r in self.rows if r.split == "train"}),
            files={str(f.relative_to(out)): weights.sha256(f) for f in sorted(out.rglob("*"))
                   if f.is_file() and f.name != weights.MODEL_FILE},
        )  # fmt: skip
        (out / weights.MODEL_FILE).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _inputs(self, *files: str, **settings: Any) -> dict[str, Any]:
        hashes = {name: weights.sha256(self.folder / name) for name in files}
        plain = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in settings.items()}
        return {"seed": self.recipe.seed, **hashes, **plain}
