"""Training of the MLLM on conversations (Eq. 2): what all training shares, and nano's, from precomputed features.

The published sizes are tuned from images: `ffaa.mllm.tune`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments

from ffaa.errors import UsageError
from ffaa.mllm.answer import TEXT_SECTIONS, format_answer
from ffaa.mllm.llava_import import image_features
from ffaa.mllm.precision import bf16_where_fast
from ffaa.mllm.template import ChatTemplate
from ffaa.vqa.conversation import Conversation

IGNORED = -100


class LoraArgs(BaseModel):
    """LoRA on all linear layers of the language model (the paper: rank 32, alpha 48)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(32, ge=1)
    alpha: int = Field(48, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class MllmArgs(BaseModel):
    """Settings of the fine-tuning. `lora` None trains the whole body, as a body without pretraining needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(3, gt=0)
    batch: int = Field(16, ge=1)
    lr: float = Field(1e-4, gt=0)
    projector_lr: float = Field(2e-5, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    lora: LoraArgs | None = LoraArgs()
    bf16: bool = Field(True, description="bfloat16; a nano's only where the processor has instructions for it")
    save_steps: int = Field(100, ge=1)


def encode(
    tokenizer: Any,
    template: ChatTemplate,
    conversation: Conversation,
    image_tokens: int,
    texts: Collection[str] = TEXT_SECTIONS,
) -> tuple[list[int], list[int]]:
    """(input ids, labels) of one conversation: labels are -100 everywhere but on the answer's tokens (Eq. 2).

    texts: which of its two texts the answer holds.
    """
    answer = format_answer(
        conversation.description, conversation.reasoning, conversation.label, conversation.probability,
        conversation.forgery_type, texts,
    )  # fmt: skip
    return encode_answer(tokenizer, template, conversation.question, conversation.evidence, answer, image_tokens)


def encode_answer(
    tokenizer: Any,
    template: ChatTemplate,
    question: str,
    evidence: dict[str, str],
    answer: str,
    image_tokens: int,
    image_id: int | None = None,
) -> tuple[list[int], list[int]]:
    """As `encode`, from the texts. image_id: stands where the image is; None: the template's own token's.

    Prompt and answer become tokens together, as they stand: apart, some tokenizers put a space of their own before the
    answer. Raises UsageError for a tokenizer that joins the prompt's end and the answer into one token.
    """
    shared, own = prompt_ids(tokenizer, template, question, evidence, image_tokens, image_id)
    text = template.split(question)[1] + template.answered(answer, tokenizer.eos_token)
    both = tokenizer(text, add_special_tokens=False).input_ids
    if both[: len(own)] != own:
        raise UsageError(
            f"the tokenizer joins the end of the prompt ({template.assistant_prefix!r}) and the answer; "
            "choose a template that ends where a token does"
        )
    return shared + both, [IGNORED] * (len(shared) + len(own)) + both[len(own) :]


def prompt_ids(
    tokenizer: Any,
    template: ChatTemplate,
    question: str,
    evidence: dict[str, str],
    image_tokens: int,
    image_id: int | None = None,
) -> tuple[list[int], list[int]]:
    """(ids that every question shares: start, image placeholders, measured words; ids of this question)."""
    before, after = template.split(question)
    image = tokenizer.convert_tokens_to_ids(template.image_token) if image_id is None else image_id
    shared = [tokenizer.bos_token_id, *tokenizer(before, add_special_tokens=False).input_ids]
    shared += [image] * image_tokens
    shared += tokenizer(template.measured(evidence), add_special_tokens=False).input_ids
    return shared, tokenizer(after, add_special_tokens=False).input_ids


class ConversationData(Dataset):
    """Encoded conversations, each with the frozen tower's features of its image, (tokens, C)."""

    def __init__(
        self, conversations: Sequence[Conversation], features: np.ndarray, rows: Sequence[int], tokenizer: Any,
        template: ChatTemplate, texts: Collection[str] = TEXT_SECTIONS,
    ):  # fmt: skip
        self.encoded = [encode(tokenizer, template, c, features.shape[-2], texts) for c in conversations]
        self.features, self.rows = features, rows

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, labels = self.encoded[index]
        features = torch.from_numpy(np.array(self.features[self.rows[index], -1]))
        return {"input_ids": ids, "labels": labels, "features": features, "length": len(ids)}


def collate(pad: int, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Right-padded batch: input_ids, labels, attention_mask (B, T); features (B, tokens, C) or pixel_values
    (B, 3, S, S), whichever the examples have."""
    seen = "features" if "features" in batch[0] else "pixel_values"
    longest = max(len(b["input_ids"]) for b in batch)
    return {
        "input_ids": torch.tensor([b["input_ids"] + [pad] * (longest - len(b["input_ids"])) for b in batch]),
        "labels": torch.tensor([b["labels"] + [IGNORED] * (longest - len(b["labels"])) for b in batch]),
        "attention_mask": torch.tensor(
            [[1] * len(b["input_ids"]) + [0] * (longest - len(b["input_ids"])) for b in batch]
        ),
        seen: torch.stack([b[seen] for b in batch]),
    }


class MllmTrainer(Trainer):
    """Trainer that puts projected, precomputed tower features where the image tokens stand."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = answer_loss(model, inputs)
        return (loss, {"loss": loss}) if return_outputs else loss

    # transformers renames LLaVA's tensors when it saves, not when it resumes, and only warns of missing ones.
    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        save_model(model, str(folder / "model.safetensors"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target: Any = model or self.model
        load_model(target, Path(resume_from_checkpoint) / "model.safetensors", strict=True)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            return answer_loss(model, self._prepare_inputs(inputs)).detach(), None, None


def answer_loss(model: Any, inputs: dict[str, Tensor], items: Tensor | int | None = None) -> Tensor:
    """Cross-entropy over the answer tokens of a batch from `collate` (Eq. 2): their mean, or, with `items`, their sum
    divided by it (the answer tokens of all batches that make up one step)."""
    ids = inputs["input_ids"]
    if "features" in inputs:
        projected = model.model.multi_modal_projector(inputs["features"].to(model.lm_head.weight.dtype))
    else:
        projected = image_features(model, inputs["pixel_values"].to(model.model.vision_tower.dtype))
    embeds = model.get_input_embeddings()(ids.clamp(min=0))  # the published placeholder is negative
    image = (ids == model.config.image_token_id).unsqueeze(-1)
    embeds = embeds.masked_scatter(image, projected.to(embeds.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeds, attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    targets = inputs["labels"][:, 1:]
    kept = targets != IGNORED
    # The head only where an answer token follows: most of a prompt is image.
    logits = model.lm_head(hidden[:, :-1][kept]).float()
    if items is None:
        return F.cross_entropy(logits, targets[kept])
    return F.cross_entropy(logits, targets[kept], reduction="sum") / items


def add_lora(model: LlavaForConditionalGeneration, args: LoraArgs) -> None:
    """LoRA on every linear layer of the language model; the rest of the body is frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=args.r, lora_alpha=args.alpha, lora_dropout=args.dropout, target_modules="all-linear")
    model.model.language_model = get_peft_model(model.model.language_model, config)
    model.lm_head.requires_grad_(False)


def parameter_groups(model: nn.Module, args: MllmArgs) -> list[dict[str, Any]]:
    """The projector and the rest of what is trained, in a fixed order: an optimizer's state is found by place."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if "multi_modal_projector" in name], "lr": args.projector_lr},
        {"params": [p for name, p in named if "multi_modal_projector" not in name], "lr": args.lr},
    ]


def train_mllm(
    args: MllmArgs,
    model: LlavaForConditionalGeneration,
    tokenizer: Any,
    data: ConversationData,
    evaluation: ConversationData,
    out: Path,
    seed: int,
) -> dict[str, Any]:
    """Train projector and language model (the tower is frozen); resumes from the last checkpoint in `out`.

    Returns the Trainer's log history. LoRA weights are merged into the body at the end.
    """  # fmt: skip
    model.model.vision_tower.requires_grad_(False)
    if args.lora:
        add_lora(model, args.lora)
    optimizer = torch.optim.AdamW(parameter_groups(model, args), lr=args.lr, weight_decay=args.weight_decay)
    settings = TrainingArguments(
        output_dir=str(out), num_train_epochs=args.epochs, per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=args.batch, learning_rate=args.lr, lr_scheduler_type="cosine",
        warmup_steps=args.warmup, bf16=bf16_where_fast(args.bf16), logging_steps=25, save_steps=args.save_steps,
        save_total_limit=1, eval_strategy="epoch", train_sampling_strategy="group_by_length",
        length_column_name="length", remove_unused_columns=False, report_to=[], seed=seed, data_seed=seed,
        use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = MllmTrainer(
        model=model, args=settings, train_dataset=data, eval_dataset=evaluation,
        data_collator=lambda batch: collate(tokenizer.pad_token_id, batch), optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")))
    if args.lora:
        model.model.language_model = model.model.language_model.merge_and_unload()
    return {"log": trainer.state.log_history}
