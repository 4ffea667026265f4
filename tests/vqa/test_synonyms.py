"""Free text: what the synonyms find of what a reader would."""

from pathlib import Path

import pytest
import yaml

from ffaa.evidence.examine import MEASURES
from ffaa.vqa.judge import find_claims
from ffaa.vqa.sentences import Claim, claims, read_prompt, sentence_file, wordings
from ffaa.vqa.synonyms import free_claims

TEXTS = yaml.safe_load((Path(__file__).parent / "free_text.yaml").read_text(encoding="utf-8"))


def score(rows):
    """(recall, precision) over claims: found words must be among those that the sentence allows."""
    hits = wanted = found = 0
    for text, want in rows:
        stated = find_claims(text)
        hits += sum(c.item in want and set(c.words) <= set(want[c.item].split("|")) for c in stated)
        wanted, found = wanted + len(want), found + len(stated)
    return hits / wanted, hits / found


@pytest.mark.parametrize(("part", "recall", "precision"), [("known", 0.95, 0.99), ("held", 0.79, 0.95)])
def test_free_text_is_understood(part, recall, precision):
    found = score(TEXTS[part])
    assert found[0] >= recall
    assert found[1] >= precision


def test_every_phrase_speaks_of_words_that_the_measure_has():
    for item, by_words in read_prompt("synonyms.yaml").items():
        for words in by_words if item != "let" else ():
            assert set(words.split("|")) < set(MEASURES[item].words), (item, words)


def test_synonyms_agree_with_the_sentence_file():
    seen = 0
    for wording, claim in claims().items():
        for free in free_claims(wording):
            if free.item == claim.item and claim.word != "unsure":
                assert claim.word in free.words, wording
                seen += 1
    assert seen > 100


def strings(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from strings(child)


def test_what_rests_on_no_measure_is_no_claim():
    glue = [part for name, part in sentence_file().items() if name not in ("describe", "reason", "version")]
    texts = [wording for pattern in strings(glue) for wording in wordings(pattern)]
    assert len(texts) > 100
    assert [text for text in texts if find_claims(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "The skin does not look smooth.",
        "It is unclear whether the skin is smooth.",
        "Generators often leave smooth skin.",
        "Smooth skin would be expected.",
        "This suggests smooth skin.",
        "There are no wrinkles, lines, or natural skin texture.",
        "A person in the background is smiling.",
    ],
)
def test_what_is_denied_supposed_or_elsewhere_is_no_claim(text):
    assert find_claims(text) == []


def test_several_claims_in_order_each_item_once():
    found = free_claims("She smiles broadly, her teeth are visible, and she wears glasses; a warm smile indeed.")
    assert [c.item for c in found] == ["smile", "teeth", "glasses"]


def test_a_negation_ends_with_its_clause():
    found = free_claims("There is no seam along the jawline, while the skin is very smooth.")
    assert found == [Claim("boundary_seam", "none|faint"), Claim("skin", "smooth")]
