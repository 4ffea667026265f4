"""Three answers in one batch, against transformers' own `generate`, one image and one prompt at a time."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import QUESTIONS, Mllm, assign_roles
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.tower import pixel_tensor
from ffaa.types import Answer, ForgeryType, Label, Role, UnparsedAnswer

TEMPLATE = TEMPLATES["nano-2"]
LONG = "Look at the face in the image and tell me, step by step, whether it is real or fake."


class Constrained(LogitsProcessor):
    """AnswerConstraint for transformers' generate, one row, replayed from the start at every step."""

    def __init__(self, constraint, prompt_length):
        self.constraint, self.prompt_length = constraint, prompt_length

    def __call__(self, input_ids, scores):
        state = self.constraint.start(1)
        for token in input_ids[0, self.prompt_length :].tolist():
            self.constraint.advance(state, [token])
        return self.constraint.apply(state, scores)


def reference(mllm, pixels, words, question, limit=None):
    """The text that transformers writes for one image and one prompt."""
    tokenizer = mllm.tokenizer
    text = TEMPLATE.prompt(question, words).replace("<image>", "<image>" * 50)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]])
    held = [Constrained(mllm.constraint, ids.shape[1])] if mllm.constraint else []
    out = mllm.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels[None], do_sample=False,
        logits_processor=LogitsProcessorList(held), max_new_tokens=limit or mllm.constraint.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def mllm(make_llava, tiny_tokenizer):
    return Mllm(make_llava(), tiny_tokenizer, TEMPLATE, AnswerConstraint(tiny_tokenizer, 12))


@pytest.fixture(scope="module")
def pixels(tiny_crops):
    return pixel_tensor(tiny_crops)


@pytest.fixture(scope="module")
def measured(measured_words):
    return [measured_words(i) for i in range(6)]


@pytest.fixture(scope="module")
def answers(mllm, pixels, measured):
    return mllm.generate(mllm.image_features(pixels), measured)


def test_same_text_as_transformers_one_prompt_at_a_time(mllm, pixels, measured, answers):
    for image in range(4):
        want = [reference(mllm, pixels[image], measured[image], question) for question in QUESTIONS]
        assert answers[image] == want


def test_the_answers_depend_on_image_question_and_measured_words(mllm, pixels, measured, answers):
    """Otherwise the comparison above would compare constants."""
    assert len({tuple(texts) for texts in answers}) == len(answers)
    assert any(len(set(texts)) == 3 for texts in answers)
    first = mllm.image_features(pixels[:1])
    assert mllm.generate(first, [measured[1]]) != mllm.generate(first, [measured[0]])
    same_words = mllm.generate(mllm.image_features(pixels), [measured[0]] * 6)
    assert len({tuple(texts) for texts in same_words}) > 1


def test_questions_of_any_length_and_number(mllm, pixels, measured):
    questions = (LONG, "Why?")
    found = mllm.generate(mllm.image_features(pixels[:2]), measured[:2], questions)
    assert found == [[reference(mllm, pixels[i], measured[i], question) for question in questions] for i in range(2)]


@pytest.mark.parametrize("size", [1, 3, 4])
def test_batch_size_changes_nothing(mllm, pixels, measured, answers, size):
    features = mllm.image_features(pixels)
    found = []
    for start in range(0, 6, size):
        found += mllm.generate(features[start : start + size], measured[start : start + size])
    assert found == answers


def test_image_encoded_once_and_shared_prefix_run_once(mllm, pixels, measured):
    tower, body, shapes = [], [], []

    def saw_body(module, args, kwargs):
        source = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else kwargs["input_ids"]
        shapes.append(tuple(source.shape[:2]))
        body.append(next(v for v in kwargs.values() if isinstance(v, DynamicCache)).get_seq_length())

    hooks = [
        mllm.model.model.vision_tower.register_forward_pre_hook(lambda *_: tower.append(1)),
        mllm.model.model.language_model.register_forward_pre_hook(saw_body, with_kwargs=True),
    ]
    try:
        mllm.generate(mllm.image_features(pixels[:4]), measured[:4])
    finally:
        for hook in hooks:
            hook.remove()
    assert len(tower) == 1  # one call for the four images together
    split = [mllm.tokenizer(TEMPLATE.split(q)[1], add_special_tokens=False).input_ids for q in QUESTIONS]
    before = len(mllm.tokenizer(TEMPLATE.split("")[0], add_special_tokens=False).input_ids)
    prefix = 1 + before + 50 + len(measured[0])
    assert shapes[0] == (4, prefix)
    assert body[0] == 0
    longest = max(map(len, split))
    assert shapes[1] == (12, longest)
    assert body[1] == prefix
    assert all(length == 1 for _, length in shapes[2:])
    assert body[2] == prefix + longest
    rows = [rows for rows, _ in shapes[1:]]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 12


def test_every_answer_parses(answers):
    for texts in answers:
        for text in texts:
            assert isinstance(parse_answer(text, Role.ANCHOR, "q"), Answer), text


def test_different_numbers_of_measured_words_are_refused(mllm, pixels, measured):
    with pytest.raises(ValueError, match="measured words"):
        mllm.generate(mllm.image_features(pixels[:2]), [measured[0], {}])


# --- without the constraint ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def free(make_llava, tiny_tokenizer):
    """Free generation by a model that ends at different lengths, and sometimes not at all."""
    model = make_llava(seed=8)
    torch.manual_seed(9)
    head = nn.Linear(32, len(tiny_tokenizer))
    with torch.no_grad():
        head.weight.normal_()
        head.bias.zero_()
        head.bias[tiny_tokenizer.eos_token_id] = 7
    model.lm_head = head
    return Mllm(model, tiny_tokenizer, TEMPLATE, None, max_new_tokens=24)


def test_free_generation_ends_at_eos_or_the_limit(free, pixels, measured):
    found = free.generate(free.image_features(pixels), measured)
    want = [[reference(free, pixels[i], measured[i], q, limit=24) for q in QUESTIONS] for i in range(6)]
    assert found == want
    lengths = {len(text) for texts in want for text in texts}
    assert len(lengths) > 4  # rows end at different steps, so ended rows wait in the batch with others


def test_free_generation_stops_at_the_limit(free, pixels, measured, monkeypatch):
    monkeypatch.setattr(free, "max_new_tokens", 3)
    steps = []
    hook = free.model.lm_head.register_forward_hook(lambda *_: steps.append(1))
    try:
        free.generate(free.image_features(pixels[:1]), measured[:1])
    finally:
        hook.remove()
    assert 1 <= len(steps) <= 3


# --- roles -----------------------------------------------------------------------------------------------------------


def text(label):
    kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.IDENTITY_EXCHANGE
    return format_answer("A face.", "Some traits.", label, 0.8, kind)


@pytest.mark.parametrize("label", Label)
def test_positive_repeats_the_anchors_determination(label):
    raws = [text(label), text(Label.REAL) + " ", text(Label.FAKE) + "  "]
    anchor, positive, negative = assign_roles(raws)
    assert [a.role for a in (anchor, positive, negative)] == [Role.ANCHOR, Role.POSITIVE, Role.NEGATIVE]
    assert [a.prompt for a in (anchor, positive, negative)] == [
        QUESTIONS[0],
        f"This is a {label} human face. What evidence do you have?",
        f"This is a {label.opposite} human face. What evidence do you have?",
    ]
    same = 1 if label is Label.REAL else 2
    assert [anchor.raw, positive.raw, negative.raw] == [raws[0], raws[same], raws[3 - same]]


def test_an_unreadable_anchor_is_counted_and_real_is_called_positive():
    anchor, positive, negative = assign_roles(["nonsense", text(Label.FAKE), "more nonsense"])
    assert isinstance(anchor, UnparsedAnswer)
    assert anchor.role is Role.ANCHOR
    assert positive.prompt == QUESTIONS[1]
    assert positive.result is Label.FAKE
    assert isinstance(negative, UnparsedAnswer)
    assert negative.role is Role.NEGATIVE
    assert negative.prompt == QUESTIONS[2]


def test_roles_carry_the_questions_that_were_asked():
    asked = ("Is it?", *QUESTIONS[1:])
    assert [a.prompt for a in assign_roles([text(Label.FAKE)] * 3, asked)] == [asked[0], asked[2], asked[1]]
