"""The published layout, small: LLaVA's original keys, mids.pth, T5 and CLIP folders, through the same assistant."""

from __future__ import annotations

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from ffaa.assistant import Assistant
from ffaa.engine import load_engine
from ffaa.errors import WeightsError
from ffaa.fetch import import_model
from ffaa.mids import checkpoint
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.adapter import CARD, AdapterCard, save_adapter, weight_files
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.mllm.llava_import import import_llava
from ffaa.mllm.train import LoraArgs, add_lora
from ffaa.types import ForgeryType, Label, Role
from ffaa.weights import MODEL_FILE, sha256

WORDS = "Image description: Forgery reasoning: Analysis result: real\nProbability: 0.5\nForgery type: USER ASSISTANT"


def save_tokenizer(folder, size=600):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [WORDS],
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    return len(wrapped)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(checkpoint folder in the published layout, {part: folder})."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
             "image_size": 336, "patch_size": 112}  # fmt: skip
    clip = CLIPVisionModel(CLIPVisionConfig(**sizes, projection_dim=16)).eval()
    clip.save_pretrained(root / "clip")
    folder = root / "checkpoint"
    folder.mkdir()
    vocabulary = save_tokenizer(folder)
    body = LlamaConfig(vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                       num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)  # fmt: skip
    state = {k: v.clone() for k, v in LlamaForCausalLM(body).state_dict().items()}
    for key, value in clip.state_dict().items():
        inner = key.removeprefix("vision_model.")
        state[f"model.vision_tower.vision_tower.vision_model.{inner}"] = value.clone()
    for layer, inputs in (("0", 32), ("2", 32)):
        state[f"model.mm_projector.{layer}.weight"] = torch.randn(32, inputs) * 0.1
        state[f"model.mm_projector.{layer}.bias"] = torch.zeros(32)
    state["model.image_newline"] = torch.zeros(32)
    save_file(state, folder / "model.safetensors")
    config = {
        "model_type": "llava_mistral", "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "image_aspect_ratio": "pad", "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    t5_folder = root / "t5"
    t5 = T5EncoderModel(T5Config(vocab_size=save_tokenizer(t5_folder), d_model=32, d_kv=8, d_ff=32, num_layers=1,
                                 num_heads=4))  # fmt: skip
    t5.save_pretrained(t5_folder)
    mids = MIDS(t5, clip, MIDSConfig(dim=32, image_dim=32, mask_padding=False))
    trained = {}
    for name, value in mids.trainable_state().items():
        name = name.replace("image_encoder.", "image_encoder.vision_model.") if name.startswith("image_enc") else name
        trained[f"module.{name}"] = value.clone()
    torch.save(trained, folder / "mids.pth")
    return folder, {"t5-base": t5_folder, "clip-vit-l14-336": root / "clip"}


@pytest.fixture
def imported(published, tmp_path, monkeypatch):
    folder, parts = published
    monkeypatch.setenv("FFAA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ffaa.weights.part_folder", parts.__getitem__)
    return import_model(folder, "tiny-published")


def test_a_published_checkpoint_analyses_a_photo(imported, hopper):
    description = json.loads((imported / MODEL_FILE).read_text())
    assert (description["layout"], description["template"], description["image_size"]) == ("published", "v1", 336)
    # Random weights write no five lines by themselves; held to them, the whole way to the verdict runs.
    description["constrained"] = True
    (imported / MODEL_FILE).write_text(json.dumps(description))
    assistant = Assistant("tiny-published", device="cpu")
    analysis = assistant.analyze(hopper)
    assert len(analysis) == 1
    verdict = analysis[0]
    assert verdict.crop.size == 336
    assert verdict.answers[0].prompt == "The image is a human face image. Is it real or fake? Why?"
    assert np.allclose([sum(row) for row in verdict.probabilities], 1)
    assert verdict.match_score == max(verdict.match_scores)
    assert {"mids.pth"} <= {name.split("/")[-1] for name in verdict.weights}
    heat = assistant.heatmap(analysis.faces[0], verdict)
    assert heat.shape == (336, 336, 3)


def test_a_base_with_an_adapter(imported, published):
    """Its answers are those of the base with the adapter merged into it."""
    mllm = imported / "mllm"
    before = load_engine("tiny-published", torch.device("cpu")).mllm.model
    model = import_llava(mllm, published[1]["clip-vit-l14-336"]).requires_grad_(False)
    add_lora(model, LoraArgs(r=2, alpha=2, dropout=0.0))
    model.model.multi_modal_projector.requires_grad_(True)
    trained = {name: torch.randn_like(p) for name, p in model.named_parameters() if p.requires_grad}
    files = save_adapter(imported / "adapter", model, trained)
    card = AdapterCard(
        name="x", template="v1", base="here", base_files=weight_files(mllm), recipe={}, seed=0, data={}, versions={},
        command="ffaa", processes=1, steps=1, eval_loss=1.0, files=files,
    )  # fmt: skip
    (imported / "adapter" / CARD).write_text(card.model_dump_json())
    description = json.loads((imported / MODEL_FILE).read_text())
    description["adapter"] = "adapter"
    description["files"] |= {f"adapter/{name}": sha256(imported / "adapter" / name) for name in (CARD, *files)}
    (imported / MODEL_FILE).write_text(json.dumps(description))
    after = load_engine("tiny-published", torch.device("cpu")).mllm.model.state_dict()
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    assert changed == {n for n in after if "multi_modal_projector" in n or ("language_model" in n and "_proj" in n)}
    (imported / "adapter" / "projector.safetensors").unlink()
    with pytest.raises(WeightsError, match="adapter/projector.safetensors"):
        load_engine("tiny-published", torch.device("cpu"))


def test_a_checkpoint_with_a_missing_tensor_is_refused(imported):
    description = json.loads((imported / MODEL_FILE).read_text())
    name = next(n for n in description["files"] if n.endswith("mids.pth"))
    state = torch.load(imported / name, weights_only=True)
    del state["module.classifier.bias"]
    torch.save(state, imported / name)
    with pytest.raises(WeightsError, match="sha256"):
        Assistant("tiny-published", device="cpu")
    description["files"][name] = hashlib.sha256((imported / name).read_bytes()).hexdigest()
    (imported / MODEL_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match=r"classifier\.bias"):
        Assistant("tiny-published", device="cpu")


def test_a_mids_with_blocks_of_its_own_leaves_the_language_model_its_eyes(tiny_model, use_tiny_parts, tiny_crops):
    engine = load_engine(tiny_model, torch.device("cpu"))
    before = engine.encode(tiny_crops[0])
    config = engine.mids.config.model_copy(update={"unfreeze": 1})
    own = MIDS(engine.mids.text_encoder, copy.deepcopy(engine.mids.image_encoder), config).eval()
    with torch.no_grad():
        for parameter in own.image_encoder.stages[-1].parameters():
            parameter.add_(0.1)
    engine.mids = own
    after = engine.encode(tiny_crops[0])
    assert not torch.allclose(after.layers[0], before.layers[0])
    assert torch.allclose(after.features, before.features)
    assert after.words == before.words


@pytest.mark.parametrize("masked", [True, False])
def test_mids_reads_what_it_was_trained_on(tiny_model, use_tiny_parts, monkeypatch, masked):
    load = checkpoint.load

    def loaded(*args):
        mids = load(*args)
        mids.config = mids.config.model_copy(update={"masked": masked})
        return mids

    monkeypatch.setattr(checkpoint, "load", loaded)
    engine = load_engine(tiny_model, torch.device("cpu"))
    text = format_answer("a", "b", Label.FAKE, 0.9, ForgeryType.IDENTITY_EXCHANGE)
    answer = parse_answer(text, Role.ANCHOR, "?")
    ids = engine.tokens([answer])[0][0].tolist()
    read = "".join(engine.tokens.tokenizer.convert_ids_to_tokens(ids)).replace("##", "")
    assert ("fake" in read) is not masked
    assert "reasoning" in read
