import errno
import importlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ffaa.data import engines
from ffaa.data.engines import ENGINES, local, on_ray
from ffaa.data.extract import Job, batches, extract
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs, real
from ffaa.data.work import Task
from ffaa.errors import InputError

RECIPE = DataRecipe(name="t", sources=[SourceArgs(kind="folder", root=".")], pose=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, hopper, astronaut):
    """40 photos, every fifth without a face."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(40):
        rng = np.random.default_rng(i)
        pixels = (hopper[60:420, 90:450], astronaut[20:220, 130:330])[i % 2]
        pixels = np.full((64, 64, 3), i, np.uint8) if i % 5 == 4 else np.roll(pixels, rng.integers(-9, 9), axis=1)
        Image.fromarray(pixels).resize((160, 160)).save(root / f"{i}.png")
    return root


@pytest.fixture
def job(photos, tmp_path):
    return Job(photos, tmp_path, RECIPE)


def tasks(count=40):
    return [Task(i, 0, real(f"{i}.png")) for i in range(count)]


def by_id(found):
    outcomes = sorted((o for some in found for o in some), key=lambda o: o.id)
    return [replace(o, memory=0) for o in outcomes]


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
    job = Job(photos, tmp_path_factory.mktemp("expected"), RECIPE)
    return [replace(extract(task, job), memory=0) for task in tasks()]


def test_the_expected_outcomes(expected):
    assert [len(o.records) for o in expected] == [0 if i % 5 == 4 else 1 for i in range(40)]
    assert [r.kind for o in expected for r in o.rejected] == ["no face"] * 8


def test_batches_hold_photos_or_a_video():
    items = [real("a.png"), real("b.png"), real("v.mp4"), real("c.png"), real("d.png"), real("e.png")]
    found = list(batches((Task(i, 0, item) for i, item in enumerate(items)), 2))
    assert [[t.item.path for t in b] for b in found] == [["a.png", "b.png"], ["v.mp4"], ["c.png", "d.png"], ["e.png"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_local_gives_every_outcome_once(job, expected, workers):
    assert by_id(local(iter(tasks()), job, workers)) == expected
    assert len(list((job.out / "crops").rglob("*.png"))) == 32


def test_ray_gives_the_same(job, expected):
    """A real Ray of two workers."""
    assert by_id(on_ray(iter(tasks()), job, 2)) == expected
    assert len(list((job.out / "crops").rglob("*.png"))) == 32
    assert not (job.out / "tasks").exists()
    assert list(on_ray(iter([]), job, 2)) == []


def test_the_registry():
    assert {"local": local, "ray": on_ray} == ENGINES


def test_tasks_are_not_read_ahead_of_the_work(job, monkeypatch):
    monkeypatch.setattr(engines, "BATCH", 2)
    taken = []

    def source():
        for task in tasks():
            taken.append(task.id)
            yield task

    first = next(found := local(source(), job, 1))
    assert first
    assert len(taken) <= 2 * (engines.QUEUED + 2)
    found.close()


DEADLY = """
import os
from ffaa.data import extract as module

def extract(task, job):
    if task.item.path == "7.png":
        os._exit(9)
    return module.extract(task, job)

def extract_all(tasks, job):
    return [extract(task, job) for task in tasks]
"""


def test_a_file_that_kills_its_process_is_rejected_alone(job, expected, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(folder)  # handed on to the workers
    deadly = importlib.import_module("deadly")
    monkeypatch.setattr(engines, "extract", deadly.extract)
    monkeypatch.setattr(engines, "extract_all", deadly.extract_all)
    found = by_id(local(iter(tasks()), job, 2))
    assert [r.kind for r in found[7].rejected] == ["crash"]
    assert found[7].records == []
    assert found[:7] + found[8:] == expected[:7] + expected[8:]


@pytest.mark.parametrize("engine", [local, on_ray])
def test_a_disk_that_cannot_be_written_is_an_error(photos, tmp_path, engine):
    (tmp_path / "crops").write_text("in the way")
    with pytest.raises(OSError) as error:
        list(engine(iter(tasks(4)), Job(photos, tmp_path, RECIPE), 1))
    assert error.value.errno in {errno.ENOTDIR, errno.EEXIST}


def test_an_address_without_ray_says_so(job):
    with pytest.raises(InputError, match="no Ray at"):
        list(on_ray(iter(tasks(1)), job, 1, "nowhere"))
