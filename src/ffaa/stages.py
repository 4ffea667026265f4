"""The stages of a recipe, in order: faces, tower, features, conversations, MLLM, mining, MIDS, detail."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ffaa import __version__, weights
from ffaa.data import build, manifest
from ffaa.data.crops import plain_face, read_photo, train_sample
from ffaa.data.manifest import Row, held_for_mids
from ffaa.engine import FREE_TOKENS
from ffaa.errors import InputError, UsageError
from ffaa.mids import checkpoint as mids_checkpoint
from ffaa.mids import encoders
from ffaa.mids.eyes import Eyes
from ffaa.mids.fit_detail import RARE, blurred_odds, faces_to_fit, fit_detail
from ffaa.mids.images import CropImages, Crops, Images, Stored
from ffaa.mids.llava import LlavaSet
from ffaa.mids.model import MIDS
from ffaa.mids.report import report, table
from ffaa.mids.start import side_by_side, start_from_heads
from ffaa.mids.tokens import AnswerTokens
from ffaa.mids.train import STATE, TEXTS, Heads, train_mids
from ffaa.mllm import features
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import Mllm
from ffaa.mllm.mine import FromFeatures, Mined, Seen, mine, targets
from ffaa.mllm.mine_server import ServerArgs
from ffaa.mllm.template import ANCHOR_PROMPTS, TEMPLATES, hypothesis_prompt
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.train_nano import STEPS, Told, train_nano
from ffaa.mllm.train_tower import load_tower
from ffaa.recipe import Recipe, Run
from ffaa.tower_stages import Towers
from ffaa.types import Label
from ffaa.vqa.conversation import Conversation, read_jsonl, write_jsonl
from ffaa.vqa.export import VARIANTS
from ffaa.vqa.generate import conversations
from ffaa.vqa.prompting import questions
from ffaa.vqa.sentences import file_version

log = logging.getLogger(__name__)
TEXT_PART = "minilm-l6"
TEXT_MAX_TOKENS = 256
ANCHORS = (*ANCHOR_PROMPTS, *questions())
FEATURE_SETS = ("tune", "val", "mine")
DETAIL = "detail.json"
FITTED_ON, DETAIL_DRAWS = 240, 3  # validation faces, and how often each loses its fine detail
SCALED_BY = 256  # photos; how their features spread sets the scale of a start from the tower's heads
MINED = {"val": "mined-val.jsonl", "mine": "mined-mine.jsonl"}


class Stages:
    """The stages of `recipe` on the photos under `data`, writing into `folder`; `others`: see `Run`.

    texts: folder for MIDS's text features, which then stay there for other runs; default: removed after its training.
    at_once: what is done at the same time: towers, or the MLLM and towers of MIDS (`train_towers`, `towers_beside`).
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        folder: Path,
        others: Sequence[Path] = (),
        texts: Path | None = None,
        at_once: int = 1,
    ):
        self.recipe, self.folder, self.run, self._texts = recipe, folder, Run(folder, others), texts
        self.source = data / recipe.data.manifest
        self._towers = Towers(recipe, self._root, self.run, at_once)
        self.template = TEMPLATES["nano-2"]

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
        """Train the vision tower, or several, whose mean it is then."""
        self.faces()
        self._towers.shared()

    def mids_towers(self) -> list[str]:
        """Train the towers that MIDS has beside the MLLM's; returns their files in the run's folder."""
        if not self.recipe.mids_towers:
            return []
        self.tower()
        return self._towers.own()

    def part(self, name: str) -> list[Row]:
        """The rows of a feature set: tune (tower and MLLM), val, mine (kept for MIDS)."""
        held, without = self.recipe.data.held, self.recipe.teach.without
        if name == "val":
            return [r for r in self.rows if r.split == "val"]
        rows = [r for r in self.rows if r.split == "train" and r.dataset not in without]
        return [r for r in rows if held_for_mids(r, held) == (name == "mine")]

    def _augmented(self, name: str) -> tuple[float, float]:
        """The shares of a feature set that are self-blended, and that lose their fine detail."""
        teach = self.recipe.teach
        return (0.0, 0.0) if name == "val" else (teach.blend, teach.blurred)

    def features(self) -> None:
        """Compute tower features and evidence of augmented crops."""
        self.tower()
        teach, held = self.recipe.teach, self.recipe.data.held
        fewer: dict[str, Any] = {"without": teach.without} if teach.without else {}
        fewer |= {"blurred": teach.blurred} if teach.blurred else {}
        variants = {"tune": teach.variants, "val": 1, "mine": self.recipe.mined_variants}

        def work() -> None:
            tower, heads = load_tower(self.folder / "tower.safetensors")
            for name in FEATURE_SETS:
                blend, blurred = self._augmented(name)
                features.compute(
                    self.folder, name, tower, heads, self._root, self.part(name), range(variants[name]),
                    blend, self.recipe.seed, workers=self.recipe.tower.workers, blurred=blurred,
                )  # fmt: skip

        files = [f"{name}.{kind}" for name in FEATURE_SETS for kind in ("npy", "jsonl")]
        inputs = self._inputs(
            "faces.parquet", "tower.safetensors", held=held, variants=variants, blend=teach.blend, **fewer
        )
        self.run.stage("features", inputs, files, work, files)

    def conversations(self) -> None:
        """Write the conversations of the grounded teacher."""
        self.features()
        teach, names = self.recipe.teach, ("tune", "val")

        def work() -> None:
            ask = {label: hypothesis_prompt(label) for label in Label}
            for name in names:
                found = features.load(self.folder, name)[1]
                written = conversations(
                    found, ANCHORS, ask, teach.temperature, teach.resist, teach.contrary, self.recipe.seed
                )
                write_jsonl(self.folder / f"conversations-{name}.jsonl", written)

        sources = [f"{n}.jsonl" for n in names]
        inputs = self._inputs(*sources, teach=teach, sentences=file_version(), questions=ANCHORS)
        self.run.stage("conversations", inputs, [f"conversations-{n}.jsonl" for n in names], work)

    def mllm(self) -> None:
        """Train the tokenizer and the MLLM."""
        self.conversations()
        recipe, out, parts = self.recipe, self.folder / "mllm", VARIANTS[self.recipe.tune.variant]

        def work() -> None:
            learnt = {}
            for name in ("tune", "val"):
                told = list(read_jsonl(self.folder / f"conversations-{name}.jsonl", Conversation))
                rows = self._learnt(len(told)) if name == "tune" else list(range(len(told)))
                learnt[name] = Told([told[i] for i in rows], features.load(self.folder, name)[0], rows)
            tower, _ = load_tower(self.folder / "tower.safetensors")
            model, tokenizer, figures = train_nano(
                learnt["tune"], learnt["val"], tower, recipe.body, recipe.mllm, recipe.hypothesis_phase, self.template,
                parts, self.folder, recipe.seed,
            )  # fmt: skip
            model.half().save_pretrained(out)
            tokenizer.save_pretrained(out)
            (self.folder / "mllm.json").write_text(json.dumps(figures, indent=1))

        fewer: dict[str, Any] = {} if recipe.tune.variant == "All" else {"variant": recipe.tune.variant}
        if recipe.conversation_limit:
            fewer["limit"] = recipe.conversation_limit
        self.run.stage("mllm", self._inputs("conversations-tune.jsonl", "tower.safetensors", body=recipe.body,
                                            mllm=recipe.mllm, second=recipe.hypothesis_phase, **fewer),
                       ["mllm/model.safetensors", "mllm.json"], work, STEPS)  # fmt: skip

    def _learnt(self, count: int) -> list[int]:
        """The rows of the conversations that the MLLM is tuned on."""
        drawn = np.random.default_rng((self.recipe.seed, 13)).permutation(count)[: self.recipe.conversation_limit]
        return sorted(drawn.tolist())

    def load_mllm(self) -> Mllm:
        model = LlavaForConditionalGeneration.from_pretrained(self.folder / "mllm", dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder / "mllm")
        parts = VARIANTS[self.recipe.tune.variant]
        return Mllm(model.eval(), tokenizer, self.template, AnswerConstraint(tokenizer, FREE_TOKENS, parts))

    def mine(self, server: ServerArgs | None = None, tuned_on: Path | None = None) -> None:
        """Collect the MLLM's three answers to photos it has not seen, and to the validation photos.

        For a recipe with a base: `server` answers, else the tuned base does, here; `tuned_on` are rows that it was
        tuned on, see `LlavaSet.seen`.
        """
        anchors = list(ANCHORS)
        files = {name: self.folder / file for name, file in MINED.items()}
        if (llava := self._llava()) is not None:
            inputs = llava.inputs(server, tuned_on, anchors)
            work = partial(llava.mine, server, tuned_on, anchors, files)
        else:
            if server or tuned_on:
                raise UsageError(
                    f"the recipe '{self.recipe.name}' has no base; its MLLM is mined here, without a server"
                )
            if self.recipe.tune.variant != "All":
                raise UsageError(f"MIDS reads both texts; with tune.variant {self.recipe.tune.variant} there is none")
            self.mllm()
            inputs = self._inputs("mllm/model.safetensors", "val.jsonl", "mine.jsonl", questions=anchors)
            work = partial(self._mine_nano, anchors, files)

        def mined() -> None:
            work()
            for name, file in files.items():
                found = report(list(read_jsonl(file, Mined)), self.recipe.mids.keep_easy)
                (self.folder / f"mined-{name}.json").write_text(
                    found.model_dump_json(indent=1) + "\n", encoding="utf-8"
                )
                log.info("mined %s\n%s", name, table(found))

        self.run.stage("mine", inputs, list(MINED.values()), mined, list(MINED.values()))

    def _mine_nano(self, anchors: list[str], files: dict[str, Path]) -> None:
        mllm, seen = self.load_mllm(), Seen.of(self.part("tune"))
        if torch.cuda.is_available():
            moved: Any = mllm.model
            moved.to("cuda")
        for name, file in files.items():
            rows = self.part(name)
            array, found = features.load(self.folder, name)
            words = [f.words for f in found]
            faces = targets(rows, len(found) // len(rows), [f.label for f in found])
            mine(FromFeatures(mllm, array, words.__getitem__), faces, file, seen, anchors, self.recipe.seed)

    def _llava(self) -> LlavaSet | None:
        """The set of a recipe with a base: --data is its folder."""
        recipe, base = self.recipe, self.recipe.base
        if base is None:
            return None
        return LlavaSet(base, self._root, self.folder, recipe.data.held, recipe.seed, recipe.tune.variant)

    def mids(self) -> None:
        """Train MIDS on the mined answers; of a recipe with a base on those that `ffaa mine` left."""
        args, llava, seed = self.recipe.mids, self._llava(), self.recipe.seed
        if (args.from_heads or args.distil) and llava is not None:
            raise UsageError("mids.from_heads and mids.distil are for a nano; a recipe with a base has no heads")
        if llava is None:
            self.tower()
            with self._towers.own_beside():
                self.mine()
        elif missing := [file for file in MINED.values() if not (self.folder / file).is_file()]:
            raise InputError(f"{self.folder / missing[0]}: no such file; run `ffaa mine` first")
        out = self.folder / "mids.safetensors"
        kept = {name: self.folder / f"mids-{name}-images.npy" for name in MINED}
        own = self.mids_towers()
        eyes = ([] if llava else ["tower.safetensors"]) + own
        inputs = self._inputs(*MINED.values(), *eyes, mids=args)

        def work() -> None:
            (self.folder / DETAIL).unlink(missing_ok=True)
            text = encoders.text_encoder(args.text_encoder or (TEXT_PART if llava is None else "t5-base"))
            image = (
                encoders.clip_encoder(args.image_encoder or "clip-vit-l14-336") if llava else self._tower_encoder(own)
            )
            model, tokens = encoders.fresh(args, text, image, TEXT_MAX_TOKENS, seed)
            sets = {}
            for name, file in MINED.items():
                found = list(read_jsonl(self.folder / file, Mined))
                variants = args.variants if args.augment and name == "mine" else None
                images: Images
                if llava is None and not own and variants is None and not args.unfreeze:
                    images = Stored(features.load(self.folder, name)[0])
                else:
                    crops = llava.crops(name, image) if llava else self._tower_crops(name)
                    key = f"{inputs[file]} {image.about}"
                    images = CropImages(model, crops, [m.row for m in found], variants, seed, kept[name], key)
                sets[name] = (images, found)
            heads = None if llava else self._heads(own)
            if args.from_heads and heads:
                images, found = sets["mine"]
                few = images([m.row for m in found[:SCALED_BY]], 0)
                start_from_heads(model, *heads, few)
            figures = train_mids(args, model, tokens, sets["mine"], sets["val"], seed, self.folder, self._texts, heads)
            mids_checkpoint.save(model.half(), out)
            mids_checkpoint.save_card(
                out, model, settings=args.model_dump(), seed=seed, figures=figures,
                encoders={"text": text.about, "image": image.about},
                data={file: inputs[file] for file in MINED.values()}, command=shlex.join(["ffaa", *sys.argv[1:]]),
                versions=_versions(),
            )  # fmt: skip
            (self.folder / "mids.json").write_text(json.dumps(figures, indent=1))
            shutil.rmtree(self.folder / TEXTS, ignore_errors=True)
            for rest in unfinished:
                (self.folder / rest).unlink(missing_ok=True)

        unfinished = [STATE, *(f.with_suffix(end).name for f in kept.values() for end in (".npy", ".json"))]
        self.run.stage("mids", inputs, [out.name, "mids.json", "mids.card.json"], work, [*unfinished, TEXTS])

    def detail(self) -> None:
        """Fit what becomes of MIDS's opinion of faces without fine detail, on some validation faces."""
        self.mids()
        own = self.mids_towers()
        fit = (FITTED_ON, DETAIL_DRAWS, RARE, self._towers.blurred())
        inputs = self._inputs("mids.safetensors", "mids.json", MINED["val"], "tower.safetensors", *own, fit=fit)

        def work() -> None:
            mids, tokens = self.load_mids(self.load_mllm())
            temperature = json.loads((self.folder / "mids.json").read_text())["temperature"]
            rows = {r.sha256: r for r in self.part("val")}
            mined = read_jsonl(self.folder / MINED["val"], Mined)
            found = faces_to_fit(mined, self.recipe.mids.answers, FITTED_ON, self.recipe.seed)
            images = [plain_face(read_photo(self._root, rows[m.sha256]), rows[m.sha256], 224).image for m in found]
            heads = [load_tower(self.folder / name)[1] for name in ("tower.safetensors", *own)]
            odds, detail, told = blurred_odds(
                mids, tokens, temperature, images, found, DETAIL_DRAWS, self.recipe.seed, heads
            )
            fake = [m.label is Label.FAKE for m in found]
            correction, losses = fit_detail(odds, detail, fake, told, self._towers.blurred())
            about = {
                "correction": correction and correction.model_dump(), "faces": len(found), **losses, "inputs": inputs,
                "versions": _versions(), "command": shlex.join(["ffaa", *sys.argv[1:]]),
            }  # fmt: skip
            (self.folder / DETAIL).write_text(json.dumps(about, indent=1))

        self.run.stage("detail", inputs, [DETAIL], work)

    def load_mids(self, mllm: Mllm) -> tuple[MIDS, AnswerTokens]:
        """The run's MIDS, which looks through the tower of its MLLM too, and what splits answers for it."""
        text = encoders.text_encoder(self.recipe.mids.text_encoder or TEXT_PART)
        mids = mids_checkpoint.load(self.folder / "mids.safetensors", text.model, mllm.model.model.vision_tower)
        tokens = AnswerTokens(AutoTokenizer.from_pretrained(text.folder), TEXT_MAX_TOKENS, mids.config.masked)
        return mids.eval(), tokens

    def correction(self) -> weights.DetailCorrection | None:
        """What `detail` fitted; None where nothing was, or it made nothing better."""
        file = self.folder / DETAIL
        found = json.loads(file.read_text())["correction"] if file.is_file() else None
        return weights.DetailCorrection.model_validate(found) if found else None

    def _tower_encoder(self, own: list[str]) -> encoders.Encoder:
        if self.recipe.mids.image_encoder:
            raise UsageError("mids.image_encoder is for a recipe with a base; nano's MIDS sees through nano's tower")
        names = ["tower.safetensors", *own]
        shared, *others = (load_tower(self.folder / name)[0] for name in names)
        about = " ".join(f"{name} {weights.sha256(self.folder / name)}" for name in names)
        return encoders.Encoder(Eyes(shared, others).eval() if own else shared, self.folder, about)

    def _heads(self, own: list[str]) -> Heads:
        """The linear heads (last, previous) on what MIDS sees."""
        heads = [load_tower(self.folder / name)[1] for name in ("tower.safetensors", *own)]
        return side_by_side([h.last for h in heads]), side_by_side([h.previous for h in heads])

    def _tower_crops(self, name: str) -> Crops:
        """The crops that `features` saw, and the answers are about."""
        rows, (blend, blurred) = self.part(name), self._augmented(name)

        def image(i: int) -> np.ndarray:
            variant, place = divmod(i, len(rows))
            rng = np.random.default_rng((self.recipe.seed, 2, variant, place))
            return train_sample(self._root, rows[place], 224, rng, blend, blurred=blurred).image

        return Crops(image, lambda crop: pixel_tensor([crop]))

    def _inputs(self, *files: str, **settings: Any) -> dict[str, Any]:
        return self.run.inputs(self.recipe.seed, *files, **settings)


def _versions() -> dict[str, str]:
    about = {name: version(name) for name in ("torch", "transformers")}
    return about | {"ffaa": __version__, "python": sys.version.split()[0]}
