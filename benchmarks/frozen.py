"""The encoders that benchmarks/encoders.py compares, frozen: where they come from and which features are taken."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from ffaa.engine import load_engine
from ffaa.errors import InputError, MissingExtraError, UsageError, WeightsError
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel, load_imagenet, pixel_tensor
from ffaa.weights import part_folder, sha256

DINOV2_BLOCKS = (3, 6, 9, 10, 11, 12)  # whose output is kept, counted from 1
FILES = {
    "dinov2": "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "age": "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
}
Embed = Callable[[list[np.ndarray]], np.ndarray]
Faces = Callable[[int], list[np.ndarray]]  # so many crops of the training draw


class View(NamedTuple):
    """A row of the table. columns: which of the encoder's features. parameters: of the part that gives these."""

    about: str
    columns: np.ndarray
    parameters: int


@dataclass(frozen=True)
class Encoder:
    """embed: uint8 RGB (224, 224, 3) images -> float32 (N, D). key: sha256 of the weights. notes: for the result."""

    embed: Embed
    key: str
    views: dict[str, View]
    notes: dict[str, float] = field(default_factory=dict)


# --- encoders --------------------------------------------------------------------------------------------------------


def _count(*models: nn.Module) -> int:
    return sum(p.numel() for model in models for p in model.parameters())


def _of_module(model: nn.Module, embed: Callable[[Tensor], Tensor], views: dict[str, View]) -> Encoder:
    """A torch encoder; its input is the tower's, [-1, 1]."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())

    def run(images: list[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return embed(pixel_tensor(images)).numpy()

    return Encoder(run, digest.hexdigest(), views)


def _tower(imagenet: bool, seed: int) -> ForensicVisionModel:
    """The tower as its training starts (imagenet), or with random weights throughout."""
    torch.manual_seed(seed)
    tower = ForensicVisionModel(ForensicVisionConfig())
    if imagenet:
        file = next(part_folder("efficientnet-lite0").glob("*.pth"))
        load_imagenet(tower, torch.load(file, weights_only=True))
    return tower.eval()


def lite0(options: argparse.Namespace, faces: Faces) -> Encoder:
    """The tower as its training starts. Its trunk is Lite0, so one pass gives the features of both."""
    tower = _tower(True, options.seed)
    kept: list[Tensor] = []
    for part in (tower.stages[2], tower.stages[4], tower.head):
        part.register_forward_hook(lambda _, given, out: kept.append(out.mean((2, 3))))

    def embed(pixels: Tensor) -> Tensor:
        kept.clear()
        hidden = tower(pixels).hidden_states
        return torch.cat([*kept, hidden[0][:, 0], hidden[1][:, 0]], 1)

    at = np.arange(40 + 112 + 1280 + 2 * tower.config.hidden_size)
    trunk, about = _count(tower.stem, tower.stages, tower.head), "EfficientNet-Lite0, ImageNet: pooled last layer"
    start = "as its training starts: ImageNet trunk, random residual branch and projections"
    views = {
        "lite0": View(about, at[152:1432], trunk),
        "lite0, three depths": View(f"{about} and ends of stages 3 and 5", at[:1432], trunk),
        "nano's tower, ImageNet": View(start, at[1432:], _count(tower)),
    }
    return _of_module(tower, embed, views)


def _pooled(tower: ForensicVisionModel, row: str, about: str) -> Encoder:
    def embed(pixels: Tensor) -> Tensor:
        hidden = tower(pixels).hidden_states
        return torch.cat([hidden[0][:, 0], hidden[1][:, 0]], 1)

    return _of_module(tower, embed, {row: View(about, np.arange(2 * tower.config.hidden_size), _count(tower))})


def nano(options: argparse.Namespace, faces: Faces) -> Encoder:
    tower = load_engine("nano", torch.device("cpu")).mllm.model.model.vision_tower.eval()
    return _pooled(tower, "nano's tower", "as released; it has learnt from the training split: both pooled outputs")


def tower_random(options: argparse.Namespace, faces: Faces) -> Encoder:
    """Its norms get the statistics of 128 training crops: with those of new layers its features fade to nothing."""
    tower = _tower(False, options.seed)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over the batches
    tower.train()
    crops = faces(128)
    with torch.no_grad():
        for start in range(0, len(crops), 32):
            tower(pixel_tensor(crops[start : start + 32]))
    return _pooled(tower.eval(), "nano's tower, random", "random weights; norms set on 128 training crops")


def dinov2(options: argparse.Namespace, faces: Faces) -> Encoder:
    file = _file(options, "dinov2")
    onnx, runtime = _onnx()
    graph = onnx.load(str(file))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    products = [(node.name, node.input[1]) for node in graph.graph.node if node.op_type == "MatMul"]
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    model = Dinov2Model(config).eval()
    fill(model, dinov2_state(tensors, products))
    outputs: list[Tensor] = []
    for number in DINOV2_BLOCKS:
        model.encoder.layer[number - 1].register_forward_hook(lambda _, given, out: outputs.append(_first(out)))
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def tokens(images: list[np.ndarray]) -> list[Tensor]:
        outputs.clear()
        with torch.inference_mode():
            model((pixel_tensor(images).add(1).div(2) - mean) / deviation)
            return [model.layernorm(out) for out in outputs]

    def embed(images: list[np.ndarray]) -> np.ndarray:
        return torch.cat([torch.cat([t[:, 0], t[:, 1:].mean(1)], 1) for t in tokens(images)], 1).numpy()

    last = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    some = faces(4)
    pixels = ((pixel_tensor(some).add(1).div(2) - mean) / deviation).numpy()
    expected = _session(runtime, graph.SerializeToString()).run([last], {"input_image": pixels})[0]
    apart = float(np.abs(tokens(some)[-1].numpy() - expected).max())
    if apart > 1e-3:
        raise WeightsError(
            f"{file}: its weights in Dinov2Model give features {apart:.2g} from ONNX Runtime's; get it again"
        )
    block, count = np.arange(2 * 384), _count(model)
    at = {number: block + i * len(block) for i, number in enumerate(DINOV2_BLOCKS)}
    four, depths = (np.concatenate([at[n] for n in numbers]) for numbers in ((9, 10, 11, 12), (3, 6, 9, 12)))
    views = {
        "DINOv2-S": View("class token and mean patch of the last block", at[12], count),
        "DINOv2-S, last four": View("of the last four blocks", four, count),
        "DINOv2-S, four depths": View("of blocks 3, 6, 9 and 12", depths, count),
    }
    return Encoder(embed, sha256(file), views, {"largest difference from ONNX Runtime": apart})


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def age(options: argparse.Namespace, faces: Faces) -> Encoder:
    file = _file(options, "age")
    onnx, runtime = _onnx()
    model = onnx.load(str(file))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("layer_1_flatten"))
    session = _session(runtime, model.SerializeToString())
    mean = np.array([122.782, 117.001, 104.298], np.float32)  # of dlib's networks

    def embed(images: list[np.ndarray]) -> np.ndarray:
        small = np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images])
        pixels = ((small.astype(np.float32) - mean) / 256).transpose(0, 3, 1, 2)
        return session.run(["layer_1_flatten"], {"images": pixels})[0]

    count = sum(int(np.prod(t.dims)) for t in model.graph.initializer)
    about = "age network (ResNet-10 of dlib-models), 64 px: pooled last layer"
    return Encoder(embed, sha256(file), {"age": View(about, np.arange(256), count)})


ENCODERS: dict[str, Callable[[argparse.Namespace, Faces], Encoder]] = {
    "lite0": lite0, "nano": nano, "tower-random": tower_random, "dinov2": dinov2, "age": age,
}  # fmt: skip


def dinov2_state(tensors: Mapping[str, np.ndarray], products: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Initialisers of an exported DINOv2 -> state dict of transformers' Dinov2Model, without its mask token.

    tensors: by name; those under `backbone.` have their own, the grid of position embeddings is the one (1, cells,
    width) among the rest and the class token's place the one (1, 1, width). products: (node, right factor) of every
    MatMul; a linear layer's is its transposed weight, and the node is named by the layer.
    """
    state = {name: value for name, value in tensors.items() if name.startswith("backbone.")}
    for node, factor in products:
        if node.startswith("/backbone/") and factor in tensors:
            state[node[1:].rsplit("/", 1)[0].replace("/", ".") + ".weight"] = tensors[factor].T
    rest = [
        v for n, v in tensors.items() if v.ndim == 3 and v.shape[0] == 1 and not n.startswith(("backbone.", "decoder."))
    ]
    places = sorted((v for v in rest), key=lambda v: v.shape[1])
    if len(places) != 2 or places[0].shape[1] != 1:
        raise WeightsError(f"no exported DINOv2: {len(places)} position embeddings where 2 are expected; get it again")
    state["backbone.embeddings.position_embeddings"] = np.concatenate(places, 1)
    own = {"attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
           "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj"}  # fmt: skip
    found = {}
    for name, value in state.items():
        name = name.removeprefix("backbone.")
        for theirs, ours in own.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        found[name] = torch.from_numpy(np.array(value, np.float32))
    return found


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load, strict but for the mask token, which only pretraining uses. Raises WeightsError with the misfits."""
    missing, strange = model.load_state_dict(dict(state), strict=False)
    missing = [name for name in missing if name != "embeddings.mask_token"]
    if missing or strange:
        raise WeightsError(f"no DINOv2-S: missing {missing[:5]}, unexpected {strange[:5]}; get the file again")


def _onnx() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed; run: pip install onnx onnxruntime") from error
    return onnx, onnxruntime


def _session(runtime: Any, model: bytes) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    return runtime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _file(options: argparse.Namespace, name: str) -> Path:
    """The file of an encoder, the one that figures were taken with."""
    file: Path | None = getattr(options, name)
    if file is None:
        raise UsageError(f"the encoder '{name}' needs --{name} FILE; see --help")
    if not file.is_file():
        raise InputError(f"{file}: no such file; --help says where it comes from")
    if sha256(file) != FILES[name]:
        raise WeightsError(f"{file}: sha256 {sha256(file)}, expected {FILES[name]}; see --help for the version")
    return file
