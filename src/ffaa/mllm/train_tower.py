"""Training of the vision tower: label, forgery type and, where the mask is known, which cells were changed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from ffaa.data.crops import plain_face, read_photo, train_sample
from ffaa.data.manifest import Row, held_for_mids
from ffaa.files import write_state, write_tensors
from ffaa.mllm.precision import bf16_where_fast
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, Lite, lite_of, load_imagenet, pixel_tensor
from ffaa.mllm.tower_heads import TYPES, TowerHeads
from ffaa.types import Label

log = logging.getLogger(__name__)


class TowerArgs(BaseModel):
    """Settings of the tower's training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(3, ge=1, description="passes over as many samples as the training part holds")
    batch: int = Field(32, ge=2)
    lr: float = Field(1e-3, gt=0, description="peak learning rate; one cycle, cosine down to zero")
    pretrained: float = Field(1.0, gt=0, le=1, description="share of `lr` for what starts from ImageNet weights")
    weight_decay: float = Field(0.02, ge=0)
    blend: float = Field(0.25, ge=0, le=1, description="share of real photos turned into self-blended forgeries")
    decode: float = Field(0.0, ge=0, le=1, description="share of real photos that get the traces of a decoder")
    colours: float = Field(0.0, ge=0, le=1, description="share of samples that take on the look of another photo")
    blurred: float = Field(0.0, ge=0, le=1, description="share of samples whose fine detail is taken away")
    strength: float = Field(1.0, ge=0, le=2, description="of the augmentations that take traces away: their shares")
    together: bool = Field(False, description="one draw for all augmentations: half of the samples get none")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of weights that is kept; 0: none")
    imagenet_share: float = Field(
        0.0, ge=0, lt=1, description="of ImageNet's weights, in what they filled, put back once the tower has learnt"
    )
    without: list[str] = Field(default_factory=list, description="collections that the tower does not learn from")
    double: list[str] = Field(default_factory=list, description="collections whose real photos are drawn twice")
    start: Lite = Field("lite0", description="whose ImageNet weights fill it; another than lite0: `mids_towers`")
    after: TowerArgs | None = Field(None, description="settings of another tower of the recipe, which it goes on from")
    seed: int = Field(0, ge=0, description="added to the recipe's, for other draws than another tower's")
    bf16: bool = Field(True, description="bfloat16, where the processor has instructions for it")
    workers: int = Field(2, ge=0)
    save_every: int = Field(100, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def _leaves_real_photos(self) -> TowerArgs:
        if self.blend + self.decode >= 1:
            raise ValueError("blend and decode leave no real photo; together they must be below 1")
        return self

    @model_validator(mode="after")
    def _goes_on_from_its_like(self) -> TowerArgs:
        if self.after and (self.after.start != self.start or self.after.after):
            raise ValueError("`after` is a tower of the same `start`, and has none before it")
        return self


class _Samples(Dataset):
    """Sample i of the whole run: which row and which augmentation follow from (seed, i) alone, so a run can resume."""

    def __init__(self, root: Path, rows: list[Row], size: int, args: TowerArgs, seed: int, total: int):
        self.root, self.rows, self.size, self.args, self.seed, self.total = root, rows, size, args, seed, total

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> tuple[np.ndarray, float, int, np.ndarray]:
        epoch, place = divmod(index, len(self.rows))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        rng = np.random.default_rng((self.seed, 1, index))
        colours = self.rows[int(rng.integers(len(self.rows)))] if rng.random() < self.args.colours else None
        row, args = self.rows[order[place]], self.args
        sample = train_sample(
            self.root, row, self.size, rng, args.blend, args.decode, colours, args.strength, args.together,
            args.blurred,
        )  # fmt: skip
        return sample.image, float(sample.label is Label.FAKE), TYPES.index(sample.forgery_type), sample.mask


def _collate(batch: list[tuple[np.ndarray, float, int, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, fake, kind, mask = zip(*batch, strict=True)
    return pixel_tensor(list(images)), torch.tensor(fake), torch.tensor(kind), torch.from_numpy(np.stack(mask))


def tower_scores(
    tower: ForensicVisionModel, heads: TowerHeads, root: Path, rows: list[Row], batch: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Forgery scores (N,) in [0, 1] and type indices (N,) of the rows' test crops, by the tower alone."""
    tower.eval()
    scores, kinds = [], []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        pixels = pixel_tensor([plain_face(read_photo(root, r), r, tower.config.image_size).image for r in part])
        with torch.inference_mode():
            hidden = tower(pixels).hidden_states
            scores.append(heads.forgery_logit(hidden).sigmoid().numpy())
            kinds.append(heads.kind(hidden[1][:, 0]).argmax(1).numpy())
    return np.concatenate(scores), np.concatenate(kinds)


def _from_imagenet(name: str) -> bool:
    """Whether a tensor of tower and heads is one that ImageNet weights fill."""
    return name.startswith(("tower.stem.", "tower.stages.", "tower.head."))


def _groups(both: nn.ModuleDict, args: TowerArgs) -> list[dict[str, Any]]:
    """Parameters for the optimizer: no decay for vectors, another rate for what ImageNet weights fill."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in both.named_parameters():
        key = (_from_imagenet(name), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": part, "lr": args.lr * (args.pretrained if given else 1), "weight_decay": args.weight_decay * decays}
        for (given, decays), part in groups.items()
    ]


def imagenet_tower(
    state: Mapping[str, Tensor], seed: int, lite: Lite = "lite0"
) -> tuple[ForensicVisionModel, TowerHeads]:
    """A tower and its heads before any training: ImageNet weights, and what those lack random by the seed."""
    torch.manual_seed(seed)
    tower = ForensicVisionModel(ForensicVisionConfig(lite=lite))
    load_imagenet(tower, state)
    return tower, TowerHeads(tower.config.hidden_size)


def train_tower(
    args: TowerArgs,
    rows: list[Row],
    root: Path,
    out: Path,
    start: tuple[ForensicVisionModel, TowerHeads],
    held: float,
    seed: int,
    imagenet: Mapping[str, Tensor] | None = None,
) -> dict:
    """Train, checkpoint every `save_every` steps into `out`, resume from there; returns validation figures.

    start: the tower and heads to train, in place, as `imagenet_tower` or `load_tower` gives them. imagenet: state of
    such a tower before any training, for `args.imagenet_share`; None: that of `start`.
    Writes out/tower.safetensors (tower and heads of the epoch with the best validation AUC) and out/tower.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    tower, heads = start
    tower = tower.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # transformers wraps nn.Module.to
    train = [r for r in rows if r.split == "train" and not held_for_mids(r, held)]
    train = [r for r in train if r.dataset not in args.without]
    val = [r for r in rows if r.split == "val"]
    train += [r for r in train if r.dataset in args.double and r.label is Label.REAL]
    steps_per_epoch = len(train) // args.batch
    total = args.epochs * steps_per_epoch
    data = _Samples(root, train, tower.config.image_size, args, seed, total * args.batch)
    real = sum(r.label is Label.REAL for r in train) * (1 - args.blend - args.decode) / len(train)

    both = nn.ModuleDict({"tower": tower, "heads": heads})
    averaged = AveragedModel(both, multi_avg_fn=get_ema_multi_avg_fn(args.average), use_buffers=True)
    untrained = (imagenet or tower.state_dict()) if args.imagenet_share else {}
    begun = {f"tower.{name}": value.clone() for name, value in untrained.items()}
    optimizer = torch.optim.AdamW(_groups(both, args), lr=args.lr)

    def rate(step: int) -> float:
        warm = max(1, total // 20)
        return (
            (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    state_file, step, history = out / "tower.state.pt", 0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        both.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, history = state["step"], json.loads(state["history"])
        log.info("resumed at step %d of %d", step, total)

    def save() -> None:
        write_state(state_file, {
            "model": both.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(), "step": step, "history": json.dumps(history),
        })  # fmt: skip

    loader = DataLoader(
        torch.utils.data.Subset(data, range(step * args.batch, total * args.batch)), batch_size=args.batch,
        num_workers=args.workers, collate_fn=_collate, prefetch_factor=4 if args.workers else None,
    )  # fmt: skip
    bf16 = bf16_where_fast(args.bf16)
    started, running = time.time(), 0.0
    for pixels, fake, kind, mask in loader:
        both.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = tower(pixels.to(memory_format=torch.channels_last)).hidden_states
        loss = heads.loss(hidden, fake.float(), kind, mask, real)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(both)
        step += 1
        running += loss.item()
        if step % 50 == 0:
            log.info("step %d/%d loss %.3f, %.0f s", step, total, running / 50, time.time() - started)
            running = 0.0
        if step % steps_per_epoch == 0:
            kept: Any = _towards(begun, averaged.module, args.imagenet_share)
            scores, kinds = tower_scores(kept["tower"], kept["heads"], root, val)
            truth = np.array([r.label is Label.FAKE for r in val])
            figures = {
                "epoch": step // steps_per_epoch,
                "val_auc": float(roc_auc_score(truth, scores)),
                "val_acc": float(((scores > 0.5) == truth).mean()),
                "val_type_acc": float(np.mean([TYPES[k] is r.forgery_type for k, r in zip(kinds, val, strict=True)])),
            }
            log.info("%s", figures)
            if not history or figures["val_auc"] >= max(h["val_auc"] for h in history):
                write_tensors(out / "tower.safetensors", {k: v.contiguous() for k, v in kept.state_dict().items()})
            history.append(figures)
            save()
        elif step % args.save_every == 0:
            save()
    (out / "tower.json").write_text(json.dumps({"history": history, "steps": total, "seed": seed}, indent=1))
    return {"history": history}


def _towards(begun: Mapping[str, Tensor], learnt: nn.Module, share: float) -> nn.Module:
    """`learnt`; with a `share` a copy with so much of `begun` where ImageNet filled it (WiSE-FT, Wortsman 2022)."""
    if not share:
        return learnt
    mixed = {
        name: value.lerp(begun[name], share) if _from_imagenet(name) and value.is_floating_point() else value
        for name, value in learnt.state_dict().items()
    }
    copy = deepcopy(learnt)
    copy.load_state_dict(mixed)
    return copy


def average_towers(files: Sequence[Path], out: Path) -> None:
    """Write the mean of towers of `train_tower` that started from the same weights (model soup, Wortsman et al. 2022).

    Counters of batches are the first one's.
    """
    states = [load_file(file) for file in files]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    write_tensors(out, mean)


def load_tower(path: Path) -> tuple[ForensicVisionModel, TowerHeads]:
    """The tower and its heads from `train_tower`'s file, strict, in evaluation mode."""
    state = load_file(path)
    tower = ForensicVisionModel(ForensicVisionConfig(lite=lite_of(state, "tower.")))
    heads = TowerHeads(tower.config.hidden_size)
    nn.ModuleDict({"tower": tower, "heads": heads}).load_state_dict(state)
    return tower.eval(), heads.eval()
