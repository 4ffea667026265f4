from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ffaa.data import manifest
from ffaa.errors import FFAAError, InputError
from ffaa.mllm import train_towers as module
from ffaa.mllm.train_tower import TowerArgs, imagenet_tower
from ffaa.mllm.train_towers import TowerJob, towers_beside, train_towers

ARGS = TowerArgs(epochs=1, batch=4, workers=0, bf16=False, blend=0.5)


@pytest.fixture
def jobs(tiny_rows, tiny_manifest, tiny_parts, tmp_path):
    """jobs(folder, count, rows...) -> jobs of 12 training photos that differ in their rates, in folders of that one."""

    def make(folder, count, **changes):
        chosen = [r for r in tiny_rows if r.split == "train"][:12] + [r for r in tiny_rows if r.split == "val"][:4]
        folder = tmp_path / folder
        folder.mkdir()
        manifest.write(folder / manifest.NAME, [r.model_copy(update=changes) for r in chosen])
        part = tiny_parts["efficientnet-lite0"] / "lite.pth"
        return [
            TowerJob(
                ARGS.model_copy(update={"lr": 1e-3 * (i + 1)}),
                folder / manifest.NAME,
                tiny_manifest,
                part,
                folder / f"tower-{i}",
                0.0,
                i,
            )
            for i in range(count)
        ]

    return make


def test_three_towers_two_at_once_are_those_trained_in_turn(jobs):
    """One of them goes on from another."""
    beside, alone, threads = jobs("beside", 3), jobs("alone", 3), torch.get_num_threads()
    later, last = (replace(some[1], before=some[0].out / "tower.safetensors") for some in (beside, alone))
    torch.set_num_threads(2)
    try:
        train_towers([later, beside[0], beside[2]], at_once=2)
        torch.set_num_threads(1)  # as many as each of them had; another number gives other last bits
        train_towers([last, alone[0], alone[2]])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(beside, alone, strict=True):
        found, wanted = (load_file(job.out / "tower.safetensors") for job in (one, other))
        assert [name for name in wanted if not torch.allclose(found[name], wanted[name], atol=1e-3)] == []
    assert not torch.allclose(*(load_file(job.out / "tower.safetensors")["heads.last.weight"] for job in beside[::2]))


def test_a_tower_that_goes_on_from_another_takes_its_share_of_imagenet(jobs):
    """Of ImageNet's weights, not of those that it went on from."""
    first, plain, mixed = jobs("shares", 3)
    plain, mixed = (
        replace(
            job, before=first.out / "tower.safetensors", seed=1, args=ARGS.model_copy(update={"imagenet_share": share})
        )
        for job, share in ((plain, 0.0), (mixed, 0.25))
    )
    train_towers([first, plain, mixed])
    found, learnt = (load_file(job.out / "tower.safetensors") for job in (mixed, plain))
    begun = imagenet_tower(torch.load(first.weights, weights_only=True), 1)[0].state_dict()
    name = "stages.5.0.expand.0.weight"
    assert not torch.allclose(load_file(first.out / "tower.safetensors")[f"tower.{name}"], begun[name], atol=1e-4)
    assert torch.allclose(found[f"tower.{name}"], 0.75 * learnt[f"tower.{name}"] + 0.25 * begun[name], atol=1e-5)


def test_what_is_wrong_with_a_photo_is_said_by_the_one_who_asked(jobs):
    broken = jobs("broken", 2, path="gone.png")
    with pytest.raises(InputError, match=r"gone\.png: "):
        train_towers(broken, at_once=2)


def test_towers_beside_other_work_are_those_trained_in_turn(jobs):
    """Each with its share of the threads, and trained when the other work is done."""
    beside, alone, threads = jobs("beside", 2), jobs("alone", 2), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with towers_beside(beside, at_once=2):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        train_towers(alone)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(beside, alone, strict=True):
        found, wanted = (load_file(job.out / "tower.safetensors") for job in (one, other))
        assert [name for name in wanted if not torch.allclose(found[name], wanted[name], atol=1e-3)] == []


def test_towers_beside_nothing_else_come_after_it(jobs):
    one = jobs("one", 1)
    with towers_beside(one, at_once=1):
        assert not one[0].out.exists()
    assert (one[0].out / "tower.safetensors").is_file()


def test_towers_beside_failing_work_are_ended(jobs):
    started = jobs("ended", 1)
    with pytest.raises(KeyError), towers_beside(started, at_once=2):
        raise KeyError
    assert not active_children()
    assert not (started[0].out / "tower.safetensors").exists()


class Pool:
    """In place of ProcessPool: jobs end when they are told to, or, once `free`, at once."""

    free = False

    def __init__(self, workers):
        self.begun, self.futures = [], []

    def __enter__(self):
        Pool.last = self
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, job, *settings):
        self.begun.append(job.seed)
        self.futures.append(Future())
        if self.free:
            self.futures[-1].set_result(None)
        return self.futures[-1]


def job(number, before=None):
    return TowerJob(ARGS, Path(), Path(), Path(), Path(f"t{number}"), 0.0, number, before)


def test_the_next_tower_begins_when_one_has_ended_and_one_more_when_the_caller_has(monkeypatch):
    monkeypatch.setattr(module, "ProcessPool", Pool)
    later = job(3, Path("t1/tower.safetensors"))
    with towers_beside([later, job(1), job(2), job(4), job(5)], at_once=2):
        pool = Pool.last
        assert pool.begun == [1]
        pool.futures[0].set_result(None)
        assert pool.begun == [1, 3]
        pool.free = True  # the third is still under way when the caller has done
        assert pool.begun == [1, 3]
        monkeypatch.setattr(module, "wait", lambda futures, **_: [future.set_result(None) for future in futures])
    assert pool.begun == [1, 3, 2, 4, 5]


@pytest.mark.parametrize(
    ("failure", "said"), [(InputError("torn"), "torn"), (BrokenProcessPool(), "ended from outside, .* goes on from")]
)
def test_no_tower_begins_after_one_that_failed(monkeypatch, failure, said):
    monkeypatch.setattr(module, "ProcessPool", Pool)
    with pytest.raises(FFAAError, match=said), towers_beside([job(1), job(2)], at_once=2):
        Pool.last.futures[0].set_exception(failure)
    assert Pool.last.begun == [1]
