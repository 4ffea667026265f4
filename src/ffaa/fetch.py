"""Weights into the user's cache: pulled from the hub, or imported from a folder. Nothing half-done stays behind."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from ffaa.errors import MissingExtraError, UsageError, WeightsError
from ffaa.weights import (
    MODEL_FILE,
    MODELS,
    PARTS,
    ModelConfig,
    PartRef,
    cache_dir,
    find_part,
    insist,
    open_folder,
    resolve,
    sha256,
    verify,
    verify_files,
    verify_part,
)

HUB_TIMEOUT = 10.0


def pull(name: str) -> list[Path]:
    """Fetches from the hub what a model (or part) needs and is not here yet; returns its folders, model first.

    Raises UsageError for an unknown name, WeightsError without network, space, or when a file's hash differs.
    """
    if name in PARTS:
        return [find_part(name) or _pull_part(name)]
    if name not in MODELS:
        raise UsageError(f"unknown model or part '{name}'; known: {', '.join([*MODELS, *PARTS])}")
    known = MODELS[name]
    folder = cache_dir() / "models" / name
    if known.hub is None:
        folder = resolve(name).path
    elif not (folder / MODEL_FILE).is_file():
        with _staging(folder) as stage:
            revision = _download(known.hub, stage / "mllm", None, ["mids.pth", "config.json"])
            _describe_published(stage, name, f"https://huggingface.co/{known.hub} at {revision}")
    return [folder, *(find_part(part) or _pull_part(part) for part in known.parts)]


def import_model(path: str | Path, name: str) -> Path:
    """Copies a model folder of ours, a published checkpoint with its mids.pth, or (under a part's name) a part that was
    fetched elsewhere into the cache, and checks the copy. Returns the new folder.

    Raises UsageError for a name that cannot be used, WeightsError for a folder that cannot.
    """
    source = Path(path)
    is_part = name in PARTS
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UsageError(f"'{name}' cannot be a model's name; use letters, digits, '-', '_' and '.'")
    if name in MODELS and MODELS[name].hub is None:
        raise UsageError(f"'{name}' is the model inside the package; choose another name")
    target = cache_dir() / ("parts" if is_part else "models") / name
    if target.exists():
        raise UsageError(f"'{name}' is in the cache already; remove {target} first, or choose another name")
    if not source.is_dir():
        raise WeightsError(f"{source} is not a folder; give the folder that holds the weights")
    with _staging(target) as stage:
        if is_part:
            wanted = PARTS[name].hub_files
            _copy(source, stage, PARTS[name].files or [f for f in _files(source) if any(fnmatch(f, p) for p in wanted)])
            _note_part(name, stage)
        elif (source / MODEL_FILE).is_file():
            model = open_folder(source)
            insist(verify(model), "fetch it again")
            _copy(source, stage, [*model.config.files, MODEL_FILE])
            insist(verify_files(stage, model.config.files), "the copy went wrong; check the disk")
        elif (source / "config.json").is_file():
            _copy(source, stage / "mllm", _files(source))
            _describe_published(stage, name, f"imported from {source.resolve()}")
        else:
            raise WeightsError(f"{source} holds neither {MODEL_FILE} nor config.json; give a model's folder")
    return target


def _describe_published(folder: Path, name: str, source: str) -> None:
    """model.json for a published checkpoint that lies in `folder`/mllm together with its mids.pth."""
    mllm = folder / "mllm"
    mids = next(iter(sorted(mllm.rglob("mids.pth"))), None)
    if mids is None:
        raise WeightsError(f"no mids.pth beside the published checkpoint ({source}); put it into the same folder")
    if not any(mllm.glob("*.safetensors")) and not any(mllm.glob("pytorch_model*.bin")):
        raise WeightsError(f"no weight files in the published checkpoint ({source}); give the whole folder")
    mids.rename(folder / "mids.pth")
    config = ModelConfig(
        name=name,
        layout="published",
        template="v1",
        image_size=336,
        constrained=False,
        mids="mids.pth",
        text_encoder=PartRef(part="t5-base"),
        clip=PartRef(part="clip-vit-l14-336"),
        files={file: sha256(folder / file) for file in _files(folder)},
        licence=MODELS["ffaa-mistral-7b"].licence,
        source=source,
    )
    (folder / MODEL_FILE).write_text(config.model_dump_json(indent=2) + "\n", "utf-8")


def _pull_part(name: str) -> Path:
    part = PARTS[name]
    if part.hub is None:
        raise WeightsError(f"the part '{name}' is on no hub; run: {part.command(name)}")
    target = cache_dir() / "parts" / name
    with _staging(target) as stage:
        _download(part.hub, stage, [*part.files] or [*part.hub_files], part.files or ["config.json"])
        _note_part(name, stage)
    return target


def _note_part(name: str, folder: Path) -> None:
    """Checks a part against its pinned hashes; where it has none, notes those it came with."""
    insist(verify_part(name, folder), "they are not the files this version of ffaa was built with")
    if not PARTS[name].files:
        hashes = {file: sha256(folder / file) for file in _files(folder)}
        if not hashes:
            raise WeightsError(f"no file of the part '{name}' was found; it needs {', '.join(PARTS[name].hub_files)}")
        (folder / "hashes.json").write_text(json.dumps(hashes, indent=2) + "\n", "utf-8")


def _download(repo: str, folder: Path, patterns: list[str] | None, must: Collection[str]) -> str:
    """A hub repository's files into `folder`; returns the commit. `must`: names of files that have to be among them.

    One question goes first, without retries: it tells whether the hub can be reached, the commit, the files and sizes.
    """
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise MissingExtraError("fetching weights needs huggingface_hub; run: pip install huggingface_hub") from None
    try:
        about: Any = HfApi().repo_info(repo, timeout=HUB_TIMEOUT, files_metadata=True)
        sizes = {item.rfilename: item.size or 0 for item in about.siblings or ()}
        wanted = [file for file in sizes if patterns is None or any(fnmatch(file, p) for p in patterns)]
        if missing := set(must).difference(PurePosixPath(file).name for file in wanted):
            raise WeightsError(f"{repo} holds no {', '.join(sorted(missing))} any more; ask its authors for it")
        needed = sum(sizes[file] for file in wanted)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise WeightsError(f"{repo} needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f}; set FFAA_CACHE")
        snapshot_download(repo, revision=about.sha, local_dir=folder, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT)
    except WeightsError:
        raise
    except Exception as error:  # the hub's errors and those of the HTTP client below it share no base class
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(
            f"{repo} cannot be fetched ({reason}); check the network, or fetch it elsewhere and run: "
            "ffaa weights import FOLDER"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return str(about.sha)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` only when all went well."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise WeightsError(f"the cache {target.parent} cannot be written ({error.strerror}); set FFAA_CACHE") from error
    try:
        yield stage
        stage.chmod(0o755)
        stage.rename(target)
    except OSError as error:
        raise WeightsError(f"{target} cannot be written ({error.strerror}); free space or set FFAA_CACHE") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _copy(source: Path, target: Path, files: Iterable[str]) -> None:
    for file in files:
        if not (source / file).is_file():
            raise WeightsError(f"{source / file} is missing; give the whole folder")
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)


def _files(folder: Path) -> list[str]:
    """Relative paths of the files in and below a folder, without hidden ones."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
