"""The only chat template: how a question (and an answer to learn) becomes text around the image."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from ffaa.errors import UsageError
from ffaa.types import Label

ANCHOR_PROMPTS: tuple[str, ...] = ("The image is a human face image. Is it real or fake? Why?",)


def hypothesis_prompt(label: Label) -> str:
    """The paper's hypothetical prompt: presumes that the face is `label`."""
    return f"This is a {Label(label).value} human face. What evidence do you have?"


class ChatTemplate(BaseModel):
    """One single-turn template. All pieces are joined as they stand; nothing is stripped or added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    system: str = Field(description="stands first, the same for every question")
    user_prefix: str = Field(description="between the system text and the image")
    image_token: str = Field(default="<image>", min_length=1, description="marks where the image features go")
    image_suffix: str = Field(default="\n", description="between the image and the question")
    assistant_prefix: str = Field(description="between the question and the answer; a prompt ends with it")
    reads_evidence: bool = Field(default=False, description="measured words stand behind the image, a token each")
    answer_prefix: str = Field(default=" ", description="between assistant_prefix and a learnt answer")

    def split(self, question: str) -> tuple[str, str]:
        """(text before the image, text after it). The first is the same for every question, and with the image it is
        the prefix that the three answers share. Raises UsageError when the question itself holds the image token."""
        if self.image_token in question:
            raise UsageError(f"the question holds {self.image_token!r}; remove it, the template adds the image itself")
        return self.system + self.user_prefix, self.image_suffix + question + self.assistant_prefix

    def measured(self, evidence: Mapping[str, str]) -> str:
        """The measured words as the model reads them right after the image; empty for a template without them."""
        return "".join(f"<{name}:{word}>" for name, word in evidence.items()) if self.reads_evidence else ""

    def prompt(self, question: str, evidence: Mapping[str, str] | None = None) -> str:
        """The whole prompt with the image token in it."""
        before, after = self.split(question)
        return before + self.image_token + self.measured(evidence or {}) + after

    def answered(self, answer: str, eos_token: str) -> str:
        """What follows a prompt in training: the loss (Eq. 2) is on these tokens only."""
        return self.answer_prefix + answer + eos_token


TEMPLATES: dict[str, ChatTemplate] = {
    # The published checkpoint is tuned on LLaVA's "v1" template although its language model is Mistral.
    "v1": ChatTemplate(
        name="v1",
        system=(
            "You are an AI master specialized in face forgery analysis. You'll be provided with a human face image. "
            "You need to think step by step to analyze whether the face is real or fake."
        ),
        user_prefix=" USER: ",
        assistant_prefix=" ASSISTANT:",
    ),
    "nano-2": ChatTemplate(
        name="nano-2", system="", user_prefix="USER: ", assistant_prefix=" ASSISTANT:", reads_evidence=True
    ),
}
