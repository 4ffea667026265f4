"""What MIDS's caches save: training steps per second with them, and the plain way, in the same run at equal loss.

The plain way computes everything in each step: the text encoder for every answer, and the whole image encoder for every
answer too. Ours keeps the text features and what the frozen part of the image encoder gives, and shares it between the
three answers of a photo. Both start from the same weights, see the same batches, and take their steps in turn, so that
other work on the machine slows both. Losses are compared in every step; a difference beyond --tolerance is an error.

nano: MiniLM and nano's tower, as released. published: T5-base and CLIP ViT-L/14 at 336 px in their sizes, with random
weights (speed does not depend on them). Photos and answers are made up.
Run: python benchmarks/mids_training.py [--size nano] [--unfreeze 0] [--images 96] [--steps 20] [--out FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

from ffaa import __version__
from ffaa.engine import load_engine
from ffaa.mids.balance import order, pair_labels
from ffaa.mids.encoders import text_encoder
from ffaa.mids.images import CropImages, Crops
from ffaa.mids.model import MIDS, MIDSConfig, loss
from ffaa.mids.texts import TextFeatures
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.answer import format_answer, parse_answer
from ffaa.mllm.llava_import import prepare_pixels
from ffaa.mllm.mine import Mined
from ffaa.mllm.tower import pixel_tensor
from ffaa.types import ForgeryType, Label, Role

TEXT = (
    "the face shows a sharp edge near left eye and cheek while skin stays smooth under soft light from above with some "
    "noise in hair mouth seems natural colour of jaw differs from neck which fits an edited area or strong compression"
)
HARD = ((Label.REAL, Label.REAL, Label.FAKE), (Label.FAKE, Label.FAKE, Label.REAL))


def made_up(count: int, seed: int) -> list[Mined]:
    """Hard photos with answers of about 110 words, the length of nano's."""
    rng, words = np.random.default_rng((seed, 1)), TEXT.split()

    def answer(said: Label, role: Role) -> Any:
        kind = ForgeryType.REAL if said is Label.REAL else ForgeryType.IDENTITY_EXCHANGE
        texts = (" ".join(rng.choice(words, int(rng.integers(low, low + 20)))) + "." for low in (35, 55))
        return parse_answer(format_answer(*texts, said, 0.8, kind), role, "Is it real or fake?")

    return [
        Mined(
            row=i, image=f"{i}.png", sha256=f"{i:064x}", label=(Label.REAL, Label.FAKE)[i % 2],
            answers=[answer(said, role) for said, role in zip(HARD[int(rng.integers(2))], Role, strict=True)],
        )
        for i in range(count)
    ]  # fmt: skip


def crop(size: int, seed: int, row: int) -> np.ndarray:
    """A made-up photo, uint8 RGB (size, size, 3)."""
    small = np.random.default_rng((seed, 2, row)).integers(0, 256, (14, 14, 3), np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def build(options: argparse.Namespace) -> tuple[MIDS, AnswerTokens, Crops]:
    torch.manual_seed(options.seed)
    text = text_encoder("minilm-l6")
    tokenizer = AutoTokenizer.from_pretrained(text.folder)
    if options.size == "nano":
        image: Any = load_engine("nano", torch.device("cpu")).mids.image_encoder
        side, prepare, model, width = 224, lambda pixels: pixel_tensor([pixels]), text.model, text.width
    else:
        width, side = 768, 336
        model = T5EncoderModel(T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)).eval()
        image = CLIPVisionModel(
            CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                             image_size=336, patch_size=14)
        ).eval()  # fmt: skip
        prepare = partial(prepare_pixels, size=side)
    mids = MIDS(model, image, MIDSConfig(dim=width, image_dim=image.config.hidden_size, unfreeze=options.unfreeze))
    return mids.to(options.device), AnswerTokens(tokenizer, 256), Crops(partial(crop, side, options.seed), prepare)


class Way:
    """One of the two ways to train, with its own weights."""

    def __init__(self, mids: MIDS, tokens: AnswerTokens, crops: Crops, mined: list[Mined], options: argparse.Namespace):
        self.mids, self.tokens, self.crops, self.options = mids.train(), tokens, crops, options
        trained = [p for p in mids.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-5)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def logits(self, part: list[Mined], epoch: int) -> torch.Tensor:
        """The plain way."""
        device, options = self.options.device, self.options
        variant = epoch % options.variants if options.augment else None
        pixels = torch.cat([self.crops.pixels(m.row, options.seed, variant) for m in part]).to(device)
        ids, mask = (t.to(device) for t in self.tokens([a for m in part for a in m.answers]))
        projected = self.mids.project(self.mids.encode_image(pixels.repeat_interleave(3, 0)))
        return self.mids.classify(self.mids.encode_text(ids, mask), mask, projected)

    def step(self, part: list[Mined], epoch: int) -> None:
        started = time.perf_counter()
        target = torch.tensor([c for m in part for c in pair_labels(m)], device=self.options.device)
        found = loss(self.logits(part, epoch), target)
        self.optimizer.zero_grad(set_to_none=True)
        found.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.mids.parameters() if p.grad is not None], 1.0)
        self.optimizer.step()
        self.losses.append(found.item())  # waits for the device
        self.seconds.append(time.perf_counter() - started)


class Cached(Way):
    """Ours. fill: seconds that the caches took."""

    def __init__(self, mids: MIDS, tokens: AnswerTokens, crops: Crops, mined: list[Mined], options: argparse.Namespace):
        super().__init__(mids, tokens, crops, mined, options)
        started = time.perf_counter()
        variants = options.variants if options.augment else None
        self.images = CropImages(mids, crops, [m.row for m in mined], variants, options.seed)
        self.texts = TextFeatures(mids, tokens, mined)
        self.fill = time.perf_counter() - started

    def logits(self, part: list[Mined], epoch: int) -> torch.Tensor:
        device = self.options.device
        features, mask = (t.to(device) for t in self.texts(part))
        return self.mids.classify(features, mask, self.mids.project(self.images([m.row for m in part], epoch)))


WAYS = {"cached": Cached, "plain": Way}


def run(options: argparse.Namespace) -> dict[str, Way]:
    """The steps of the chosen ways, in turn."""
    mids, tokens, crops = build(options)
    mined = made_up(options.images, options.seed)
    if options.way != "both":
        ways = {options.way: WAYS[options.way](mids, tokens, crops, mined, options)}
    else:
        # The text encoder is frozen in both; with trained blocks each way needs an image encoder of its own.
        memo = {id(mids.text_encoder): mids.text_encoder}
        ways = {
            name: kind(copy.deepcopy(mids, dict(memo)), tokens, crops, mined, options) for name, kind in WAYS.items()
        }
    per_step, done, epoch = max(1, options.batch // 3), 0, 0
    while done < options.steps:
        drawn = order([pair_labels(m) for m in mined], "none", options.seed, epoch)
        for start in range(0, len(mined) - per_step + 1, per_step):
            part = [mined[i] for i in drawn[start : start + per_step]]
            for way in ways.values():
                way.step(part, epoch)
            done += 1
            if done == options.steps:
                break
        epoch += 1
    return ways


def peak(device: str) -> float:
    """GiB: of the process, or on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["nano", "published"], default="nano")
    parser.add_argument("--unfreeze", type=int, default=0, help="trained blocks of the image encoder (the paper: 2)")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=48, help="pairs a step")
    parser.add_argument("--augment", action="store_true", help="the paper's augmentations")
    parser.add_argument("--variants", type=int, default=2, help="augmented copies of each photo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=0.01, help="between the losses of a step")
    parser.add_argument("--way", choices=["both", *WAYS], default="both", help=argparse.SUPPRESS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.images < options.batch // 3:
        parser.error("--images is less than the photos of one step")
    torch.set_num_threads(options.threads)
    ways = run(options)
    if options.way != "both":
        print(json.dumps({"peak_gib": round(peak(options.device), 3)}))
        return
    cached, plain = ways["cached"], ways["plain"]
    assert isinstance(cached, Cached)
    apart = max(abs(a - b) for a, b in zip(cached.losses, plain.losses, strict=True))
    if apart > options.tolerance:
        raise SystemExit(f"the losses differ by {apart:.4f}, more than {options.tolerance}")
    middle = {name: statistics.median(way.seconds[1:] or way.seconds) for name, way in ways.items()}
    per_step = max(1, options.batch // 3)
    memory = {}
    for name in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--way", name, "--steps", "2"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        memory[name] = json.loads(said.splitlines()[-1])["peak_gib"]
    # Two epochs, as in the paper, with the filling of the caches counted in.
    steps = 2 * options.images / per_step
    report = {
        "settings": {k: v for k, v in vars(options).items() if k not in ("out", "way")},
        "ways": {
            name: {
                "seconds_per_step": round(middle[name], 4), "steps_per_second": round(1 / middle[name], 3),
                "pairs_per_second": round(3 * per_step / middle[name], 2), "peak_gib": memory[name],
                "losses": [round(value, 5) for value in way.losses],
            }
            for name, way in ways.items()
        },
        "fill_seconds": round(cached.fill, 2),
        "times_faster": round(middle["plain"] / middle["cached"], 2),
        "times_faster_in_two_epochs": round(steps * middle["plain"] / (cached.fill + steps * middle["cached"]), 2),
        "largest_loss_difference": apart,
        "machine": {"processor": platform.processor() or platform.machine(), "device": options.device,
                    "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None},
        "versions": {"ffaa": __version__} | {n: version(n) for n in ("torch", "transformers")},
        "command": "python benchmarks/mids_training.py " + " ".join(sys.argv[1:]),
    }  # fmt: skip
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
