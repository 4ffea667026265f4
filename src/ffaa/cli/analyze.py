"""`ffaa analyze`: photos in, one verdict per face out; videos in, one verdict per person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from ffaa.cli.output import OutputFolder
    from ffaa.types import Analysis, Verdict


def analyze(
    photos: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Photos, videos, folders, patterns; '-': paths on stdin.")
    ],
    answers: Annotated[bool, typer.Option("--answers", help="Show all three answers with their scores.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per face or video on stdout.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write JSON, heatmaps and timelines of videos here.")] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Measure the face, and mark each sentence that this bears out or denies.")
    ] = False,
    credentials: Annotated[
        bool, typer.Option("--credentials", help="Read the content credentials (C2PA) of each photo.")
    ] = False,
    whole_image: Annotated[bool, typer.Option("--whole-image", help="The photos are face crops already.")] = False,
    model: Annotated[str, typer.Option(help="A name of `ffaa weights list`, or a model's folder.")] = "nano",
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    heatmap_without_text: Annotated[
        bool, typer.Option("--heatmap-without-text", help="With --out: a second heatmap that leaves the text out.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, max=256, help="How many frames of a video are looked at.")] = 16,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds for one video; what is done by then counts.")] = 600,
    min_face: Annotated[int, typer.Option(min=1, help="Smallest face that is analysed, pixels.")] = 40,
) -> None:
    """Judge each face: real or forged, and why.

    Exit code: 0 when every file could be analysed, 1 when one could not, 2 when there was nothing to do.
    """
    from ffaa.cli import clips, text_clip
    from ffaa.cli.output import OutputFolder
    from ffaa.data.credentials import require_reader
    from ffaa.data.images import SUFFIXES, expand_paths, shown
    from ffaa.data.kinds import VIDEO_SUFFIXES
    from ffaa.errors import UsageError
    from ffaa.types import Failure, NoFace
    from ffaa.types_clip import ClipAnalysis

    if heatmap_without_text and out is None:
        raise UsageError("--heatmap-without-text needs --out DIR to write to")
    empty: list[str] = []
    found: Iterator[str] | list[str] = expand_paths(photos, empty.append, SUFFIXES | VIDEO_SUFFIXES)
    if "-" not in photos:  # paths from standard input are worked on as they come
        found = list(found)
        if not found:
            raise UsageError(f"no photo found in {', '.join(photos)}; give photos, folders or patterns")
    if credentials:
        require_reader()
    folder = None if out is None else OutputFolder(out)

    from ffaa.assistant import Assistant

    assistant = Assistant(model=model, device=device, seed=seed, min_face=min_face)
    options = clips.ClipOptions(frames, time_limit, plot=folder is not None)
    count, failed = 0, False
    with _progress(len(found) if isinstance(found, list) else None) as show:
        for result in clips.results(assistant, found, options, whole_image, evidence, credentials):
            count += 1
            with show():
                if isinstance(result, Failure):
                    failed = True
                    if json:
                        # A path may hold bytes that JSON cannot.
                        typer.echo(result.model_copy(update={"path": shown(result.path)}).model_dump_json())
                    _complain(result.path, result.message)
                    continue
                if isinstance(result, ClipAnalysis):
                    written = clips.write(folder, assistant, result, heatmap_without_text) if folder else result.verdict
                    typer.echo(written.model_dump_json() if json else text_clip.describe(written, answers))
                    continue
                verdicts = result.verdicts
                if folder is not None:
                    verdicts = list(_write(folder, assistant, result, heatmap_without_text))
                if not json:
                    _print(result, verdicts, answers)
                elif verdicts:
                    for verdict in verdicts:
                        typer.echo(verdict.model_dump_json())
                else:
                    typer.echo(NoFace(source=result.source, message=result.message).model_dump_json())
    for name in empty:
        _complain(name, "no photo in it")
    if not count:
        raise UsageError("no photo found; give photos, folders or patterns, or their paths on standard input")
    if failed or empty:
        raise typer.Exit(1)


def _print(result: Analysis, verdicts: list[Verdict], answers: bool) -> None:
    from ffaa.cli import text

    typer.echo("\n".join(text.describe_source(result.source)))
    for verdict in verdicts:
        typer.echo(text.describe(verdict, answers))
    if not verdicts or result.message:
        typer.echo(f"  {text.printable(result.message) or 'no face found'}")
    typer.echo()


def _complain(path: str, message: str) -> None:
    from ffaa.cli.text import printable
    from ffaa.data.images import shown

    line = message if message.startswith(shown(path)) else f"{shown(path)}: {message}"
    typer.echo(f"ffaa: {printable(line)}", err=True)


def _write(folder: OutputFolder, assistant: Any, result: Analysis, without_text: bool) -> Iterator[Verdict]:
    """Writes the files of every face; gives the verdicts back with the paths of their heatmaps and the seconds."""
    from time import perf_counter

    from ffaa.data.images import shown

    name = folder.name_for(result.source.path)
    for face, verdict in zip(result.faces, result.verdicts, strict=True):
        started = perf_counter()
        path = folder.heatmap_path(name, verdict.face_index)
        folder.write_heatmap(path, assistant.heatmap(face, verdict))
        if without_text:
            second = folder.heatmap_path(name, verdict.face_index, with_text=False)
            folder.write_heatmap(second, assistant.heatmap(face, verdict, with_text=False))
        timings = verdict.timings.model_copy(update={"heatmap": perf_counter() - started})
        written = verdict.model_copy(update={"heatmap": shown(path), "timings": timings})
        folder.write_json(name, written)
        yield written


@contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    """Gives a context in which results are printed: it counts one file, with the bar out of the way.

    A bar is drawn on stderr only, for more than one file, and when somebody looks at it.
    """
    import sys

    if total == 1 or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("analysing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = bar.add_task("", total=total)

    @contextmanager
    def show() -> Iterator[None]:
        bar.stop()
        yield
        bar.advance(task)
        bar.start()

    with bar:
        yield show


@contextmanager
def _nothing() -> Iterator[None]:
    yield
