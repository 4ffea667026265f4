"""The grounded teacher: measures first, then writes. It states only what was measured or is given by the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from ffaa.types import Evidence, ForgeryType, Label

NAME = "grounded"
DESCRIBED = ("brightness", "contrast", "light", "warmth", "saturation", "sharpness", "symmetry", "eyes_mouth")
REASONED = ("sharpness_gap", "noise_gap", "skin", "skin_colour", "rolloff")
# A word that stands for an unusual value is worth a sentence more often than an ordinary one.
ORDINARY = {"medium", "even", "neutral", "natural", "equal", "balanced", "slight", "gradual", "regular"}


@cache
def phrases() -> dict[str, Any]:
    """The sentence file, parsed."""
    return yaml.safe_load(files("ffaa.vqa").joinpath("prompts/grounded.yaml").read_text(encoding="utf-8"))


def strength(probability: float) -> str:
    """weak below 0.70, strong from 0.90 on: how the closing sentence words the stated probability."""
    return "weak" if probability < 0.7 else "strong" if probability >= 0.9 else "medium"


def _choose(evidence: dict[str, str], names: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    present = [n for n in names if n in evidence]
    weights = np.array([0.5 if evidence[n] in ORDINARY else 1.0 for n in present])
    chosen = rng.choice(len(present), size=min(count, len(present)), replace=False, p=weights / weights.sum())
    return [present[i] for i in sorted(chosen)]


def write_answer(
    evidence: Sequence[Evidence],
    label: Label,
    forgery_type: ForgeryType,
    regions: Sequence[str],
    probability: float,
    rng: np.random.Generator,
) -> tuple[str, str, list[str]]:
    """(description, reasoning, links: per sentence 'crop', 'evidence:NAME', 'manifest:FIELD' or 'probability')."""
    words = {e.name: e.word for e in evidence}
    text = phrases()
    links: list[str] = []

    def pick(options: Sequence[str], link: str) -> str:
        links.append(link)
        return str(options[int(rng.integers(len(options)))])

    description = [pick(text["frame"], "crop")]
    for name in _choose(words, DESCRIBED, int(rng.integers(4, 6)), rng):
        description.append(pick(text["describe"][name][words[name]], f"evidence:{name}"))
    reasoning = [pick(text["stance"][label.value], "manifest:label")]
    reasoning += [pick(text["opening"][forgery_type.value], "manifest:forgery_type")]
    if regions and label is Label.FAKE:
        named = " and the ".join(r.replace("_", " ") for r in regions)
        reasoning.append(pick(text["regions"], "manifest:regions").format(regions=named))
    for name in _choose(words, REASONED, 3, rng):
        reasoning.append(pick(text["reason"][name][words[name]][label.value], f"evidence:{name}"))
    reasoning.append(pick(text["closing"][label.value][strength(probability)], "probability"))
    return " ".join(description), " ".join(reasoning), links
