"""MIDS: a text encoder, an image encoder, their fusion and a classifier over the four classes of Eq. 3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ffaa.errors import UsageError, WeightsError
from ffaa.mids.encoder import Unfreeze, saved_names, trained_names
from ffaa.mids.fusion import AttentionBlock, DualCrossAttention
from ffaa.mids.label import NUM_CLASSES
from ffaa.mllm.tower import Lite


class MIDSConfig(BaseModel):
    """Sizes and choices of a MIDS; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(gt=0, description="width d of the text encoder's output, and of the fusion")
    image_dim: int = Field(gt=0, description="width C of the image encoder's hidden states")
    num_heads: int = Field(default=8, gt=0, description="heads of every attention; divides dim")
    num_self_attention: int = Field(default=3, ge=0, description="self-attention blocks before the classifier")
    mask_padding: bool = Field(
        default=True, description="hide padded text tokens from the fusion; False is what the published MIDS does"
    )
    unfreeze: Unfreeze = Field(
        default=2, description="how many of the image encoder's last blocks are trained and saved, or 'all' of it"
    )
    masked: bool = Field(
        default=True, description="it reads description and reasoning; False: result, probability and type as well"
    )
    own_towers: list[Lite] = Field(
        default_factory=list, description="its image encoder is `Eyes`, of which it brings these; unfreeze is 0 then"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.unfreeze != "all" and self.unfreeze < 0:
            raise ValueError(f"unfreeze is a number of blocks or 'all', not {self.unfreeze}")
        if self.own_towers and self.unfreeze:
            raise ValueError("with a tower of its own, unfreeze must be 0")
        return self


class MIDS(nn.Module):
    """Scores A answers of each of B images.

    text_encoder: `(input_ids, attention_mask) -> .last_hidden_state` (N, T, dim); always frozen, always in eval mode.
    image_encoder: `(pixel_values, output_hidden_states=True) -> .hidden_states`, the last two (B, 1 + P, image_dim),
    CLS first. All but its last `config.unfreeze` blocks are frozen here.
    Raises UsageError when the image encoder's blocks cannot be told from its parameter names.
    """

    def __init__(self, text_encoder: nn.Module, image_encoder: nn.Module, config: MIDSConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.projector_layer1 = nn.Linear(config.image_dim, config.dim)
        self.projector_layer2 = nn.Linear(config.image_dim, config.dim)
        # Without weights: where cam.py hooks in, because Grad-CAM wants patches alone and channels first.
        self.patches1 = nn.Identity()
        self.patches2 = nn.Identity()
        self.cls_token_layer1 = nn.Linear(config.dim, config.dim)
        self.cls_token_layer2 = nn.Linear(config.dim, config.dim)
        self.fusion_block = DualCrossAttention(config.dim, config.num_heads)
        self.se_attn = nn.ModuleList(
            AttentionBlock(config.dim, config.num_heads, residual=True) for _ in range(config.num_self_attention)
        )
        self.classifier = nn.Linear(6 * config.dim, NUM_CLASSES)
        text_encoder.requires_grad_(False)
        self._image_names = saved_names(image_encoder, config.unfreeze)
        trained = trained_names(image_encoder, config.unfreeze)
        for name, parameter in image_encoder.named_parameters():
            parameter.requires_grad_(name in trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but both encoders stay in eval mode, trained blocks too: without dropout, and with the batch
        statistics they came with, the frozen part of an encoder gives the same for a photo in every step."""
        super().train(mode)
        self.text_encoder.eval()
        self.image_encoder.eval()
        return self

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask (N, T) integers, mask 1 for tokens and 0 for padding. Returns (N, T, d)."""
        with torch.no_grad():
            output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        features: Tensor = output.last_hidden_state
        return features.to(self.classifier.weight.dtype)

    def encode_image(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """pixel_values (B, 3, H, W), normalised as the encoder wants. Returns last and last but one (B, 1 + P, C)."""
        hidden = self.image_encoder(pixel_values=pixel_values, output_hidden_states=True).hidden_states
        dtype = self.classifier.weight.dtype
        return hidden[-1].to(dtype), hidden[-2].to(dtype)

    def project(self, image_features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What `encode_image` returned -> the visual features V of both layers, (B, 1 + P, d) each."""
        last, previous = image_features
        return (
            _with_patches(self.patches1, self.projector_layer1(last)),
            _with_patches(self.patches2, self.projector_layer2(previous)),
        )

    def classify(
        self, text_features: Tensor | None, text_mask: Tensor | None, projected: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Logits (N, 4) over the classes of Eq. 3.

        text_features (N, T, d); text_mask (N, T), 0 for padding, None for no padding; projected: (B, 1 + P, d) twice.
        N is a multiple of B, the answers of one image next to each other.
        text_features None leaves the text branch out (Fig. 7, "without text"; N = B): the text is a single zero
        vector, so both attentions with the text return constants or plain views of the image. Any number of zero
        tokens gives the same. No MIDS was trained on this: use it to look, not to decide.
        An answer without a single token is treated the same when padding is masked.
        """
        last, previous = projected
        if text_features is None:
            text_features, text_mask = last.new_zeros(len(last), 1, self.config.dim), None
        answers, rest = divmod(len(text_features), len(last))
        if rest:
            raise UsageError(f"{len(text_features)} answers do not divide among {len(last)} images; pass A per image")
        last, previous = last.repeat_interleave(answers, 0), previous.repeat_interleave(answers, 0)
        ignore = None
        if self.config.mask_padding and text_mask is not None:
            ignore = text_mask == 0
            empty = ignore.all(1, keepdim=True)  # a softmax over nothing would be NaN
            ignore = ignore & ~empty
            text_features = text_features.masked_fill(empty[:, :, None], 0)
        text_last, image_last, text_previous, image_previous = self.fusion_block(text_features, last, previous, ignore)
        cls_last, cls_previous = self.cls_token_layer1(last[:, :1]), self.cls_token_layer2(previous[:, :1])
        vectors = torch.cat([cls_last, text_last, image_last, cls_previous, text_previous, image_previous], 1)
        for block in self.se_attn:
            vectors = block(vectors, vectors)
        logits: Tensor = self.classifier(vectors.flatten(1))
        return logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Tensor:
        """input_ids, attention_mask (B, A, T); pixel_values (B, 3, H, W), encoded once per image.

        Returns logits (B, A, 4); their softmax is Verdict.probabilities.
        """
        mask = attention_mask.flatten(0, 1)
        text = self.encode_text(input_ids.flatten(0, 1), mask)
        logits = self.classify(text, mask, self.project(self.encode_image(pixel_values)))
        return logits.view(*input_ids.shape[:2], NUM_CLASSES)

    def trainable_state(self) -> dict[str, Tensor]:
        """Names and tensors (not copies) that its file brings: all but the encoder parts that come from elsewhere."""
        return {_canonical(name): value for name, value in self.state_dict().items() if self._is_trainable(name)}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Fill exactly the tensors of `trainable_state()`; WeightsError listing every name or shape that differs."""
        own = {_canonical(name): (name, value) for name, value in self.state_dict().items() if self._is_trainable(name)}
        given = {_canonical(name): value for name, value in state.items()}
        missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        shapes = [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key][1].shape)}"
            for key in own
            if key in given and given[key].shape != own[key][1].shape
        ]
        if missing or unexpected or shapes:
            raise WeightsError(
                f"the MIDS weights do not fit this model: missing {missing}, unexpected {unexpected}, "
                f"other shape {shapes}; check that the file and the two encoders belong together"
            )
        self.load_state_dict({own[key][0]: value for key, value in given.items()}, strict=False)

    def _is_trainable(self, name: str) -> bool:
        encoder, _, rest = name.partition(".")
        return encoder != "text_encoder" and (encoder != "image_encoder" or rest in self._image_names)


def loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Eq. 6: cross-entropy, mean over samples. logits (..., 4), labels (...) integers 0..3. Returns a scalar.

    weights (4,): each sample counts as much as its class. The sum is divided by the samples, not by their weights, else
    a batch of common classes alone would count in full. smoothing: of the labels.
    """
    target = labels.reshape(-1)
    each = functional.cross_entropy(
        logits.reshape(-1, NUM_CLASSES), target, reduction="none", label_smoothing=smoothing
    )
    return (each if weights is None else each * weights[target]).mean()


def _with_patches(tap: nn.Module, features: Tensor) -> Tensor:
    """features (B, 1 + P, d), unchanged, after their patches went through `tap` as (B, d, P)."""
    return torch.cat([features[:, :1], tap(features[:, 1:].transpose(1, 2)).transpose(1, 2)], 1)


def _canonical(name: str) -> str:
    """transformers 4 named CLIP's parts `vision_model.*` (so does the published file); 5 does not. Read both."""
    return re.sub(r"^image_encoder\.vision_model\.", "image_encoder.", name)
