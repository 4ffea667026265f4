"""benchmarks/evidence_value.py: it finds what measured items add to the tower, and that they add nothing."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from ffaa.eval.run import Outcome
from ffaa.mllm.features import FeatureRow
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import write_jsonl


@pytest.fixture(scope="module")
def value():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield importlib.import_module("evidence_value")


def make_run(folder, telling):
    """A run whose tower knows something, and whose item 'told' knows something else of its own, or nothing."""
    rng = np.random.default_rng(0)
    for name, count in (("mine", 200), ("val", 100), ("evaluate", 120)):
        rows, outcomes = [], []
        for i in range(count):
            fake = bool(i % 2)
            label, kind = (Label.FAKE, ForgeryType.ENTIRE_FACE_SYNTHESIS) if fake else (Label.REAL, ForgeryType.REAL)
            told = rng.normal() + (2 * fake if telling else 0)
            values = {"noise": rng.normal()} | ({} if i % 10 == 9 else {"told": told})  # one in ten is not measured
            score = float(1 / (1 + np.exp(-(rng.normal() + 1.5 * (fake - 0.5)))))
            known = {"sha256": f"{name}{i}", "label": label, "forgery_type": kind}
            rows.append(
                FeatureRow(**known, image="a.jpg", variant=0, values=values, tower_score=score, tower_type=kind)
            )
            outcomes.append(
                Outcome(
                    **known, says={}, seconds=0, results=[], path="a.jpg", split="test" if i < count / 2 else "bench",
                    test_set="a", video="", whole_image=False,
                )
            )  # fmt: skip
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_jsonl(folder / "evaluation.jsonl", outcomes)
    return folder


@pytest.mark.parametrize("telling", [True, False])
def test_what_the_items_add_is_found(value, tmp_path, telling):
    found = value.measure(make_run(tmp_path, telling))
    assert (found["learnt from"], found["items"]) == (200, 2)
    assert sorted(found["pools"]) == ["bench", "test"]
    for pool in found["pools"].values():
        auc, gain = {kind: of["value"] for kind, of in pool["auc"].items()}, pool["both - tower"]
        assert pool["photos"] == 60
        assert gain["difference"] == pytest.approx(auc["both"] - auc["tower"])
        assert auc["tower"] > 0.7
        if telling:
            assert auc["evidence"] > 0.8
            assert gain["low"] > 0
        else:
            assert auc["evidence"] < 0.7
            assert gain["low"] <= 0.02
