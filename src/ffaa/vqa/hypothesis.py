"""Which conversations get a hypothetical prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ffaa.types import Label

HYPOTHETICAL_SHARE = 1 / 3


def draw_hypothesis(label: Label, rng: np.random.Generator) -> Label | None:
    """The hypothesis of one conversation, None for a non-hypothetical prompt.

    The paper's rule: a third presume what is true.
    """
    return label if rng.random() < HYPOTHETICAL_SHARE else None


def draw_weighed(
    label: Label, fake: float, resist: float, contrary: float, rng: np.random.Generator
) -> tuple[Label | None, Label]:
    """(hypothesis or None, what the answer determines) of one of nano's conversations.

    A small language model that only ever sees true hypotheses learns to ignore or to repeat them; then all faces are
    Easy, or none. nano is taught when to hold to what is seen: `fake`, the tower's tempered score in [0, 1], is sure
    where it is at least `resist` for one side. Then a share `contrary` of the hypotheses presume the opposite and the
    answer still states the truth; a face whose truth the tower is surely wrong on gets none. Where the tower is not
    sure, the same share presume the opposite and the answer argues for what is presumed: MIDS, not the language model,
    decides such a face. Non-hypothetical prompts are always answered with the truth.
    """
    if rng.random() >= HYPOTHETICAL_SHARE:
        return None, label
    sure = max(fake, 1 - fake) >= resist
    if sure and (fake >= 0.5) is not (label is Label.FAKE):
        return None, label
    hypothesis = label.opposite if rng.random() < contrary else label
    return hypothesis, label if sure else hypothesis


def hypothesis_rows(hypotheses: Sequence[Label | None], seed: int) -> list[int]:
    """The rows of a second training phase: every hypothetical conversation, and a third as many others (seeded).

    In one pass over all conversations a small language model learns to read the face and hardly notices the
    hypothesis; this phase teaches it to weigh the two.
    """
    asked = [i for i, h in enumerate(hypotheses) if h]
    others = [i for i, h in enumerate(hypotheses) if not h]
    drawn = np.random.default_rng((seed, 6)).permutation(others)[: len(asked) // 3]
    return asked + [int(i) for i in drawn]
