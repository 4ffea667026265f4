"""A trained baseline on disk: a folder with the weights and a card; and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError

from ffaa import weights
from ffaa.baselines import BASELINES
from ffaa.baselines.base import Baseline, load_strict, read_state
from ffaa.baselines.recipe import build_detector, recipe_class
from ffaa.errors import UsageError, WeightsError
from ffaa.types import Record

WEIGHTS, CARD = "baseline.safetensors", "baseline.json"
_AGAIN = "train it again with `ffaa train baseline`"
_BATCH = 32


class Validation(Record):
    """Figures of the rows of split val, fake being the positive class. threshold: that of the best balanced accuracy;
    a score of at least that much is fake. loss: mean training loss since the validation before."""

    step: int
    loss: float
    auc: float
    acc: float = Field(description="at 0.5")
    threshold: float = Field(ge=0, le=1)
    balanced_acc: float = Field(description="at the threshold")


class BaselineCard(Record):
    """`baseline.json`: what the weights are and where they come from."""

    format: Literal["1"] = "1"
    name: str = Field(description="of the baseline, as in BASELINES")
    inputs: weights.Sha256 = Field(description="hash of all that the training depends on")
    recipe: dict[str, Any] = Field(description="with the detector's constructor arguments and settings in full")
    seed: int
    image_size: int
    parameters: int
    trainable: int
    steps: int
    samples: int = Field(description="training images seen")
    seconds: float = Field(description="of training and validation, without what a kill lost")
    chosen: Validation = Field(
        description="the validation that the weights are from: the best AUC, the first of equals"
    )
    validations: list[Validation]
    data: dict[str, str] = Field(description="manifest -> sha256")
    rows: dict[str, dict[str, int]] = Field(description="split -> forgery type -> rows")
    device: str
    versions: dict[str, str]
    command: str
    licence: str
    files: dict[str, weights.Sha256]


class Trained:
    """A trained detector that gives scores.

    image_size: side of its input. threshold: of its own validation. files: name -> sha256.
    """

    def __init__(self, detector: Baseline, card: BaselineCard, files: dict[str, str], device: str):
        self._detector, self.device = detector.eval().to(device), device
        self.card, self.name, self.files = card, card.name, files
        self.image_size, self.threshold = detector.image_size, card.chosen.threshold
        self.parameters = card.parameters

    def scores(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Forgery scores (N,) in [0, 1], float64, of face crops, uint8 RGB (S, S, 3) of any size."""
        return detector_scores(self._detector, crops, self.device)


@torch.inference_mode()
def detector_scores(detector: Baseline, crops: Iterable[np.ndarray], device: str) -> np.ndarray:
    """Scores (N,) in [0, 1], float64, of a detector that is in eval mode; crops are taken in batches."""
    found, left = [np.zeros(0)], iter(crops)
    while part := list(islice(left, _BATCH)):
        found.append(detector.score(detector.preprocess(part).to(device)).double().clamp(0, 1).cpu().numpy())
    return np.concatenate(found)


def load_trained(folder: Path, device: str = "cpu") -> Trained:
    """The folder that `ffaa train baseline` wrote, in eval mode.

    Raises WeightsError where the card is missing or bad, a file's sha256 differs, or a key is missing or unexpected.
    """
    card = read_card(folder)
    weights.insist(weights.verify_files(folder, card.files), _AGAIN)
    if card.name not in BASELINES:
        raise WeightsError(f"{folder / CARD}: unknown baseline '{card.name}'; known: {', '.join(BASELINES)}")
    try:
        detector = build_detector(recipe_class(card.name).model_validate(card.recipe))
    except (ValidationError, UsageError) as error:
        raise WeightsError(f"{folder / CARD}: no valid recipe of {card.name} ({_brief(error)}); {_AGAIN}") from error
    load_strict(detector, read_state(folder / WEIGHTS), card.name)
    return Trained(detector, card, {**card.files, CARD: weights.sha256(folder / CARD)}, device)


def read_card(folder: Path) -> BaselineCard:
    """The card of a trained baseline. Raises WeightsError where there is none, or one that is not valid."""
    try:
        return BaselineCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        raise WeightsError(f"{folder} holds no {CARD}; give the folder that `ffaa train baseline` wrote") from error
    except ValidationError as error:
        raise WeightsError(f"{folder / CARD} is no card of a baseline ({_brief(error)}); {_AGAIN}") from error


def _brief(error: ValidationError | UsageError) -> str:
    if isinstance(error, UsageError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
