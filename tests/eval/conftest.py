"""Detectors that cost nothing, and the result of a run of three on synthetic photos."""

from types import SimpleNamespace

import numpy as np
import pytest

from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.detectors import About, Baseline, Judgement, Says
from ffaa.eval.figures import make_result
from ffaa.eval.run import Outcome
from ffaa.types import Difficulty, ForgeryType, Label


class Trained:
    """The protocol of a trained baseline: brighter crops are more fake."""

    name, files, image_size, threshold = "bright", {"baseline.safetensors": "ab" * 32}, 64, 0.4
    parameters, device = 1000, "cpu"

    def __init__(self, sign=1):
        self.sign, self.seen = sign, []

    def scores(self, crops):
        self.seen += list(crops)
        means = np.array([crop.mean() / 255 for crop in crops])
        return means if self.sign > 0 else 1 - means


@pytest.fixture
def bright():
    return Baseline(Trained())


@pytest.fixture
def dark():
    return Baseline(Trained(-1), "dark")


def _outcome(i, split, name, label, says, easy, results, video="", finding=None):
    kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.ENTIRE_FACE_SYNTHESIS
    return Outcome(
        path=f"{i}.jpg", sha256=f"{i:064d}", split=split, test_set=name, label=label, forgery_type=kind, video=video,
        whole_image=i == 0, says=says, seconds=0.25, results=results,
        said_type=ForgeryType.ENTIRE_FACE_SYNTHESIS if says and i % 3 else None,
        difficulty=None if easy is None else Difficulty.EASY if easy else Difficulty.HARD, finding=finding,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_outcome():
    return _outcome


def _label(score):
    return Label.FAKE if score >= 0.5 else Label.REAL


def _synthetic(recipe):
    """Two rows of the assistant and a weaker baseline on sets of 40 photos; hard photos are where noise was high."""
    rng = np.random.default_rng(5)
    places = [("test", "own"), ("bench", "A"), ("bench", "B"), ("val", "own")]
    nano, weak = [], []
    for i in range(160):
        split, name = places[i // 40]
        label, noise = (Label.FAKE if i % 2 else Label.REAL), rng.normal(0, 0.3, 3)
        score = [float(np.clip(0.25 + 0.5 * (i % 2) + n, 0, 1)) for n in noise]
        anchor, other = _label(score[1]), _label((score[0] + score[1]) / 2)
        results = [anchor, anchor, other]
        said = [Says(label=_label(s), score=s) for s in score]
        says = {"nano": said[0], "nano/anchor": said[1], "nano/majority": Says(label=anchor, score=score[1])}
        nano.append(_outcome(i, split, name, label, says, anchor is other, results, finding=anchor is other))
        low = float(np.clip(0.45 + 0.1 * (i % 2) + noise[2], 0, 1))
        weak.append(_outcome(i, split, name, label, {"weak": Says(label=_label(low), score=low)}, None, []))
    about = {"files": {"w": "00"}, "image_size": 224, "parameters": 5_000_000, "device": "cpu"}
    detectors = [
        SimpleNamespace(name="nano", rows=tuple(nano[0].says), about=About(kind="ffaa", **about)),
        SimpleNamespace(name="weak", rows=("weak",), about=About(kind="baseline", threshold=0.6, **about)),
    ]
    return make_result(recipe, {"nano": nano, "weak": weak}, detectors, "ffaa bench run <x>", 8, 200)


@pytest.fixture(scope="session")
def result():
    """160 photos: in domain 'own', open world A and B, 40 of validation; 200 resamples."""
    return _synthetic(BenchRecipe(name="synthetic", about="made up", validation="val", seed=3))


@pytest.fixture(scope="session")
def judgement():
    return lambda scores: [Judgement(says={"x": Says(label=_label(s), score=s)}, seconds=0.1) for s in scores]
