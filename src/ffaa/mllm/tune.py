"""Tuning a published-size LLaVA from images: LoRA in the language model, the projector at a rate of its own (Eq. 2).

Runs in one process, or in several that `accelerate launch` or `torchrun` started (DDP, FSDP, DeepSpeed). A step is the
same one in each case: its conversations follow from the seed, its loss is the mean over their answer tokens. Only the
main process writes.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import PartialState
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from transformers import AutoTokenizer, EarlyStoppingCallback, LlavaForConditionalGeneration, TrainingArguments
from transformers.integrations import TensorBoardCallback

from ffaa import weights
from ffaa.errors import MissingExtraError, UsageError, WeightsError
from ffaa.mllm.generate import Mllm
from ffaa.mllm.llava_import import import_llava
from ffaa.mllm.llava_tiny import Kind, write_tiny
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.told import ImageConversations
from ffaa.mllm.train import LoraArgs, MllmArgs, add_lora, collate
from ffaa.mllm.tune_trainer import Learner, TuneArgs, TuneTrainer

log = logging.getLogger(__name__)


def processes() -> PartialState:
    """This process among those that were launched together."""
    return PartialState(cpu=not torch.cuda.is_available())


class BaseArgs(BaseModel):
    """The checkpoint that is tuned, in the published LLaVA layout: one of hub, folder and random."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str | None = Field(None, description="repository on the Hugging Face hub")
    revision: str = Field("main", description="branch, tag or commit of the repository")
    folder: Path | None = Field(None, description="a checkpoint on disk")
    random: Kind | None = Field(None, description="tiny random weights, made on the spot: to try a recipe out")
    clip: str | None = Field(None, description="the part with the vision tower, where the checkpoint does not tell it")
    template: Literal["v1"] = "v1"

    @model_validator(mode="after")
    def _one(self) -> BaseArgs:
        if sum(value is not None for value in (self.hub, self.folder, self.random)) != 1:
            raise ValueError("name the base by one of hub, folder and random")
        return self

    def __str__(self) -> str:
        return f"{self.hub} at {self.revision}" if self.hub else str(self.folder or f"random {self.random}")


def find_base(base: BaseArgs, run: Path, seed: int) -> Path:
    """The folder of the base. One on the hub is fetched into the hub's cache, once, by the main process.

    Raises WeightsError for a folder that is not there and for a repository that cannot be fetched.
    """
    if base.folder is not None:
        if not (base.folder / "config.json").is_file():
            raise WeightsError(f"{base.folder} holds no config.json; base.folder names a checkpoint of LLaVA")
        return base.folder
    with processes().main_process_first():
        if base.random is not None:
            folder = run / f"base-{base.random}-{seed}"
            return folder if (folder / "tokenizer.json").is_file() else write_tiny(folder, base.random, seed)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(base.hub), revision=base.revision))
        except Exception as error:  # the hub's errors and those of the HTTP client below it share no base class
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise WeightsError(
                f"{base.hub} cannot be fetched ({reason}); check the network, or fetch it elsewhere and set base.folder"
            ) from error


def check_four_bit() -> None:
    """Raises UsageError without CUDA, MissingExtraError without bitsandbytes."""
    if not torch.cuda.is_available():
        raise UsageError("tune.four_bit needs a CUDA device; set it to false here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("tune.four_bit needs bitsandbytes; run: pip install bitsandbytes")


def in_four_bit(body: nn.Module) -> None:
    """Replace the linear layers of a language model by 4-bit ones (NF4); they are packed when they move to CUDA."""
    import bitsandbytes as bnb

    for module in list(body.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                packed = bnb.nn.Linear4bit(
                    layer.in_features, layer.out_features, layer.bias is not None, torch.bfloat16, quant_type="nf4"
                )
                packed.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
                packed.bias = layer.bias
                setattr(module, name, packed)
    body.__dict__["is_loaded_in_4bit"] = True  # peft asks


def load_learner(base: BaseArgs, folder: Path, args: MllmArgs, tune: TuneArgs, seed: int) -> tuple[Learner, Mllm]:
    """The base with fresh LoRA, everything but LoRA and projector frozen, and the same for generation."""
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    clip = weights.part_folder(base.clip) if base.clip else None
    model = import_llava(folder, clip, dtype, image_aspect_ratio="pad")
    model.requires_grad_(False)
    if tune.four_bit:
        in_four_bit(model.model.language_model)
    torch.manual_seed(seed)
    add_lora(model, args.lora or LoraArgs())
    # Small steps would be lost in bfloat16.
    model.model.multi_modal_projector.float().requires_grad_(True)
    if tune.checkpointing:
        body: Any = model.model.language_model.get_base_model()
        body.activation_checkpointing_enable({"use_reentrant": False})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise WeightsError(f"{folder}: the tokenizer has no start or end token; give the checkpoint's whole folder")
    return Learner(model), Mllm(model, tokenizer, TEMPLATES[base.template], max_new_tokens=tune.sample_tokens)


def image_of(model: LlavaForConditionalGeneration) -> tuple[int, int, int]:
    """(placeholder id, image tokens, side in pixels)."""
    config: Any = model.config
    return config.image_token_id, config.image_seq_length, config.vision_config.image_size


def accumulation(batch: int, per_device: int, processes: int) -> int:
    """Backward passes per step. Raises UsageError where a step cannot be divided evenly."""
    if batch % (per_device * processes):
        raise UsageError(
            f"mllm.batch {batch} is no multiple of tune.per_device {per_device} x {processes} processes; change one"
        )
    return batch // (per_device * processes)


class Tuned(NamedTuple):
    """trained: the values of the best step under the model's names. log: Trainer's history."""

    model: LlavaForConditionalGeneration
    trained: dict[str, Tensor]
    log: list[dict[str, Any]]
    steps: int
    eval_loss: float


def tune(
    args: MllmArgs,
    tune_args: TuneArgs,
    learner: Learner,
    mllm: Mllm,
    data: ImageConversations,
    evaluation: ImageConversations,
    out: Path,
    seed: int,
) -> Tuned:
    """Train LoRA and projector; goes on from the last checkpoint in `out`.

    Evaluates, writes sample answers beside `out` and saves every `args.save_steps` steps; ends with the weights of the
    lowest evaluation loss. Raises UsageError where what started the processes does not fit the settings.
    """
    process = processes()
    wanted, launched = "bf16" if args.bf16 else "no", os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and launched != wanted:
        raise UsageError(
            f"DeepSpeed was started with mixed precision '{launched}', mllm.bf16 is {str(args.bf16).lower()}: give "
            f"accelerate launch --mixed_precision {wanted}, or change the recipe"
        )
    many = accumulation(args.batch, tune_args.per_device, process.num_processes)
    settings = TrainingArguments(
        output_dir=str(out), num_train_epochs=args.epochs, per_device_train_batch_size=tune_args.per_device,
        per_device_eval_batch_size=tune_args.per_device, gradient_accumulation_steps=many, learning_rate=args.lr,
        lr_scheduler_type="cosine", warmup_steps=args.warmup, weight_decay=args.weight_decay, bf16=args.bf16,
        logging_steps=1, save_steps=args.save_steps, eval_strategy="steps", eval_steps=args.save_steps,
        save_total_limit=1, load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False,
        restore_callback_states_from_checkpoint=True, remove_unused_columns=False, report_to=[], seed=seed,
        data_seed=seed, use_cpu=not torch.cuda.is_available(), dataloader_num_workers=tune_args.workers,
        dataloader_pin_memory=torch.cuda.is_available(), ddp_find_unused_parameters=False, disable_tqdm=True,
        label_names=["labels"],
    )  # fmt: skip
    settings._n_gpu = min(settings.n_gpu, 1)  # several devices by several processes, not by Trainer's DataParallel
    callbacks: list[Any] = [EarlyStoppingCallback(tune_args.patience)]
    if process.is_main_process:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(out.parent / "tensorboard"))))
    pad = mllm.tokenizer.pad_token_id
    pad = mllm.tokenizer.eos_token_id if pad is None else pad
    trainer = TuneTrainer(
        learner, mllm, tune_args, args, settings, train_dataset=data, eval_dataset=evaluation,
        data_collator=lambda batch: collate(pad, batch), callbacks=callbacks,
    )  # fmt: skip
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UsageError("FSDP of version 1 cannot hold LoRA beside a frozen base; set fsdp_version: 2")
    if trainer.sharded and tune_args.samples:
        log.info("no sample answers: the model is divided over the processes")
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")))
    best = str(trainer.state.best_model_checkpoint)
    trained = {name.removeprefix("llava."): value for name, value in trainer.trained_state().items()}
    return Tuned(
        learner.llava, trained, trainer.state.log_history, int(best.rsplit("-", 1)[-1]),
        float(trainer.state.best_metric or 0.0),
    )  # fmt: skip
