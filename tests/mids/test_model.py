import pytest
import torch
from pydantic import ValidationError

from ffaa.errors import UsageError
from ffaa.mids.model import MIDS, MIDSConfig, loss


def published_inputs(expected):
    shape = (*expected["logits"].shape[:2], -1)
    return expected["input_ids"].view(shape), expected["attention_mask"].view(shape), expected["pixel_values"]


def test_parity_of_logits_and_loss(published, expected):
    with torch.no_grad():
        logits = published(*published_inputs(expected))
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(logits, expected["labels"].view(2, 3)), expected["loss"], rtol=1e-4, atol=0)


def test_the_published_fusion_sees_padding(published, expected):
    ids, mask, pixels = published_inputs(expected)
    with torch.no_grad():
        projected = published.project(published.encode_image(pixels))
        cut = published.classify(
            published.encode_text(ids[0, 1:2, :7], mask[0, 1:2, :7]), None, tuple(v[:1] for v in projected)
        )
    assert not torch.allclose(cut[0], expected["logits"][0, 1], atol=1e-2)


def test_an_image_alone_equals_the_image_in_a_batch(small, batch):
    with torch.no_grad():
        together = small(*batch)
        assert together.shape == (3, 2, 4)
        for i in range(3):
            alone = small(*(part[i : i + 1] for part in batch))
            torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=0)


def test_the_images_and_answers_matter(small, batch):
    ids, mask, pixels = batch
    with torch.no_grad():
        logits = small(*batch)
        assert not torch.allclose(logits, small(ids, mask, pixels.flip(0)), atol=1e-3)
        torch.testing.assert_close(small(ids.flip(1), mask.flip(1), pixels), logits.flip(1), atol=1e-6, rtol=0)
        assert not torch.allclose(logits[:, 0], logits[:, 1], atol=1e-4)


def test_padding_changes_nothing(small, batch):
    ids, mask, pixels = batch
    with torch.no_grad():
        short = small(ids[2:, :1, :2], mask[2:, :1, :2], pixels[2:])
        padded = small(ids[2:, :1], mask[2:, :1], pixels[2:])
        other_padding = small((ids + 7 * (1 - mask))[2:, :1], mask[2:, :1], pixels[2:])
    torch.testing.assert_close(padded, short, atol=1e-6, rtol=0)
    torch.testing.assert_close(other_padding, padded, atol=1e-6, rtol=0)


def test_image_encoder_runs_once_per_image(small, batch):
    sizes = []
    handle = small.image_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    with torch.no_grad():
        small(*batch)
    handle.remove()
    assert sizes == [3]


def test_without_text_equals_zero_text_of_any_length_and_an_empty_answer(small, batch):
    ids, mask, pixels = batch
    with torch.no_grad():
        projected = small.project(small.encode_image(pixels))
        without = small.classify(None, None, projected)
        zeros = small.classify(torch.zeros(3, 5, 32), torch.ones(3, 5), projected)
        empty = small(ids[:, :1], torch.zeros_like(mask[:, :1]), pixels)[:, 0]
        with_text = small(*batch)[:, 0]
    torch.testing.assert_close(without, zeros, atol=1e-6, rtol=0)
    torch.testing.assert_close(without, empty, atol=1e-6, rtol=0)
    assert not torch.allclose(without, with_text, atol=1e-3)


def test_answers_must_divide_among_images(small, batch):
    with torch.no_grad():
        projected = small.project(small.encode_image(batch[2]))
    with pytest.raises(UsageError, match="4 answers do not divide among 3 images"):
        small.classify(torch.zeros(4, 5, 32), None, projected)


def test_loss_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]])
    hand = (torch.log(torch.tensor(4.0)) + torch.log(1 + 3 * torch.exp(torch.tensor(-2.0)))) / 2
    torch.testing.assert_close(loss(logits, torch.tensor([[3, 0]])), hand)


def test_training_step_moves_only_the_trainable_part(small, batch):
    small.train()
    assert not small.text_encoder.training
    before = {name: value.clone() for name, value in small.state_dict().items()}
    optimiser = torch.optim.SGD((p for p in small.parameters() if p.requires_grad), lr=0.1)
    loss(small(*batch), torch.tensor([[0, 1], [2, 3], [0, 3]])).backward()
    optimiser.step()
    moved = {name for name, value in small.state_dict().items() if not torch.equal(value, before[name])}
    trainable = set(small.state_dict()) - {n for n in before if n.startswith("text_encoder.")}
    frozen = ("embeddings", "pre_layrnorm", "post_layernorm", "layers.0.")
    trainable = {n for n in trainable if not (n.startswith("image_encoder.") and any(part in n for part in frozen))}
    # The key bias has no gradient (softmax ignores a shift), and the last but one layer sees only block 1 onward.
    assert moved <= trainable
    assert {n for n in trainable - moved if not n.endswith("k_proj.bias")} == set()


@pytest.mark.parametrize(("unfreeze", "count"), [(0, 0), (1, 16), (2, 32), ("all", 55)])
def test_unfreeze(encoders, unfreeze, count):
    mids = MIDS(*encoders, MIDSConfig(dim=32, image_dim=48, unfreeze=unfreeze))
    names = [name for name in mids.trainable_state() if name.startswith("image_encoder.")]
    assert len(names) == count
    assert sum(p.requires_grad for p in mids.image_encoder.parameters()) == count
    assert not mids.train().image_encoder.training  # what is below the trained blocks never changes
    assert not any(name.startswith("text_encoder.") for name in mids.trainable_state())


def test_more_blocks_than_there_are_is_an_error(encoders):
    with pytest.raises(UsageError, match="shows 3 numbered blocks"):
        MIDS(*encoders, MIDSConfig(dim=32, image_dim=48, unfreeze=4))


@pytest.mark.parametrize("wrong", [{"num_heads": 7}, {"unfreeze": -1}, {"unfreeze": "some"}, {"heads": 8}])
def test_config_is_checked(wrong):
    with pytest.raises(ValidationError):
        MIDSConfig(**{"dim": 32, "image_dim": 48, **wrong})
