"""Fits the correction of `ffaa.mids.detail` on faces whose fine detail is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.optimize import differential_evolution
from scipy.special import expit
from torch import Tensor

from ffaa.data.crops import blur_out
from ffaa.mids.detail import correct_log_odds, fine_detail
from ffaa.mids.eyes import tower_logits
from ffaa.mids.model import MIDS
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.mine import Mined
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.tower_heads import TowerHeads
from ffaa.types import Label
from ffaa.weights import DetailCorrection

RARE = 0.1  # share of faces, with the detail that they came with, that the correction reaches

GAIN = 1e-3  # of log loss, less than which is none
MOST = 100.0  # flattening: of what lacks a tenth of a unit MIDS then says next to nothing
MOST_TRUST = 3.0


def faces_to_fit(mined: Iterable[Mined], answers: int, count: int, seed: int) -> list[Mined]:
    """`count` faces drawn from those of whose first `answers` answers, which are kept, one at least was read."""
    found = [m.model_copy(update={"answers": m.answers[:answers]}) for m in mined if any(m.results[:answers])]
    drawn = np.random.default_rng((seed, 15)).permutation(len(found))[:count]
    return [found[i] for i in sorted(drawn)]


@torch.inference_mode()
def blurred_odds(
    mids: MIDS,
    tokens: AnswerTokens,
    temperature: float,
    images: Sequence[np.ndarray],
    mined: Sequence[Mined],
    draws: int,
    seed: int,
    heads: Sequence[TowerHeads],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Log odds of forgery by MIDS, fine detail), float64 (1 + draws, N), and the logits of its T towers' heads,
    (T, 1 + draws, N): of N face images, uint8 RGB (S, S, 3), as they are and after each draw of `blur_out`, beside the
    same answers, of which one at least was read."""
    odds, detail = np.empty((2, 1 + draws, len(images)))
    told = np.empty((len(heads), 1 + draws, len(images)))
    for i, (image, m) in enumerate(zip(images, mined, strict=True)):
        ids, mask = tokens(m.answers)
        text = mids.encode_text(ids, mask)
        for draw in range(1 + draws):
            seen = blur_out(image, np.random.default_rng((seed, 14, draw, i))) if draw else image
            layers = mids.encode_image(pixel_tensor([seen]))
            logits = mids.classify(text, mask, mids.project(layers)).double() / temperature
            odds[draw, i], detail[draw, i] = log_odds(logits, m.results), fine_detail(seen)
            told[:, draw, i] = tower_logits(mids.image_encoder, layers[::-1], heads)[:, 0]
    return odds, detail, told


def log_odds(logits: Tensor, results: Sequence[Label | None]) -> float:
    """Of logits (A, 4): the log odds that the image is forged, whatever an answer says; the mean over those that could
    be read."""
    said = torch.tensor([i for i, result in enumerate(results) if result is not None])
    fake = torch.tensor([int(result is Label.FAKE) for result in results if result is not None])
    return float((logits[said, 2 + fake] - logits[said, fake]).mean())


def fit_detail(
    odds: np.ndarray,
    detail: np.ndarray,
    fake: Sequence[bool] | np.ndarray,
    told: np.ndarray | None = None,
    towers: Sequence[int] = (),
) -> tuple[DetailCorrection | None, dict[str, float]]:
    """(The correction with the lowest log loss, None where it gains nothing; the losses before and after).

    odds, detail: (V, N) log odds of forgery and fine detail of N faces in V versions, as they came first. fake: (N,).
    told: (T, V, N) logits of the towers' heads. towers: those that know something of such faces; the correction asks
    all of them, or none where the loss is then no lower.
    """
    truth = np.broadcast_to(np.asarray(fake, bool), odds.shape)
    below = round(float(np.quantile(detail[0], RARE)), 4)

    def log_loss(correction: DetailCorrection) -> float:
        mean = told[correction.towers].mean(0) if told is not None and correction.towers else 0.0
        found = expit(correct_log_odds(correction, odds, detail, mean)).clip(1e-6, 1 - 1e-6)
        return float(-np.where(truth, np.log(found), np.log(1 - found)).mean())

    def fitted(some: Sequence[int]) -> DetailCorrection:
        def made(flatten: float, trust: float = 0.0) -> DetailCorrection:
            flatten, trust = round(float(flatten), 4), round(float(trust), 4)
            return DetailCorrection(below=below, flatten=flatten, towers=list(some), trust=trust)

        bounds = [(0.0, MOST), (0.0, MOST_TRUST)] if some else [(0.0, MOST)]
        return made(*differential_evolution(lambda x: log_loss(made(*x)), bounds, rng=0).x)  # it has several minima

    correction = min(map(fitted, ([], towers) if towers else ([],)), key=log_loss)
    losses = {
        "log_loss_before": log_loss(DetailCorrection(below=below, flatten=0.0)),
        "log_loss_after": log_loss(correction),
    }
    gain = losses["log_loss_before"] - losses["log_loss_after"]
    return (correction if gain > GAIN else None), losses
