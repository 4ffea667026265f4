"""Photos, a manifest, and a whole tiny model made by the real stages of recipes/nano-tiny.yaml.

No wheel, no download: the EfficientNet and the text encoder are random and made here.
"""

import csv
import hashlib
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import matplotlib
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ffaa.assistant import Assistant
from ffaa.data import build, manifest
from ffaa.data.forge.self_blend import self_blend
from ffaa.evidence.examine import MEASURES
from ffaa.mllm import nano
from ffaa.mllm.answer import format_answer
from ffaa.mllm.template import ANCHOR_PROMPTS, TEMPLATES, hypothesis_prompt
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, pixel_tensor
from ffaa.pack import pack
from ffaa.recipe import Recipe, Run, load_recipe
from ffaa.stages import Stages
from ffaa.types import ForgeryType, Label
from ffaa.vqa.sentences import read_items
from ffaa.weights import part_folder

TINY_RECIPE = Path(__file__).parents[1] / "recipes" / "nano-tiny.yaml"
# Face boxes (left, top, right, bottom) of the two public-domain portraits, with room around.
HOPPER_FRAME, ASTRONAUT_FRAME = (90, 60, 450, 420), (130, 20, 330, 220)
SPLITS = {"train": 26, "val": 6, "test": 4, "bench": 8}


@pytest.fixture(scope="session")
def hopper():
    """uint8 RGB (600, 512, 3), one face."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    pixels = np.array(Image.open(path).convert("RGB"))
    pixels.flags.writeable = False
    return pixels


@pytest.fixture(scope="session")
def astronaut():
    """uint8 RGB (512, 512, 3), one face."""
    pixels = skimage.data.astronaut()
    pixels.flags.writeable = False
    return pixels


def _portrait(photo, frame, rng):
    left, top, right, bottom = frame
    shift = rng.integers(-12, 13, 2)
    part = photo[top + shift[1] : bottom + shift[1], left + shift[0] : right + shift[0]]
    part = cv2.resize(part, (144, 144), interpolation=cv2.INTER_AREA).astype(np.float32)
    part = part * rng.uniform(0.75, 1.25) + rng.uniform(-15, 15, 3).astype(np.float32)
    part = np.clip(part, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(part[:, ::-1]) if rng.random() < 0.5 else part


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory, hopper, astronaut):
    """A folder with manifest.csv and 44 JPEGs of 144 x 144 px; half of every split and set is self-blended ('fake')."""
    root = tmp_path_factory.mktemp("tiny-data")
    (root / "photos").mkdir()
    rows = []
    for split, count in SPLITS.items():
        for i in range(count):
            rng = np.random.default_rng((7, len(rows)))
            photo, frame = ((hopper, HOPPER_FRAME), (astronaut, ASTRONAUT_FRAME))[i // 2 % 2]
            pixels, fake = _portrait(photo, frame, rng), i % 2 == 1
            if fake:
                pixels = self_blend(pixels, rng)[0]
            path = root / "photos" / f"{split}-{i}.jpg"
            Image.fromarray(pixels).save(path, quality=92)
            rows.append(
                {
                    "path": f"photos/{path.name}",
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "label": "fake" if fake else "real",
                    "forgery_type": "identity_exchange" if fake else "real",
                    "method": "self_blend" if fake else "",
                    "dataset": "tiny",
                    "split": split,
                    "bench": f"set {i // 4 + 1}" if split == "bench" else "",
                    "group": f"{split}-{i // 2}",
                    "regions": "mouth;left_eye" if fake and i % 4 == 1 else "",
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                }
            )
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def tiny_rows(tiny_manifest, tmp_path_factory):
    """The rows of tiny_manifest as a manifest, with the faces that were found."""
    out = tmp_path_factory.mktemp("tiny-rows")
    build.build(build.csv_recipe(tiny_manifest / "manifest.csv"), tiny_manifest, out, workers=0)
    return manifest.read(out)


def _recipe(**changes):
    return Recipe.model_validate(load_recipe(TINY_RECIPE).model_dump() | changes)


@pytest.fixture(scope="session")
def tiny_recipe():
    return _recipe()


@pytest.fixture(scope="session")
def make_tiny_recipe():
    """tiny_recipe with whole sections replaced."""
    return _recipe


@pytest.fixture(scope="session")
def lite0_state():
    return _imagenet_state("lite0")


@pytest.fixture(scope="session")
def lite1_state():
    return _imagenet_state("lite1")


@pytest.fixture(scope="session")
def lite2_state():
    return _imagenet_state("lite2")


def _imagenet_state(lite):
    """A random state dict with the names and shapes of the published EfficientNet-Lite."""
    from ffaa.mllm.tower import BLOCKS, STAGES, WIDTHS

    torch.manual_seed(3)
    state = {}

    def conv(name, out, inner, kernel):
        state[f"{name}.weight"] = torch.randn(out, inner, kernel, kernel) * (2 / (out * kernel * kernel)) ** 0.5

    def norm(name, width):
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(width), torch.zeros(width)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.zeros(width), torch.ones(width)
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    width, number = 32, 0
    for (expansion, kernel, _), out, repeats in zip(STAGES, WIDTHS[lite], BLOCKS[lite], strict=True):
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", width * expansion
            if expansion > 1:
                conv(f"{block}._expand_conv", inner, width, 1)
                norm(f"{block}._bn0", inner)
            conv(f"{block}._depthwise_conv", inner, 1, kernel)
            norm(f"{block}._bn1", inner)
            conv(f"{block}._project_conv", out, inner, 1)
            norm(f"{block}._bn2", out)
            width, number = out, number + 1
    conv("_conv_head", 1280, width, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return state


def _text_encoder(folder):
    """A random one-layer BERT of width 32 that reads characters."""
    torch.manual_seed(4)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(chr, range(33, 127)), *(f"##{chr(c)}" for c in range(33, 127))]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=256,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_parts(tmp_path_factory, lite0_state, lite1_state):
    """Name of a part -> a folder that stands for its wheel; the face mesh is the real one."""
    folder = tmp_path_factory.mktemp("tiny-parts")
    for name, state in (("efficientnet-lite0", lite0_state), ("efficientnet-lite1", lite1_state)):
        (folder / name).mkdir()
        torch.save(state, folder / name / "lite.pth")
    _text_encoder(folder / "minilm-l6")
    return {path.name: path for path in folder.iterdir()} | {"face-mesh": part_folder("face-mesh")}


@pytest.fixture
def use_tiny_parts(monkeypatch, tiny_parts):
    """For this test, ffaa.weights finds the tiny parts."""
    monkeypatch.setattr("ffaa.weights.part_folder", tiny_parts.__getitem__)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_manifest, tiny_recipe, tiny_parts):
    """The whole recipe, once: .model (packed folder), .folder (run folder), .stages, .data, .recipe, .threads."""
    out, folder = tmp_path_factory.mktemp("tiny-model"), tmp_path_factory.mktemp("tiny-run")
    stages = Stages(tiny_recipe, tiny_manifest, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffaa.weights.part_folder", tiny_parts.__getitem__)
        pack(stages, out)
    return SimpleNamespace(
        model=out, folder=folder, stages=stages, data=tiny_manifest, recipe=tiny_recipe, threads=torch.get_num_threads()
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_run):
    """The packed model folder; to load it, a test also needs `use_tiny_parts`."""
    return tiny_run.model


@pytest.fixture(scope="session")
def tiny_assistant(tiny_model, tiny_parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffaa.weights.part_folder", tiny_parts.__getitem__)
        return Assistant(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def make_clip():
    """Writes uint8 RGB pictures of one even size, ten a second, a key frame every five; gives the path back."""

    def make(path, pictures, codec="libx264"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10, options={"g": "5", "threads": "1", "crf": "12"})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for number, pixels in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(pixels)
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


# --- a random nano, without any training -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """nano's tokenizer, trained on a handful of answers and on the questions."""
    answers = [
        " " + format_answer(f"A face {n} in soft light.", f"The cheeks are smooth {n}.", label, n / 40, kind)
        for n in range(40)
        for label, kind in ((Label.REAL, ForgeryType.REAL), (Label.FAKE, ForgeryType.IDENTITY_EXCHANGE))
    ]
    questions = [*ANCHOR_PROMPTS, *(hypothesis_prompt(label) for label in Label)]
    return nano.train_tokenizer(answers + [TEMPLATES["nano-2"].prompt(q) for q in questions], 760)


@pytest.fixture(scope="session")
def tiny_crops(hopper, astronaut):
    """Six different uint8 RGB (224, 224, 3) faces."""
    rng = np.random.default_rng(11)
    frames = [(hopper, HOPPER_FRAME), (astronaut, ASTRONAUT_FRAME)] * 3
    return [cv2.resize(_portrait(photo, frame, rng), (224, 224)) for photo, frame in frames]


@pytest.fixture(scope="session")
def tiny_tower(tiny_crops):
    """A random tower of width 32 whose batch norms have seen the crops, in eval mode. Shared: do not change it."""
    torch.manual_seed(5)
    tower = ForensicVisionModel(ForensicVisionConfig(hidden_size=32))
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    with torch.no_grad():
        tower(pixel_tensor(tiny_crops))
    return tower.eval()


@pytest.fixture(scope="session")
def make_llava(tiny_tokenizer, tiny_tower):
    """Builds a nano with random weights large enough that answers depend on image and question."""

    def make(layers=2, scale=0.35, seed=6):
        torch.manual_seed(seed)
        args = nano.BodyArgs(hidden_size=32, intermediate_size=48, layers=layers, heads=4, kv_heads=2)
        model = nano.build(args, tiny_tokenizer, tiny_tower).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "vision_tower" not in name:
                    parameter.normal_(0, scale)
        return model

    return make


@pytest.fixture(scope="session")
def measured_words():
    """index -> {item: word}, another combination for every index."""
    chosen = [(name, MEASURES[name].words) for name in read_items()]
    return lambda i: {name: words[(i + place) % len(words)] for place, (name, words) in enumerate(chosen)}


@pytest.fixture
def again(tiny_run, make_tiny_recipe, use_tiny_parts, tmp_path, monkeypatch):
    """again(changes...) -> the stages that ran, for a recipe with those sections, on a copy of the run folder."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    ran = []
    finish = Run.finish

    def noted(self, name, inputs):
        ran.append(name)
        finish(self, name, inputs)

    monkeypatch.setattr(Run, "finish", noted)

    def run(data=tiny_run.data, until="mids", at_once=1, **changes):
        ran.clear()
        stages = Stages(make_tiny_recipe(**changes), data, folder, at_once=at_once)
        getattr(stages, until)()
        return list(ran)

    run.folder = folder
    threads = torch.get_num_threads()
    torch.set_num_threads(tiny_run.threads)  # another number, which an earlier test may set, gives other last bits
    yield run
    torch.set_num_threads(threads)
