"""RECCE (Cao et al. 2022): learns to reconstruct real faces, and classifies with what the reconstruction leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ffaa.baselines.backbones.xception import Block, SeparableConv2d, XceptionBackbone, with_kernels
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of

_EPS = 1e-6  # of the published similarity loss


class RecceSettings(BaselineSettings):
    """Appendix B: 22,500 steps, Adam, learning rate 2e-4, batch 32, weight decay 1e-5. The rest as published."""

    lr: float = Field(2e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    batch: int = Field(32, ge=2)
    steps: int | None = Field(22_500, ge=1)
    reconstruction: float = Field(0.1, ge=0, description="weight of the reconstruction loss, lambda_1")
    similarity: float = Field(0.1, ge=0, description="weight of the three similarity losses, lambda_2")
    noise: float = Field(1e-6, ge=0, description="deviation of the white noise, in normalised pixels")
    flood: float = Field(0.04, ge=0, description="level below which the classification loss is pushed up again")
    dropout: float = Field(0.2, ge=0, lt=1)


class RecceOutput(NamedTuple):
    """logits (B, K); reconstruction (B, 3, S, S) in [-1, 1]; similarities: three of (B, B) in [0, 1]."""

    logits: Tensor
    reconstruction: Tensor
    similarities: tuple[Tensor, Tensor, Tensor]


class GraphReasoning(nn.Module):
    """Multi-scale graph reasoning: every encoder cell gathers the decoder cells that it covers.

    A cell of the encoder map is a vertex of the first part of a bipartite graph; the 2x2 (and 4x4) cells of the two
    decoder maps at its place are its neighbours in the second part. All vertices are computed at once.
    """

    def __init__(self, width: int, inner: int, decoder: tuple[int, int], ratio: tuple[int, int], dropout: float):
        super().__init__()
        self.ratio = ratio
        self.va_embedding = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.ReLU(), nn.Conv2d(inner, inner, 1, bias=False)
        )
        self.va_gated_b = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.Sigmoid())
        self.va_gated_c = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.Sigmoid())
        self.vb_embedding = nn.Sequential(
            nn.Linear(decoder[0], inner, bias=False), nn.ReLU(), nn.Linear(inner, inner, bias=False)
        )
        self.vc_embedding = nn.Sequential(
            nn.Linear(decoder[1], inner, bias=False), nn.ReLU(), nn.Linear(inner, inner, bias=False)
        )
        self.reweight_ab = nn.Sequential(nn.Linear(2 * inner, 1, bias=False))
        self.reweight_ac = nn.Sequential(nn.Linear(2 * inner, 1, bias=False))
        self.reproject = nn.Sequential(
            nn.Conv2d(3 * inner, width, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.Dropout(dropout),
        )

    def gather(self, vertices: Tensor, cells: Tensor, part: Literal["b", "c"]) -> Tensor:
        """What the vertices gather from a decoder map, before the gate.

        vertices (B, C, H, W), embedded; cells (B, D, r H, r W), not yet. Returns (B, C, H, W): the mean of a vertex's
        r x r embedded neighbours under softmax(ReLU(weight [vertex, neighbour])). The embedding's second layer is
        linear: it is applied to the mean instead of to r^2 neighbours, and joined with the weight for the logits.
        """
        ratio = self.ratio["bc".index(part)]
        first, second = (self.get_parameter(f"v{part}_embedding.{layer}.weight") for layer in (0, 2))
        own, other = self.get_parameter(f"reweight_a{part}.0.weight").chunk(2, 1)
        hidden = F.relu(F.conv2d(cells, _kernel(first)))
        b, _, h, w = vertices.shape
        logits = F.conv2d(vertices, _kernel(own)).view(b, h, 1, w, 1)
        logits = F.relu(logits + F.conv2d(hidden, _kernel(other @ second)).view(b, h, ratio, w, ratio))
        weights = logits.transpose(2, 3).flatten(3).softmax(-1).unflatten(3, (ratio, ratio)).transpose(2, 3)
        mean = F.avg_pool2d(hidden * weights.reshape(b, 1, h * ratio, w * ratio), ratio, divisor_override=1)
        return F.conv2d(mean, _kernel(second))

    def forward(self, encoded: Tensor, second: Tensor, fourth: Tensor) -> Tensor:
        """encoded (B, width, H, W), decoder maps (B, D, 2 H, 2 W) and (B, D', 4 H, 4 W) -> (B, width, H, W)."""
        vertices = self.va_embedding(encoded)
        from_b = self.gather(vertices, second, "b") * (1 - self.va_gated_b(encoded))
        from_c = self.gather(vertices, fourth, "c") * (1 - self.va_gated_c(encoded))
        return self.reproject(torch.cat([from_b, from_c, vertices], 1).sigmoid())


class GuidedAttention(nn.Module):
    """Reconstruction-guided attention: where the reconstruction fails, features count more."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.gated = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 1, 1, bias=False), nn.Sigmoid()
        )
        self.h = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)

    def forward(self, pixels: Tensor, reconstruction: Tensor, features: Tensor) -> Tensor:
        """pixels and reconstruction (B, 3, S, S), features (B, width, H, W) -> (B, width, H, W)."""
        residual = F.interpolate(
            (pixels - reconstruction).abs(), size=features.shape[-2:], mode="bilinear", align_corners=True
        )
        return self.gated(residual) * self.h(features) + self.dropout(features)


class Recce(Baseline):
    """Xception as encoder, a decoder from its block4, graph reasoning after block7, attention after block8.

    num_classes: 1, as published (the sigmoid is the forgery probability), or more (class 0 is real).
    """

    name = "recce"
    settings: RecceSettings
    image_size = 299
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    resampling = "opencv"

    def __init__(self, num_classes: int = 1, image_size: int = 299, settings: RecceSettings | None = None):
        super().__init__()
        self.image_size, self.settings = image_size, settings or RecceSettings()
        self.encoder = XceptionBackbone(1000)  # its own head is unused, but part of the published state dict
        self.encoder.fc.requires_grad_(False)
        self.dropout = nn.Dropout(self.settings.dropout)
        self.fc = nn.Linear(2048, num_classes)
        self.attention = GuidedAttention(728, self.settings.dropout)
        self.reasoning = GraphReasoning(728, 256, (256, 128), (2, 4), self.settings.dropout)
        self.decoder1, self.decoder2 = _twice_as_large(728, 256), Block((256, 256, 256, 256))
        self.decoder3, self.decoder4 = _twice_as_large(256, 128), Block((128, 128, 128, 128))
        self.decoder5 = _twice_as_large(128, 64)
        self.decoder6 = nn.Sequential(nn.Conv2d(64, 3, 1, bias=False), nn.Tanh())

    def outputs(self, pixels: Tensor) -> RecceOutput:
        """All that the losses need. In train mode half of the images, drawn by chance, enter with white noise."""
        entered = add_white_noise(pixels, self.settings.noise) if self.training else pixels
        encoded = self.encoder.blocks(self.encoder.stem(entered), 1, 4)
        second = self.decoder2(self.decoder1(self.dropout(encoded)))
        fourth = self.decoder4(self.decoder3(second))
        reconstruction = F.interpolate(
            self.decoder6(self.decoder5(fourth)), size=pixels.shape[-2:], mode="bilinear", align_corners=True
        )
        features = self.encoder.blocks(encoded, 5, 7)
        features = self.encoder.blocks(self.reasoning(features, second, fourth) + features, 8, 8)
        features = self.encoder.blocks(self.attention(pixels, reconstruction, features), 9, 12)
        logits = self.fc(self.dropout(self.encoder.exit(features)))
        return RecceOutput(logits, reconstruction, (similarity(encoded), similarity(second), similarity(fourth)))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, num_classes)."""
        return self.outputs(pixels).logits

    def score(self, pixels: Tensor) -> Tensor:
        """Sigmoid of the one logit, or 1 - softmax of class 0, (B,)."""
        logits = self(pixels)
        return logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:].sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Classification (flooded, as published) + lambda_1 reconstruction + lambda_2 similarity."""
        out, settings = self.outputs(batch.pixels), self.settings
        if out.logits.shape[1] == 1:
            classification = F.binary_cross_entropy_with_logits(out.logits[:, 0], batch.fake)
        else:
            target = batch.fake.long() if out.logits.shape[1] == 2 else batch.kind
            classification = F.cross_entropy(out.logits, target)
        flooded = (classification - settings.flood).abs() + settings.flood
        reconstruction = reconstruction_loss(batch.pixels, out.reconstruction, batch.fake)
        alike = similarity_loss(out.similarities, batch.fake)
        total = flooded + settings.reconstruction * reconstruction + settings.similarity * alike
        parts = {
            "classification": classification.item(), "reconstruction": reconstruction.item(),
            "similarity": alike.item(),
        }  # fmt: skip
        return total, parts

    @property
    def heat_layer(self) -> nn.Module:
        """conv4's norm of the encoder: the last map before pooling."""
        return self.encoder.bn4

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """The trainer's file (its `model` entry) or a plain state dict. See `Baseline.from_published`."""
        state = with_kernels(read_state(path_or_state))
        model = cls(len(tensor_of(state, "fc.weight", cls.name)))
        load_strict(model, state, cls.name)
        return model.eval()


def add_white_noise(pixels: Tensor, deviation: float) -> Tensor:
    """(B, 3, S, S) in [-1, 1] with white noise on each image by chance 1/2, clipped to [-1, 1]."""
    chosen = (torch.rand(len(pixels), 1, 1, 1, device=pixels.device) > 0.5).to(pixels.dtype)
    return (pixels + chosen * deviation * torch.randn_like(pixels)).clamp(-1, 1)


def similarity(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B): the cosine between the pooled features of each pair, moved into [0, 1]."""
    unit = F.normalize(features.mean((2, 3)), dim=1)
    return (unit @ unit.T + 1) / 2


def reconstruction_loss(pixels: Tensor, reconstruction: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute error over the real images; 0 where there is none."""
    real = fake < 0.5
    if not real.any():
        return reconstruction.sum() * 0
    return (reconstruction[real] - pixels[real]).abs().mean()


def similarity_loss(similarities: Sequence[Tensor], fake: Tensor) -> Tensor:
    """Summed over the maps: real images shall be alike, real and fake ones not. similarities (B, B) each.

    Per map max(0, 1 - mean over real pairs + mean over mixed pairs); pairs of an image with itself do not count.
    """
    real = fake < 0.5
    mixed = (real[:, None] ^ real[None]).to(fake.dtype)
    alike = (real[:, None] & real[None]).to(fake.dtype)
    alike = alike - torch.diag(alike.diagonal())
    total = fake.new_zeros(())
    for matrix in similarities:
        apart = (matrix * mixed).sum() / (mixed.sum() + _EPS)
        near = (matrix * alike).sum() / (alike.sum() + _EPS)
        total = total + (1 - near + apart).clamp(min=0)
    return total


def _kernel(weight: Tensor) -> Tensor:
    """The weight (out, in) of a linear layer as that of a 1x1 convolution."""
    return weight[..., None, None]


def _twice_as_large(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.UpsamplingNearest2d(scale_factor=2), SeparableConv2d(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
    )
