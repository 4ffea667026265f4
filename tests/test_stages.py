"""The tiny run again, on a copy of its folder: what is skipped, what is done anew."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ffaa import weights
from ffaa.data import manifest
from ffaa.data.build import build
from ffaa.data.manifest import held_for_mids
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import UsageError
from ffaa.mids import checkpoint, encoders
from ffaa.mids import train as train_module
from ffaa.mllm import features
from ffaa.mllm.generate import QUESTIONS
from ffaa.mllm.mine import Mined
from ffaa.mllm.train_tower import load_tower
from ffaa.pack import pack
from ffaa.stages import TEXT_PART, Stages
from ffaa.vqa.conversation import Conversation, read_jsonl

ALL = ["faces", "tower", "features", "conversations", "mllm", "mine", "mids"]


def section(run, name, **changes):
    return {name: getattr(run.recipe, name).model_dump() | changes}


def test_a_second_run_does_nothing(again, tiny_run):
    before = {p.name: p.stat().st_mtime_ns for p in again.folder.iterdir()}
    assert again() == []
    assert {p.name: p.stat().st_mtime_ns for p in again.folder.iterdir()} == before


def test_a_changed_setting_runs_from_its_stage_on(again, tiny_run):
    assert again(**section(tiny_run, "mids", lr=2e-3)) == ["mids"]
    assert again(**section(tiny_run, "mids", lr=2e-3)) == []


def test_other_mined_variants_are_mined(again, tiny_run):
    assert again(mined_variants=2) == ["features", "mine", "mids"]
    assert len(list(read_jsonl(again.folder / "mined-mine.jsonl", Mined))) == 2 * len(tiny_run.stages.part("mine"))
    assert len(np.load(again.folder / "mine.npy", mmap_mode="r")) == 2 * len(tiny_run.stages.part("mine"))


def test_other_mllm_settings_start_the_mllm_anew(again, tiny_run):
    """Not from the checkpoint of the other settings, which is at its end."""
    steps = json.loads((again.folder / "mllm.json").read_text())["log"][-1]["step"]
    before = [m.answers for m in read_jsonl(again.folder / "mined-mine.jsonl", Mined)]
    assert again(**section(tiny_run, "mllm", epochs=2, lr=2e-2)) == ["mllm", "mine", "mids"]
    log = json.loads((again.folder / "mllm.json").read_text())["log"]
    assert log[-1]["step"] == 2 * steps
    assert [entry["epoch"] for entry in log if "eval_loss" in entry] == [1, 2]
    assert [m.answers for m in read_jsonl(again.folder / "mined-mine.jsonl", Mined)] != before


def test_other_sentences_keep_the_features(again, tiny_run):
    changed = section(tiny_run, "teach", resist=0.5, contrary=1.0)
    assert again(**changed) == ["conversations", "mllm", "mine", "mids"]


def test_another_tower_changes_everything_behind_it(again, tiny_run):
    old = features.load(again.folder, "tune")[0][:2].copy()
    assert again(**section(tiny_run, "tower", lr=3e-3)) == ALL[1:]
    assert not np.array_equal(features.load(again.folder, "tune")[0][:2], old)
    assert json.loads((again.folder / "tower.json").read_text())["steps"] == 4


def test_another_manifest_changes_everything(again, tiny_run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_run.data, data)
    lines = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join([*lines[:10], *lines[11:]]) + "\n")
    assert again(data=data, until="tower") == ["faces", "tower"]


def test_parts_share_no_photo(tiny_run):
    stages = tiny_run.stages
    parts = {name: {r.sha256 for r in stages.part(name)} for name in ("tune", "val", "mine")}
    assert all(parts.values())
    assert not (parts["tune"] & parts["mine"])
    assert not (parts["tune"] & parts["val"])
    assert not (parts["mine"] & parts["val"])
    assert all(held_for_mids(r, 0.3) for r in stages.part("mine"))
    tuned = {c.sha256 for c in read_jsonl(tiny_run.folder / "conversations-tune.jsonl", Conversation)}
    mined = {m.sha256 for m in read_jsonl(tiny_run.folder / "mined-mine.jsonl", Mined)}
    assert tuned == parts["tune"]
    assert mined == parts["mine"]
    test = {r.sha256 for r in stages.rows if r.split in ("test", "bench")}
    assert test
    assert not test & (tuned | mined | parts["val"])


def test_mids_runs_on_the_mined_answers_of_this_mllm(tiny_run):
    """The loaded MLLM still says what was mined: the tower, the body and the tokenizer survived the disk."""
    stages = tiny_run.stages
    mllm = stages.load_mllm()
    array, found = features.load(tiny_run.folder, "mine")
    mined = list(read_jsonl(tiny_run.folder / "mined-mine.jsonl", Mined))
    for i in range(3):
        hidden = torch.from_numpy(np.array(array[i : i + 1, -1])).float()
        (raws,) = mllm.generate(mllm.project(hidden), [found[i].words], (mined[i].answers[0].prompt, *QUESTIONS[1:]))
        assert sorted(raws) == sorted(a.raw for a in mined[i].answers)


@pytest.fixture(scope="module")
def crop_set(tiny_manifest, tmp_path_factory):
    """What `ffaa data build` makes of the tiny photos: crops of 224 px."""
    out = tmp_path_factory.mktemp("crop-set")
    recipe = DataRecipe(
        name="crops", sources=[SourceArgs(kind="csv", root=".")], no_face="whole", pose=False, duplicates=False, val=0,
        test=0,
    )  # fmt: skip
    build(recipe, tiny_manifest, out, workers=0)
    return out


def test_a_built_set_is_taken_as_it_is(crop_set, make_tiny_recipe, use_tiny_parts, tmp_path):
    """Stages train on crops as on photos."""
    recipe = make_tiny_recipe(data={"manifest": "manifest.parquet", "held": 0.3})
    stages = Stages(recipe, crop_set, tmp_path / "run")
    stages.tower()
    assert stages.rows == manifest.read(crop_set)
    assert (tmp_path / "run" / "tower.safetensors").is_file()
    assert not (tmp_path / "run" / "faces").exists()


def test_changed_photos_are_looked_at_again(again, tiny_run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_run.data, data)
    assert again(data=data, until="faces") == []
    lines = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert again(data=data, until="faces") == ["faces"]
    assert len(manifest.read(again.folder / "faces.parquet")) == len(lines) - 2


def test_mids_sees_augmented_crops_through_trained_blocks(again, tiny_run):
    """The settings of Table 3 and the rest, on nano: MIDS alone runs again, and nothing of its caches is left."""
    changes = {"augment": True, "variants": 1, "unfreeze": 1, "masked": False, "self_attention": 1}
    assert again(**section(tiny_run, "mids", **changes, balance="weights")) == ["mids"]
    card = json.loads((again.folder / "mids.card.json").read_text())
    assert card["settings"] | changes == card["settings"]
    assert (card["config"]["unfreeze"], card["config"]["masked"], card["config"]["num_self_attention"]) == (1, False, 1)
    assert card["sha256"] == weights.sha256(again.folder / "mids.safetensors")
    assert card["data"] == {
        name: weights.sha256(again.folder / name) for name in ("mined-val.jsonl", "mined-mine.jsonl")
    }
    assert card["figures"] == json.loads((again.folder / "mids.json").read_text())
    with safe_open(again.folder / "mids.safetensors", "pt") as file:
        names = {key.rsplit(".", 1)[0] for key in file.keys()}  # noqa: SIM118
    assert "image_encoder.head.0" in names
    assert "image_encoder.stem.0" not in names
    assert "se_attn.0.norm" in names
    assert "se_attn.1.norm" not in names
    assert sorted(p.name for p in again.folder.glob("mids*")) == ["mids.card.json", "mids.json", "mids.safetensors"]


def test_mids_starts_from_what_the_tower_says(again, tiny_run):
    """With hardly any training MIDS's odds, whatever the answer, are about those of the tower's heads."""
    assert again(**section(tiny_run, "mids", from_heads=True, lr=1e-12)) == ["mids"]
    tower, heads = load_tower(again.folder / "tower.safetensors")
    text = encoders.text_encoder(TEXT_PART).model
    mids = checkpoint.load(again.folder / "mids.safetensors", text, tower).eval()
    array = torch.from_numpy(np.array(features.load(again.folder, "val")[0])).float()
    with torch.no_grad():
        said = heads.forgery_logit((array[:, 0], array[:, 1]))
        logits = mids.classify(None, None, mids.project((array[:, 1], array[:, 0])))
    for forged, real in ((3, 1), (2, 0)):
        assert torch.corrcoef(torch.stack([logits[:, forged] - logits[:, real], said]))[0, 1] > 0.9


def test_mids_is_taught_by_the_towers_heads(again, tiny_run, monkeypatch):
    """The heads of the run's tower teach, and what they teach is another MIDS."""
    changes = section(tiny_run, "mids", from_heads=True)
    again(**changes)
    plain = weights.sha256(again.folder / "mids.safetensors")
    taught, opinions = [], train_module.opinions

    def noted(heads, *rest):
        taught.append(heads)
        return opinions(heads, *rest)

    monkeypatch.setattr(train_module, "opinions", noted)
    changes = section(tiny_run, "mids", from_heads=True, distil=0.5)
    assert again(**changes) == ["mids"]
    assert weights.sha256(again.folder / "mids.safetensors") != plain
    heads = load_tower(again.folder / "tower.safetensors")[1]
    assert torch.equal(taught[0][0].weight, heads.last.weight)
    assert torch.equal(taught[0][1].weight, heads.previous.weight)


def test_mids_has_towers_of_its_own(again, tiny_run, tmp_path):
    """They are trained apart, brought by MIDS's file, and MIDS starts from what the heads of all say."""
    plain = tiny_run.recipe.tower.model_dump()
    own = [plain | {"lr": 3e-3, "together": True}, plain | {"start": "lite1", "seed": 1}]
    changes = section(tiny_run, "mids", from_heads=True, lr=1e-12)
    assert again(**changes, mids_towers=own) == ["tower-mids-0", "tower-mids-1", "mids"]
    assert again(**changes, mids_towers=own) == []
    files = [again.folder / name / "tower.safetensors" for name in ("", "tower-mids-0", "tower-mids-1")]
    (shared, heads), *others = (load_tower(file) for file in files)
    assert [tower.config.lite for tower, _ in others] == ["lite0", "lite1"]
    card = json.loads((again.folder / "mids.card.json").read_text())
    assert card["encoders"]["image"] == " ".join(
        f"{file.relative_to(again.folder)} {weights.sha256(file)}" for file in files
    )
    mids = checkpoint.load(again.folder / "mids.safetensors", encoders.text_encoder(TEXT_PART).model, shared).eval()
    for one, (other, _) in zip(mids.image_encoder.own, others, strict=True):
        brought, trained = one.state_dict(), other.state_dict()
        assert [name for name in trained if not torch.equal(brought[name], trained[name].half().float())] == []
    stages = Stages(make_tiny(tiny_run, changes, own), tiny_run.data, again.folder)
    pixels = torch.cat([stages._tower_crops("val").pixels(i, 0, None) for i in range(len(stages.part("val")))])
    with torch.no_grad():
        said = sum(h.forgery_logit(t(pixels).hidden_states) for t, h in [(shared, heads), *others]) / 3
        logits = mids.classify(None, None, mids.project(mids.encode_image(pixels)))
    assert torch.corrcoef(torch.stack([logits[:, 3] - logits[:, 1], said]))[0, 1] > 0.9

    pack(stages, tmp_path / "model")
    folder = weights.open_folder(tmp_path / "model")
    assert weights.verify(folder) == []
    for file, (_, own_heads) in zip(folder.own_heads, others, strict=True):
        assert torch.equal(load_file(file)["last.weight"], own_heads.state_dict()["last.weight"].half())


def make_tiny(tiny_run, changes, own):
    return tiny_run.recipe.model_validate(tiny_run.recipe.model_dump() | changes | {"mids_towers": own})


def test_a_teacher_without_a_dataset(again, tiny_run):
    """Neither the MLLM nor MIDS learns from it; validation keeps it."""
    name = tiny_run.stages.rows[0].dataset
    stages = Stages(make_without(tiny_run.recipe, name), tiny_run.data, again.folder)
    assert (stages.part("tune"), stages.part("mine")) == ([], [])
    assert stages.part("val") == tiny_run.stages.part("val") != []


def make_without(recipe, name):
    return recipe.model_copy(update={"teach": recipe.teach.model_copy(update={"without": [name]})})


def test_what_mids_sees_is_what_the_answers_are_about(tiny_run):
    """The crops that are augmented and the stored features are of the same pixels."""
    tower, _ = load_tower(tiny_run.folder / "tower.safetensors")
    crops, (array, _) = tiny_run.stages._tower_crops("mine"), features.load(tiny_run.folder, "mine")
    with torch.no_grad():
        hidden = tower(crops.pixels(2, 0, None)).hidden_states
    np.testing.assert_allclose(torch.stack(hidden, 1)[0].numpy(), array[2], atol=5e-3)


def test_mids_sees_the_crops_without_fine_detail_that_the_answers_are_about(again, tiny_run):
    changes = section(tiny_run, "teach", blurred=1.0)
    assert again(until="features", **changes) == ["features"]
    stages = Stages(make_tiny(tiny_run, changes, []), tiny_run.data, again.folder)
    tower, _ = load_tower(again.folder / "tower.safetensors")
    for name in ("mine", "val"):
        crops, (array, _) = stages._tower_crops(name), features.load(again.folder, name)
        with torch.no_grad():
            hidden = tower(crops.pixels(2, 0, None)).hidden_states
        np.testing.assert_allclose(torch.stack(hidden, 1)[0].numpy(), array[2], atol=5e-3)
        sharp = np.array_equal(array[2], features.load(tiny_run.folder, name)[0][2])
        assert sharp is (name == "val")  # which validates what people bring


def test_a_nano_is_not_mined_through_a_server(tiny_run):
    with pytest.raises(UsageError, match="has no base"):
        tiny_run.stages.mine(tuned_on=tiny_run.data / "manifest.csv")


def test_the_report_counts_what_was_mined(tiny_run):
    found = json.loads((tiny_run.folder / "mined-mine.json").read_text())
    mined = list(read_jsonl(tiny_run.folder / "mined-mine.jsonl", Mined))
    assert found["all"]["faces"] == len(mined)
    assert sum(found["all"]["all_classes"]) + found["all"]["unparsed"] == 3 * len(mined)
    assert list(found["collections"]) == ["tiny"]
    assert {m.group for m in mined} == {r.group for r in tiny_run.stages.part("mine")}


def test_another_mids_is_corrected_anew(again, tiny_run):
    assert again(until="detail") == []
    assert again(until="detail", **section(tiny_run, "mids", lr=2e-3)) == ["mids", "detail"]
    assert again(**section(tiny_run, "mids", lr=3e-3)) == ["mids"]
    assert not (again.folder / "detail.json").exists()
    assert Stages(tiny_run.recipe, tiny_run.data, again.folder).correction() is None
