"""A recipe of a baseline: which detector, at which sizes, on which rows, how it is trained."""

from __future__ import annotations

from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from ffaa.baselines import BASELINES
from ffaa.baselines.backbones.xception import with_kernels
from ffaa.baselines.base import Baseline, BaselineSettings, load_strict, read_state
from ffaa.data import manifest
from ffaa.errors import UsageError, WeightsError
from ffaa.settings import load_yaml
from ffaa.weights import Sha256, sha256

SMALLEST = 32
Augment = Literal["none", "flip", "exposing", "clipping", "ours"]


class Settings(BaseModel):
    """Base of the parts of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataArgs(Settings):
    """Which rows: split train to learn from, split val to choose the checkpoint and the threshold by."""

    manifest: str = Field(manifest.NAME, description="of `ffaa data build`, in the folder that --data names")
    limit: int | None = Field(None, ge=2, description="at most this many rows per split and label, a seeded draw")
    without: list[str] = Field(default_factory=list, description="datasets whose training rows are left out")


class Start(Settings):
    """A checkpoint to start from, in the published names. All of it must fit but what `skip` names."""

    file: Path = Field(description="relative to the working directory")
    sha256: Sha256
    into: list[str] = Field([""], min_length=1, description="the modules that each get the file; '' is the detector")
    skip: list[str] = Field(
        default_factory=list, description="beginnings of names that are left out of the file and start at random"
    )


class ModelArgs(Settings):
    """What a detector's constructor takes; the fields are made from its signature."""


class BaselineRecipe(Settings):
    """All settings of one training. `model` and `settings` have the fields of the detector that `baseline` names."""

    name: str
    baseline: str
    seed: int = Field(0, ge=0)
    data: DataArgs = DataArgs()
    model: ModelArgs = ModelArgs()
    settings: BaselineSettings = BaselineSettings()
    start: Start | None = Field(None, description="null: random weights")
    augment: Augment = Field("flip", description="the publication's of that name, or 'ours': data.crops.train_sample")
    crop: int | None = Field(None, ge=SMALLEST, description="train on random cuts of this side out of the input")
    swap: bool = Field(False, description="forgeries whose original is known become multi-scale facial swaps")
    balance: bool = Field(False, description="real and forged rows take turns; else as the manifest has them")
    epoch_steps: int | None = Field(
        None, ge=1, description="steps that count as an epoch; default a pass over the rows (of a client)"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="steps (fedforgery: rounds) between validations; default an epoch (a round)"
    )
    save_every: int = Field(200, ge=1, description="steps between checkpoints to resume from")
    bf16: bool = Field(False, description="bfloat16 autocast")
    workers: int = Field(2, ge=0)
    licence: str = Field("", description="of the weights; '': only what they were trained on is said")

    @model_validator(mode="after")
    def _possible(self) -> BaselineRecipe:
        if self.settings.steps is None and self.settings.epochs is None:
            raise ValueError("settings.epochs or settings.steps must say how long the training is")
        if self.swap and self.augment == "ours":
            raise ValueError("swap does not go with augment 'ours', which cuts its own faces")
        return self


def load_recipe(path: Path, name: str) -> BaselineRecipe:
    """The recipe of the baseline `name`. Raises UsageError naming the file and what is wrong in it."""
    if name not in BASELINES:
        raise UsageError(f"unknown baseline '{name}'; known: {', '.join(BASELINES)}")
    says = load_yaml(path, _Says).baseline
    if says != name:
        raise UsageError(f"{path}: a recipe of '{says}', not of '{name}'; run: ffaa train baseline {says} {path}")
    return load_yaml(path, recipe_class(name))


class _Says(BaseModel):
    baseline: str


@cache
def recipe_class(name: str) -> type[BaselineRecipe]:
    """`BaselineRecipe` with the detector's own constructor arguments and settings."""
    detector = BASELINES[name]
    hints = get_type_hints(detector.__init__)
    fields: dict[str, Any] = {}
    for parameter in list(signature(detector.__init__).parameters.values())[1:]:
        if parameter.name not in ("settings", "tokens"):  # tokens: only from Python
            hint = hints[parameter.name]
            kind = Annotated[int, Field(ge=1)] if hint is int else hint
            fields[parameter.name] = (kind, parameter.default)
    args: type[ModelArgs] = create_model(f"{detector.__name__}Args", __base__=ModelArgs, **fields)
    settings = get_type_hints(detector)["settings"]
    own: dict[str, Any] = {"model": (args, args()), "settings": (settings, settings())}
    return create_model(f"{detector.__name__}Recipe", __base__=BaselineRecipe, **own)


def build_detector(recipe: BaselineRecipe) -> Baseline:
    """The detector with random weights. Raises UsageError for sizes that do not go together."""
    args: dict[str, Any] = {name: getattr(recipe.model, name) for name in type(recipe.model).model_fields}
    try:
        detector = BASELINES[recipe.baseline](**args, settings=recipe.settings)  # type: ignore[call-arg]
    except (AssertionError, ValueError) as error:
        raise UsageError(f"{recipe.baseline} cannot be built with the recipe's `model`: {error}") from error
    least = max(SMALLEST, recipe.crop or 0)
    if detector.image_size < least:
        raise UsageError(f"recipe '{recipe.name}': the input has {detector.image_size} px; give it {least} or more")
    return detector


def load_start(detector: Baseline, start: Start) -> None:
    """Fill the detector, or the parts that are named, from the checkpoint.

    Raises WeightsError where it is missing, has another hash or does not fit, UsageError for an unknown part.
    """
    if not start.file.is_file():
        raise WeightsError(f"{start.file}: no such checkpoint; fetch it and set `start.file` in the recipe")
    if (found := sha256(start.file)) != start.sha256:
        raise WeightsError(f"{start.file}: sha256 {found} instead of {start.sha256}; fetch it again")
    skip = tuple(start.skip)
    state = {k: v for k, v in with_kernels(read_state(start.file)).items() if not k.startswith(skip)}
    for name in start.into:
        try:
            part = detector.get_submodule(name)
        except AttributeError as error:
            raise UsageError(f"start.into: {detector.name} has no module '{name}'") from error
        own = {k: v for k, v in part.state_dict().items() if k.startswith(skip)}
        load_strict(part, state | own, f"{detector.name}.{name}" if name else detector.name)
