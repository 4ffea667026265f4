import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ffaa.errors import UsageError
from ffaa.mllm.template import ANCHOR_PROMPTS, TEMPLATES, ChatTemplate, hypothesis_prompt
from ffaa.types import Label

PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures/parity/llava_original.json").read_text())["prompts"]


@pytest.mark.parametrize("question", PUBLISHED)
def test_v1_is_the_published_prompt(question):
    assert TEMPLATES["v1"].prompt(question) == PUBLISHED[question]


def test_paper_prompts():
    assert {ANCHOR_PROMPTS[0], hypothesis_prompt(Label.FAKE)} == set(PUBLISHED)
    assert hypothesis_prompt(Label.REAL) == "This is a real human face. What evidence do you have?"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_split_surrounds_the_image_and_shares_its_first_part(template):
    parts = [template.split(question) for question in ("One?", "Two?")]
    assert parts[0][0] == parts[1][0]
    assert template.image_token.join(parts[0]) == template.prompt("One?")


def test_answered_follows_the_prompt():
    assert TEMPLATES["v1"].answered("Image description: x", "</s>") == " Image description: x</s>"


def test_names_match_keys():
    assert all(template.name == name for name, template in TEMPLATES.items())


def test_question_with_image_token_is_refused():
    with pytest.raises(UsageError, match="<image>"):
        TEMPLATES["v1"].prompt("What is <image>?")


def test_unknown_field_is_refused():
    with pytest.raises(ValidationError):
        ChatTemplate(name="x", system="", user_prefix="", assistant_prefix="", suffix="")
