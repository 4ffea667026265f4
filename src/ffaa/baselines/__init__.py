"""Seven published face-forgery detectors under one protocol (`base.Baseline`), by name."""

from ffaa.baselines.base import Baseline
from ffaa.baselines.clipping import Clipping
from ffaa.baselines.exposing import Exposing
from ffaa.baselines.fedforgery import FedForgery
from ffaa.baselines.implicit import Implicit
from ffaa.baselines.npr import NPR
from ffaa.baselines.recce import Recce
from ffaa.baselines.xception import Xception

BASELINES: dict[str, type[Baseline]] = {
    Xception.name: Xception,
    Recce.name: Recce,
    Implicit.name: Implicit,
    FedForgery.name: FedForgery,
    Exposing.name: Exposing,
    NPR.name: NPR,
    Clipping.name: Clipping,
}
