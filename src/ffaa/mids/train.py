"""Training of MIDS on mined answers, over text features that are computed once and images whose frozen part is."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ffaa.errors import InputError, UsageError
from ffaa.files import write_state
from ffaa.mids.balance import Balance, class_counts, class_weights, order, pair_labels
from ffaa.mids.decide import Decision, decide, difficulty
from ffaa.mids.encoder import Unfreeze
from ffaa.mids.images import Images
from ffaa.mids.model import MIDS, loss
from ffaa.mids.report import learnt
from ffaa.mids.texts import TextFeatures
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.mine import Mined
from ffaa.types import Difficulty, Label

log = logging.getLogger(__name__)
STATE = "mids.state.pt"
TEXTS = "mids-texts"


class MidsArgs(BaseModel):
    """The paper: 2 epochs, AdamW, lr 1e-4, weight decay 1e-5, batch 48, warm-up 3 %, Easy images left out, the last two
    layers of the image encoder trained (`unfreeze`), its augmentations (`augment`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(2, ge=1)
    batch: int = Field(48, ge=3, description="pairs; a third as many images")
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    keep_easy: bool = Field(False, description="also learn from images whose three answers agree")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    balance: Balance = Field("none", description="of lopsided classes: weights in the loss, or rare ones drawn oftener")
    augment: bool = Field(False, description="the paper's augmentations of the images")
    variants: int = Field(
        2, ge=0, description="augmented copies of an image that are computed once; 0: always new ones"
    )
    unfreeze: Unfreeze = Field(0, description="last blocks of the image encoder that are trained too, or 'all' of it")
    masked: bool = Field(True, description="MIDS reads description and reasoning alone; False: the result as well")
    self_attention: int = Field(3, ge=0, description="self-attention blocks before the classifier")
    text_encoder: str | None = Field(None, description="part or folder; default minilm-l6, for a base t5-base")
    image_encoder: str | None = Field(None, description="of a base: part or folder of a CLIP; default clip-vit-l14-336")
    from_heads: bool = Field(False, description="nano: start from the tower's linear heads instead of random weights")
    distil: float = Field(
        0.0, ge=0, lt=1, description="nano: share of the loss against the tower's opinion of the image, not its label"
    )
    one_answer: bool = Field(False, description="the anchor alone, without hypotheses; then no image is Easy")
    save_every: int = Field(200, ge=1, description="steps between two states that a killed run goes on from")

    @model_validator(mode="after")
    def _frozen_teacher(self) -> MidsArgs:
        if self.distil and self.unfreeze:
            raise ValueError("distil needs unfreeze 0: the teacher reads the layers that the tower was trained with")
        return self

    @property
    def answers(self) -> int:
        """Answers per image."""
        return 1 if self.one_answer else 3


Data = tuple[Images, Sequence[Mined]]
Heads = tuple[nn.Linear, nn.Linear]


@torch.no_grad()
def opinions(heads: Heads, layers: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """(N, 4) probabilities of Eq. 3's classes: an answer says what it says, whether the image is forged the heads say.

    heads, layers: (last, previous), C -> 1 and (B, 1 + P, C). labels (N,): classes of the pairs, N / B per image.
    """
    logit = sum(head(layer[:, 0].to(head.weight)) for head, layer in zip(heads, layers, strict=True)) / 2
    fake = logit[:, 0].sigmoid().repeat_interleave(len(labels) // len(logit))
    says_fake = functional.one_hot(labels % 2, 2)
    return torch.cat([says_fake * (1 - fake)[:, None], says_fake * fake[:, None]], 1)


@torch.no_grad()
def logits_of(mids: MIDS, texts: TextFeatures, images: Images, mined: Sequence[Mined], batch: int = 16) -> Tensor:
    """(N, A, 4) logits of mined answers, on the CPU. texts: features of their answers; A answers per image."""
    mids.eval()
    out = []
    for start in range(0, len(mined), batch):
        part = mined[start : start + batch]
        out.append(_logits(mids, texts, _layers(mids, images, part, 0), part).view(-1, texts.count, 4).cpu())
    return torch.cat(out)


def _layers(mids: MIDS, images: Images, part: Sequence[Mined], epoch: int) -> tuple[Tensor, Tensor]:
    device = mids.classifier.weight.device
    last, previous = images([m.row for m in part], epoch)
    return last.to(device), previous.to(device)


def _logits(mids: MIDS, texts: TextFeatures, layers: tuple[Tensor, Tensor], part: Sequence[Mined]) -> Tensor:
    features, mask = texts(part)
    return mids.classify(features.to(layers[0].device), mask.to(layers[0].device), mids.project(layers))


def decisions(logits: Tensor, mined: Sequence[Mined], temperature: float = 1.0) -> list[Decision]:
    """Eq. 1 for every image, over its first A answers; logits (N, A, 4)."""
    probabilities = (logits.double() / temperature).softmax(-1).numpy()
    return [decide(p, m.results[: logits.shape[1]]) for p, m in zip(probabilities, mined, strict=True)]


def fit_temperature(logits: Tensor, mined: Sequence[Mined]) -> float:
    """The temperature under which the forgery scores of the chosen answers have the lowest log loss."""
    truth = np.array([m.label is Label.FAKE for m in mined])
    best = (math.inf, 1.0)
    for temperature in np.geomspace(0.5, 8, 41):
        scores = np.array([d.forgery_score for d in decisions(logits, mined, float(temperature))])
        scores = scores.clip(1e-6, 1 - 1e-6)
        best = min(best, (float(-np.where(truth, np.log(scores), np.log(1 - scores)).mean()), float(temperature)))
    return round(best[1], 4)


def compare(found: Sequence[Decision], mined: Sequence[Mined]) -> dict[str, dict[str, float]]:
    """ACC of MIDS, of the anchor alone and of the majority of the answers, over all images, Easy and Hard ones.

    An answer that could not be read is no vote; where votes are level the anchor decides, or, unread, nothing is right.
    """
    out: dict[str, dict[str, float]] = {}
    for name in ("all", *Difficulty):
        part = [(d, m) for d, m in zip(found, mined, strict=True) if name == "all" or difficulty(m.results) is name]
        if not part:
            continue
        out[str(name)] = {
            "images": len(part),
            "mids": float(np.mean([d.label is m.label for d, m in part])),
            "anchor": float(np.mean([m.results[0] is m.label for _, m in part])),
            "majority": float(np.mean([majority(m.results) is m.label for _, m in part])),
        }
    return out


def majority(results: Sequence[Label | None]) -> Label | None:
    """What most answers say; where votes are level what the anchor, the first, says (None: unread, no vote)."""
    fake, real = (sum(r is label for r in results) for label in (Label.FAKE, Label.REAL))
    if fake == real:
        return results[0]
    return Label.FAKE if fake > real else Label.REAL


class _Progress:
    """Everything a killed training goes on from. One file, replaced at once; made for one set of inputs."""

    def __init__(self, folder: Path | None, key: str):
        self._file, self._key = folder / STATE if folder else None, key

    def load(self) -> dict[str, Any] | None:
        if self._file is None or not self._file.exists():
            return None
        state: dict[str, Any] = torch.load(self._file, weights_only=True)
        if state["key"] != self._key:
            raise InputError(f"{self._file}: of a training with other settings or data; remove it")
        return state

    def save(self, **state: Any) -> None:
        if self._file is not None:
            write_state(self._file, {"key": self._key, **state})


def _key(args: MidsArgs, mids: MIDS, seed: int, *sets: Sequence[Mined]) -> str:
    settings = args.model_dump(exclude={"save_every"})
    digest = hashlib.sha256(f"{settings} {mids.config.model_dump()} {seed}".encode())
    for mined in sets:
        for m in mined:
            digest.update(m.model_dump_json().encode())
    return digest.hexdigest()


def train_mids(
    args: MidsArgs,
    mids: MIDS,
    tokens: AnswerTokens,
    train: Data,
    val: Data,
    seed: int,
    folder: Path | None = None,
    texts_folder: Path | None = None,
    heads: Heads | None = None,
) -> dict[str, Any]:
    """Train in place; keeps the epoch with the best validation ACC. Returns history, counts, comparison, temperature.

    folder: keeps `STATE`, from which a killed run goes on to the same result. texts_folder: keeps text features on
    disk, for other trainings on the same answers too; default `TEXTS` in the folder. heads: the teacher of
    `args.distil`, linear heads C -> 1 on the CLS vectors of the image encoder's (last, previous) layer.
    """
    if args.distil and heads is None:
        raise UsageError("mids.distil needs the tower's heads")
    images, mined = train
    kept = learnt(mined, args.keep_easy, args.one_answer)
    if not kept:
        raise InputError("no image is left to learn from: all are Easy or unread; set keep_easy or mine more images")
    readable = [m for m in val[1] if any(m.results[: args.answers])]
    if not readable:
        raise InputError("no validation image has an answer that could be read; mine them again")
    labels = [pair_labels(m, args.answers) for m in kept]
    counts = class_counts(labels)
    unread = sum(None in m.results[: args.answers] for m in mined)
    log.info("MIDS: %d of %d images (%d unread), classes %s", len(kept), len(mined), unread, counts)
    place_of_texts = texts_folder or (folder / TEXTS if folder else None)
    texts, val_texts = (TextFeatures(mids, tokens, part, args.one_answer, place_of_texts) for part in (kept, readable))
    device = mids.classifier.weight.device
    weights = class_weights(counts).to(device) if args.balance == "weights" else None
    trained = [p for p in mids.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=args.weight_decay)
    per_step = max(1, args.batch // 3)
    total = args.epochs * math.ceil(len(kept) / per_step)
    warm = max(1, int(args.warmup * total))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, total - warm))),
    )
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"acc": -1.0, "state": {}}
    first, place, running = 0, 0, 0.0
    progress = _Progress(folder, _key(args, mids, seed, mined, val[1]))
    if (state := progress.load()) is not None:
        mids.load_trainable_state(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        history, best = state["history"], state["best"]
        first, place, running = state["epoch"], state["place"], state["running"]
        log.info("MIDS: goes on in epoch %d", first + 1)

    def save(epoch: int, place: int, running: float) -> None:
        progress.save(
            model=mids.trainable_state(), optimizer=optimizer.state_dict(), schedule=schedule.state_dict(),
            history=history, best=best, epoch=epoch, place=place, running=running,
        )  # fmt: skip

    for epoch in range(first, args.epochs):
        mids.train()
        drawn = order(labels, args.balance, seed, epoch)
        for start in range(place, len(kept), per_step):
            chosen = drawn[start : start + per_step]
            part = [kept[i] for i in chosen]
            layers = _layers(mids, images, part, epoch)
            logits = _logits(mids, texts, layers, part)
            target = torch.tensor([c for i in chosen for c in labels[i]], device=device)
            step = loss(logits, target, weights, args.label_smoothing)
            if args.distil and heads is not None:
                taught = functional.cross_entropy(logits, opinions(heads, layers, target), weights, reduction="none")
                step = (1 - args.distil) * step + args.distil * taught.mean()
            optimizer.zero_grad(set_to_none=True)
            step.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            running += step.item() * len(chosen)
            if (start // per_step + 1) % args.save_every == 0:
                save(epoch, start + per_step, running)
        found = decisions(logits_of(mids, val_texts, val[0], readable), readable)
        acc = sum(d.label is m.label for d, m in zip(found, readable, strict=True)) / len(val[1])
        history.append({"epoch": epoch + 1, "loss": running / len(kept), "val_acc": acc})
        log.info("%s", history[-1])
        if acc >= best["acc"]:
            state = {name: value.detach().cpu().clone() for name, value in mids.trainable_state().items()}
            best = {"acc": acc, "state": state, "epoch": epoch + 1}
        place, running = 0, 0.0
        save(epoch + 1, 0, 0.0)
    mids.load_trainable_state(best["state"])
    logits = logits_of(mids, val_texts, val[0], readable)
    temperature = fit_temperature(logits, readable)
    return {
        "history": history,
        "best_epoch": best["epoch"],
        "images": len(kept),
        "images_mined": len(mined),
        "images_unread": unread,
        "val_unread": len(val[1]) - len(readable),
        "classes": {str(c): n for c, n in enumerate(counts) if n},
        "compared": compare(decisions(logits, readable, temperature), readable),
        "temperature": temperature,
    }
