"""FedForgery (Liu et al., "FedForgery: Generalized Face Forgery Detection with Residual Federated Learning", IEEE TIFS
2023).

A VQ-VAE draws what of a face does not help to tell forgeries; a ResNet-50 judges the residual, the image less that. The
detector is trained by several clients that share weights but no images (`federated`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ffaa.baselines.backbones.resnet import ResNet, depth_of
from ffaa.baselines.base import Baseline, BaselineSettings, Batch, State, load_strict, read_state, tensor_of

_REAL = 1  # the published class of real photos


class FedForgerySettings(BaselineSettings):
    """The publication's code: SGD, rate 0.01, momentum 0.5, batch 20; 100 rounds of 10 clients, all of them, 10 local
    epochs each. Appendix B has nothing on it. The weights of the loss: see docs/baselines.md."""

    optimizer: Literal["adam", "sgd", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)
    batch: int = Field(20, ge=2)
    epochs: int | None = Field(100, ge=1, description="rounds; in each, every chosen client trains `local_epochs`")
    steps: None = Field(None, description="a federation is as long as its rounds")  # type: ignore[assignment]
    clients: int = Field(10, ge=1)
    held_by: Literal["chance", "dataset"] = Field("chance", description="how the photos are dealt to the clients")
    share: float = Field(1.0, gt=0, le=1, description="of the clients that take part in a round")
    local_epochs: int = Field(10, ge=1)
    reconstruction: float = Field(1.0, ge=0, description="weight of the reconstruction error")
    quantisation: float = Field(1.0, ge=0, description="weight of the code book's loss")
    commitment: float = Field(0.5, ge=0, description="weight of the encoder's part in it")


class _Nearest(torch.autograd.Function):
    """The nearest code of each vector. Gradients go straight through to the vectors; a code gets the mean, not the sum,
    of the gradients at the places that took it."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, codes: Tensor) -> Tensor:
        """vectors (n, d), codes (d, k) -> (n, d)."""
        # distances by subtraction: the faster matrix product rounds differently and swaps codes that are almost as near
        which = torch.cdist(vectors.to(codes.dtype), codes.t(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        ctx.save_for_backward(which)
        ctx.codes = codes.shape[1]
        return codes.t()[which]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        (which,) = ctx.saved_tensors
        to_codes = None
        if ctx.needs_input_grad[1]:
            sums = grad.new_zeros(ctx.codes, grad.shape[1]).index_add_(0, which, grad)
            uses = torch.bincount(which, minlength=ctx.codes).clamp(min=1)
            to_codes = (sums / uses[:, None]).t()
        return grad if ctx.needs_input_grad[0] else None, to_codes


class CodeBook(nn.Module):
    """`codes` vectors of length `width`, as columns of `weight` (van den Oord et al. 2017, Eq. 1 and 2)."""

    def __init__(self, codes: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, codes).normal_(0, 0.02))

    def forward(self, x: Tensor, learn: bool) -> Tensor:
        """Map (B, width, H, W) -> the nearest code at each place, same shape. learn: codes get gradients."""
        flat = x.permute(0, 2, 3, 1)
        codes = _Nearest.apply(flat.flatten(0, 2), self.weight if learn else self.weight.detach())
        return codes.view(flat.shape).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x + 1x1(leaky(3x3(leaky(x))))."""

    def __init__(self, width: int):
        super().__init__()
        first, second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.convs = nn.Sequential(nn.LeakyReLU(), first, nn.LeakyReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


def _halve(inputs: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, width, 4, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU()]


class FedForgery(Baseline):
    """Residual generator and classifier. Class 1 is real; class 0 (and any other) a forgery.

    width: channels of the VQ-VAE; codes: size of its code book; depth: of the ResNet. Any input size.
    """

    name = "fedforgery"
    image_size = 296
    settings: FedForgerySettings

    def __init__(
        self,
        num_classes: int = 2,
        width: int = 64,
        codes: int = 128,
        depth: int = 50,
        image_size: int = 296,
        settings: FedForgerySettings | None = None,
    ):
        super().__init__()
        self.image_size, self.settings = image_size, settings or FedForgerySettings()
        norm = nn.BatchNorm2d
        self.encoder = nn.Sequential(
            *_halve(3, width), *_halve(width, width), ResBlock(width), norm(width), ResBlock(width), norm(width)
        )
        self.decoder = nn.Sequential(
            ResBlock(width), norm(width), ResBlock(width),
            nn.ConvTranspose2d(width, width, 4, 2, 1), norm(width), nn.LeakyReLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1),
        )  # fmt: skip
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0, 0.02)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.encoder[-1].weight, 1 / 40)  # type: ignore[arg-type]  # vectors as short as the codes
        self.emb = CodeBook(codes, width)
        self.classifier = ResNet(depth, num_classes)
        self.L_bn = norm(3)

    def generate(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) -> what the VQ-VAE draws of them (B, 3, S', S'), and the encoding (B, width, S / 4, S /
        4). A side that is no multiple of 4, which no published input has, is filled up by repeating the last pixels."""
        encoding = self.encoder(pixels)
        drawn = self.L_bn(torch.tanh(self.decoder(self.emb(encoding, learn=False))))
        missing = [pixels.shape[i] - drawn.shape[i] for i in (3, 2)]
        if any(missing):
            drawn = F.pad(drawn, (0, missing[0], 0, missing[1]), mode="replicate")
        return drawn, encoding

    def forward(self, pixels: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, num_classes) of the residual; class 1 is real."""
        return self.classifier(pixels - self.generate(pixels)[0])

    def score(self, pixels: Tensor) -> Tensor:
        probabilities = self(pixels).softmax(1)
        return probabilities.sum(1) - probabilities[:, _REAL] if probabilities.shape[1] > 2 else probabilities[:, 0]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the residual, plus the reconstruction error of what is drawn, plus the code book's loss.

        After CD-VAE (Yang et al., NeurIPS 2021), which the published network is taken from; the part of CD-VAE's loss
        that needs a second classifier is left out, as the published network has none.
        """
        drawn, encoding = self.generate(batch.pixels)
        codes = self.emb(encoding.detach(), learn=True)
        labels = torch.where(batch.fake > 0.5, 0, _REAL)
        classification = F.cross_entropy(self.classifier(batch.pixels - drawn).float(), labels)
        reconstruction = F.mse_loss(drawn.float(), batch.pixels)

        def apart(a: Tensor, b: Tensor) -> Tensor:
            return ((a - b) ** 2).norm(2, 1).mean()

        settings = self.settings
        quantisation = apart(codes, encoding.detach()) + settings.commitment * apart(codes.detach(), encoding)
        total = classification + settings.reconstruction * reconstruction + settings.quantisation * quantisation
        parts = {"classification": classification, "reconstruction": reconstruction, "quantisation": quantisation}
        return total, {name: value.item() for name, value in parts.items()}

    @property
    def heat_layer(self) -> nn.Module:
        """The last stage of the ResNet, on the residual."""
        return self.classifier.layer4

    @classmethod
    def from_published(cls, path_or_state: str | Path | State) -> Self:
        """The released `model.pth`. See `Baseline.from_published`."""
        state = read_state(path_or_state)
        width, codes = tensor_of(state, "emb.weight", cls.name).shape
        classes = len(tensor_of(state, "classifier.fc.weight", cls.name))
        model = cls(classes, width, codes, depth_of(state, "classifier."))
        load_strict(model, state, cls.name)
        return model.eval()
