"""Training of MIDS on mined answers, over cached features of the frozen image encoder."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ffaa.errors import InputError
from ffaa.mids.decide import Decision, decide, difficulty
from ffaa.mids.label import pair_label
from ffaa.mids.model import MIDS, loss
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.mine import Mined
from ffaa.types import Difficulty, Label

log = logging.getLogger(__name__)


class MidsArgs(BaseModel):
    """The paper: 2 epochs, AdamW, lr 1e-4, weight decay 1e-5, batch 48, warm-up 3 %, Easy images left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(2, ge=1)
    batch: int = Field(48, ge=3, description="pairs; a third as many images")
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    keep_easy: bool = Field(False, description="also learn from images whose three answers agree")
    label_smoothing: float = Field(0.0, ge=0, lt=1)


def image_pair(features: np.ndarray, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Cached (previous, last) features -> (last, previous), float32, as MIDS.project wants them."""
    part = torch.from_numpy(np.array(features[list(rows)])).float()
    return part[:, 1], part[:, 0]


class TextFeatures:
    """The frozen text encoder's output for every answer, computed once and kept in half precision."""

    def __init__(self, mids: MIDS, tokens: AnswerTokens, mined: Sequence[Mined], batch: int = 16):
        self._kept: dict[int, list[Tensor]] = {}
        for start in range(0, len(mined), batch):
            part = mined[start : start + batch]
            ids, mask = tokens([a for m in part for a in m.answers])
            encoded = [f[k.bool()].half() for f, k in zip(mids.encode_text(ids, mask), mask, strict=True)]
            for place, m in enumerate(part):
                self._kept[m.row] = encoded[3 * place : 3 * place + 3]

    def __call__(self, part: Sequence[Mined]) -> tuple[Tensor, Tensor]:
        """(features (3 B, T, d) float32, mask (3 B, T)) of some of the records, padded to the longest answer."""
        found = [f for m in part for f in self._kept[m.row]]
        mask = pad_sequence([torch.ones(len(f), dtype=torch.long) for f in found], batch_first=True)
        return pad_sequence([f.float() for f in found], batch_first=True), mask


@torch.no_grad()
def logits_of(
    mids: MIDS,
    tokens: AnswerTokens,
    features: np.ndarray,
    mined: Sequence[Mined],
    batch: int = 16,
    texts: TextFeatures | None = None,
) -> Tensor:
    """(N, 3, 4) logits of mined answers. texts: their text features, where they are computed already."""
    mids.eval()
    texts = texts or TextFeatures(mids, tokens, mined)
    out = []
    for start in range(0, len(mined), batch):
        part = mined[start : start + batch]
        projected = mids.project(image_pair(features, [m.row for m in part]))
        out.append(mids.classify(*texts(part), projected).view(len(part), 3, 4))
    return torch.cat(out)


def decisions(logits: Tensor, mined: Sequence[Mined], temperature: float = 1.0) -> list[Decision]:
    """Eq. 1 for every image."""
    probabilities = (logits.double() / temperature).softmax(-1).numpy()
    return [decide(p, m.results) for p, m in zip(probabilities, mined, strict=True)]


def fit_temperature(logits: Tensor, mined: Sequence[Mined]) -> float:
    """The temperature under which the forgery scores of the chosen answers have the lowest log loss."""
    truth = np.array([m.label is Label.FAKE for m in mined])
    best = (math.inf, 1.0)
    for temperature in np.geomspace(0.5, 8, 41):
        scores = np.array([d.forgery_score for d in decisions(logits, mined, float(temperature))])
        scores = scores.clip(1e-6, 1 - 1e-6)
        best = min(best, (float(-np.where(truth, np.log(scores), np.log(1 - scores)).mean()), float(temperature)))
    return round(best[1], 4)


def train_mids(
    args: MidsArgs,
    mids: MIDS,
    tokens: AnswerTokens,
    train: tuple[np.ndarray, Sequence[Mined]],
    val: tuple[np.ndarray, Sequence[Mined]],
    seed: int,
) -> dict[str, Any]:
    """Train in place; keeps the epoch with the best validation ACC. Returns history, counts and temperature."""
    torch.manual_seed(seed)
    features, mined = train
    usable = [m for m in mined if None not in m.results]
    kept = [m for m in usable if args.keep_easy or difficulty(m.results) is Difficulty.HARD]
    if not kept:
        raise InputError("no image is left to learn from: all are Easy; set keep_easy or mine more images")
    labels = {id(m): [pair_label(m.label, r) for r in m.results if r] for m in kept}
    counts = Counter(c for m in kept for c in labels[id(m)])
    log.info("MIDS: %d of %d images (%d unparsed), classes %s", len(kept), len(mined), len(mined) - len(usable), counts)
    texts, val_texts = TextFeatures(mids, tokens, kept), TextFeatures(mids, tokens, val[1])
    trained = [p for p in mids.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=args.weight_decay)
    images = max(1, args.batch // 3)
    total = args.epochs * math.ceil(len(kept) / images)
    warm = max(1, int(args.warmup * total))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / max(1, total - warm))),
    )
    truth = np.array([m.label is Label.FAKE for m in val[1]])
    history: list[dict[str, float]] = []
    best: tuple[float, dict[str, Tensor]] = (-1.0, {})
    for epoch in range(args.epochs):
        mids.train()
        order = np.random.default_rng((seed, 5, epoch)).permutation(len(kept))
        running = 0.0
        for start in range(0, len(kept), images):
            part = [kept[i] for i in order[start : start + images]]
            projected = mids.project(image_pair(features, [m.row for m in part]))
            logits = mids.classify(*texts(part), projected)
            target = torch.tensor([c for m in part for c in labels[id(m)]])
            if args.label_smoothing:
                step = torch.nn.functional.cross_entropy(logits, target, label_smoothing=args.label_smoothing)
            else:
                step = loss(logits, target)
            optimizer.zero_grad(set_to_none=True)
            step.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            running += step.item() * len(part)
        found = decisions(logits_of(mids, tokens, *val, texts=val_texts), val[1])
        acc = float(np.mean(np.array([d.label is Label.FAKE for d in found]) == truth))
        history.append({"epoch": epoch + 1, "loss": running / len(kept), "val_acc": acc})
        log.info("%s", history[-1])
        if acc >= best[0]:
            best = (acc, copy.deepcopy(mids.trainable_state()))
    mids.load_trainable_state(best[1])
    return {
        "history": history,
        "images": len(kept),
        "images_mined": len(mined),
        "classes": {str(k): v for k, v in sorted(counts.items())},
        "temperature": fit_temperature(logits_of(mids, tokens, *val, texts=val_texts), val[1]),
    }
