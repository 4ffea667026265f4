"""Which towers a recipe trains, on a copy of the tiny run's folder."""

import json
from contextlib import contextmanager

import torch
from safetensors.torch import load_file

from ffaa.mllm.train_tower import load_tower
from ffaa.mllm.train_towers import train_towers
from ffaa.stages import Stages


def test_several_towers_are_averaged_and_kept_apart(again, tiny_run):
    more = [tiny_run.recipe.tower.model_dump() | {"blend": 0.7}]
    assert again(until="tower", more_towers=more) == ["tower-0", "tower-1", "tower"]
    files = [again.folder / name / "tower.safetensors" for name in ("tower-0", "tower-1")]
    one, two, mean = (load_file(file) for file in (*files, again.folder / "tower.safetensors"))
    weight = "tower.last_patch.weight"
    assert not torch.equal(one[weight], two[weight])
    assert torch.allclose(mean[weight], (one[weight] + two[weight]) / 2, atol=1e-6)
    assert again(until="tower", more_towers=more) == []
    more[0]["blend"] = 0.0
    assert again(until="tower", more_towers=more) == ["tower-1", "tower"]


def test_a_tower_of_mids_is_trained_once_and_may_be_a_mean(again, tiny_run, make_tiny_recipe):
    plain = tiny_run.recipe.tower.model_dump()
    changes = {"more_towers": [plain | {"seed": 1}]}
    own = [plain | {"seed": 2}, [plain | {"seed": 1, "workers": 0}, plain | {"seed": 3}, plain | {"seed": 2}]]
    stages = Stages(make_tiny_recipe(**changes, mids_towers=own), tiny_run.data, again.folder)
    assert stages.mids_towers() == ["tower-mids-0/tower.safetensors", "tower-mids-1.safetensors"]
    parts = [load_file(again.folder / f"{n}/tower.safetensors") for n in ("tower-1", "tower-mids-1-1", "tower-mids-0")]
    mean = load_file(again.folder / "tower-mids-1.safetensors")
    weight = "tower.last_patch.weight"
    assert torch.allclose(mean[weight], sum(part[weight] for part in parts) / 3, atol=1e-6)
    assert len({part[weight].sum().item() for part in parts}) == 3
    assert not [name for name in ("tower-mids-1-0", "tower-mids-1-2") if (again.folder / name).exists()]
    done = json.loads((again.folder / "stages.json").read_text())
    stages.mids_towers()
    assert json.loads((again.folder / "stages.json").read_text()) == done
    load_tower(again.folder / "tower-mids-1.safetensors")


def test_towers_of_its_own_are_trained_beside_the_mining(again, tiny_run, monkeypatch):
    asked = []

    @contextmanager
    def noted(jobs, at_once):
        asked.append(([job.out.name for job in jobs], at_once))
        yield
        train_towers(jobs)

    monkeypatch.setattr("ffaa.tower_stages.towers_beside", noted)
    plain = tiny_run.recipe.tower.model_dump()
    own = ["tower-mids-0", "tower-mids-1"]
    assert again(at_once=2, mined_variants=2, mids_towers=[plain | {"lr": 3e-3}, plain | {"seed": 1}]) == [
        "features", "mine", *own, "mids",
    ]  # fmt: skip
    again(at_once=2, mined_variants=2, mids_towers=[plain | {"lr": 3e-3}, plain | {"seed": 2}])
    again(at_once=2, mined_variants=2, mids_towers=[plain | {"lr": 3e-3}, plain | {"seed": 2}])
    assert asked == [(own, 2), (own[1:], 2), ([], 2)]


def test_a_tower_may_go_on_from_another_one(again, tiny_run, make_tiny_recipe):
    plain = tiny_run.recipe.tower.model_dump() | {"seed": 1}
    later = plain | {"lr": 1e-6, "average": 0.0}

    def towers(**changes):  # the later one is named first, and trained last all the same
        return [[later | {"after": plain | changes}, plain | changes]]

    def weights():
        files = (again.folder / f"tower-mids-0-{i}/tower.safetensors" for i in (0, 1))
        return [load_file(file)["tower.last_patch.weight"] for file in files]

    def apart(one, other):
        return (one - other).abs().max()

    assert again(until="mids_towers", mids_towers=towers()) == ["tower-mids-0-0", "tower-mids-0-1", "tower-mids-0"]
    after, before = weights()
    assert 0 < apart(after, before) < 1e-4
    assert again(until="mids_towers", mids_towers=towers()) == []
    changed = towers(lr=2e-3)
    assert again(until="mids_towers", mids_towers=changed) == ["tower-mids-0-0", "tower-mids-0-1", "tower-mids-0"]
    assert apart(weights()[1], before) > 1e-4 > apart(*weights()) > 0
    for at_once in (1, 2):  # beside other work too
        recipe, before = make_tiny_recipe(mids_towers=towers(lr=3e-3 * at_once)), weights()[1]
        with Stages(recipe, tiny_run.data, again.folder, at_once=at_once)._towers.own_beside():
            pass
        assert apart(weights()[1], before) > 1e-4 > apart(*weights()) > 0
