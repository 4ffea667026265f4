"""What a LoRA step costs: seconds per step, samples and tokens per second, peak memory, forward to optimizer.

smollm2: the language model has the shape of SmolLM2-135M and the images are 49 tokens of a small vision tower, the size
that two CPU cores can tune. published: Mistral 7B behind CLIP ViT-L/14 at 336 px, 576 image tokens, for a GPU. Weights
are random, as speed does not depend on them; lengths are those of FFA-VQA's conversations. The step is the one of
`ffaa train mllm` (LoRA r 32, alpha 48 on all linear layers, the projector beside it), without reading images.
Run: python benchmarks/lora_training.py [--size smollm2] [--batch 8] [--tokens 256] [--steps 6] [--no-bf16] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from importlib.metadata import version

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

from ffaa import __version__
from ffaa.mllm.train import LoraArgs, MllmArgs, add_lora, answer_loss, parameter_groups

SIZES = {
    "smollm2": (
        CLIPVisionConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=6,
                         image_size=224, patch_size=32),
        LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                    num_attention_heads=9, num_key_value_heads=3),
    ),
    "published": (
        CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                         image_size=336, patch_size=14),
        MistralConfig(vocab_size=32064, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                      num_attention_heads=32, num_key_value_heads=8, sliding_window=None),
    ),
}  # fmt: skip


def build(options: argparse.Namespace) -> LlavaForConditionalGeneration:
    """Random LLaVA with LoRA and a trained projector, everything else frozen."""
    vision, text = SIZES[options.size]
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=text.vocab_size - 1,
        vision_feature_select_strategy="default", image_seq_length=(vision.image_size // vision.patch_size) ** 2,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16 if options.bf16 else torch.float32)
    with torch.device(options.device):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.requires_grad_(False)
    add_lora(model, LoraArgs())
    model.model.multi_modal_projector.float().requires_grad_(True)
    if options.checkpointing:
        model.model.language_model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    return model.to(options.device).train()


def make_batch(model: LlavaForConditionalGeneration, options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """A batch of conversations; `tokens` counts image, question and answer, the last half is learnt."""
    generator = torch.Generator().manual_seed(options.seed)
    config = model.config
    ids = torch.randint(3, config.text_config.vocab_size - 2, (options.batch, options.tokens), generator=generator)
    ids[:, 4 : 4 + config.image_seq_length] = config.image_token_id
    labels = ids.clone()
    labels[:, : max(options.tokens // 2, 4 + config.image_seq_length)] = -100
    side = config.vision_config.image_size
    pixels = torch.rand(options.batch, 3, side, side, generator=generator)
    pixels = pixels.to(torch.bfloat16 if options.bf16 else torch.float32)
    found = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return {name: value.to(options.device) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="smollm2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="of a conversation, with the image's")
    parser.add_argument("--steps", type=int, default=6, help="timed, after one that is not")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.tokens < (SIZES[options.size][0].image_size // SIZES[options.size][0].patch_size) ** 2 + 16:
        parser.error("--tokens leaves no room for the image and an answer")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = build(options)
    args = MllmArgs()
    optimizer = torch.optim.AdamW(parameter_groups(model, args), args.lr)
    batch = make_batch(model, options)
    seconds, losses = [], []
    for _ in range(options.steps + 1):
        started = time.perf_counter()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
            loss = answer_loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 4))  # waits for the device
        seconds.append(time.perf_counter() - started)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"the loss of a repeated batch did not fall: {losses}")
    step = statistics.median(seconds[1:])
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if options.device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    count = {"trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
             "all": sum(p.numel() for p in model.parameters())}  # fmt: skip
    report = {
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "parameters": count,
        "seconds_per_step": round(step, 3),
        "samples_per_second": round(options.batch / step, 3),
        "tokens_per_second": round(options.batch * options.tokens / step, 1),
        "peak_gib": round(peak, 2),
        "losses": losses,
        "machine": {"processor": platform.processor() or platform.machine(), "device": options.device,
                    "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None},
        "versions": {"ffaa": __version__} | {n: version(n) for n in ("torch", "transformers", "peft")},
        "command": "python benchmarks/lora_training.py " + " ".join(sys.argv[1:]),
    }  # fmt: skip
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
