"""Training of a baseline: its published loss on the training rows, the checkpoint with the best validation AUC."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.utils.data import DataLoader, Subset

from ffaa import weights
from ffaa.baselines.base import Baseline, BaselineSettings, Batch
from ffaa.baselines.federated import choose_clients, federated_round, split_clients, split_clients_by
from ffaa.baselines.fedforgery import FedForgerySettings
from ffaa.baselines.recipe import BaselineRecipe, build_detector, load_start
from ffaa.baselines.samples import Samples, face_of
from ffaa.baselines.trained import CARD, WEIGHTS, BaselineCard, Validation, detector_scores, read_card
from ffaa.data import manifest
from ffaa.data.build import versions
from ffaa.data.manifest import Row
from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.files import write, write_state, write_tensors
from ffaa.types import Label

log = logging.getLogger(__name__)
STATE = "baseline.state.pt"
_LICENCE = "trained on {}; the terms of these collections hold for the weights too"
_NOT_IN_THE_RESULT = {"workers", "save_every"}


def train_baseline(
    recipe: BaselineRecipe, data: Path, out: Path, device: str = "auto", command: str = ""
) -> BaselineCard:
    """Train the recipe's baseline on the built set in `data`; writes `out`/baseline.safetensors and baseline.json.

    Nothing is done where they are there for the same recipe, rows and start; a killed training goes on from its last
    checkpoint and ends with the same weights. Rows of other splits than train and val are never read. device: 'auto',
    'cpu' or 'cuda'. Raises UsageError, InputError (rows that cannot be learnt from) and WeightsError (the start).
    """
    place = _device(device)
    file = data / recipe.data.manifest
    if file.suffix != ".parquet":
        raise UsageError(f"data.manifest '{recipe.data.manifest}' is no manifest.parquet; run `ffaa data build` first")
    rows = chosen_rows(recipe, manifest.read(file))
    if recipe.swap:
        weights.part_folder("face-mesh")  # before the first step, with the command that installs it
    known = weights.sha256(file)
    inputs = {"recipe": recipe.model_dump(mode="json", exclude=_NOT_IN_THE_RESULT), "manifest": known}
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    if (done := _finished(out, digest)) is not None:
        log.info("%s: up to date", out)
        return done
    training = _Training(recipe, file.parent, rows, out, place, digest)
    training.run()
    return training.finish({file.name: known}, command)


def chosen_rows(recipe: BaselineRecipe, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of train and val, of each label at most `data.limit`. Raises InputError where a label is missing."""
    found: dict[str, list[Row]] = {}
    rows = [row for row in rows if row.split != "train" or row.dataset not in recipe.data.without]
    for number, split in enumerate(("train", "val")):
        kept: list[int] = []
        for label in Label:
            of = [i for i, row in enumerate(rows) if row.split == split and row.label is label]
            if not of:
                raise InputError(
                    f"no {label.value} row in split {split}; a baseline needs both labels in train and val"
                )
            drawn = np.random.default_rng((recipe.seed, 10, number, list(Label).index(label))).permutation(len(of))
            kept += [of[i] for i in drawn[: recipe.data.limit]]
        found[split] = [rows[i] for i in sorted(kept)]
    return found


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The threshold in [0, 1] with the best balanced accuracy, and that accuracy; `score >= threshold` is fake.

    It lies halfway between two scores. truth: bool (N,), True fake, of both labels; scores: (N,) in [0, 1].
    """
    false_rate, true_rate, cuts = roc_curve(truth, scores, drop_intermediate=False)
    best = 1 + int(np.argmax((true_rate - false_rate)[1:]))  # the first cut calls nothing fake
    below = scores[scores < cuts[best]]
    cut = (cuts[best] + below.max()) / 2 if len(below) else cuts[best]
    return float(cut), float((1 + true_rate[best] - false_rate[best]) / 2)


class _Client(NamedTuple):
    """Of a federation. steps: in each round."""

    rows: list[Row]
    steps: int


class _Training:
    """One training: the detector, what was done so far, and the files to go on from."""

    def __init__(
        self, recipe: BaselineRecipe, root: Path, rows: dict[str, list[Row]], out: Path, device: str, digest: str
    ):
        self.recipe, self.root, self.rows, self.out, self.device, self.digest = recipe, root, rows, out, device, digest
        self.settings: BaselineSettings = recipe.settings
        torch.manual_seed(recipe.seed)
        self.model: Baseline = build_detector(recipe)
        if recipe.start is not None:
            load_start(self.model, recipe.start)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step, self.seconds, self.losses = 0, 0.0, list[float]()
        self.history: list[Validation] = []
        self.pending: dict[str, Any] = {}  # what a killed run was in the middle of
        self._resume()
        self._since = time.monotonic()

    def run(self) -> None:
        """Train to the end."""
        if isinstance(self.settings, FedForgerySettings):
            self._federated(self.settings)
        else:
            self._central()

    def _central(self) -> None:
        rows, recipe = self.rows["train"], self.recipe
        epoch = recipe.epoch_steps or self._pass(len(rows))
        total = self.settings.steps or epoch * (self.settings.epochs or 1)
        epochs, due = -(-total // epoch), recipe.evaluate_every or epoch
        samples = self._samples(rows, (recipe.seed,), total)
        optimizer = _optimizer(self.model, self.settings)
        if self.pending:
            optimizer.load_state_dict(self.pending["optimizer"])

        def after(done: int) -> None:
            if done % due == 0 or done == total:
                self._validate()
            elif done % recipe.save_every:
                return
            self._save(optimizer=optimizer.state_dict())

        log.info("%s: %d steps of %d, an epoch is %d", recipe.name, total, self.settings.batch, epoch)
        self._learn(
            self.model, optimizer, samples, self.step, lambda done: self.settings.rate_at(done // epoch, epochs), after
        )

    def _federated(self, settings: FedForgerySettings) -> None:
        rows, recipe, seed = self.rows["train"], self.recipe, self.recipe.seed
        if settings.held_by == "chance":
            held = split_clients(len(rows), settings.clients, seed)
        else:
            held = split_clients_by([row.dataset for row in rows], settings.clients)
        clients = [
            _Client([rows[i] for i in own], settings.local_epochs * (recipe.epoch_steps or self._pass(len(own))))
            for own in held
        ]
        rounds, due = settings.epochs or 1, recipe.evaluate_every or 1
        log.info("%s: %d rounds, steps of the clients %s", recipe.name, rounds, [one.steps for one in clients])
        for number in range(self.pending.get("round", 0), rounds):
            begun = {"round": number, "step": self.step, "losses": list(self.losses)}
            chosen = choose_clients(len(clients), settings.share, np.random.default_rng((seed, 11, number)))
            train = partial(self._client, begun, settings.rate_at(number, rounds), clients)
            federated_round(self.model, train, chosen, [len(one.rows) for one in clients])
            if (number + 1) % due == 0 or number + 1 == rounds:
                self._validate()
            self._save(round=number + 1)
            self._remove("client-*.pt")

    def _client(
        self, begun: dict[str, Any], rate: float, clients: Sequence[_Client], local: nn.Module, number: int
    ) -> None:
        """A client's training of its copy `local` in a round. begun: of the round. Its result is kept until the round
        ends, so that a killed round does not train it again."""
        assert isinstance(local, Baseline)
        client, first = clients[number], len(self.losses)
        file = self.out / f"client-{begun['round']}-{number}.pt"
        if file.is_file():
            kept = torch.load(file, weights_only=True, map_location="cpu")
            local.load_state_dict(kept["model"])
            self.losses += kept["losses"]
            self.step += client.steps
            return
        optimizer, done = _optimizer(local, self.settings), 0
        if self.pending.get("client") == number:
            local.load_state_dict(self.pending["local"])
            optimizer.load_state_dict(self.pending["optimizer"])
            done = self.pending["done"]
            self.losses += self.pending["own_losses"]
            self.step += done
        self.pending = {}

        def after(done: int) -> None:
            if done % self.recipe.save_every == 0 and done < client.steps:
                own = {"client": number, "done": done, "own_losses": self.losses[first:]}
                self._save(**begun, **own, local=local.state_dict(), optimizer=optimizer.state_dict())

        samples = self._samples(client.rows, (self.recipe.seed, begun["round"], number), client.steps)
        self._learn(local, optimizer, samples, done, lambda _: rate, after)
        write_state(file, {"model": local.state_dict(), "losses": self.losses[first:]})

    def _pass(self, count: int) -> int:
        """Steps that show all of `count` rows once."""
        if count < self.settings.batch:
            raise InputError(
                f"{count} rows to train on and a batch of {self.settings.batch}; set settings.batch lower or "
                "epoch_steps in the recipe"
            )
        return count // self.settings.batch

    def _samples(self, rows: list[Row], key: tuple[int, ...], steps: int) -> Samples:
        model, recipe = self.model, self.recipe
        return Samples(self.root, rows, recipe, model.image_size, model.preprocess, key, steps * self.settings.batch)

    def _learn(
        self,
        model: Baseline,
        optimizer: torch.optim.Optimizer,
        samples: Samples,
        done: int,
        rate: Callable[[int], float],
        after: Callable[[int], None],
    ) -> None:
        """All steps of `samples` but the first `done`. after: called with the steps done after each."""
        recipe, batch, device = self.recipe, self.settings.batch, torch.device(self.device)
        loader = DataLoader(
            Subset(samples, range(done * batch, len(samples))), batch_size=batch, num_workers=recipe.workers,
            pin_memory=device.type == "cuda", prefetch_factor=4 if recipe.workers else None,
        )  # fmt: skip
        for images in loader:
            moved = [part.to(device, non_blocking=True) for part in images]
            moved[0] = moved[0].contiguous(memory_format=torch.channels_last)
            # What the losses draw (noise, dropout, mixup) follows from the step, so that a resumed run draws the same.
            torch.manual_seed(int(np.random.default_rng((*samples.key, 2, done)).integers(2**63)))
            for group in optimizer.param_groups:
                group["lr"] = rate(done)
            model.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                loss, _ = model.loss(Batch(*moved))
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {loss.item()} at step {self.step + 1}; set settings.lr lower")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.settings.clip is not None:
                nn.utils.clip_grad_value_(model.parameters(), self.settings.clip)
            optimizer.step()
            self.step += 1
            done += 1
            self.losses.append(loss.item())
            if self.step % 50 == 0:
                log.info("step %d, loss %.4f, %.0f s", self.step, np.mean(self.losses[-50:]), self._seconds())
            after(done)

    def _validate(self) -> None:
        rows = self.rows["val"]
        scores = detector_scores(self.model.eval(), (face_of(self.root, row) for row in rows), self.device)
        if not np.isfinite(scores).all():
            raise InputError(f"scores are not finite after step {self.step}; set settings.lr lower")
        truth = np.array([row.label is Label.FAKE for row in rows])
        threshold, balanced = best_threshold(truth, scores)
        found = Validation(
            step=self.step, loss=float(np.mean(self.losses)) if self.losses else 0.0,
            auc=float(roc_auc_score(truth, scores)), acc=float(((scores >= 0.5) == truth).mean()),
            threshold=threshold, balanced_acc=balanced,
        )  # fmt: skip
        self.losses.clear()
        log.info("step %d: loss %.4f, val AUC %.4f, ACC %.4f", found.step, found.loss, found.auc, found.acc)
        if not self.history or found.auc > self._best().auc:
            state = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
            write_tensors(self.out / f"best-{self.step}.safetensors", state)
        self.history.append(found)

    def _best(self) -> Validation:
        return max(self.history, key=lambda found: found.auc)  # of equal ones the first

    # --- what a killed run leaves ------------------------------------------------------------------------------------

    def _save(self, **place: Any) -> None:
        """All that a resumed run needs; then the checkpoints that it does not name are removed."""
        history = json.dumps([found.model_dump() for found in self.history])
        about = {"digest": self.digest, "step": self.step, "seconds": self._seconds(), "history": history}
        write_state(self.out / STATE, {**about, "losses": self.losses, "model": self.model.state_dict(), **place})
        if self.history:
            self._remove("best-*.safetensors", but=f"best-{self._best().step}.safetensors")

    def _resume(self) -> None:
        file = self.out / STATE
        state = torch.load(file, weights_only=True, map_location="cpu") if file.is_file() else {}
        if state.get("digest") != self.digest:
            for pattern in (STATE, WEIGHTS, CARD, "best-*.safetensors", "client-*.pt"):
                self._remove(pattern)
            return
        self.model.load_state_dict(state["model"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.history = [Validation.model_validate(found) for found in json.loads(state["history"])]
        self.pending = state
        for old in self.out.glob("client-*.pt"):
            if old.name.split("-")[1] != str(state.get("round")):
                old.unlink()
        log.info("resumed after step %d", self.step + state.get("done", 0))

    def _remove(self, pattern: str, but: str = "") -> None:
        for old in self.out.glob(pattern):
            if old.name != but:
                old.unlink()

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def finish(self, data: dict[str, str], command: str) -> BaselineCard:
        """The best checkpoint under its own name, and the card."""
        chosen = self._best()
        best = self.out / f"best-{chosen.step}.safetensors"
        if best.is_file():  # else a killed run came as far as here
            best.replace(self.out / WEIGHTS)
        parameters = list(self.model.parameters())
        collections = ", ".join(sorted({row.dataset for row in self.rows["train"]} - {""})) or "unnamed photos"
        card = BaselineCard(
            name=self.model.name, inputs=self.digest, recipe=self.recipe.model_dump(mode="json"),
            seed=self.recipe.seed, image_size=self.model.image_size, parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad), steps=self.step,
            samples=self.step * self.settings.batch, seconds=round(self._seconds(), 1), chosen=chosen,
            validations=self.history, data=data,
            rows={split: dict(Counter(str(row.forgery_type) for row in rows)) for split, rows in self.rows.items()},
            device=self.device if self.device == "cpu" else torch.cuda.get_device_name(),
            versions=versions() | {name: version(name) for name in ("torch", "albumentations", "scikit-learn")},
            command=command, licence=self.recipe.licence or _LICENCE.format(collections),
            files={WEIGHTS: weights.sha256(self.out / WEIGHTS)},
        )  # fmt: skip
        write(self.out / CARD, (card.model_dump_json(indent=1) + "\n").encode())
        self._remove(STATE)
        return card


def _finished(out: Path, digest: str) -> BaselineCard | None:
    """The card of what was trained of the same inputs; None where there is none that is whole."""
    try:
        card = read_card(out)
    except WeightsError:
        return None
    return card if card.inputs == digest and not weights.verify_files(out, card.files) else None


def _optimizer(model: nn.Module, settings: BaselineSettings) -> torch.optim.Optimizer:
    learnt = [p for p in model.parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(learnt, momentum=settings.momentum, **common)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(learnt, **common)


def _device(name: str) -> str:
    there = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if there else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not there):
        raise UsageError(f"device '{name}' is not available; give auto, cpu{', cuda' if there else ''}")
    return name
