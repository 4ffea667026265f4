"""Rows of FFA-VQA for the tests of what is done with them."""

import numpy as np

from ffaa.types import ForgeryType, Label
from ffaa.vqa.row import Sentence, VqaRow

DESCRIPTION = (
    "The picture shows the face of one person at close range.",
    "The light comes from the left and the colours of the photo are warm.",
)
REASONING = {
    Label.REAL: (
        "The grain of the skin runs on from the forehead to the chin and into the neck.",
        "The eyes reflect the same lamp, and the teeth have clear edges.",
        "Taken together this speaks for a real photo.",
    ),
    Label.FAKE: (
        "A seam runs along the jaw, and the colour of the neck is not that of the cheeks.",
        "The eyes reflect two different lamps, and the teeth are one white band.",
        "Taken together this speaks for a forgery.",
    ),
}


def told(description=DESCRIPTION, reasoning=REASONING[Label.FAKE], evidence=()):
    return [
        Sentence(part=part, text=text, evidence=list(evidence))
        for part, texts in (("description", description), ("reasoning", reasoning))
        for text in texts
    ]


def row(i=0, **changes):
    """A swapped face whose answer is right, with 71 words that hold for no other i."""
    label = changes.get("label", Label.FAKE)
    kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.IDENTITY_EXCHANGE
    kind = changes.get("forgery_type", kind)
    rng = np.random.default_rng(i)
    own = "The rim shows " + " ".join("".join(rng.choice(list("abcdefgh"), 5)) for _ in range(12)) + " to the eye."
    values = {
        "image": f"crops/{i}.jpg", "sha256": f"{i:064x}", "label": label, "forgery_type": kind, "method": "",
        "dataset": "tiny", "split": "train", "question": "Is it real?", "teacher": "t-1", "prompt_version": "1",
        "seed": 3, "sentences": told((*DESCRIPTION, own), REASONING[label]), "result": label, "probability": 0.9,
        "stated_type": kind,
    }  # fmt: skip
    values |= changes
    return VqaRow(**{"raw": " ".join(s.text for s in values["sentences"]), **values})
