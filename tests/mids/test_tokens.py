import pytest
from transformers import AutoTokenizer

from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.types import Answer, ForgeryType, Label, Role, UnparsedAnswer


@pytest.fixture(scope="module")
def tokenizer(tiny_parts):
    return AutoTokenizer.from_pretrained(tiny_parts["minilm-l6"])


def answer(label, description="A face.", reasoning="Smooth cheeks.", probability=0.75):
    kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.IDENTITY_EXCHANGE
    found = parse_answer(
        format_answer(description, reasoning, label, probability, kind), Role.ANCHOR, "Is this face real or fake?"
    )
    assert isinstance(found, Answer)
    return found


def test_the_result_is_masked(tokenizer):
    """The same two texts with another result, probability and type are the same input."""
    ids, mask = AnswerTokens(tokenizer, 200)([answer(Label.REAL, probability=0.9), answer(Label.FAKE)])
    assert ids[0].tolist() == ids[1].tolist()
    assert mask.min() == 1
    text = tokenizer.decode(ids[0]).replace(" ", "").replace("##", "")
    assert "imagedescription:aface.forgeryreasoning:smoothcheeks." in text
    for word in ("result", "real", "fake", "0.75", "probability", "exchange"):
        assert word not in text, word


def test_both_texts_are_read(tokenizer):
    tokens = AnswerTokens(tokenizer, 200)
    base, other, third = answer(Label.REAL), answer(Label.REAL, "A head."), answer(Label.REAL, reasoning="Rough skin.")
    rows = [tokens([a])[0][0].tolist() for a in (base, other, third)]
    assert rows[0] != rows[1]
    assert rows[0] != rows[2]


def test_an_unparsed_answer_is_empty_text(tokenizer):
    unread = UnparsedAnswer(role=Role.NEGATIVE, prompt="q", raw="This one is fake, honestly.", reason="no keys")
    ids, mask = AnswerTokens(tokenizer, 200)([answer(Label.REAL), unread])
    assert ids.shape == mask.shape
    assert mask[1].sum() == 2  # [CLS] [SEP]
    assert mask[0].sum() == ids.shape[1]


def test_long_text_is_cut(tokenizer):
    ids, _ = AnswerTokens(tokenizer, 20)([answer(Label.REAL, "word " * 100)])
    assert ids.shape == (1, 20)


def test_unmasked_the_result_is_read(tokenizer):
    """Table 3, rows 1 and 2."""
    whole = AnswerTokens(tokenizer, 300, masked=False)
    ids, _ = whole([answer(Label.REAL), answer(Label.FAKE)])
    texts = [tokenizer.decode(row).replace(" ", "").replace("##", "") for row in ids]
    assert "analysisresult:real" in texts[0]
    assert "probability:0.75" in texts[0]
    assert "forgerytype:identityexchange" in texts[1]
    masked = AnswerTokens(tokenizer, 300)([answer(Label.REAL)])[0][0]
    assert ids[0][: len(masked) - 1].tolist() == masked[:-1].tolist()
