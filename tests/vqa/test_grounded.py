"""The grounded teacher: it says what was measured or given, in many ways."""

from __future__ import annotations

import numpy as np
import pytest

from ffaa.evidence.measure import MEASURES
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.types import Answer, Evidence, ForgeryType, Label, Role
from ffaa.vqa.grounded import DESCRIBED, REASONED, phrases, strength, write_answer


def evidence(rng):
    return [
        Evidence(name=n, value=0, unit=m.unit, region=m.region, method=m.method, word=str(rng.choice(m.words)))
        for n, m in MEASURES.items()
    ]


def draw(index):
    rng = np.random.default_rng(index)
    kind = list(ForgeryType)[index % 4]
    label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
    regions = ("mouth", "left_eye") if kind is ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION else ()
    found = evidence(rng)
    return found, label, kind, regions, write_answer(found, label, kind, regions, float(rng.uniform(0.55, 0.99)), rng)


def test_every_measured_word_has_sentences_for_both_stances():
    text = phrases()
    assert set(DESCRIBED) | set(REASONED) == set(MEASURES)
    for name in DESCRIBED:
        assert set(text["describe"][name]) == set(MEASURES[name].words), name
    for name in REASONED:
        assert set(text["reason"][name]) == set(MEASURES[name].words), name
        for word, stances in text["reason"][name].items():
            assert set(stances) == {"real", "fake"}, (name, word)
    assert set(text["opening"]) == {t.value for t in ForgeryType}
    assert len(text["questions"]) >= 10


def test_answers_parse_strictly_and_never_contradict_themselves():
    for index in range(200):
        _, label, kind, _, (description, reasoning, _) = draw(index)
        answer = parse_answer(format_answer(description, reasoning, label, 0.8, kind), Role.ANCHOR, "?")
        assert isinstance(answer, Answer)
        assert (answer.result, answer.forgery_type, answer.flags) == (label, kind, [])


def test_every_sentence_rests_on_what_was_measured_or_given():
    for index in range(60):
        found, label, kind, regions, (description, reasoning, links) = draw(index)
        words = {e.name: e.word for e in found}
        text, both = phrases(), description + " " + reasoning
        rebuilt = 0
        for link in links:
            source, _, name = link.partition(":")
            if source == "evidence":
                options = text["describe"].get(name) or text["reason"][name]
                sentences = options[words[name]]
                sentences = sentences if isinstance(sentences, list) else sentences[label.value]
            elif link == "manifest:forgery_type":
                sentences = text["opening"][kind.value]
            elif link == "manifest:regions":
                sentences = [s.format(regions="mouth and the left eye") for s in text["regions"]]
            else:
                sentences = text["frame"] if link == "crop" else sum(text["closing"][label.value].values(), [])
            said = [s for s in sentences if s in both]
            assert said, link
            rebuilt += len(said[0]) + 1
        assert rebuilt == len(both) + 1  # nothing else was said
        assert ("manifest:regions" in links) == bool(regions)


def test_wording_varies():
    plans = {draw(index)[4][:2] for index in range(300)}
    assert len(plans) >= 295


def test_the_same_generator_state_writes_the_same():
    assert draw(7)[4] == draw(7)[4]


@pytest.mark.parametrize(("probability", "word"), [(0.55, "weak"), (0.7, "medium"), (0.89, "medium"), (0.9, "strong")])
def test_strength_follows_the_probability(probability, word):
    assert strength(probability) == word
