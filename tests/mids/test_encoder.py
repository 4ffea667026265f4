"""The encoder in two parts gives what the whole gives, for CLIP and for nano's tower."""

import pytest
import torch

from ffaa.errors import UsageError
from ffaa.mids.encoder import SplitEncoder, trained_names
from ffaa.mllm.tower import pixel_tensor


@pytest.fixture(params=["clip", "tower"])
def encoder(request, make_encoders, tiny_tower):
    return make_encoders()[1].eval() if request.param == "clip" else tiny_tower


@pytest.fixture
def pixels(encoder, tiny_crops):
    if hasattr(encoder, "stages"):
        return pixel_tensor(tiny_crops[:2])
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("unfreeze", [0, 1, 2, 3, "all"])
def test_both_parts_are_the_whole(encoder, pixels, unfreeze):
    split = SplitEncoder(encoder, unfreeze)
    with torch.no_grad():
        hidden = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
        last, previous = split.above(split.below(pixels))
    torch.testing.assert_close(last, hidden[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(previous, hidden[-2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unfreeze", [1, 2])
def test_gradients_reach_the_trained_blocks_and_no_others(make_encoders, unfreeze):
    encoder = make_encoders()[1].eval()
    split, names = SplitEncoder(encoder, unfreeze), trained_names(encoder, unfreeze)
    last, previous = split.above(split.below(torch.randn(2, 3, 32, 32)))
    (last.square().sum() + previous.square().sum()).backward()
    reached = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert reached == names


def test_what_is_trained_of_the_tower(tiny_tower):
    one, two = trained_names(tiny_tower, 1), trained_names(tiny_tower, 2)
    assert {n.split(".")[0] for n in one} == {
        "stages", "head", "previous_patch", "previous_pooled", "previous_norm", "last_patch", "last_pooled",
        "last_norm",
    }  # fmt: skip
    assert {n.split(".")[1] for n in one if n.startswith("stages")} == {"6"}
    assert {n.split(".")[1] for n in two if n.startswith("stages")} == {"5", "6"}
    assert trained_names(tiny_tower, 0) == frozenset()
    with pytest.raises(UsageError, match="shows 7 numbered blocks"):
        trained_names(tiny_tower, 8)


def test_a_kept_part_is_worth_keeping(encoder, pixels):
    """The frozen part's output does not depend on the trained blocks."""
    split = SplitEncoder(encoder, 1)
    names = trained_names(encoder, 1)
    before = split.below(pixels)
    saved = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if name in names:
                p.add_(0.1)
        try:
            assert torch.equal(split.below(pixels), before)
        finally:
            encoder.load_state_dict(saved)
