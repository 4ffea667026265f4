"""A toy: the image features tell real from fake by their sign, all three answers may be read too."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ffaa.errors import InputError, UsageError
from ffaa.mids import train as module
from ffaa.mids.decide import decide
from ffaa.mids.images import Stored
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mids.texts import TextFeatures
from ffaa.mids.tokens import AnswerTokens
from ffaa.mids.train import STATE, MidsArgs, compare, decisions, fit_temperature, logits_of, opinions, train_mids
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.mllm.mine import Mined
from ffaa.types import ForgeryType, Label, Role, UnparsedAnswer

REAL, FAKE = Label.REAL, Label.FAKE
ARGS = MidsArgs(epochs=3, batch=12, lr=3e-3)


@pytest.fixture(scope="module")
def text_folder(tiny_parts):
    return tiny_parts["minilm-l6"]


@pytest.fixture(scope="module")
def tokens(text_folder):
    return AnswerTokens(AutoTokenizer.from_pretrained(text_folder), 64)


@pytest.fixture
def mids(text_folder):
    torch.manual_seed(0)
    text = AutoModel.from_pretrained(text_folder, add_pooling_layer=False).eval()
    return MIDS(text, torch.nn.Linear(1, 1), MIDSConfig(dim=32, image_dim=8, unfreeze=0))


def answer(label, role):
    if label is None:
        return UnparsedAnswer(role=role, prompt="q", raw="?", reason="none")
    kind = ForgeryType.REAL if label is REAL else ForgeryType.IDENTITY_EXCHANGE
    return parse_answer(format_answer("A face.", f"It seems {label}.", label, 0.8, kind), role, "q")


def mined(row, label, results):
    answers = [answer(r, role) for r, role in zip(results, Role, strict=True)]
    return Mined(row=row, image=f"{row}.jpg", sha256=str(row), label=label, answers=answers)


HARD = ((REAL, REAL, FAKE), (FAKE, FAKE, REAL), (REAL, FAKE, REAL))


def toy(count, seed):
    rng = np.random.default_rng(seed)
    labels = [(REAL, FAKE)[i % 2] for i in range(count)]
    features = rng.normal(0, 0.3, (count, 2, 5, 8)).astype(np.float16)
    features += np.array([1.0 if label is FAKE else -1.0 for label in labels])[:, None, None, None].astype(np.float16)
    return Stored(features), [mined(i, label, HARD[i // 2 % 3]) for i, label in enumerate(labels)]


def score(mids, tokens, data, batch=16):
    return logits_of(mids, TextFeatures(mids, tokens, data[1]), *data, batch=batch)


@pytest.fixture(scope="module")
def train():
    return toy(36, 1)


@pytest.fixture(scope="module")
def val():
    return toy(18, 2)


def test_learns_a_separable_toy(mids, tokens, train, val):
    before = {k: v.clone() for k, v in mids.state_dict().items()}
    figures = train_mids(ARGS, mids, tokens, train, val, 0)
    assert figures["history"][-1]["val_acc"] == 1.0
    assert figures["history"][-1]["loss"] < 0.8 * figures["history"][0]["loss"]  # ln 2 where the text is not read
    found = decisions(score(mids, tokens, val), val[1])
    assert all(d.label is m.label for d, m in zip(found, val[1], strict=True))
    assert all((d.forgery_score > 0.5) == (m.label is FAKE) for d, m in zip(found, val[1], strict=True))
    assert figures["images"] == figures["images_mined"] == 36
    # Eq. 3, counted by hand
    results = [(m.label, r) for m in train[1] for r in m.results]
    assert figures["classes"] == {
        str(c): results.count(pair) for c, pair in enumerate([(REAL, REAL), (REAL, FAKE), (FAKE, REAL), (FAKE, FAKE)])
    }
    frozen = [k for k in before if k.startswith(("text_encoder", "image_encoder"))]
    assert all(torch.equal(before[k], mids.state_dict()[k]) for k in frozen)


def test_the_same_seed_gives_the_same_weights(mids, text_folder, tokens, train, val):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        text = AutoModel.from_pretrained(text_folder, add_pooling_layer=False).eval()
        model = MIDS(text, torch.nn.Linear(1, 1), MIDSConfig(dim=32, image_dim=8, unfreeze=0))
        torch.manual_seed(99 + len(states))
        train_mids(MidsArgs(epochs=1, batch=12), model, tokens, train, val, seed)
        states.append(torch.cat([v.flatten() for v in model.trainable_state().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


EASY = (FAKE, FAKE, FAKE)


def test_easy_and_unparsed_images_are_left_out(mids, tokens, train, val):
    images, hard = train
    mixed = [*hard[:6], mined(6, FAKE, EASY), mined(7, REAL, EASY), mined(8, REAL, (REAL, None, FAKE))]
    args = MidsArgs(epochs=1, batch=48)
    figures = train_mids(args, mids, tokens, (images, mixed), val, 0)
    assert (figures["images"], figures["images_mined"], figures["images_unread"]) == (6, 9, 1)
    assert sum(figures["classes"].values()) == 18
    figures = train_mids(args.model_copy(update={"keep_easy": True}), mids, tokens, (images, mixed), val, 0)
    assert figures["images"] == 8
    assert sum(figures["classes"].values()) == 24


def heads_of(sign):
    """On the toy's eight features: what its images are (1), or the opposite (-1)."""
    heads = torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)
    for head in heads:
        torch.nn.init.constant_(head.weight, sign)
        torch.nn.init.zeros_(head.bias)
    return heads


def test_the_teacher_says_what_the_answer_says_and_what_the_tower_sees():
    last = torch.zeros(2, 5, 8)
    last[0, 0, 0], last[1, 0, 0] = math.log(9), -math.log(9)  # of the last layer alone, so half of it counts
    said = opinions(heads_of(1), (last, torch.zeros(2, 5, 8)), torch.tensor([0, 1, 0, 2, 3, 3]))
    wanted = [[0.25, 0, 0.75, 0], [0, 0.25, 0, 0.75], [0.25, 0, 0.75, 0]]
    wanted += [[0.75, 0, 0.25, 0], [0, 0.75, 0, 0.25], [0, 0.75, 0, 0.25]]
    assert torch.allclose(said, torch.tensor(wanted), atol=1e-6)


def test_learns_from_the_teacher_as_much_as_it_is_told_to(mids, tokens, train, val):
    """A teacher that is always wrong: with most of the loss it is believed, with little of it the labels are."""
    start = {name: value.clone() for name, value in mids.trainable_state().items()}
    for share, right in ((0.9, 0.0), (0.1, 1.0)):
        mids.load_trainable_state(start)
        args = ARGS.model_copy(update={"distil": share})
        figures = train_mids(args, mids, tokens, train, val, 0, heads=heads_of(-1))
        assert figures["history"][-1]["val_acc"] == right


def test_a_teacher_needs_heads_and_the_layers_that_they_know(mids, tokens, train, val):
    with pytest.raises(UsageError, match="needs the tower's heads"):
        train_mids(MidsArgs(distil=0.5), mids, tokens, train, val, 0)
    with pytest.raises(ValueError, match="distil needs unfreeze 0"):
        MidsArgs(distil=0.5, unfreeze=2)


def test_nothing_left_to_learn_from(mids, tokens, train, val):
    only_easy = [mined(0, FAKE, EASY)]
    with pytest.raises(InputError, match="keep_easy"):
        train_mids(MidsArgs(), mids, tokens, (train[0], only_easy), val, 0)


def test_keeps_the_epoch_with_the_best_validation_acc(mids, tokens, train, val, monkeypatch):
    """The weights at the end are those behind epoch 2 of 3, whose ACC is made the highest."""
    states, real = [], module.decisions

    def judged(logits, mined_, temperature=1.0):
        found = real(logits, mined_, temperature)
        if len(states) < 3:
            states.append({k: v.clone() for k, v in mids.trainable_state().items()})
            right = [6, 12, 6][len(states) - 1]
            found = [
                decide([[0.97, 0.01, 0.01, 0.01]] if said is REAL else [[0.01, 0.01, 0.01, 0.97]], [said])
                for said in [m.label if i < right else m.label.opposite for i, m in enumerate(mined_)]
            ]
        return found

    monkeypatch.setattr(module, "decisions", judged)
    figures = train_mids(ARGS, mids, tokens, train, val, 0)
    assert [h["val_acc"] for h in figures["history"]] == pytest.approx([6 / 18, 12 / 18, 6 / 18])
    end = mids.trainable_state()
    assert all(torch.equal(end[k], states[1][k]) for k in end)
    assert not all(torch.equal(end[k], states[2][k]) for k in end)


def test_temperature_is_the_argmin_of_the_log_loss(val):
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(0, 6, (18, 3, 4)))  # overconfident noise
    found = fit_temperature(logits, val[1])

    def log_loss(temperature):
        total = 0.0
        for row, m in zip(logits, val[1], strict=True):
            score = decide((row / temperature).softmax(-1).numpy(), m.results).forgery_score
            score = min(max(score, 1e-6), 1 - 1e-6)
            total -= math.log(score if m.label is FAKE else 1 - score)
        return total

    grid = np.geomspace(0.5, 8, 41)
    assert found == pytest.approx(min(grid, key=log_loss), abs=1e-3)
    assert found > 1.5
    assert log_loss(found) < log_loss(1.0)


def test_sure_and_right_logits_get_the_lowest_temperature(val):
    sure = torch.zeros(18, 3, 4)
    for i, m in enumerate(val[1]):
        sure[i, :, [0, 1] if m.label is REAL else [2, 3]] = 5.0
    assert fit_temperature(sure, val[1]) == 0.5


def test_decisions_divide_by_the_temperature(val):
    logits = torch.randn(18, 3, 4, generator=torch.Generator().manual_seed(1))
    plain, soft = decisions(logits, val[1]), decisions(logits, val[1], 4.0)
    assert all(abs(s.forgery_score - 0.5) < abs(p.forgery_score - 0.5) for p, s in zip(plain, soft, strict=True))
    want = decide((logits[3].double() / 4).softmax(-1).numpy(), val[1][3].results)
    assert soft[3] == want


def test_logits_do_not_depend_on_the_batch(mids, tokens, val):
    one, many = (score(mids, tokens, val, size) for size in (1, 16))
    assert one.shape == (18, 3, 4)
    assert torch.allclose(one, many, atol=1e-5)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("steps", "kept", "changes"), [(3, 2, {}), (9, 9, {}), (12, 11, {"balance": "sampling"})])
def test_a_killed_training_goes_on_to_the_same_result(
    text_folder, tokens, train, val, tmp_path, monkeypatch, steps, kept, changes
):
    """36 images, 4 a step: 9 steps an epoch. A state is kept every 2 steps and after an epoch."""
    args = ARGS.model_copy(update={"epochs": 2, "save_every": 2, **changes})

    def fresh():
        torch.manual_seed(0)
        text = AutoModel.from_pretrained(text_folder, add_pooling_layer=False).eval()
        return MIDS(text, torch.nn.Linear(1, 1), MIDSConfig(dim=32, image_dim=8, unfreeze=0))

    whole = fresh()
    figures = train_mids(args, whole, tokens, train, val, 0)
    done, real = [], torch.optim.AdamW.step

    def dying(self, *more, **named):
        if len(done) == steps:
            raise KilledError
        done.append(1)
        return real(self, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", dying)
        with pytest.raises(KilledError):
            train_mids(args, fresh(), tokens, train, val, 0, tmp_path)
    assert (tmp_path / STATE).exists()
    counted = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *m, **n: (counted.append(1), real(self, *m, **n))[1])
    again = fresh()
    assert train_mids(args, again, tokens, train, val, 0, tmp_path) == figures
    assert len(counted) == 18 - kept
    assert all(torch.equal(v, again.trainable_state()[k]) for k, v in whole.trainable_state().items())
    with pytest.raises(InputError, match="other settings or data; remove it"):
        train_mids(args, fresh(), tokens, train, val, 1, tmp_path)


def lopsided(count, seed):
    """Mostly real images; features tell nothing."""
    rng = np.random.default_rng(seed)
    labels = [FAKE if i % 8 == 0 else REAL for i in range(count)]
    features = rng.normal(0, 1, (count, 2, 5, 8)).astype(np.float16)
    return Stored(features), [mined(i, label, HARD[i % 3]) for i, label in enumerate(labels)]


def test_balance_lifts_the_rare_classes(text_folder, tokens):
    data, unseen, shares = lopsided(120, 1), lopsided(24, 2), {}
    for balance in ("none", "weights", "sampling"):
        torch.manual_seed(0)
        text = AutoModel.from_pretrained(text_folder, add_pooling_layer=False).eval()
        model = MIDS(text, torch.nn.Linear(1, 1), MIDSConfig(dim=32, image_dim=8, unfreeze=0))
        train_mids(MidsArgs(epochs=1, batch=24, lr=1e-3, balance=balance), model, tokens, data, unseen, 0)
        shares[balance] = float(score(model, tokens, unseen).softmax(-1)[..., 2:].sum(-1).mean())
    # what it says of fakes on the whole: an eighth is fake, balanced it is as if it were half
    assert shares["none"] < 0.25
    assert 0.35 < shares["weights"] < 0.65
    assert 0.35 < shares["sampling"] < 0.65


def test_the_anchor_alone(mids, tokens, train, val):
    images, hard = train
    mixed = [*hard[:6], mined(6, FAKE, EASY), mined(7, REAL, (None, REAL, REAL)), mined(8, REAL, (REAL, None, FAKE))]
    args = MidsArgs(epochs=1, batch=12, one_answer=True)
    figures = train_mids(args, mids, tokens, (images, mixed), val, 0)
    assert figures["images"] == 8  # Easy ones too: who asks once cannot know
    assert sum(figures["classes"].values()) == 8
    anchors = [m.results[0] is m.label for m in val[1]]
    assert figures["history"][0]["val_acc"] == pytest.approx(np.mean(anchors))
    logits = logits_of(mids, TextFeatures(mids, tokens, val[1], one_answer=True), *val)
    assert logits.shape == (18, 1, 4)
    assert torch.allclose(logits[:, 0], score(mids, tokens, val)[:, 0], atol=1e-5)


def test_an_image_without_a_readable_answer_counts_as_wrong(mids, tokens, train, val):
    images, known = val
    silent = [*known[:16], *(mined(i, REAL, (None, None, None)) for i in (16, 17))]
    figures = train_mids(ARGS, mids, tokens, train, (images, silent), 0)
    assert figures["val_unread"] == 2
    assert figures["history"][-1]["val_acc"] == pytest.approx(16 / 18)


def test_compared_with_the_anchor_and_the_majority():
    rows = [
        mined(0, REAL, (FAKE, REAL, REAL)), mined(1, FAKE, (FAKE, FAKE, FAKE)), mined(2, FAKE, (REAL, None, FAKE)),
        mined(3, REAL, (None, REAL, FAKE)),
    ]  # fmt: skip
    said = [decide([[0.97, 0.01, 0.01, 0.01]], [REAL]) for _ in rows]
    assert compare(said, rows) == {
        "all": {"images": 4, "mids": 0.5, "anchor": 0.25, "majority": 0.5},
        "easy": {"images": 1, "mids": 0.0, "anchor": 1.0, "majority": 1.0},
        "hard": {"images": 3, "mids": pytest.approx(2 / 3), "anchor": 0.0, "majority": pytest.approx(1 / 3)},
    }
