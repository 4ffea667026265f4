import importlib.util
import re
from pathlib import Path

import pytest
import torch

from ffaa.baselines.recce import (
    Recce,
    RecceSettings,
    add_white_noise,
    reconstruction_loss,
    similarity,
    similarity_loss,
)
from ffaa.errors import WeightsError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "recce_graph.py"


@pytest.fixture(scope="module")
def published(parity):
    return parity("recce")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("recce_graph", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parity(published, tmp_path):
    path = tmp_path / "model.bin"
    torch.save({"step": 1000, "model": published.state, "best_metric": 0.9}, path)
    model, wanted = Recce.from_published(path), published.expected
    with torch.no_grad():
        found = model.outputs(published.pixels)
    torch.testing.assert_close(found.logits, wanted["logits"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.reconstruction.mean((2, 3)), wanted["reconstruction_mean"], rtol=1e-4, atol=1e-7)
    for i, matrix in enumerate(found.similarities, 1):
        torch.testing.assert_close(matrix, wanted[f"correlation_{i}"], rtol=1e-6, atol=1e-6)
    assert sum(p.numel() for p in model.parameters()) == published.spec["parameters"]


@pytest.mark.parametrize("batch", [1, 3])
def test_graph_at_once_is_the_graph_by_vertex(benchmark, batch):
    graph, maps = benchmark.make(batch, side=3, width=16, inner=8)
    by_vertex = benchmark.reason_by_vertex(graph, *maps)
    torch.testing.assert_close(graph(*maps), by_vertex, rtol=1e-4, atol=1e-6)
    vertices = torch.randn(batch, 8, 3, 3)
    for cells, part in zip(maps[1:], "bc"):
        wanted = benchmark.gather_by_vertex(graph, vertices, cells, part)
        torch.testing.assert_close(graph.gather(vertices, cells, part), wanted, rtol=1e-4, atol=1e-6)
    graph.reweight_ab[0].weight.data.neg_()  # the weights count
    assert (graph(*maps) - by_vertex).abs().max() > 1e-4


def test_noise_falls_on_half_of_the_images_and_stays_in_range():
    torch.manual_seed(0)
    pixels = torch.zeros(400, 3, 4, 4)
    changed = (add_white_noise(pixels, 0.1) != pixels).flatten(1)
    assert torch.equal(changed.any(1), changed.all(1))
    assert 160 < changed.any(1).sum() < 240
    assert add_white_noise(torch.ones(9, 3, 4, 4), 0.1).max() == 1


def test_reconstruction_counts_on_real_images_alone():
    pixels, fake = torch.zeros(3, 3, 2, 2), torch.tensor([0.0, 1.0, 0.0])
    reconstruction = torch.tensor([0.5, 9.0, -0.1])[:, None, None, None].expand(3, 3, 2, 2)
    assert reconstruction_loss(pixels, reconstruction, fake).item() == pytest.approx(0.3)
    assert reconstruction_loss(pixels, reconstruction, torch.ones(3)).item() == 0


def test_similarity_is_the_cosine_in_unit_range():
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])[..., None, None].expand(3, 2, 4, 4)
    wanted = torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]])
    torch.testing.assert_close(similarity(features), wanted)


def test_similarity_loss_by_hand():
    matrix = torch.tensor([[1.0, 0.8, 0.6], [0.8, 1.0, 0.2], [0.6, 0.2, 1.0]])
    fake = torch.tensor([0.0, 0.0, 1.0])  # one real pair at 0.8, mixed pairs at 0.6 and 0.2
    assert similarity_loss([matrix], fake).item() == pytest.approx(1 - 0.8 + 0.4, abs=1e-5)
    assert similarity_loss([matrix] * 3, fake).item() == pytest.approx(1.8, abs=1e-5)
    assert similarity_loss([matrix], torch.ones(3)).item() == pytest.approx(1.0)  # no pair at all


def test_loss_is_flooded_and_weighted(batch_of):
    torch.manual_seed(0)
    model = Recce(image_size=64, settings=RecceSettings(noise=0.0, dropout=0.0, flood=2.0)).train()
    batch = batch_of(model)
    loss, parts = model.loss(batch)
    flooded = abs(parts["classification"] - 2) + 2
    assert loss.item() == pytest.approx(flooded + 0.1 * parts["reconstruction"] + 0.1 * parts["similarity"], rel=1e-5)


def test_other_classes_and_sizes(heat):
    torch.manual_seed(0)
    model = Recce(num_classes=4, image_size=64).eval()
    again = Recce.from_published({f"module.{key}": value for key, value in model.state_dict().items()})
    pixels = torch.randn(2, 3, 80, 80).clamp(-1, 1)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))
        assert model.outputs(pixels).reconstruction.shape == pixels.shape
        scores = model.score(pixels[:1])
    assert scores.shape == (1,)
    assert 0 <= scores.item() <= 1
    assert heat(model, pixels).shape[:2] == (2, 1)


def test_strict(published):
    state = {k: v for k, v in published.state.items() if k != "reasoning.reweight_ac.0.weight"}
    message = "missing ['reasoning.reweight_ac.0.weight'], unexpected ['surplus']"
    with pytest.raises(WeightsError, match=re.escape(message)):
        Recce.from_published({**state, "surplus": torch.zeros(1)})


def test_preprocessing(synthetic):
    image = synthetic(150)[0]
    pixels = Recce(image_size=299).preprocess([image])
    assert pixels.shape == (1, 3, 299, 299)
    assert pixels.min() >= -1
    torch.testing.assert_close(pixels.mean(), torch.tensor(image.mean() / 127.5 - 1).float(), atol=0.02, rtol=0)


def test_overfits(overfit):
    torch.manual_seed(0)
    losses = overfit(Recce(image_size=64), 1e-3, 8)
    assert losses[-1] < 0.75 * losses[0]
