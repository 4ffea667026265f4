import pytest
import torch
from transformers import EfficientNetConfig, EfficientNetModel

from ffaa.baselines.backbones.efficientnet import VARIANTS, EfficientNet, variant_of
from ffaa.baselines.backbones.mobilenet import MobileNet
from ffaa.baselines.backbones.resnet import ResNet, depth_of
from ffaa.errors import WeightsError


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_resnet_sizes(depth, parameters):
    model = ResNet(depth)
    assert sum(p.numel() for p in model.parameters()) == parameters  # of the published ImageNet models
    assert depth_of(model.state_dict(), "") == depth
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_resnet_without_a_head_has_no_fc():
    assert not any(name.startswith("fc.") for name in ResNet(18, None).state_dict())


def test_mobilenet_size():
    model = MobileNet()
    assert sum(p.numel() for p in model.parameters()) == 4_231_976
    assert model.features(torch.randn(2, 3, 64, 64)).shape == (2, 1024, 2, 2)


@pytest.mark.parametrize(("variant", "parameters"), [("b0", 5_288_548), ("b3", 12_233_232), ("b4", 19_341_616)])
def test_efficientnet_sizes(variant, parameters):
    model = EfficientNet(variant)
    assert sum(p.numel() for p in model.parameters()) == parameters  # of the published ImageNet models
    state = {f"base.{name}": value for name, value in model.state_dict().items()}
    assert variant_of(state, "base.") == variant
    with pytest.raises(WeightsError, match="no EfficientNet B0 to B7"):
        variant_of({name: value for name, value in state.items() if "_blocks.0." not in name}, "base.")


def test_efficientnet_computes_what_transformers_does():
    """Both layouts list the same tensors in the same order."""
    torch.manual_seed(0)
    model = EfficientNet("b3").eval()
    width, depth, _ = VARIANTS["b3"]
    config = EfficientNetConfig(width_coefficient=width, depth_coefficient=depth, hidden_dim=model.width)
    other = EfficientNetModel(config).eval()
    names = [name for name in model.state_dict() if not name.startswith("_fc.")]
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.ndim == 1:
                value.add_(0.1 * torch.rand_like(value))
            elif value.ndim > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
    ours = model.state_dict()
    other.load_state_dict(dict(zip(other.state_dict(), (ours[name] for name in names), strict=True)))
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(model.features(pixels), other(pixels).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_drop_connect_acts_in_training_only():
    torch.manual_seed(0)
    block = EfficientNet("b0")._blocks[-2]
    assert 0.1 < block.drop < 0.2
    x = torch.randn(64, 192, 4, 4)
    kept = (block.train()(x) != x).flatten(1).any(1).float().mean()
    assert 0.7 < kept < 0.95
    assert (block.eval()(x) != x).flatten(1).any(1).all()
