import numpy as np
import pytest
import torch

from ffaa.errors import UsageError
from ffaa.mids.cam import heatmap, overlay
from ffaa.mids.encoder import fine_stages
from ffaa.mids.eyes import Eyes
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
from ffaa.types import Label


def arguments(batch):
    return batch[2][0], batch[0][0, 0], batch[1][0, 0]


@pytest.mark.parametrize("text", [True, False])
def test_map_is_an_image_in_range_deterministic_and_not_constant(small, batch, text):
    pixels, ids, mask = arguments(batch)
    words = (ids, mask) if text else ()
    heat = heatmap(small, pixels, Label.FAKE, 50, *words)
    assert heat.shape == (50, 50)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)
    assert heat.std() > 0.01
    np.testing.assert_array_equal(heat, heatmap(small, pixels, Label.FAKE, 50, *words))


def test_text_and_class_matter(small, batch):
    pixels, ids, mask = arguments(batch)
    fake = heatmap(small, pixels, Label.FAKE, 32, ids, mask)
    assert np.abs(fake - heatmap(small, pixels, Label.REAL, 32, ids, mask)).max() > 0.05
    assert np.abs(fake - heatmap(small, pixels, Label.FAKE, 32)).max() > 0.01
    assert np.abs(fake - heatmap(small, batch[2][1], Label.FAKE, 32, ids, mask)).max() > 0.05


def test_equals_grad_cam_written_out(small, batch):
    """Weights: gradient of the logit averaged over patches; map: ReLU of the weighted sum; CLS left out."""
    pixels, ids, mask = arguments(batch)
    text = small.encode_text(ids[None], mask[None])
    visual = [v.detach().requires_grad_() for v in small.project(small.encode_image(pixels[None]))]
    logit = small.classify(text, mask[None], tuple(visual))[0, 3]
    total = torch.zeros(16)
    for v, gradient in zip(visual, torch.autograd.grad(logit, visual), strict=True):
        weights = gradient[0, 1:].mean(0)
        one = torch.relu((v[0, 1:] * weights).sum(-1)).detach()
        total += one / one.max()
    expected = (total / total.max()).view(4, 4).numpy()
    np.testing.assert_allclose(heatmap(small, pixels, Label.FAKE, 4, ids, mask), expected, atol=1e-5)


@pytest.fixture(params=[1, 3])
def on_tower(encoders, request):
    """A MIDS on a tower like nano's, or on three, and (pixels, ids, mask) of one answer."""
    torch.manual_seed(4)
    towers = [ForensicVisionModel(ForensicVisionConfig(image_size=224, hidden_size=48)) for _ in range(request.param)]
    for module in (m for tower in towers for m in tower.modules()):
        if isinstance(module, torch.nn.Conv2d):  # as a tower starts, hardly anything comes through its stages
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
    tower = towers[0] if request.param == 1 else Eyes(towers[0], towers[1:])
    config = MIDSConfig(dim=32, image_dim=48 * request.param, unfreeze=0, own_towers=["lite0"] * (request.param - 1))
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(3, 224, 224, generator=generator) * 2 - 1
    ids = torch.randint(1, 50, (9,), generator=generator)
    return (
        MIDS(encoders[0], tower, config).eval(),
        pixels,
        ids,
        torch.ones_like(ids),
    )


@pytest.mark.parametrize("label", list(Label))
def test_on_nanos_tower_a_place_counts_as_far_as_the_logit_hangs_on_it(on_tower, label):
    """The logit of the class is measured with one cell of the 14 x 14 stage (of all towers) made a little stronger,
    then weaker."""
    mids, pixels, ids, mask = on_tower
    with torch.inference_mode():
        found = heatmap(mids, pixels * 1, label, 14, ids, mask)
    scaled = torch.ones(1, 1, 14, 14)

    def slope(y, x, step=2e-3):
        logits = []
        for factor in (1 + step, 1 - step):
            scaled[0, 0, y, x] = factor
            logits.append(mids(ids[None, None], mask[None, None], pixels[None])[0, 0, 3 if label is Label.FAKE else 0])
        scaled[0, 0, y, x] = 1
        return float(logits[0] - logits[1]) / (2 * step)

    stages = fine_stages(mids.image_encoder)
    handles = [stage.register_forward_hook(lambda module, given, out: out * scaled) for stage in stages]
    with torch.no_grad():
        places = [(y, x) for y in range(2, 14, 4) for x in range(2, 14, 4)]
        measured = np.array([slope(y, x) for y, x in places])
        top = slope(*np.unravel_index(found.argmax(), found.shape))
    for handle in handles:
        handle.remove()
    assert top > 0
    np.testing.assert_allclose([found[place] for place in places], np.clip(measured / top, 0, None), atol=0.1)
    np.testing.assert_array_equal(found, heatmap(mids, pixels, label, 14, ids, mask))
    assert all(p.grad is None for p in mids.parameters())


def test_on_the_tower_text_matters_and_no_support_is_all_zero(on_tower):
    mids, pixels, ids, mask = on_tower
    without = heatmap(mids, pixels, Label.FAKE, 56)
    assert without.shape == (56, 56)
    assert np.abs(without - heatmap(mids, pixels, Label.FAKE, 56, ids, mask)).max() > 0.01
    with torch.no_grad():
        mids.classifier.weight.zero_()
    assert not heatmap(mids, pixels, Label.FAKE, 56).any()


def test_a_transformer_has_no_finer_stage(small):
    assert fine_stages(small.image_encoder) == []


def test_works_frozen_and_without_gradient_mode(small, batch):
    pixels, ids, mask = arguments(batch)
    free = heatmap(small, pixels, Label.REAL, 32, ids, mask)
    small.requires_grad_(False)
    with torch.inference_mode():
        frozen = heatmap(small, pixels * 1, Label.REAL, 32, ids * 1, mask * 1)
    np.testing.assert_allclose(frozen, free, atol=1e-6)
    assert all(p.grad is None for p in small.parameters())


def test_published_model_gives_a_map(published, expected):
    heat = heatmap(published, expected["pixel_values"][0], Label.FAKE, 56, expected["input_ids"][2])
    assert heat.shape == (56, 56)
    assert heat.std() > 0.01


def test_no_support_is_all_zero(small, batch):
    with torch.no_grad():
        small.classifier.weight.zero_()
    assert not heatmap(small, batch[2][0], Label.FAKE, 8).any()


def test_patches_must_form_a_square(small, batch):
    small.encode_image = lambda pixels: (torch.randn(1, 7, 48), torch.randn(1, 7, 48))
    with pytest.raises(UsageError, match="6 patches are not a square grid"):
        heatmap(small, batch[2][0], Label.FAKE, 8)


def test_overlay_blends_in_rgb():
    image = np.full((8, 8, 3), 100, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[0] = 0.7
    blended = overlay(image, heat)
    assert blended.shape == image.shape
    assert blended.dtype == np.uint8
    red, _, blue = blended[0, 0].astype(int)
    assert red > blue  # the middle of inferno is orange
    assert blended[4, 4].max() < 100  # cold is black
    np.testing.assert_array_equal(overlay(image, heat, strength=0), image)


def test_overlay_wants_equal_sizes():
    with pytest.raises(UsageError, match="heatmap at the image size"):
        overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4), np.float32))
