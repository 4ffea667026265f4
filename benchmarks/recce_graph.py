"""RECCE's graph reasoning for all vertices at once against one vertex after the other: same output, how much faster.

The loop gathers as the published code does: per vertex it repeats the vertex for its neighbours, joins the two, weighs
and adds up. The rest of the module (embeddings, gates, projection) is the same in both.
Run: python benchmarks/recce_graph.py [--batch 8] [--side 19] [--repeat 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ffaa.baselines.recce import GraphReasoning

PARTS: tuple[Literal["b"], Literal["c"]] = ("b", "c")


def gather_by_vertex(graph: GraphReasoning, vertices: Tensor, cells: Tensor, part: Literal["b", "c"]) -> Tensor:
    """`GraphReasoning.gather`, vertex by vertex."""
    ratio = graph.ratio["bc".index(part)]
    embedding = getattr(graph, f"v{part}_embedding")
    reweight = getattr(graph, f"reweight_a{part}")[0]
    b, d = cells.shape[:2]
    flat = vertices.flatten(2)
    near = F.unfold(cells, ratio, stride=ratio).reshape(b, d, ratio * ratio, -1)
    near = embedding(near.permute(0, 2, 3, 1))
    gathered = []
    for j in range(flat.shape[2]):
        own = torch.stack([flat[:, :, j]] * ratio**2, 1)
        pair = torch.cat([own, near[:, :, j]], -1)
        weights = torch.softmax(torch.relu(reweight(pair)), 1)
        gathered.append(torch.bmm(near[:, :, j].transpose(1, 2), weights)[..., 0])
    return torch.stack(gathered, -1).view_as(vertices)


def reason_by_vertex(graph: GraphReasoning, encoded: Tensor, second: Tensor, fourth: Tensor) -> Tensor:
    """`GraphReasoning.forward`, vertex by vertex."""
    vertices = graph.va_embedding(encoded)
    from_b = gather_by_vertex(graph, vertices, second, "b") * (1 - graph.va_gated_b(encoded))
    from_c = gather_by_vertex(graph, vertices, fourth, "c") * (1 - graph.va_gated_c(encoded))
    return graph.reproject(torch.cat([from_b, from_c, vertices], 1).sigmoid())


def make(batch: int, side: int, width: int = 728, inner: int = 256) -> tuple[GraphReasoning, tuple[Tensor, ...]]:
    """A graph in eval mode whose weights tell neighbours apart, and random maps of the published widths."""
    torch.manual_seed(0)
    graph = GraphReasoning(width, inner, (inner, inner // 2), (2, 4), 0.2).eval()
    for reweight in (graph.reweight_ab[0], graph.reweight_ac[0]):
        torch.nn.init.normal_(reweight.weight)
    maps = ((width, 1), (inner, 2), (inner // 2, 4))
    return graph, tuple(torch.randn(batch, channels, times * side, times * side) for channels, times in maps)


def seconds(step: Callable[[], object], repeat: int) -> float:
    """Median wall time of a call, after one that is not counted."""
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=19, help="of the encoder map; 19 at the published 299 pixels")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    graph, maps = make(args.batch, args.side)

    vertices = torch.randn(args.batch, 256, args.side, args.side)
    with torch.no_grad():
        torch.testing.assert_close(graph(*maps), reason_by_vertex(graph, *maps), rtol=1e-4, atol=1e-6)
        for cells, part in zip(maps[1:], PARTS, strict=True):
            found, wanted = graph.gather(vertices, cells, part), gather_by_vertex(graph, vertices, cells, part)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        print("equal output")
        report(
            "gathering, forward",
            seconds(lambda: [graph.gather(vertices, m, p) for m, p in zip(maps[1:], PARTS)], args.repeat),
            seconds(lambda: [gather_by_vertex(graph, vertices, m, p) for m, p in zip(maps[1:], PARTS)], args.repeat),
        )
        report(
            "whole module, forward",
            seconds(lambda: graph(*maps), args.repeat),
            seconds(lambda: reason_by_vertex(graph, *maps), args.repeat),
        )
    report(
        "whole module, forward and backward",
        seconds(lambda: graph(*maps).sum().backward(), args.repeat),
        seconds(lambda: reason_by_vertex(graph, *maps).sum().backward(), args.repeat),
    )


def report(name: str, at_once: float, by_vertex: float) -> None:
    print(
        f"{name}: {1e3 * at_once:.1f} ms at once, {1e3 * by_vertex:.1f} ms by vertex, ratio {by_vertex / at_once:.2f}"
    )


if __name__ == "__main__":
    main()
