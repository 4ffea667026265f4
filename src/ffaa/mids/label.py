"""Eq. 3: the four classes of a pair (image, answer)."""

from __future__ import annotations

from ffaa.types import Label

NUM_CLASSES = 4


def pair_label(image: Label, answer: Label) -> int:
    """Class in 0..3 of an answer that says `answer` about an image that is `image` (Eq. 3).

    0: image real, answer real. 1: image real, answer fake. 2: image fake, answer real. 3: image fake, answer fake.
    """
    return 2 * (image is Label.FAKE) + (answer is Label.FAKE)


def claimed_class(answer: Label) -> int:
    """The class in which the answer is right: 0 for one that says real, 3 for one that says fake."""
    return pair_label(answer, answer)
