import numpy as np
import pytest
from tests.vqa.rows import row, told

from ffaa.types import ForgeryType, Label
from ffaa.vqa.information import measure, table
from ffaa.vqa.row import Sentence

KINDS = (ForgeryType.REAL, ForgeryType.IDENTITY_EXCHANGE, ForgeryType.ENTIRE_FACE_SYNTHESIS)
SIGNS = ("grain", "seam", "lattice")


def make(count=240, leak=False, names=False, split="train", start=0):
    """Rows whose reasoning holds a sign of the type; leak: the description does so too; names: it is the verdict."""
    rng = np.random.default_rng(start)
    rows = []
    for i in range(start, start + count):
        kind = KINDS[i % 3]
        label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
        noise = " ".join(rng.choice(["dark", "bright", "warm", "cool", "soft", "sharp"], 5))
        sign = ("real", "fake", "synthetic")[i % 3] if names else SIGNS[i % 3]
        described = f"It is {noise} {SIGNS[i % 3] if leak else ''}."
        sentences = told((described,), (f"There is {sign} and {noise}.",))
        rows.append(
            row(i, label=label, forgery_type=kind, sentences=sentences, split=split, group=f"g{i // 2}")
        )  # fmt: skip
    return rows


def readings(rows):
    return {(r.scope, r.text, r.target): r for r in measure(rows, 1).readings}


def test_reasoning_tells_the_type_and_the_description_does_not():
    found = readings(make())
    assert len(found) == 6
    whole = found["all", "description and reasoning", "forgery type"]
    assert (whole.rows, whole.classes, whole.balanced_accuracy) == (240, 3, 1)
    assert whole.above_chance
    for target, chance in (("forgery type", 1 / 3), ("real or fake", 1 / 2)):
        alone = found["all", "description", target]
        assert not alone.above_chance
        assert alone.low < chance < alone.high + 0.05
        assert alone.high - alone.low > 0.03


def test_a_leaking_description_is_seen():
    found = readings(make(leak=True))
    assert found["all", "description", "forgery type"].balanced_accuracy == 1
    assert found["all", "description", "real or fake"].above_chance


def test_words_of_verdict_are_taken_out():
    found = readings(make(names=True))
    assert found["all", "description and reasoning", "real or fake"].balanced_accuracy == 1
    assert not found["all", "the same without words of verdict", "real or fake"].above_chance


def test_a_group_is_never_in_training_and_test():
    """The sign is the group's own: learnt by heart, it would give the label of the group's other faces away."""
    rng = np.random.default_rng(0)
    rows = []
    for g in range(40):
        label = Label(["real", "fake"][int(rng.integers(2))])
        sign = "".join(rng.choice(list("abcdefgh"), 6))
        rows += [row(4 * g + i, label=label, group=f"g{g}", sentences=told((f"{sign}.",), ("Yes.",))) for i in range(4)]
    assert not readings(rows)["all", "description", "real or fake"].above_chance


def test_splits_and_small_classes():
    few = [r.model_copy(update={"split": "val"}) for r in make(30, start=300)]
    found = measure([*make(120), *few], 1)
    assert {r.scope for r in found.readings} == {"all", "train"}
    assert "val, real or fake: fewer than two classes, not read" in found.notes
    assert any(
        note.startswith("val, forgery type: too few rows or groups of Entire face synthesis") for note in found.notes
    )
    shown = table(found)
    assert len(shown.rows) == 12
    assert list(shown.notes) == found.notes


def test_seeded():
    rows = make(120)
    assert measure(rows, 4) == measure(rows, 4)


@pytest.mark.parametrize("rows", [[], [row()]])
def test_nothing_to_read(rows):
    assert measure(rows).readings == []


def test_measured_sentences_alone():
    """The sign of the type stands in a sentence on the manifest for some rows, in a measured one for others."""
    name = "measured sentences of the reasoning alone"

    def linked(source):
        found = []
        for r in make(names=True):
            first, last = r.sentences
            plain = Sentence(part="reasoning", text=f"{first.text[6:]}", evidence=["skin"])
            telling = last.model_copy(update={"evidence": source})
            found.append(r.model_copy(update={"sentences": [first, plain, telling]}))
        return readings(found)["all", name, "real or fake"]

    assert linked(["skin"]).balanced_accuracy == 1
    for source in (["manifest:forgery_type"], ["balance"]):
        assert not linked(source).above_chance
    notes = measure(make()).notes
    assert f"all, real or fake: no {name}, since no sentence says what it rests on" in notes
