"""The released nano's own sentences; goes with ffaa/vqa/nano_claims.py."""

import numpy as np
import pytest

from ffaa.evidence.measure import MEASURES
from ffaa.types import Evidence, EvidenceRecord, ForgeryType, Label, Support
from ffaa.vqa.grounded import phrases, write_answer
from ffaa.vqa.judge import find_claims, judge_text
from ffaa.vqa.nano_claims import PREFIX, nano_claims, with_measures


def measured(rng):
    """A random word of each of the 13 measures."""
    return [
        Evidence(name=name, value=0.0, unit=m.unit, region=m.region, method=m.method, word=str(rng.choice(m.words)))
        for name, m in MEASURES.items()
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", [ForgeryType.REAL, ForgeryType.IDENTITY_EXCHANGE])
def test_each_sentence_of_the_teacher_is_read_back_as_what_it_rests_on(seed, kind):
    rng = np.random.default_rng(seed)
    evidence = measured(rng)
    label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
    description, reasoning, links = write_answer(evidence, label, kind, ["mouth"], 0.8, rng)
    found = with_measures(EvidenceRecord(items={}, versions={}), evidence)
    judged = judge_text(description, found, "description", nano_claims())
    judged += judge_text(reasoning, found, "reasoning", nano_claims())
    assert len(judged) == len(links)
    for sentence, link in zip(judged, links, strict=True):
        named = [PREFIX + link.removeprefix("evidence:")] if link.startswith("evidence:") else []
        assert sentence.items == named, sentence.text
        assert sentence.support is (Support.SUPPORTED if named else Support.NOT_MEASURABLE)


def test_a_beginning_states_one_thing_only():
    said = {}
    for name, words in (phrases()["describe"] | phrases()["reason"]).items():
        for word, node in words.items():
            for sentence in node if isinstance(node, list) else [*node["real"], *node["fake"]]:
                (claim,) = find_claims(sentence, nano_claims())
                assert claim == (PREFIX + name, word), sentence
                said[claim] = sentence
    assert len(said) == sum(len(m.words) for m in MEASURES.values())


def test_measures_are_added_beside_items_of_the_same_name():
    evidence = measured(np.random.default_rng(0))
    found = with_measures(EvidenceRecord(items={}, versions={"evidence": "1"}), evidence)
    assert list(found.items) == [PREFIX + name for name in MEASURES]
    assert found.word(PREFIX + "contrast") == next(e.word for e in evidence if e.name == "contrast")
    assert found.versions == {"evidence": "1"}
