import re

import numpy as np
import pytest

from ffaa.evidence.measure import MEASURES, View, measure
from ffaa.mllm.answer import format_answer, parse_answer, parse_strict
from ffaa.types import Evidence, ForgeryType, Label, Role
from ffaa.vqa.grounded import DESCRIBED, REASONED, phrases, strength, write_answer

STANCES = [(Label.REAL, ForgeryType.REAL)] + [
    (Label.FAKE, kind) for kind in ForgeryType if kind is not ForgeryType.REAL
]


def evidence(words):
    return [
        Evidence(name=n, value=0.0, unit=m.unit, region=m.region, method=m.method, word=words[n])
        for n, m in MEASURES.items()
        if n in words
    ]


def sentences(text):
    return re.split(r"(?<=\.) ", text)


def test_every_measure_is_described_or_reasoned_about():
    assert set(DESCRIBED) | set(REASONED) == set(MEASURES)
    assert not set(DESCRIBED) & set(REASONED)


@pytest.mark.parametrize("name", MEASURES)
def test_every_word_has_sentences_for_both_stances(name):
    for word in MEASURES[name].words:
        if name in DESCRIBED:
            options = [phrases()["describe"][name][word]]
        else:
            options = [phrases()["reason"][name][word][label.value] for label in Label]
            assert not set(options[0]) & set(options[1])  # a sentence takes one side
        for found in options:
            assert len(found) >= 2
            assert len(set(found)) == len(found)
            assert all(isinstance(s, str) and s.endswith(".") and s[0].isupper() and ". " not in s for s in found)


def test_openings_and_closings_are_complete():
    assert set(phrases()["opening"]) == {kind.value for kind in ForgeryType}
    assert {label: set(levels) for label, levels in phrases()["closing"].items()} == {
        label.value: {"weak", "medium", "strong"} for label in Label
    }
    assert len(phrases()["questions"]) == len(set(phrases()["questions"])) >= 10


def origin():
    """Sentence -> the link it must have and what must have been measured for it (a word, or a stance)."""
    text, out = phrases(), {}
    for s in text["frame"]:
        out[s] = ("crop", None, None)
    for name, words in text["describe"].items():
        for word, options in words.items():
            for s in options:
                out[s] = (f"evidence:{name}", word, None)
    for name, words in text["reason"].items():
        for word, stances in words.items():
            for stance, options in stances.items():
                for s in options:
                    assert s not in out or out[s] == (f"evidence:{name}", word, stance), s
                    out[s] = (f"evidence:{name}", word, stance)
    for stance, options in text["stance"].items():
        for s in options:
            out[s] = ("manifest:label", None, stance)
    for kind, options in text["opening"].items():
        for s in options:
            out[s] = ("manifest:forgery_type", None, kind)
    for stance, levels in text["closing"].items():
        for level, options in levels.items():
            for s in options:
                out[s] = ("probability", level, stance)
    return out


@pytest.mark.parametrize(("label", "kind"), STANCES)
def test_states_only_what_was_measured(label, kind, measured_words):
    known = origin()
    for draw in range(60):
        rng = np.random.default_rng(draw)
        words, probability = measured_words(draw), float(rng.uniform(0.55, 0.99))
        regions = ("mouth", "left_eye") if label is Label.FAKE and draw % 2 else ()
        description, reasoning, links = write_answer(evidence(words), label, kind, regions, probability, rng)
        said = sentences(description) + sentences(reasoning)
        assert len(said) == len(links)
        for sentence, link in zip(said, links, strict=True):
            if link == "manifest:regions":
                assert "mouth and the left eye" in sentence
                continue
            want, word, stance = known[sentence]
            assert link == want, sentence
            if link.startswith("evidence:"):
                assert words[link.removeprefix("evidence:")] == word, sentence
            if link == "probability":
                assert word == strength(probability)
            assert stance in (None, label.value, kind.value), sentence
        assert ("manifest:regions" in links) == bool(regions)
        assert links[0] == "crop"
        assert links[-1] == "probability"
        assert len(set(links)) == len(links)  # nothing is said twice
        names = [link.removeprefix("evidence:") for link in links if link.startswith("evidence:")]
        assert 4 <= sum(n in DESCRIBED for n in names) <= 5
        assert sum(n in REASONED for n in names) == 3


def test_changed_regions_of_a_real_photo_are_never_told():
    found = evidence({name: m.words[0] for name, m in MEASURES.items()})
    _, _, links = write_answer(found, Label.REAL, ForgeryType.REAL, ("mouth",), 0.9, np.random.default_rng(0))
    assert "manifest:regions" not in links


@pytest.mark.parametrize(("label", "kind"), STANCES)
def test_many_different_answers_for_one_face(label, kind, tiny_crops):
    found = measure(View(tiny_crops[0], (40, 40, 184, 184)))
    drawn = [write_answer(found, label, kind, (), 0.8, np.random.default_rng(i)) for i in range(300)]
    assert len({(d, r) for d, r, _ in drawn}) >= 200
    assert len({tuple(links) for _, _, links in drawn}) >= 200  # plans: which measures are told
    assert drawn[7] == write_answer(found, label, kind, (), 0.8, np.random.default_rng(7))


@pytest.mark.parametrize(("label", "kind"), STANCES)
def test_answers_parse_strictly_and_do_not_contradict_themselves(label, kind, measured_words):
    for draw in range(120):
        rng = np.random.default_rng(draw)
        probability = (0.6, 0.8, 0.95)[draw % 3]
        regions = ("nose",) if draw % 2 else ()
        description, reasoning, _ = write_answer(evidence(measured_words(draw)), label, kind, regions, probability, rng)
        raw = format_answer(description, reasoning, label, probability, kind)
        assert parse_strict(raw) is not None
        answer = parse_answer(raw, Role.ANCHOR, "q")
        assert answer.flags == [], raw
        assert (answer.result, answer.probability, answer.forgery_type) == (label, probability, kind)


def test_no_sentence_of_either_stance_is_flagged():
    """Every sentence the teacher can write, alone, in an answer of its stance."""
    for sentence, (link, _, stance) in origin().items():
        if not link.startswith("evidence:") and link not in ("manifest:label", "manifest:forgery_type", "probability"):
            continue
        for label, kind in STANCES:
            if stance in (None, label.value, kind.value):
                answer = parse_answer(format_answer("A face.", sentence, label, 0.8, kind), Role.ANCHOR, "q")
                assert answer.flags == [], sentence


@pytest.mark.parametrize(
    ("probability", "want"), [(0.55, "weak"), (0.69, "weak"), (0.7, "medium"), (0.89, "medium"), (0.9, "strong")]
)
def test_strength(probability, want):
    assert strength(probability) == want


def test_unusual_words_are_told_more_often(measured_words):
    words = {n: m.words[0] for n, m in MEASURES.items()} | {"light": "even"}
    rows = [write_answer(evidence(words), *STANCES[0], (), 0.8, np.random.default_rng(i))[2] for i in range(400)]
    told = [sum(f"evidence:{name}" in links for links in rows) for name in ("light", "brightness")]
    assert told[0] < 0.8 * told[1]
