"""Tuning a tiny LLaVA in the published layout: what is learnt, kept, resumed, and the same in two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.mllm.tuning import make_set, recipe, rows_of, write_rows

from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.mllm.adapter import load_tuned, read_card
from ffaa.mllm.llava_import import import_llava
from ffaa.mllm.told import ImageConversations
from ffaa.mllm.train import parameter_groups
from ffaa.mllm.tune import BaseArgs, accumulation, find_base, image_of, load_learner
from ffaa.mllm.tune_trainer import ByLength
from ffaa.recipe import load_recipe
from ffaa.tune_base import tune_base

ROOT = Path(__file__).parents[2]
STILL = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0}}  # no dropout: processes draw their own


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(rows, set)"""
    root = tmp_path_factory.mktemp("tune")
    folder = make_set(root / "set")
    return write_rows(root / "rows.jsonl", rows_of(folder)), folder


def losses(run):
    log = json.loads((run / "tune.json").read_text())["log"]
    return {key: [entry[key] for entry in log if key in entry] for key in ("loss", "eval_loss", "grad_norm")}


@pytest.fixture(scope="module")
def once(told, tmp_path_factory):
    """A run folder of two epochs, two steps each, with LoRA's dropout off."""
    run = tmp_path_factory.mktemp("once")
    tune_base(recipe(mllm=STILL | {"epochs": 2, "warmup": 0.0}), *told, run, "ffaa train mllm r.yaml")
    return run


def test_it_learns_and_leaves_the_base_alone(once, told):
    found = losses(once)
    assert len(found["loss"]) == 4
    assert found["eval_loss"][1] < found["eval_loss"][0] < found["loss"][0]
    base = once / "base-llava_mistral-0"
    before = import_llava(base, image_aspect_ratio="pad").state_dict()
    after = load_tuned(once / "adapter", base).state_dict()
    assert before.keys() == after.keys()
    for name, value in after.items():
        tuned = "multi_modal_projector" in name or ("language_model" in name and "_proj" in name)
        assert torch.equal(value, before[name]) != tuned, name


def arguments(base, **tune):
    settings = recipe(**tune)
    return BaseArgs(folder=base), base, settings.mllm, settings.tune, 0


def test_the_card_says_what_it_is_of(once, told):
    card = read_card(once / "adapter")
    log = losses(once)
    assert (card.name, card.base, card.template, card.seed) == ("tuned", "random llava_mistral", "v1", 0)
    assert card.data["train"], card.data["val"] == (16, 4)
    assert list(card.data["rows"]) == ["rows.jsonl"]
    assert card.command == "ffaa train mllm r.yaml"
    assert card.recipe["mllm"]["lora"]["r"] == 4
    assert (card.steps, card.eval_loss) == (4, min(log["eval_loss"]))
    assert {"ffaa", "torch", "transformers", "peft"} <= card.versions.keys()


def test_answers_are_written_at_each_evaluation(once):
    text = (once / "samples.txt").read_text()
    blocks = text.split("== step ")[1:]
    assert [block.split(",")[0] for block in blocks] == ["2", "4"]
    assert all("-- crops/16.png (real, Real)\nIs it real?\n" in block for block in blocks)


def test_tensorboard_has_losses_and_answers(once):
    events = EventAccumulator(str(once / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses(once)["loss"], abs=1e-3)
    assert len(events.Scalars("eval/loss")) == 2
    assert "samples/text_summary" in events.Tags()["tensors"]


def test_a_second_run_does_nothing(once, told):
    before = {p: p.stat().st_mtime_ns for p in once.rglob("*") if p.is_file()}
    tune_base(recipe(mllm=STILL | {"epochs": 2, "warmup": 0.0}), *told, once, "again")
    assert {p: p.stat().st_mtime_ns for p in once.rglob("*") if p.is_file()} == before


def test_other_settings_start_anew(once, told, tmp_path):
    tune_base(recipe(mllm=STILL), *told, tmp_path, "one")
    tune_base(recipe(mllm=STILL | {"epochs": 1}), *told, tmp_path, "two")
    assert len(losses(tmp_path)["loss"]) == 2
    assert (tmp_path / "samples.txt").read_text().count("== step") == 1


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_with_the_same_losses(told, tmp_path, monkeypatch):
    """With LoRA's dropout on, and a checkpoint in the middle of an epoch."""
    settings = recipe(mllm={"epochs": 3, "save_steps": 3})
    tune_base(settings, *told, tmp_path / "whole", "x")
    read = ImageConversations.pixels

    def dying(self, index):
        state = tmp_path / "killed" / "tune-steps" / "checkpoint-3" / "trainer_state.json"
        if state.exists():
            raise KilledError
        return read(self, index)

    monkeypatch.setattr(ImageConversations, "pixels", dying)
    with pytest.raises(KilledError):
        tune_base(settings, *told, tmp_path / "killed", "x")
    monkeypatch.setattr(ImageConversations, "pixels", read)
    tune_base(settings, *told, tmp_path / "killed", "x")
    whole, again = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert len(whole["loss"]) == 6
    for key, values in whole.items():
        assert again[key] == pytest.approx(values, rel=1e-6), key
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        ours = load_file(tmp_path / "killed" / "adapter" / name)
        for key, value in load_file(tmp_path / "whole" / "adapter" / name).items():
            assert torch.allclose(ours[key], value, atol=1e-7), key


def test_it_stops_early_and_keeps_the_best(told, tmp_path):
    """A learning rate that ruins the model: the evaluation loss rises, and the first weights are kept."""
    ruin = {"epochs": 10, "save_steps": 1, "lr": 3.0, "projector_lr": 3.0, "warmup": 0.0}
    tune_base(recipe(mllm=STILL | ruin, patience=2, samples=0), *told, tmp_path, "x")
    found, card = losses(tmp_path), read_card(tmp_path / "adapter")
    assert len(found["loss"]) < 20
    best = min(found["eval_loss"])
    assert (card.eval_loss, found["eval_loss"][card.steps - 1]) == (best, best)
    assert len(found["eval_loss"]) == card.steps + 2
    kept = load_file(tmp_path / "tune-steps" / f"checkpoint-{card.steps}" / "trained.safetensors")
    projector = load_file(tmp_path / "adapter" / "projector.safetensors")
    for key, value in projector.items():
        assert torch.equal(kept[f"llava.model.multi_modal_projector.{key}"], value), key
    assert not (tmp_path / "samples.txt").exists()


def test_bad_rows_end_it_before_anything_is_made(told, tmp_path):
    rows = rows_of(told[1])
    rows[2] = rows[2].model_copy(update={"probability": None})
    with pytest.raises(InputError, match="1 of 20 rows cannot be learnt from, the first is row 3: crops/2.png"):
        tune_base(recipe(), write_rows(tmp_path / "rows.jsonl", rows), told[1], tmp_path / "run", "x")
    assert not (tmp_path / "run").exists()


# --- two processes ---------------------------------------------------------------------------------------------------


def run_in_two(kind, told, folder, text) -> subprocess.CompletedProcess:
    """`ffaa train mllm` of the recipe `text` into folder/run, in two processes without a device (gloo)."""
    path, here = folder / "r.yaml", Path(__file__).parent
    path.write_text(yaml.safe_dump(text.model_dump(mode="json")))
    # '--': or torch reads --run as its own
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch = {
        "ddp": [*torchrun, "-m", "--", "ffaa"],
        "fsdp": [*torchrun, "--", here / "fsdp_on_cpu.py"],
    }.get(kind) or [
        "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", ROOT / f"recipes/accelerate/{kind}.yaml",
        "--mixed_precision", "no", here / "deepspeed_on_cpu.py",
    ]  # fmt: skip
    command = [sys.executable, *launch, "train", "mllm", path, "--rows", told[0], "--images", told[1],
               "--run", folder / "run"]  # fmt: skip
    env = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": str(folder),
           "PATH": "/usr/bin:/bin", "PYTHONFAULTHANDLER": "1", "DS_ACCELERATOR": "cpu"}  # fmt: skip
    if kind == "fsdp":
        options = load_config_from_file(str(ROOT / "recipes" / "accelerate" / "fsdp.yaml")).fsdp_config
        env |= {"ACCELERATE_USE_FSDP": "true"} | {key.upper(): str(value).lower() for key, value in options.items()}
        env |= {key.upper(): value for key, value in options.items() if isinstance(value, str)}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=180, cwd=folder, env=env)


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "zero2", "zero3"])
def test_two_processes_do_the_steps_of_one(kind, once, told, tmp_path):
    """Half of each batch in each process (gloo); the losses and the result are those of one, and one writes."""
    if kind.startswith("zero"):
        pytest.importorskip("deepspeed", reason="DeepSpeed is for Linux")
    run = tmp_path / "run"
    done = run_in_two(kind, told, tmp_path, recipe(mllm=STILL | {"epochs": 2, "warmup": 0.0}))
    assert done.returncode == 0, done.stderr
    one, two = losses(once), losses(run)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        ours = load_file(run / "adapter" / name)
        for key, value in load_file(once / "adapter" / name).items():
            assert torch.allclose(ours[key], value, atol=1e-5), key
    assert read_card(run / "adapter").processes == 2
    assert len(list((run / "tensorboard").iterdir())) == 1
    last = run / "tune-steps" / "checkpoint-4"
    assert (last / "optimizer.bin").exists() == (kind == "fsdp")
    assert (last / "global_step4").exists() == kind.startswith("zero")
    if kind == "ddp":
        assert (run / "samples.txt").read_text().count("== step") == 2


def test_deepspeed_and_the_recipe_want_the_same_precision(told, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UsageError, match="'bf16', mllm.bf16 is false: give accelerate launch --mixed_precision no"):
        tune_base(recipe(), *told, tmp_path / "run", "x")


def test_a_step_is_divided_evenly():
    assert [accumulation(16, 4, n) for n in (1, 2, 4)] == [4, 2, 1]
    for per_device, processes in ((4, 3), (4, 8), (5, 1)):
        with pytest.raises(UsageError, match=f"16 is no multiple of tune.per_device {per_device} x {processes}"):
            accumulation(16, per_device, processes)


def test_batches_are_of_like_length():
    lengths = [10 * (i % 50) for i in range(400)]
    sampler = ByLength(lengths, 8, 0)
    order = list(sampler)
    assert sorted(order) == list(range(400))
    assert order == list(ByLength(lengths, 8, 0))
    spread = [max(lengths[i] for i in order[k : k + 8]) - min(lengths[i] for i in order[k : k + 8])
              for k in range(0, 400, 8)]  # fmt: skip
    assert sum(spread) / len(spread) < 100  # 400 or so in a plain shuffle
    sampler.set_epoch(1)
    assert list(sampler) != order


# --- the base --------------------------------------------------------------------------------------------------------


def test_what_is_trained_and_how_fast(once):
    learner, mllm = load_learner(*arguments(once / "base-llava_mistral-0"))
    assert image_of(learner.llava) == (-200, 16, 56)
    args = recipe().mllm
    projector, lora = parameter_groups(learner, args)
    assert (projector["lr"], lora["lr"]) == (args.projector_lr, args.lr)
    names = {id(p): name for name, p in learner.named_parameters()}
    assert {names[id(p)].split(".")[2] for p in projector["params"]} == {"multi_modal_projector"}
    assert all(".lora_" in names[id(p)] for p in lora["params"])
    assert len(lora["params"]) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    assert len(projector["params"] + lora["params"]) == sum(p.requires_grad for p in learner.parameters())
    assert mllm.template.name == "v1"


def test_bf16_keeps_what_is_trained_in_float32(told, tmp_path):
    settings = recipe("llava_llama", mllm={"epochs": 1, "bf16": True})
    tune_base(settings, *told, tmp_path, "x")
    base = next(tmp_path.glob("base-*"))
    learner, _ = load_learner(BaseArgs(folder=base), base, settings.mllm, settings.tune, 0)
    for name, p in learner.named_parameters():
        assert p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16), name
    assert losses(tmp_path)["loss"][0] == pytest.approx(5.6, abs=0.3)


def test_a_base_is_one_of_three():
    with pytest.raises(ValueError, match="one of hub, folder and random"):
        BaseArgs()
    with pytest.raises(ValueError, match="one of hub, folder and random"):
        BaseArgs(hub="a/b", random="llava_llama")


def test_bases_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="holds no config.json"):
        find_base(BaseArgs(folder=tmp_path), tmp_path, 0)

    def unreachable(*_, **__):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(WeightsError, match=r"a/b cannot be fetched \(no network\); check the network, or"):
        find_base(BaseArgs(hub="a/b"), tmp_path, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_four_bits_need_a_device(told, tmp_path):
    with pytest.raises(UsageError, match="tune.four_bit needs a CUDA device"):
        tune_base(recipe(four_bit=True), *told, tmp_path, "x")


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llava-mistral-7b", "llava-phi-3-mini"])
def test_the_twins_run(name, told, tmp_path):
    twin = load_recipe(ROOT / "recipes" / f"{name}-tiny.yaml")
    tune_base(twin, *told, tmp_path, "x")
    load_tuned(tmp_path / "adapter", next(tmp_path.glob("base-*")))
    assert losses(tmp_path)["eval_loss"][-1] < losses(tmp_path)["loss"][0]


@pytest.mark.parametrize("name", ["llava-mistral-7b", "llava-phi-3-mini"])
def test_the_recipes_are_the_papers(name):
    found = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    args = found.mllm
    assert (args.epochs, args.batch, args.lr, args.projector_lr, args.warmup) == (3, 16, 1e-4, 2e-5, 0.03)
    assert (args.lora.r, args.lora.alpha, args.bf16) == (32, 48, True)
    assert found.base.hub
    assert found.tune.variant == "All"
    for processes in (1, 2, 4):
        accumulation(args.batch, found.tune.per_device, processes)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda p: p.name)
def test_accelerate_reads_its_configurations(path):
    found = load_config_from_file(str(path))
    assert found.mixed_precision == "bf16"
    kind = path.stem.split("-")[0]
    expected = {"one": "NO", "two": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}[kind]
    assert str(found.distributed_type).removeprefix("DistributedType.") == expected
    assert found.num_processes == (1 if kind == "one" else 2)
    if kind == "fsdp":
        assert found.fsdp_config["fsdp_version"] == 2
    if kind.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(kind[-1])
        # A whole base is read first; DeepSpeed must not divide it while it is read.
        assert found.deepspeed_config["zero3_init_flag"] is False
