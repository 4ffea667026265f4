import pytest

from ffaa.errors import UsageError
from ffaa.mllm.answer import format_answer, masked_text, parse_answer, parse_strict
from ffaa.types import Answer, ForgeryType, Label, Role, UnparsedAnswer

FAKE = format_answer("A woman with dark hair.", "The jaw is blurred.", Label.FAKE, 0.934, ForgeryType.IDENTITY_EXCHANGE)


def parse(raw: str) -> Answer:
    answer = parse_answer(raw, Role.ANCHOR, "q")
    assert isinstance(answer, Answer), answer
    return answer


def reason(raw: str) -> str:
    answer = parse_answer(raw, Role.NEGATIVE, "q")
    assert isinstance(answer, UnparsedAnswer), answer
    assert answer.raw == raw
    assert answer.role is Role.NEGATIVE
    return answer.reason


def test_format_is_the_five_lines():
    assert FAKE == (
        "Image description: A woman with dark hair.\n"
        "Forgery reasoning: The jaw is blurred.\n"
        "Analysis result: fake\n"
        "Probability: 0.93\n"
        "Forgery type: Identity exchange"
    )


@pytest.mark.parametrize("result", list(Label))
@pytest.mark.parametrize("forgery_type", list(ForgeryType))
@pytest.mark.parametrize("probability", [0.0, 0.5, 0.994, 1.0])
def test_round_trip(result, forgery_type, probability):
    raw = format_answer("Two\n lines", " b ", result, probability, forgery_type)
    assert parse_strict(raw) is not None
    answer = parse(raw)
    assert (answer.description, answer.reasoning, answer.result) == ("Two lines", "b", result)
    assert answer.probability == pytest.approx(probability, abs=0.005)
    assert answer.forgery_type is forgery_type
    assert bool(answer.flags) == ((result is Label.REAL) != (forgery_type is ForgeryType.REAL))


@pytest.mark.parametrize(("description", "probability"), [("", 0.5), (" \n", 0.5), ("a", 1.01), ("a", 93), ("a", -0.1)])
def test_format_refuses(description, probability):
    with pytest.raises(UsageError):
        format_answer(description, "b", Label.REAL, probability, ForgeryType.REAL)


def test_masked_text_keeps_two_lines():
    text = masked_text(parse(FAKE))
    assert text == "\n".join(FAKE.splitlines()[:2])


FLEXIBLE = {
    "surrounding white space": f"\n  {FAKE} \n",
    "case": FAKE.upper(),
    "extra text": f"Sure! Here is my analysis.\n\n{FAKE}\n\nI hope this helps; real faces differ.",
    "bold keys": "\n".join("**" + line.replace(":", ":**", 1) for line in FAKE.splitlines()),
    "bold keys, colon outside": "\n\n".join("**" + line.replace(":", "**:", 1) for line in FAKE.splitlines()),
    "list": "\n".join(f"{i}. {line}" for i, line in enumerate(FAKE.splitlines(), 1)),
    "headings": "\n".join("### " + line.replace(": ", "\n", 1) for line in FAKE.splitlines()),
    "fence": f"```text\n{FAKE}\n```",
    "reordered": "\n".join(reversed(FAKE.splitlines())),
    "one line": " ".join(FAKE.splitlines()),
    "missing colons": "\n".join(line.replace(":", "", 1) for line in FAKE.splitlines()),
    "dashes": FAKE.replace(":", " -"),
    "percent": FAKE.replace("0.93", "93%"),
    "percent in words": FAKE.replace("0.93", "93 percent"),
    "decimal comma": FAKE.replace("0.93", "0,93"),
    "short key": FAKE.replace("Analysis result", "Result"),
    "result in a sentence": FAKE.replace("fake", "The face is fake."),
    "multi-line section": FAKE.replace("The jaw is", "The jaw\n\nis"),
    "repeated, the same": f"{FAKE}\n{FAKE}",
    "end marker": f"{FAKE}</s>",
    "windows line ends": FAKE.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("raw", FLEXIBLE.values(), ids=FLEXIBLE.keys())
def test_flexible(raw):
    answer = parse(raw)
    assert answer.result is Label.FAKE
    assert answer.probability == 0.93
    assert answer.forgery_type is ForgeryType.IDENTITY_EXCHANGE
    assert answer.description.lower() == "a woman with dark hair."
    assert answer.reasoning.lower() == "the jaw is blurred."
    assert answer.flags == []


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "none of the five keys"),
        ("The face is fake.", "none of the five keys"),
        (FAKE.replace("Analysis result: fake\n", ""), "no result"),
        (FAKE.replace("result: fake", "result: unsure"), "no result"),
        (FAKE.replace("result: fake", "result: forged or not"), "no result"),
        (FAKE.replace("result: fake", "result: real/fake"), "two different"),
        (FAKE.replace("result: fake", "result: not fake"), "negated"),
        (FAKE.replace("result: fake", "result: this isn't real"), "negated"),
        (FAKE + "\n" + FAKE.replace("result: fake", "result: real"), "two different"),
        (FAKE.splitlines()[0], "no result"),
        ("Analysis result: fake", "no text after 'Image description:'"),
        (FAKE.replace("The jaw is blurred.", ""), "no text after 'Forgery reasoning:'"),
    ],
)
def test_unparsed(raw, expected):
    assert expected in reason(raw)


@pytest.mark.parametrize(
    ("old", "new", "flag"),
    [
        ("\nProbability: 0.93", "", None),
        ("Probability: 0.93", "Probability: high", "'high'"),
        ("Probability: 0.93", "Probability: 93", "'93'"),
        ("Probability: 0.93", "Probability: 0.8 - 0.9", "0.8 - 0.9"),
        ("Probability: 0.93", "Probability: -0.4", "-0.4"),
    ],
)
def test_unusable_probability_is_none(old, new, flag):
    answer = parse(FAKE.replace(old, new))
    assert answer.probability is None
    assert answer.result is Label.FAKE
    assert len(answer.flags) == (flag is not None)
    assert flag is None or flag in answer.flags[0]


@pytest.mark.parametrize(("new", "flags"), [("", 0), ("\nForgery type: splicing", 1)])
def test_unusable_type_is_none(new, flags):
    answer = parse(FAKE.replace("\nForgery type: Identity exchange", new))
    assert answer.forgery_type is None
    assert len(answer.flags) == flags


def test_ablated_answers_need_fewer_texts():
    answer = parse_answer("Analysis result: real", Role.ANCHOR, "q", required_texts=())
    assert isinstance(answer, Answer)
    assert (answer.result, answer.description, answer.reasoning) == (Label.REAL, "", "")


def flags(result: Label, reasoning: str) -> list[str]:
    forgery_type = ForgeryType.REAL if result is Label.REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS
    return parse(format_answer("A man.", reasoning, result, 0.9, forgery_type)).flags


@pytest.mark.parametrize(
    "reasoning",
    [
        "There are no signs of manipulation.",
        "The image shows no visible evidence of digital manipulation.",
        "It does not show any signs of forgery.",
        "The skin is natural, without traces of editing.",
        "The face appears authentic.",
        "Overall the image is clearly genuine.",
        "This image appears to be real.",
        "The face has not been manipulated.",
        "The picture is free from any indications of tampering.",
    ],
)
def test_reasoning_of_authenticity_contradicts_only_fake(reasoning):
    assert flags(Label.FAKE, reasoning), reasoning
    assert not flags(Label.REAL, reasoning), reasoning


@pytest.mark.parametrize(
    "reasoning",
    [
        "The face is clearly manipulated.",
        "The mouth region has obviously been altered and clearly forged.",
        "There are clear signs of manipulation around the eyes.",
        "This face is AI-generated.",
        "The image appears to be synthetic.",
        "It has been digitally altered.",
    ],
)
def test_reasoning_of_forgery_contradicts_only_real(reasoning):
    assert flags(Label.REAL, reasoning), reasoning
    assert not flags(Label.FAKE, reasoning), reasoning


@pytest.mark.parametrize("result", list(Label))
@pytest.mark.parametrize(
    "reasoning",
    [
        "The face appears authentic at first glance, but the jaw is blurred.",
        "There are no signs of manipulation around the mouth.",
        "A manipulated face would show a visible seam.",
        "The skin texture is fine and the light is even.",
        "The eyes look real.",
    ],
)
def test_unclear_reasoning_is_not_flagged(result, reasoning):
    assert flags(result, reasoning) == []


def test_a_repeated_sentence_is_kept_once():
    description = "The light is even. The head leans left. The light is even. The light is even from the left."
    reasoning = "An edge of approx. 3 px is seen. One of approx. 3 px is not. An edge of approx. 3 px is seen."
    raw = format_answer(description, reasoning, Label.REAL, 0.7, ForgeryType.REAL)
    answer = parse_answer(raw, Role.ANCHOR, "?")
    assert answer.description == "The light is even. The head leans left. The light is even from the left."
    assert answer.reasoning == "An edge of approx. 3 px is seen. One of approx. 3 px is not."
    assert answer.raw == raw


def test_never_raises_on_damaged_text():
    for cut in range(len(FAKE)):
        assert isinstance(parse_answer(FAKE[:cut], Role.ANCHOR, "q"), Answer | UnparsedAnswer)
        assert isinstance(parse_answer(FAKE[cut:], Role.ANCHOR, "q"), Answer | UnparsedAnswer)


def test_format_leaves_out_what_is_not_kept():
    """Fig. 3; a text that is left out may be empty."""
    given = ("A man.", "A seam.", Label.FAKE, 0.9, ForgeryType.IDENTITY_EXCHANGE)
    result = "Analysis result: fake\nProbability: 0.90\nForgery type: Identity exchange"
    assert format_answer(*given, ()) == result
    assert format_answer(*given, ("description",)) == f"Image description: A man.\n{result}"
    assert format_answer("", *given[1:], ("reasoning",)) == f"Forgery reasoning: A seam.\n{result}"
    read = parse_answer(format_answer(*given, ("reasoning",)), Role.ANCHOR, "q", ("reasoning",))
    assert (read.description, read.reasoning, read.result) == ("", "A seam.", Label.FAKE)
    with pytest.raises(UsageError, match="non-empty description"):
        format_answer("", *given[1:], ("description",))
