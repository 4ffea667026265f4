"""Mining and MIDS of a tuned LLaVA on a built set: tiny encoders, and answers from a local server."""

import json

import pytest
import torch
from tests.mllm.test_mine_server import answers
from tests.vqa.openai_server import serve
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

from ffaa import weights
from ffaa.cli.main import main
from ffaa.data import manifest
from ffaa.data.build import build
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.mids import checkpoint
from ffaa.mids.llava import LlavaSet
from ffaa.mids.report import report
from ffaa.mllm.adapter import CARD, AdapterCard, save_adapter, weight_files
from ffaa.mllm.llava_import import import_llava
from ffaa.mllm.mine import Mined, Seen, targets
from ffaa.mllm.mine_server import ServerArgs
from ffaa.mllm.train import LoraArgs, add_lora
from ffaa.mllm.tune import BaseArgs, find_base
from ffaa.recipe import Recipe
from ffaa.stages import Stages
from ffaa.vqa.conversation import read_jsonl, write_jsonl
from ffaa.vqa.row import VqaRow

BASE = BaseArgs(random="llava_mistral")


@pytest.fixture(scope="module")
def built(tiny_manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    recipe = DataRecipe(
        name="crops", sources=[SourceArgs(kind="csv", root=".")], no_face="whole", pose=False, duplicates=False, val=0,
        test=0,
    )  # fmt: skip
    build(recipe, tiny_manifest, out, workers=0)
    return out


@pytest.fixture(scope="module")
def encoders(tmp_path_factory, tiny_parts):
    """Folders of a tiny T5 encoder, with a tokenizer of characters, and of a tiny CLIP."""
    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("encoders")
    tokenizer = AutoTokenizer.from_pretrained(tiny_parts["minilm-l6"])
    text = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    T5EncoderModel(text).save_pretrained(root / "t5")
    tokenizer.save_pretrained(root / "t5")
    vision = CLIPVisionConfig(
        hidden_size=48, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14
    )
    CLIPVisionModel(vision).save_pretrained(root / "clip")
    return root


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def make_recipe(encoders, **mids):
    settings = {
        "epochs": 1, "batch": 6, "augment": True, "variants": 1, "unfreeze": 2,
        "text_encoder": str(encoders / "t5"), "image_encoder": str(encoders / "clip"),
    }  # fmt: skip
    return Recipe.model_validate(
        {"name": "llava", "base": BASE.model_dump(), "data": {"held": 0.4}, "mids": settings | mids}
    )


def test_from_a_server_to_a_mids(built, encoders, tmp_path):
    stages = Stages(make_recipe(encoders), built, tmp_path / "run")
    with serve(answers) as server:
        stages.mine(ServerArgs(base_url=server.url, model="ffaa", size=64))
        stages.mids()
        asked = len(server.requests)
        stages.mids()
        assert len(server.requests) == asked
    rows, mined = manifest.read(built), list(read_jsonl(tmp_path / "run" / "mined-mine.jsonl", Mined))
    assert {m.sha256 for m in mined} == {r.sha256 for r in stages._llava().parts()["mine"]}
    assert not {m.group for m in mined} & {r.group for r in rows if r.sha256 not in {m.sha256 for m in mined}}
    assert asked == 3 * (len(mined) + len(stages._llava().parts()["val"]))
    assert report(mined).all.hard == len(mined)
    t5 = T5EncoderModel.from_pretrained(encoders / "t5")
    clip = CLIPVisionModel.from_pretrained(encoders / "clip")
    trained = checkpoint.load(tmp_path / "run" / "mids.safetensors", t5, clip)
    assert trained.config.unfreeze == 2
    name = "encoder.layers.2.mlp.fc1.weight"
    assert not torch.equal(trained.image_encoder.state_dict()[name], clip.state_dict()[name])
    assert torch.equal(
        trained.image_encoder.state_dict()[name.replace("2", "0")], clip.state_dict()[name.replace("2", "0")]
    )
    card = json.loads((tmp_path / "run" / "mids.card.json").read_text())
    assert card["encoders"]["image"].split()[0] == str(encoders / "clip")


def test_rows_it_was_tuned_on_are_refused(built, tmp_path):
    rows = [r for r in manifest.read(built) if r.size]
    llava = LlavaSet(BASE, built, tmp_path, 0.4, 0)
    held = llava.parts()["mine"]

    def told(row, path):
        text = (
            "Image description: A face.\nForgery reasoning: It looks so.\n"
            f"Analysis result: {row.label.value}\nProbability: 0.90\nForgery type: {row.forgery_type.value}"
        )
        kept = {"image": row.path, "sha256": row.sha256, "label": row.label, "forgery_type": row.forgery_type}
        made = VqaRow(
            **kept, question="Real or fake?", teacher="t", prompt_version="1", seed=0, raw=text, result=row.label,
            probability=0.9, stated_type=row.forgery_type,
            sentences=[{"part": "description", "text": "A face."}, {"part": "reasoning", "text": "It looks so."}],
        )  # fmt: skip
        write_jsonl(path, [made])
        return path

    seen = llava.seen(told(held[0], tmp_path / "rows.jsonl"))
    assert held[0].sha256 in seen.hashes
    with pytest.raises(InputError, match="were used to tune the MLLM"):
        seen.refuse(targets(held))
    near = Seen(frozenset(), seen.groups)  # as if another frame of its group had been in the rows
    with pytest.raises(InputError, match="no split may cut a group"):
        near.refuse(targets(held))
    default = llava.seen(None)
    assert default == Seen.of(r for r in rows if r.split == "train" and r not in held)
    default.refuse(targets(held))


def test_mids_needs_mined_answers(built, encoders, tmp_path):
    with pytest.raises(InputError, match="run `ffaa mine` first"):
        Stages(make_recipe(encoders), built, tmp_path / "run").mids()


def test_the_tuned_base_mines_here(built, encoders, tmp_path):
    """With an adapter as `ffaa train mllm` leaves it; random weights, so that no answer can be read."""
    recipe, run = make_recipe(encoders), tmp_path / "run"
    folder = find_base(BASE, run, 0)
    model = import_llava(folder, image_aspect_ratio="pad")
    add_lora(model, LoraArgs(r=2, alpha=2))
    parts = ("lora_", "multi_modal_projector")
    trained = {n: p.detach() for n, p in model.named_parameters() if any(part in n for part in parts)}
    files = save_adapter(run / "adapter", model, trained)
    card = AdapterCard(
        name="llava", template="v1", base=str(BASE), base_files=weight_files(folder), recipe={"held": 0.4}, seed=0,
        data={"manifest": weights.sha256(built / manifest.NAME)}, versions={}, command="", processes=1, steps=1,
        eval_loss=1.0, files=files,
    )  # fmt: skip
    (run / "adapter" / CARD).write_text(card.model_dump_json())
    stages = Stages(recipe, built, run)
    stages._llava().inputs(None, None, [])
    mllm = stages._llava().load_mllm()
    assert mllm.template.name == "v1"
    mllm.max_new_tokens = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlavaSet, "load_mllm", lambda self: mllm)
        stages.mine()
    mined = list(read_jsonl(run / "mined-mine.jsonl", Mined))
    assert len(mined) == len(stages._llava().parts()["mine"])
    assert report(mined).all.unread == len(mined)
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held": 0.5})})
    with pytest.raises(InputError, match="tuned on another set or with another data.held"):
        Stages(other, built, run).mine()


@pytest.mark.parametrize("setting", [{"from_heads": True}, {"distil": 0.5}])
def test_a_base_has_no_heads(built, encoders, tmp_path, setting):
    with pytest.raises(UsageError, match="are for a nano"):
        Stages(make_recipe(encoders, unfreeze=0, **setting), built, tmp_path).mids()


def test_no_adapter_no_mining_here(built, tmp_path, encoders):
    with pytest.raises(WeightsError, match="holds no adapter.json"):
        Stages(make_recipe(encoders), built, tmp_path / "run").mine()


def test_a_set_without_held_faces_is_one_line(built, tmp_path):
    with pytest.raises(InputError, match="no face for 'mine'"):
        LlavaSet(BASE, built, tmp_path, 0.0, 0).parts()


def test_the_command(built, encoders, tmp_path, capsys):
    recipe, settings = tmp_path / "r.yaml", tmp_path / "server.yaml"
    recipe.write_text(make_recipe(encoders).model_dump_json())
    run = tmp_path / "run"
    with serve(answers) as server:
        settings.write_text(json.dumps({"base_url": server.url, "model": "ffaa", "size": 64}))
        args = ["mine", str(recipe), "--data", str(built), "--run", str(run), "--server", str(settings)]
        assert main(args) == 0
        first = capsys.readouterr().out
        assert main([*args, "--keep-easy"]) == 0
        second = capsys.readouterr().out
        assert len(server.requests) == 3 * sum(1 for f in run.glob("mined-*.jsonl") for _ in f.open())
    assert "real, says real" in first
    assert "Easy faces are left out." in first
    assert "Easy faces count as kept." in second
    assert main(["mine"]) == 2
    assert "ffaa mine RECIPE --data FOLDER" in capsys.readouterr().err
    assert main(["mine", "--chat-template"]) == 0
    assert " ASSISTANT:" in capsys.readouterr().out


def test_a_towers_recipe_takes_no_other_image_encoder(tiny_run, make_tiny_recipe):
    recipe = make_tiny_recipe(mids={"image_encoder": "clip-vit-l14-336"})
    with pytest.raises(UsageError, match="nano's MIDS sees through nano's tower"):
        Stages(recipe, tiny_run.data, tiny_run.folder)._tower_encoder([])
