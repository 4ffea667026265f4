"""CLIPping (Khan and Dang-Nguyen 2024): CLIP whose prompt is learnt (CoOp, Zhou et al. 2022), both towers frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffaa.baselines.backbones.clip import CLIP, CLIPConfig, config_of
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of
from ffaa.errors import UsageError

START, END, PLACEHOLDER, STOP = 49406, 49407, 343, 269  # "X", the word a context vector stands for; "."
CLASSES = {"real": (1532,), "deepfake": (5462, 5777)}
VIT_L14 = CLIPConfig(768, 224, 24, 1024, 16, 14, 77, 49408, 768, 12, 12)
Position = Literal["end", "front"]


class ClippingSettings(BaselineSettings):
    """Appendix B: 2 epochs, SGD, learning rate 2e-3, batch 16. As published: cosine, the first epoch at 1e-5; weight
    decay and momentum of Dassl, in which the published code runs."""

    optimizer: Literal["adam", "sgd", "adamw"] = "sgd"
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    batch: int = Field(16, ge=2)
    epochs: int | None = Field(2, ge=1)
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    warmup_epochs: int = Field(1, ge=0)
    class_position: Position = Field("end", description="of the class word: behind or before the context vectors")


class PromptLearner(nn.Module):
    """The learnt context vectors: (n_ctx, width), or (classes, n_ctx, width) where each class has its own."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.ctx = nn.Parameter(0.02 * torch.randn(shape))


class Clipping(CLIP, Baseline):
    """Real or deepfake by the cosine between the image and the two learnt prompts.

    tokens (K, context_length) int64, class 0 real: start, n_ctx placeholders, class words, stop, end, padding of 0.
    class_context: every class has context vectors of its own.
    """

    name = "clipping"
    settings: ClippingSettings
    image_size = 224
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    resampling = "bicubic"
    tokens: Tensor

    def __init__(
        self,
        config: CLIPConfig = VIT_L14,
        n_ctx: int = 16,
        tokens: Tensor | None = None,
        class_context: bool = False,
        settings: ClippingSettings | None = None,
    ):
        super().__init__(config)
        self.image_size, self.settings, self.n_ctx = config.image_resolution, settings or ClippingSettings(), n_ctx
        tokens = prompt_tokens(n_ctx, config.context_length) if tokens is None else tokens
        ends = tokens.argmax(1)  # the end token has the highest number of all
        if tokens.shape[1] != config.context_length or int(ends.min()) < n_ctx + 3:
            raise UsageError(
                f"tokens {tuple(tokens.shape)} do not fit {n_ctx} context vectors and a context of "
                f"{config.context_length}: start, {n_ctx} placeholders, class words, stop, end, padding"
            )
        self.register_buffer("tokens", tokens, persistent=False)
        self.requires_grad_(False)
        shape = (n_ctx, config.transformer_width)
        self.prompt_learner = PromptLearner((len(tokens), *shape) if class_context else shape)

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Embedded prompts (K, N, width), cut behind the longest, and the places (K,) of their end tokens."""
        ends = self.tokens.argmax(1)
        words = self.token_embedding(self.tokens[:, : int(ends.max()) + 1])
        context = self.prompt_learner.ctx.expand(len(words), -1, -1)
        start, rest = words[:, :1], words[:, 1 + self.n_ctx :]
        if self.settings.class_position == "end":
            return torch.cat([start, context, rest], 1), ends
        rows = []
        for i, end in enumerate(ends.tolist()):
            name = end - self.n_ctx - 2  # words of the class; start, stop and end are the others
            rows.append(torch.cat([start[i], rest[i, :name], context[i], rest[i, name:]]))
        return torch.stack(rows), ends

    def text_features(self) -> Tensor:
        """(K, embed_dim), of length 1."""
        return F.normalize(self.encode_text(*self.prompts()), dim=-1)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, embed_dim), of length 1."""
        return F.normalize(self.visual(pixels), dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, K): exp(logit_scale) * cosine."""
        return self.logit_scale.exp() * self.image_features(pixels) @ self.text_features().T

    def score(self, pixels: Tensor) -> Tensor:
        """1 - softmax of class 0, (B,)."""
        return self(pixels).softmax(1)[:, 1:].sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """CoOp's: cross-entropy over real / deepfake, or over the forgery types where there are more classes."""
        logits = self(batch.pixels)
        loss = F.cross_entropy(logits, batch.fake.long() if logits.shape[1] == 2 else batch.kind)
        return loss, {"classification": loss.item()}

    @property
    def heat_layer(self) -> nn.Module:
        """The patches before the last block of the image tower, as a map."""
        return self.visual.grid

    @classmethod
    def from_published(
        cls,
        path_or_state: str | Path | State,
        clip: str | Path | State | None = None,
        tokens: Tensor | None = None,
        vision_heads: int | None = None,
        text_heads: int | None = None,
        settings: ClippingSettings | None = None,
    ) -> Self:
        """CLIP's state dict with `prompt_learner.ctx`, or CoOp's own file (`ctx`, `token_prefix`, `token_suffix`) and
        the CLIP it was learnt on as `clip`. See `Baseline.from_published`.

        As in CoOp, token vectors in the file give way to those of `tokens`. Heads are one per 64 channels unless given.
        """
        state = {_plain(name): value for name, value in read_state(path_or_state).items()}
        if clip is not None:
            state = {**read_state(clip), **{f"prompt_learner.{k}": v for k, v in state.items()}}
        dropped = (
            "prompt_learner.token_prefix", "prompt_learner.token_suffix",
            "input_resolution", "context_length", "vocab_size",
        )  # fmt: skip
        state = {name: value for name, value in state.items() if name not in dropped}
        ctx = tensor_of(state, "prompt_learner.ctx", cls.name)
        config = config_of(state, cls.name, vision_heads, text_heads)
        model = cls(config, ctx.shape[-2], tokens, ctx.ndim == 3, settings)
        load_strict(model, state, cls.name)
        return model.eval()


def prompt_tokens(n_ctx: int, length: int, classes: tuple[tuple[int, ...], ...] = tuple(CLASSES.values())) -> Tensor:
    """(K, length) int64: "X X ... X real." and so on, in CLIP's vocabulary. classes: the tokens of the class words."""
    rows = [[START, *[PLACEHOLDER] * n_ctx, *words, STOP, END] for words in classes]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def _plain(name: str) -> str:
    """CoOp's whole model names the towers `image_encoder` and `text_encoder`."""
    if name.startswith("image_encoder."):
        return "visual." + name.removeprefix("image_encoder.")
    return name.removeprefix("text_encoder.")
