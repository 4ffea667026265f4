import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ffaa.errors import UsageError
from ffaa.mllm import nano
from ffaa.mllm.answer import format_answer
from ffaa.mllm.generate import QUESTIONS
from ffaa.mllm.llava_import import IMAGE_PLACEHOLDER
from ffaa.mllm.template import TEMPLATES
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.train import (
    ConversationData,
    LoraArgs,
    MllmArgs,
    answer_loss,
    collate,
    encode,
    encode_answer,
    train_mllm,
)
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import Conversation

TEMPLATE = TEMPLATES["nano-2"]
PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures/parity/llava_original.json").read_text())
PLAIN = {"lora": None, "bf16": False, "batch": 2, "lr": 3e-3, "projector_lr": 3e-3}


@pytest.fixture(scope="module")
def told(measured_words):
    """Eight conversations with answers of different lengths."""
    out = []
    for i in range(8):
        label = (Label.REAL, Label.FAKE)[i % 2]
        kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS
        out.append(
            Conversation(
                image=f"{i}.jpg", sha256=f"{i}", variant=0, label=label, forgery_type=kind, question=QUESTIONS[i % 3],
                hypothesis=None, description="A face " + "in soft light " * (1 + i % 3), reasoning=f"Smooth {i}.",
                probability=0.55 + i / 20, evidence=measured_words(i), links=[], teacher="t", seed=0,
            )
        )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def features(tiny_tower, tiny_crops):
    """(6, 2, 50, 32) hidden states of the crops, as `features.compute` keeps them but in float32."""
    with torch.no_grad():
        return torch.stack(tiny_tower(pixel_tensor(tiny_crops)).hidden_states, 1).numpy()


@pytest.fixture
def data(told, features, tiny_tokenizer):
    return ConversationData(told, features, [i % 6 for i in range(8)], tiny_tokenizer, TEMPLATE)


def test_labels_are_the_answer_and_nothing_else(told, tiny_tokenizer):
    for conversation in told:
        ids, labels = encode(tiny_tokenizer, TEMPLATE, conversation, 50)
        learnt = [place for place, label in enumerate(labels) if label != -100]
        assert len(ids) == len(labels)
        assert learnt == list(range(learnt[0], len(ids)))  # one block at the end
        assert [labels[i] for i in learnt] == [ids[i] for i in learnt]
        c = conversation
        answer = format_answer(c.description, c.reasoning, c.label, c.probability, c.forgery_type)
        assert tiny_tokenizer.decode(labels[learnt[0] :]) == " " + answer + "</s>"
        prompt = TEMPLATE.prompt(c.question, c.evidence).replace("<image>", "<image>" * 50)
        assert tiny_tokenizer.decode(ids[: learnt[0]]) == "<s>" + prompt
        assert ids.count(tiny_tokenizer.convert_tokens_to_ids("<image>")) == 50


@pytest.mark.parametrize("question", PUBLISHED["prompts"])
def test_the_loss_is_on_the_answer_behind_the_published_prompt(told, tiny_tokenizer, question):
    """The prompt strings are those of the published model, character by character."""
    c = told[1]
    answer = format_answer(c.description, c.reasoning, c.label, c.probability, c.forgery_type)
    ids, labels = encode_answer(tiny_tokenizer, TEMPLATES["v1"], question, {}, answer, 3, IMAGE_PLACEHOLDER)
    at = ids.index(IMAGE_PLACEHOLDER)
    assert ids[at : at + 3] == [IMAGE_PLACEHOLDER] * 3
    masked = labels.count(-100)
    assert labels == [-100] * masked + ids[masked:]
    before, after = PUBLISHED["prompts"][question].split("<image>")
    assert tiny_tokenizer.decode(ids[:at]) == "<s>" + before
    assert tiny_tokenizer.decode(ids[at + 3 : masked]) == after
    assert tiny_tokenizer.decode(ids[masked:]) == " " + answer + "</s>"


def test_a_tokenizer_that_joins_prompt_and_answer_is_refused(tiny_tokenizer):
    joined = TEMPLATES["v1"].model_copy(update={"assistant_prefix": " ", "answer_prefix": ""})
    with pytest.raises(UsageError, match="joins the end of the prompt"):
        encode_answer(tiny_tokenizer, joined, "Is it?", {}, "smooth", 1, 0)


def test_a_batch_is_padded_on_the_right(data, features, tiny_tokenizer):
    one, two = data[0], data[2]
    assert one["length"] == len(one["input_ids"]) != two["length"]
    batch = collate(tiny_tokenizer.pad_token_id, [one, two])
    short, row = (one, 0) if one["length"] < two["length"] else (two, 1)
    n = short["length"]
    assert batch["input_ids"][row, :n].tolist() == short["input_ids"]
    assert set(batch["input_ids"][row, n:].tolist()) == {tiny_tokenizer.pad_token_id}
    assert set(batch["labels"][row, n:].tolist()) == {-100}
    assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
    assert np.array_equal(batch["features"][1].numpy(), features[2, 1])  # the last layer, of the row's own image


def test_loss_is_the_one_of_transformers(make_llava, data, tiny_tokenizer, tiny_crops):
    model = make_llava()
    batch = collate(tiny_tokenizer.pad_token_id, [data[i] for i in (0, 1, 2, 5)])
    pixels = pixel_tensor([tiny_crops[i] for i in (0, 1, 2, 5)])
    with torch.no_grad():
        ours = answer_loss(model, batch)
        theirs = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=pixels,
            labels=batch["labels"],
        ).loss  # fmt: skip
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    assert ours.item() > 1


def fresh(make_llava):
    return make_llava(layers=1, scale=0.1)


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def test_training_learns_and_leaves_the_tower_alone(make_llava, data, tiny_tokenizer, tmp_path):
    model = fresh(make_llava)
    before = weights(model)
    batch = collate(tiny_tokenizer.pad_token_id, [data[i] for i in range(8)])
    first = answer_loss(model, batch).item()
    figures = train_mllm(
        MllmArgs(epochs=12, **PLAIN | {"batch": 4, "lr": 1e-2}), model, tiny_tokenizer, data, data, tmp_path, 0
    )
    model.eval()
    last = answer_loss(model, batch).item()
    assert last < 0.5 * first
    assert [entry["eval_loss"] for entry in figures["log"] if "eval_loss" in entry][-1] == pytest.approx(last, rel=0.2)
    for name, value in weights(model).items():
        if "vision_tower" in name:
            assert torch.equal(value, before[name]), name
    for part in ("multi_modal_projector.linear_1.weight", "language_model.embed_tokens.weight"):
        assert not torch.equal(weights(model)[f"model.{part}"], before[f"model.{part}"])


class KilledError(Exception):
    pass


class Dying(ConversationData):
    """Cannot be read any more once the first checkpoint is there."""

    folder: Path

    def __getitem__(self, index):
        if (self.folder / "checkpoint-3" / "trainer_state.json").exists():
            raise KilledError
        return super().__getitem__(index)


def test_a_killed_run_ends_with_the_same_weights(
    make_llava, told, features, data, tiny_tokenizer, tmp_path, monkeypatch
):
    args = MllmArgs(epochs=2, save_steps=3, **PLAIN)  # 4 steps an epoch; checkpoints behind step 3 and 6
    whole = fresh(make_llava)
    train_mllm(args, whole, tiny_tokenizer, data, data, tmp_path / "whole", 0)

    model = fresh(make_llava)
    dying = Dying(told, features, data.rows, tiny_tokenizer, TEMPLATE)
    dying.folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        train_mllm(args, model, tiny_tokenizer, dying, data, tmp_path / "killed", 0)

    steps = []

    def counted(model, inputs):
        steps.append(torch.is_grad_enabled())
        return answer_loss(model, inputs)

    monkeypatch.setattr("ffaa.mllm.train.answer_loss", counted)
    again = fresh(make_llava)  # a new process starts from the same seed, not from the killed weights
    train_mllm(args, again, tiny_tokenizer, data, data, tmp_path / "killed", 0)
    assert sum(steps) == 8 - 3
    want = weights(whole)
    assert weights(again).keys() == want.keys()
    for name, value in weights(again).items():
        assert torch.allclose(value, want[name], atol=1e-6), name


# --- LoRA ------------------------------------------------------------------------------------------------------------


def untied(tokenizer, tower):
    """nano with a head of its own, as the 7B models have."""
    torch.manual_seed(2)
    args = nano.BodyArgs(hidden_size=32, intermediate_size=48, layers=1, heads=4, kv_heads=2)
    model = nano.build(args, tokenizer, tower).eval()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def test_lora_trains_adapters_and_projector_and_is_merged(tiny_tokenizer, tiny_tower, data, tmp_path):
    model = untied(tiny_tokenizer, tiny_tower)
    before, names = weights(model), set(model.state_dict())
    args = MllmArgs(epochs=1, **PLAIN | {"lora": LoraArgs(r=2, alpha=4, dropout=0.0), "lr": 1e-2})
    train_mllm(args, model, tiny_tokenizer, data, data, tmp_path, 0)
    after = weights(model)
    assert set(after) == names  # no adapter is left over
    changed = {name for name in names if not torch.equal(before[name], after[name])}
    inner = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    body = {name for name in names if any(part in name for part in inner)}
    assert changed == body | {name for name in names if "multi_modal_projector" in name}
    for name in body:  # a merged adapter of rank 2
        assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-5) <= 2, name


def test_a_killed_lora_run_ends_with_the_same_weights(tiny_tokenizer, tiny_tower, told, features, data, tmp_path):
    args = MllmArgs(epochs=2, save_steps=3, **PLAIN | {"lora": LoraArgs(r=2, alpha=4, dropout=0.0), "lr": 1e-2})
    torch.manual_seed(0)
    whole = untied(tiny_tokenizer, tiny_tower)
    train_mllm(args, whole, tiny_tokenizer, data, data, tmp_path / "whole", 0)
    dying = Dying(told, features, data.rows, tiny_tokenizer, TEMPLATE)
    dying.folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        train_mllm(args, untied(tiny_tokenizer, tiny_tower), tiny_tokenizer, dying, data, tmp_path / "killed", 0)
    again = untied(tiny_tokenizer, tiny_tower)
    train_mllm(args, again, tiny_tokenizer, data, data, tmp_path / "killed", 0)
    want = weights(whole)
    for name, value in weights(again).items():
        assert torch.allclose(value, want[name], atol=1e-6), name
