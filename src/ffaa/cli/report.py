"""`ffaa report`: photos and videos in, one HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def report(
    photos: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Photos, videos, folders, patterns; '-': paths on stdin.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    evidence: Annotated[
        bool | None,
        typer.Option(
            "--evidence/--no-evidence",
            help="Hold the sentences against what is measured; by default where the face mesh is installed.",
        ),
    ] = None,
    trust_list: Annotated[
        Path | None,
        typer.Option(help="Certificates (PEM) of the authorities whose signers of credentials are trusted."),
    ] = None,
    whole_image: Annotated[bool, typer.Option("--whole-image", help="The photos are face crops already.")] = False,
    model: Annotated[str, typer.Option(help="A name of `ffaa weights list`, or a model's folder.")] = "nano",
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    frames: Annotated[int, typer.Option(min=1, max=256, help="How many frames of a video are looked at.")] = 16,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for one video; what is done by then counts.")] = 600,
    min_face: Annotated[int, typer.Option(min=1, help="Smallest face that is analysed, pixels.")] = 40,
) -> None:
    """Write a report on photos and videos: one HTML file to read, print and send.

    Exit code: 0 when every file could be analysed, 1 when one could not (it is in the report), 2 when there was
    nothing to do.
    """
    import shlex
    from datetime import datetime

    from rich.console import Console
    from rich.progress import track

    from ffaa.cli import clips
    from ffaa.data.credentials import load_trust_list
    from ffaa.data.images import SUFFIXES, expand_paths, shown
    from ffaa.data.kinds import VIDEO_SUFFIXES
    from ffaa.errors import UsageError
    from ffaa.serve.report import About, Reported, ReportedClip, replacing, write_report
    from ffaa.types import Failure
    from ffaa.wording import printable

    empty: list[str] = []
    found = list(expand_paths(photos, empty.append, SUFFIXES | VIDEO_SUFFIXES))
    if not found:
        raise UsageError(f"no photo found in {', '.join(photos)}; give photos, folders or patterns")
    trusted = None if trust_list is None else load_trust_list(trust_list)
    with replacing(out) as file:
        from ffaa.assistant import Assistant

        assistant = Assistant(model=model, device=device, seed=seed, min_face=min_face)
        measured, why_not = _measured(evidence)
        options = ["--model", model, "--device", device, "--seed", str(seed), "--min-face", str(min_face)]
        options += ["--whole-image"] * whole_image + ["--evidence" if measured else "--no-evidence"]
        options += ["--frames", str(frames), "--time-limit", f"{time_limit:g}"]
        about = About(
            model=assistant.engine.name,
            weights=assistant.engine.hashes,
            versions=assistant.versions,
            seed=seed,
            command=shlex.join(["ffaa", "report", "PATH...", "--out", out.name, *options]),
            made=datetime.now().astimezone(),
            not_measured=why_not,
        )

        def said(one: Reported | ReportedClip) -> Reported | ReportedClip:
            if isinstance(one.result, Failure):
                path, message = one.result.path, one.result.message
                typer.echo(f"ffaa: {printable(message if path in message else f'{path}: {message}')}", err=True)
            return one

        limits = clips.ClipOptions(frames, time_limit, plot=True)
        results = clips.reported(assistant, found, limits, whole_image, measured, trusted)
        console = Console(stderr=True)
        shown_as = track(
            results, "analysing", len(found), console=console, transient=True, disable=not console.is_terminal
        )
        counts = write_report(map(said, shown_as), about, file)
    for name in empty:
        typer.echo(f"ffaa: {shown(name)}: no photo in it", err=True)
    videos = f", {counts.clips} videos, {counts.people} people" if counts.clips else ""
    typer.echo(f"{shown(out)}: {counts.photos} photos, {counts.faces} faces{videos}, {counts.failed} not analysed")
    if counts.failed or empty:
        raise typer.Exit(1)


def _measured(asked: bool | None) -> tuple[bool, str]:
    """Whether to measure, and why not. Raises WeightsError when it is asked for and cannot be."""
    from ffaa.errors import WeightsError
    from ffaa.evidence.examine import require_mesh

    if asked is False:
        return False, "--no-evidence was given"
    try:
        require_mesh()
    except WeightsError as error:
        if asked:
            raise
        return False, str(error)
    return True, ""
