"""The Trainer that tunes a LLaVA: only what is trained is kept, batches are of like length, answers are sampled.

It works on a whole model in each process, and on one that FSDP or DeepSpeed divides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import Sampler
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from ffaa.errors import WeightsError
from ffaa.files import write_tensors
from ffaa.mllm.generate import Mllm
from ffaa.mllm.llava_import import image_features
from ffaa.mllm.train import MllmArgs, answer_loss, parameter_groups
from ffaa.vqa.export import Variant

TRAINED = "trained.safetensors"
SAMPLES = "samples.txt"


class TuneArgs(BaseModel):
    """What tuning from images needs beside `MllmArgs`. Its `batch` is the whole step's, over all processes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant = Field("All", description="Fig. 3: which texts the learnt answers hold")
    per_device: int = Field(4, ge=1, description="conversations at once; the rest of a batch is accumulated")
    max_tokens: int = Field(2048, ge=64, description="longer conversations are refused")
    checkpointing: bool = Field(True, description="compute activations again instead of keeping them")
    four_bit: bool = Field(False, description="the frozen language model in 4 bits (bitsandbytes, CUDA only)")
    workers: int = Field(4, ge=0, description="processes that read images")
    evaluate_rows: int = Field(200, ge=1, description="at most so many validation conversations an evaluation")
    samples: int = Field(2, ge=0, description="answers written at each evaluation")
    sample_tokens: int = Field(512, ge=1)
    patience: int = Field(3, ge=1, description="evaluations without a better loss that end the training")


class Learner(nn.Module):
    """LLaVA as wrappers for several devices see it: `forward` is the loss."""

    accepts_loss_kwargs = True  # Trainer hands over the answer tokens of the whole step

    def __init__(self, llava: LlavaForConditionalGeneration):
        super().__init__()
        self.llava = llava
        layers: Any = llava.model.language_model.get_base_model().layers
        self._no_split_modules = [type(layers[0]).__name__]  # what FSDP wraps

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        pixel_values: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return {"loss": answer_loss(self.llava, inputs | {"pixel_values": pixel_values}, num_items_in_batch)}


class ByLength(Sampler[int]):
    """A seeded order in which conversations of one batch are about as long as each other, another one every epoch."""

    def __init__(self, lengths: list[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from get_length_grouped_indices(self.lengths, self.batch, generator=generator)


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


class TuneTrainer(Trainer):
    """Trainer that keeps only what is trained, orders by length whatever the number of processes, and samples."""

    def __init__(
        self, learner: Learner, mllm: Mllm, tune: TuneArgs, args: MllmArgs, settings: TrainingArguments, **rest: Any
    ):
        super().__init__(learner, settings, **rest)
        self._names = {name for name, p in learner.named_parameters() if p.requires_grad}
        self.mllm, self.tune, self.mllm_args = mllm, tune, args

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _own(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = parameter_groups(model or self._own(), self.mllm_args)
            self.optimizer = torch.optim.AdamW(groups, self.mllm_args.lr, weight_decay=self.mllm_args.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        data: Any = train_dataset or self.train_dataset
        return ByLength(data.lengths, self.mllm_args.batch, self.args.seed)

    def trained_state(self) -> dict[str, Tensor]:
        """The trained parameters, whole, on the CPU. Every process must ask: each may hold a part of them."""
        self._divide()
        found = {name: p for name, p in self._own().named_parameters() if name in self._names}
        with self._gathered(list(found.values())):
            return {name: _whole(p.detach()).cpu().contiguous().clone() for name, p in found.items()}

    def _divide(self) -> None:
        """After an evaluation FSDP's outermost parameters are still whole, and not those that the optimizer knows."""
        for module in self._own().modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        if not self.is_deepspeed_enabled:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(parameters)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        state = self.trained_state()
        if self.args.should_save:
            write_tensors(Path(output_dir or str(self.args.output_dir)) / TRAINED, state)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        # Trainer would write the whole model beside the optimizer.
        self._divide()
        save_fsdp_optimizer(
            self.accelerator.state.fsdp_plugin, self.accelerator, self.optimizer, self.model, output_dir
        )
        if self.args.should_save:
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), Path(output_dir) / "scheduler.pt")
        return None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        found = load_file(Path(resume_from_checkpoint) / TRAINED)
        if found.keys() != self._names:
            raise WeightsError(f"{resume_from_checkpoint} is of another model; remove it to start anew")
        self._divide()
        parameters = dict((model or self._own()).named_parameters())
        with torch.no_grad():
            for name, value in found.items():
                target = parameters[name]
                if isinstance(target, DTensor):
                    value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
                target.copy_(value)

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = super().evaluate(*args, **kwargs)
        if self.is_world_process_zero() and self.tune.samples and not self.sharded:
            self._write_samples(metrics["eval_loss"])
        return metrics

    @torch.inference_mode()
    def _write_samples(self, loss: float) -> None:
        data: Any = self.eval_dataset
        lines = [f"== step {self.state.global_step}, evaluation loss {loss:.4f}"]
        model = self.mllm.model.eval()
        every = max(1, len(data) // self.tune.samples)
        device = self.args.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.args.bf16):
            for place in range(0, every * min(self.tune.samples, len(data)), every):
                told, row = data.asked[place]
                pixels = data.pixels(place)[None].to(device, model.model.vision_tower.dtype)
                ((answer,),) = self.mllm.generate(image_features(model, pixels), [{}], [told.question])
                lines += [f"-- {row.path} ({row.label.value}, {row.forgery_type.value})", told.question, answer]
        text = "\n".join(lines) + "\n"
        with (Path(str(self.args.output_dir)).parent / SAMPLES).open("a", encoding="utf-8") as file:
            file.write(text)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer:
                callback.tb_writer.add_text("samples", text.replace("\n", "  \n"), self.state.global_step)
