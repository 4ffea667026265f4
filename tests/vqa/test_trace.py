import pytest

from ffaa.types import ForgeryType
from ffaa.vqa.trace import CUTS, TRACES, all_words, tower_words


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (0.0, "none"),
        (0.09, "minimal"),
        (0.2, "faint"),
        (0.4, "slight"),
        (0.6, "some"),
        (0.8, "clear"),
        (0.9, "marked"),
        (1.0, "strong"),
    ],
)
def test_trace_follows_the_score(score, word):
    assert tower_words(score, ForgeryType.REAL)["trace"] == word


def test_one_half_is_on_the_forged_side():
    """As a score above 0.5 means forged, words on both sides of it stay apart."""
    assert len(TRACES) == len(CUTS) + 1
    assert 0.5 in CUTS
    assert tower_words(0.4999, ForgeryType.REAL) != tower_words(0.5, ForgeryType.REAL)


def test_every_word_is_known_to_the_tokenizer(tiny_tokenizer):
    found = {pair for s in range(101) for k in ForgeryType for pair in tower_words(s / 100, k).items()}
    assert found == set(all_words())
    for name, word in found:
        assert len(tiny_tokenizer(f"<{name}:{word}>", add_special_tokens=False).input_ids) == 1
    assert len({tower_words(0.5, kind)["kind"] for kind in ForgeryType}) == 4
