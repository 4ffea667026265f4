import numpy as np
import pytest

from ffaa.data.forge.operations import OPERATIONS
from ffaa.data.manifest import Row
from ffaa.data.sources import (
    SOURCES,
    celebdf,
    deeperforensics,
    deepfakedetection,
    dfdc,
    dffd,
    faceforensics,
    gandiffface,
    multiffdi,
    pgc,
    whichfaceisreal,
)
from ffaa.mllm.answer import KEYS
from ffaa.types import ForgeryType, Label
from ffaa.vqa import prompting

REAL = Row(path="a.png", label=Label.REAL, forgery_type=ForgeryType.REAL, dataset="pgc")
FAKE = Row(
    path="b.png", label=Label.FAKE, forgery_type=ForgeryType.IDENTITY_EXCHANGE, dataset="faceforensics",
    method="FaceSwap", regions=("left_eye", "mouth"),
)  # fmt: skip


def test_the_system_prompt_has_the_four_sections_and_the_five_lines_in_order():
    text = prompting.system_prompt()
    assert text.count("\n# ") == 3
    assert text.startswith("# ")
    places = [text.index(f"\n{key} <") for key in KEYS.values()]
    assert places == sorted(places)
    assert all(f"- {kind.value}:" in text for kind in ForgeryType)


def test_every_collection_and_method_of_the_sources_is_explained():
    collections, methods, types = prompting.explained()
    assert collections == set(SOURCES) - {"folder", "csv"}
    known = {*dffd.METHODS, *faceforensics.METHODS, *deeperforensics.METHODS}
    known |= {s.METHOD for s in (celebdf, deepfakedetection, dfdc, gandiffface, multiffdi, pgc, whichfaceisreal)}
    assert methods == known | set(OPERATIONS)
    assert types == set(ForgeryType)


def test_the_truth_stands_first_and_the_task_last():
    lines = prompting.source_prompt(FAKE).splitlines()
    assert lines[0] == "Truth: this picture is fake. Forgery type: Identity exchange."
    assert "three-dimensional model" in lines[2]
    assert lines[-2] == "What was changed: left eye, mouth."
    assert lines[-1].endswith("Analysis result: fake and Forgery type: Identity exchange.")
    real = prompting.source_prompt(REAL)
    assert real.startswith("Truth: this picture is real. Forgery type: Real.")
    assert "changed:" not in real


@pytest.mark.parametrize("kind", list(ForgeryType))
def test_an_unknown_collection_and_method_get_the_generic_texts(kind):
    label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
    text = prompting.source_prompt(Row(path="a", label=label, forgery_type=kind, dataset="mine", method="new" * 2))
    assert "Nothing is known about where" in text
    assert f"Forgery type: {kind.value}." in text
    assert "{" not in text
    assert "newnew" not in text


def test_every_source_prompt_is_filled_for_both_labels():
    collections, methods, _ = prompting.explained()
    for method in methods:
        for dataset in collections:
            row = FAKE.model_copy(update={"dataset": dataset, "method": method})
            assert "{" not in prompting.source_prompt(row)


def test_questions_are_at_least_ten_and_none_presumes_a_result():
    plain = prompting.questions()
    assert len(set(plain)) == len(plain) >= 10
    assert all(any(w in q.lower() for w in ("real", "genuine", "authenticity", "forged")) for q in plain)
    for label in Label:
        other = prompting.questions(label.opposite)
        assert not set(prompting.questions(label)) & (set(plain) | set(other))
        assert not any(label.opposite.value in q for q in prompting.questions(label))


def test_a_drawn_question_is_one_of_them_and_all_come_up():
    rng = np.random.default_rng(1)
    assert {prompting.draw_question(None, rng) for _ in range(300)} == set(prompting.questions())
    drawn = {prompting.draw_question(Label.FAKE, rng) for _ in range(100)}
    assert drawn == set(prompting.questions(Label.FAKE))


def test_the_version_changes_with_any_text(monkeypatch):
    before = prompting.prompt_version()
    assert before.startswith("teacher-1-")
    read = prompting._text
    monkeypatch.setattr(prompting, "_text", lambda name: read(name) + ("\n" if name == "questions.yaml" else ""))
    assert prompting.prompt_version.__wrapped__() != before


def test_pictures_are_introduced():
    assert len({prompting.picture_prompt(name) for name in ("reference", "mask", "image")}) == 3
