"""Which conversations get a hypothetical prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ffaa.types import Label

HYPOTHETICAL_SHARE = 1 / 3


def draw_hypothesis(label: Label, resist: bool, contrary: float, rng: np.random.Generator) -> Label | None:
    """The hypothesis of one conversation, None for a non-hypothetical prompt.

    The paper's rule: a third of the conversations presume what is true. A small language model that only ever sees
    true hypotheses learns to repeat them, and then no face is ever Easy. So where `resist` holds (the evidence on this
    face is strong), a share `contrary` of the hypotheses presume the opposite, and the answer still states the truth.
    """
    if rng.random() >= HYPOTHETICAL_SHARE:
        return None
    if resist and rng.random() < contrary:
        return label.opposite
    return label


def hypothesis_rows(hypotheses: Sequence[Label | None], seed: int) -> list[int]:
    """The rows of a second training phase: every hypothetical conversation, and a third as many others (seeded).

    In one pass over all conversations a small language model learns to read the face and hardly notices the
    hypothesis; this phase teaches it to weigh the two.
    """
    asked = [i for i, h in enumerate(hypotheses) if h]
    others = [i for i, h in enumerate(hypotheses) if not h]
    drawn = np.random.default_rng((seed, 6)).permutation(others)[: len(asked) // 3]
    return asked + [int(i) for i in drawn]
