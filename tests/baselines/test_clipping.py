import re

import pytest
import torch

from ffaa.baselines.backbones.clip import CLIPConfig
from ffaa.baselines.clipping import CLASSES, Clipping, ClippingSettings, prompt_tokens
from ffaa.errors import UsageError, WeightsError

SMALL = CLIPConfig(16, 32, 2, 64, 1, 8, 24, 49408, 64, 1, 2)


@pytest.fixture(scope="module")
def published(parity):
    return parity("clipping")


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Clipping(SMALL, n_ctx=4)


def test_parity(published, tmp_path):
    path = tmp_path / "clipping.pth"
    torch.save(published.state, path)
    heads = published.spec["clip"]["transformer_heads"]
    model, wanted = Clipping.from_published(path, text_heads=heads), published.expected
    assert model.image_size == published.spec["clip"]["image_resolution"]
    assert torch.equal(model.tokens, wanted["tokens"])
    with torch.no_grad():
        torch.testing.assert_close(model.text_features(), wanted["text_features"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            model.image_features(published.pixels), wanted["image_features"], rtol=1e-4, atol=1e-6
        )
        logits = model(published.pixels)
        torch.testing.assert_close(logits, wanted["logits"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.score(published.pixels), logits.softmax(1)[:, 1])


def test_coop_file_and_clip_file_apart_are_the_same(published):
    key = "prompt_learner.ctx"
    extra = {
        "input_resolution": torch.tensor(56),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    clip = {k: v for k, v in published.state.items() if k != key} | extra
    coop = {"epoch": 2, "state_dict": {
        "ctx": published.state[key], "token_prefix": torch.zeros(2, 1, 64), "token_suffix": torch.zeros(2, 60, 64),
    }}  # fmt: skip
    model = Clipping.from_published(coop, clip=clip, text_heads=2)
    torch.testing.assert_close(model(published.pixels), published.expected["logits"], rtol=1e-4, atol=1e-6)


def test_half_precision_file_is_computed_in_full(published):
    model = Clipping.from_published({k: v.half() for k, v in published.state.items()}, text_heads=2)
    torch.testing.assert_close(model(published.pixels), published.expected["logits"], rtol=0.02, atol=2e-3)


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "transformer.resblocks.0.ln_2.bias"}
    message = "missing ['transformer.resblocks.0.ln_2.bias'], unexpected ['surplus']"
    with pytest.raises(WeightsError, match=re.escape(message)):
        Clipping.from_published({**state, "surplus": torch.zeros(1)})
    with pytest.raises(WeightsError, match=re.escape("missing ['prompt_learner.ctx']")):
        Clipping.from_published({k: v for k, v in published.state.items() if k != "prompt_learner.ctx"})


def test_prompt_tokens():
    tokens = prompt_tokens(2, 9, ((7,), (8, 9)))
    assert tokens.tolist() == [
        [49406, 343, 343, 7, 269, 49407, 0, 0, 0],
        [49406, 343, 343, 8, 9, 269, 49407, 0, 0],
    ]
    assert len(prompt_tokens(16, 77)) == len(CLASSES) == 2


def test_context_takes_the_place_of_the_placeholders(small):
    words, ends = small.prompts()
    assert ends.tolist() == [7, 8]
    assert torch.equal(words[0, 1:5], small.prompt_learner.ctx)
    assert torch.equal(words[0, 5:7], small.token_embedding(torch.tensor([*CLASSES["real"], 269])))
    front = Clipping(SMALL, n_ctx=4, settings=ClippingSettings(class_position="front"))
    words, _ = front.prompts()
    for row, (name, stop) in enumerate(zip(CLASSES.values(), (7, 8))):
        assert torch.equal(words[row, 1 : 1 + len(name)], front.token_embedding(torch.tensor(name)))
        assert torch.equal(words[row, 1 + len(name) : stop - 1], front.prompt_learner.ctx)
        assert torch.equal(words[row, stop - 1 : stop + 1], front.token_embedding(torch.tensor([269, 49407])))


def test_padding_is_without_effect(small):
    small.eval()
    with torch.no_grad():
        features = small.text_features()
        words, ends = small.prompts()
        padded = torch.cat([words, torch.randn(2, SMALL.context_length - words.shape[1], 64)], 1)
        again = small.encode_text(padded, ends)
    torch.testing.assert_close(features, again / again.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("class_context", [False, True])
def test_other_configurations_are_read_from_the_tensors(class_context):
    torch.manual_seed(0)
    tokens = prompt_tokens(8, 30, ((1532,), (5462, 5777), (320,)))
    config = CLIPConfig(24, 48, 3, 64, 1, 16, 30, 49408, 128, 2, 1)
    model = Clipping(config, 8, tokens, class_context).eval()
    again = Clipping.from_published(model.state_dict(), tokens=tokens)
    assert again.config == config
    pixels = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))
        scores = again.score(pixels)
    assert again(pixels).shape == (2, 3)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_tokens_that_do_not_fit_are_an_error():
    with pytest.raises(UsageError, match="do not fit 16 context vectors"):
        Clipping(SMALL, 16, prompt_tokens(4, 24))


def test_preprocessing(small, synthetic):
    image = synthetic(32)[0]
    pixels = small.preprocess([image, synthetic(90)[0]])
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(pixels[0], ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1))
    assert pixels.shape == (2, 3, 32, 32)


def test_only_the_prompt_learns(small, overfit, batch_of, heat):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    losses = overfit(small, 0.05, 30)
    assert losses[-1] < 0.7 * losses[0]
    assert [k for k, v in small.state_dict().items() if not torch.equal(v, before[k])] == ["prompt_learner.ctx"]
    assert heat(small, batch_of(small).pixels[:2]).shape == (2, 1, 4, 4)
