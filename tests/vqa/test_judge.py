import pytest

from ffaa.evidence.examine import MEASURES
from ffaa.types import EvidenceItem, EvidenceRecord, Support
from ffaa.vqa.judge import find_claims, judge, judge_text
from ffaa.vqa.sentences import Claim


def record(**words):
    """A record that holds these words only."""
    items = {}
    for name, measure in MEASURES.items():
        word = words.get(name, "")
        known = {"name": name, "unit": measure.unit, "method": measure.method, "region": measure.region, "word": word}
        items[name] = EvidenceItem(**known, value=0.0 if word else None, reason="" if word else "not seen")
    return EvidenceRecord(items=items, versions={})


def test_judge():
    found = record(smile="smile", yaw="front", warmth="warm")
    assert judge(Claim("smile", "smile"), found) is Support.SUPPORTED
    assert judge(Claim("smile", "none"), found) is Support.CONTRADICTED
    assert judge("The person wears a pair of glasses.", found) is Support.NOT_MEASURABLE
    assert judge("The weather was fine that day.", found) is Support.NOT_MEASURABLE
    assert judge("The mouth is drawn into a smile, and the colours are cool.", found) is Support.CONTRADICTED


def test_of_several_words_any_may_hold():
    assert judge("She smiles.", record(smile="lifted")) is Support.SUPPORTED
    assert judge("She smiles.", record(smile="smile")) is Support.SUPPORTED
    assert judge("She smiles.", record(smile="none")) is Support.CONTRADICTED


def test_a_measure_that_leaves_it_open_denies_nothing():
    assert judge("He wears glasses.", record(glasses="unsure")) is Support.NOT_MEASURABLE
    assert judge(Claim("glasses", "unsure"), record(glasses="unsure")) is Support.SUPPORTED
    assert judge("He wears glasses.", record(glasses="none")) is Support.CONTRADICTED


@pytest.mark.parametrize(
    ("sentence", "claim"),
    [
        ("In this photo the mouth is clearly drawn into a wide smile.", Claim("smile", "smile|lifted")),
        ("Tonal contrast is low.", Claim("contrast", "low")),
        ("Here the irises differ clearly in colour.", Claim("iris_match", "different")),
    ],
)
def test_wordings_and_free_text_are_found(sentence, claim):
    assert find_claims(sentence) == [claim]


def test_neither_a_negated_nor_a_supposed_sentence_is_taken_for_its_opposite():
    assert find_claims("The mouth is not drawn into any smile here.") == []
    assert find_claims("It is unclear whether the person is smiling.") == []


def test_judge_text_gives_each_sentence_its_verdict():
    text = "The colours are cool. The mouth is drawn into a smile. This is a guess."
    cool, smile, guess = judge_text(text, record(smile="smile", warmth="warm"), "description")
    assert (cool.support, cool.items, cool.measured) == (Support.CONTRADICTED, ["warmth"], {"warmth": "warm"})
    assert (smile.support, smile.items, smile.measured) == (Support.SUPPORTED, ["smile"], {})
    assert (guess.support, guess.items, guess.measured) == (Support.NOT_MEASURABLE, [], {})
    assert {s.part for s in (cool, smile, guess)} == {"description"}
    assert " ".join(s.text for s in (cool, smile, guess)) == text
    assert judge_text("", record(), "reasoning") == []
