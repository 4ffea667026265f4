import pytest
import torch
from transformers import AutoModel, LlavaForConditionalGeneration

from ffaa.errors import WeightsError
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, lite_of, load_imagenet, pixel_tensor


@pytest.fixture(scope="module")
def pixels(tiny_crops):
    return pixel_tensor(tiny_crops[:3])


@torch.no_grad()
def hidden(tower, pixels):
    return tower(pixels).hidden_states


def test_pixels_are_rgb_in_minus_one_to_one(tiny_crops):
    found = pixel_tensor(tiny_crops[:2])
    assert found.shape == (2, 3, 224, 224)
    assert found.dtype == torch.float32
    assert found[1, 2, 5, 7].item() == pytest.approx(tiny_crops[1][5, 7, 2] / 127.5 - 1, abs=1e-6)


def test_layout_of_hidden_states(tiny_tower, pixels):
    with torch.no_grad():
        out = tiny_tower(pixels)
        grids = tiny_tower.trunk(pixels)
    assert [tuple(h.shape) for h in out.hidden_states] == [(3, 50, 32)] * 2
    assert torch.equal(out.last_hidden_state, out.hidden_states[1])
    assert torch.equal(out.pooler_output, out.hidden_states[1][:, 0])
    # (previous, last), each: the pooled vector, then the 49 cells row by row
    parts = (("previous", 192 + 96), ("last", 1280 + 96))
    for grid, (name, width), found in zip(grids, parts, out.hidden_states, strict=True):
        assert grid.shape == (3, width, 7, 7)
        patch, pooled, norm = (getattr(tiny_tower, f"{name}_{part}") for part in ("patch", "pooled", "norm"))
        with torch.no_grad():
            assert torch.allclose(found[:, 0], norm(pooled(grid.mean((2, 3)))), atol=1e-5)
            assert torch.allclose(found[:, 1 + 2 * 7 + 3], norm(patch(grid[:, :, 2, 3])), atol=1e-5)


def test_a_cell_sees_its_place(tiny_tower, pixels):
    """Changing the lower right corner changes the last cell more than the first."""
    changed = pixels.clone()
    changed[:, :, 192:, 192:] *= -1
    difference = (hidden(tiny_tower, changed)[0] - hidden(tiny_tower, pixels)[0]).abs().mean((0, 2))[1:]
    assert difference[-1] > 3 * difference[0]


def test_the_residual_branch_counts(tiny_tower, pixels):
    before = hidden(tiny_tower, pixels)
    hook = tiny_tower.residual.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    try:
        after = hidden(tiny_tower, pixels)
    finally:
        hook.remove()
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(before, after, strict=True))


def test_an_image_does_not_depend_on_its_batch(tiny_tower, pixels):
    together = hidden(tiny_tower, pixels)
    for i in range(3):
        for layer, alone in enumerate(hidden(tiny_tower, pixels[i : i + 1])):
            assert torch.allclose(alone[0], together[layer][i], atol=1e-4)


def test_depthwise_convolutions_are_differentiated_in_float32(fresh):
    conv = fresh.stages[2][0].depthwise[0]
    seen = torch.randn(2, conv.in_channels, 9, 9).bfloat16()
    conv(seen.float()).sum().backward()
    exact, conv.weight.grad = conv.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(seen)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(conv.weight.grad, exact)


def test_save_and_load_through_auto_model(tiny_tower, pixels, tmp_path):
    tiny_tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, ForensicVisionModel)
    assert loaded.config.hidden_size == 32
    for a, b in zip(hidden(loaded, pixels), hidden(tiny_tower, pixels), strict=True):
        assert torch.equal(a, b)


# --- ImageNet weights ------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return ForensicVisionModel(ForensicVisionConfig(hidden_size=32))


def test_imagenet_fills_the_whole_convolutional_part(fresh, lite0_state):
    own = {k: v.clone() for k, v in fresh.state_dict().items() if not k.startswith(("stem", "stages", "head"))}
    load_imagenet(fresh, lite0_state)
    state = fresh.state_dict()
    assert torch.equal(state["stem.0.weight"], lite0_state["_conv_stem.weight"])
    assert torch.equal(state["head.0.weight"], lite0_state["_conv_head.weight"])
    # block 0 has no expansion; block 15 is the only one of the last stage
    assert torch.equal(state["stages.0.0.depthwise.0.weight"], lite0_state["_blocks.0._depthwise_conv.weight"])
    assert torch.equal(state["stages.1.1.expand.0.weight"], lite0_state["_blocks.2._expand_conv.weight"])
    assert torch.equal(state["stages.6.0.project.0.weight"], lite0_state["_blocks.15._project_conv.weight"])
    assert all(torch.equal(state[k], v) for k, v in own.items())  # residual branch and projections are left alone


@pytest.mark.parametrize("lite", ["lite1", "lite2"])
def test_a_larger_one_is_filled_and_known_by_its_weights(lite, lite0_state, request):
    given = request.getfixturevalue(f"{lite}_state")
    larger = ForensicVisionModel(ForensicVisionConfig(hidden_size=32, lite=lite))
    load_imagenet(larger, given)
    last = larger.stages[6][0].project[0].weight
    assert torch.equal(last, given["_blocks.20._project_conv.weight"])
    assert lite_of(larger.state_dict()) == lite
    assert lite_of({f"tower.{name}": value for name, value in larger.state_dict().items()}, "tower.") == lite
    with pytest.raises(WeightsError, match="no vision tower: 0 blocks"):
        lite_of(given)
    with pytest.raises(WeightsError, match=rf"EfficientNet-{lite.title()} weights do not fit: missing .*stages\.6\.0"):
        load_imagenet(larger, lite0_state)


def test_the_one_that_it_starts_from_is_known_by_its_weights(fresh):
    assert lite_of(fresh.state_dict()) == "lite0"


def test_a_wider_one_gives_tokens_of_the_same_width_as_the_others():
    wider = ForensicVisionModel(ForensicVisionConfig(hidden_size=32, lite="lite2")).eval()
    with torch.inference_mode():
        hidden = wider(torch.zeros(2, 3, 224, 224)).hidden_states
    assert [tuple(layer.shape) for layer in hidden] == [(2, 50, 32), (2, 50, 32)]
    assert wider.stages[5][0].project[0].out_channels == 208


def test_imagenet_weights_are_copied(fresh, lite0_state):
    given = {k: v.clone() for k, v in lite0_state.items()}
    load_imagenet(fresh, given)
    given["_conv_stem.weight"].zero_()
    assert torch.equal(fresh.state_dict()["stem.0.weight"], lite0_state["_conv_stem.weight"])


def test_norms_go_to_their_convolution(fresh, lite0_state):
    given = dict(lite0_state)
    given["_blocks.3._bn0.bias"] = torch.full_like(given["_blocks.3._bn0.bias"], 3.0)
    given["_blocks.3._bn1.bias"] = torch.full_like(given["_blocks.3._bn1.bias"], 4.0)
    given["_blocks.3._bn2.bias"] = torch.full_like(given["_blocks.3._bn2.bias"], 5.0)
    load_imagenet(fresh, given)
    block = fresh.stages[2][0]
    assert [block.expand[1].bias[0], block.depthwise[1].bias[0], block.project[1].bias[0]] == [3, 4, 5]


@pytest.mark.parametrize("key", ["_conv_head.weight", "_blocks.7._bn2.running_var"])
def test_a_missing_tensor_is_an_error(fresh, lite0_state, key):
    with pytest.raises(WeightsError, match="missing"):
        load_imagenet(fresh, {k: v for k, v in lite0_state.items() if k != key})


@pytest.mark.parametrize("key", ["extra.weight", "_blocks.16._bn2.bias", "_blocks.3._se_reduce.weight", "odd"])
def test_an_unused_tensor_is_an_error(fresh, lite0_state, key):
    with pytest.raises(WeightsError, match="unexpected"):
        load_imagenet(fresh, {**lite0_state, key: torch.zeros(1)})


# --- inside LLaVA ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_inside_llava(make_llava, tiny_tokenizer, tiny_tower, pixels, tmp_path):
    model = make_llava()
    text = "USER: " + "<image>" * 50 + "\nWhy? ASSISTANT:"
    ids = torch.tensor([tiny_tokenizer(text, add_special_tokens=False).input_ids] * 3)
    logits = model(input_ids=ids, pixel_values=pixels).logits
    assert logits.shape == (3, ids.shape[1], len(tiny_tokenizer))
    assert logits.isfinite().all()
    features = torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))
    assert torch.allclose(
        features, model.model.multi_modal_projector(hidden(tiny_tower, pixels)[1]), atol=1e-5
    )  # all 50 tokens of the last layer
    model.save_pretrained(tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert isinstance(loaded.model.vision_tower, ForensicVisionModel)
    assert torch.equal(loaded(input_ids=ids, pixel_values=pixels).logits, logits)
