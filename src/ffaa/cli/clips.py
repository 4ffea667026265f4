"""Videos for `ffaa analyze` and `ffaa report`: which paths are videos, their results, and what is written of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ffaa.types_clip import ClipAnalysis, ClipVerdict

if TYPE_CHECKING:
    from ffaa.cli.output import OutputFolder
    from ffaa.serve.report import Reported, ReportedClip
    from ffaa.types import Analysis, Failure


@dataclass(frozen=True)
class ClipOptions:
    """frames: looked at in a video. seconds: that one may take. plot: timelines are wanted."""

    frames: int
    seconds: float
    plot: bool


def results(
    assistant: Any,
    paths: Iterable[str],
    options: ClipOptions,
    whole_image: bool,
    evidence: bool,
    credentials: bool = False,
) -> Iterator[Analysis | ClipAnalysis | Failure]:
    """Photos and videos in the order of the paths; a file that fails becomes a Failure. credentials: of photos only."""
    from ffaa.data.kinds import is_clip
    from ffaa.serve.reported import with_credentials

    photos = partial(with_credentials, assistant) if credentials else assistant.analyze_many

    for clip, group in groupby(paths, is_clip):
        if clip:
            yield from (judged(assistant, path, options, whole_image, evidence) for path in group)
        else:
            yield from photos(group, whole_image=whole_image, evidence=evidence)


def judged(
    assistant: Any, path: str, options: ClipOptions, whole_image: bool, evidence: bool
) -> ClipAnalysis | Failure:
    """One video; a file that fails, or an extra that is missing, becomes a Failure."""
    from ffaa.cli.extras import needs
    from ffaa.data.images import shown
    from ffaa.errors import FFAAError, InputError, UsageError
    from ffaa.types import Failure

    try:
        if whole_image:
            raise InputError("is a video, and --whole-image is for photos; leave it out for this file")
        with needs("data"):
            from ffaa.clip import ClipLimits, analyze_clip

            if options.plot:
                import ffaa.timeline  # noqa: F401 (said before the work, not after)
        limits = ClipLimits(seconds=options.seconds)
        return analyze_clip(assistant, path, options.frames, evidence=evidence, limits=limits)
    except UsageError:
        raise
    except FFAAError as error:
        return Failure(path=shown(path), message=str(error))


def reported(
    assistant: Any,
    paths: Iterable[str],
    options: ClipOptions,
    whole_image: bool,
    evidence: bool,
    trust_list: str | None,
) -> Iterator[Reported | ReportedClip]:
    """The same for a report, one photo or video at a time. trust_list: see `read_credentials`."""
    from ffaa.data.kinds import is_clip
    from ffaa.serve.report import ReportedClip
    from ffaa.serve.reported import report_photos, reported_clip
    from ffaa.types import Failure

    for clip, group in groupby(paths, is_clip):
        if not clip:
            yield from report_photos(assistant, group, whole_image, evidence, trust_list)
            continue
        for path in group:
            result = judged(assistant, path, options, whole_image, evidence)
            unread = isinstance(result, Failure) and find_spec("av") is None
            yield ReportedClip(result) if unread else reported_clip(assistant, result, path, trust_list)


def write(folder: OutputFolder, assistant: Any, result: ClipAnalysis, without_text: bool) -> ClipVerdict:
    """Writes JSON, timeline and the telling frames' heatmaps; gives the verdict back with their paths."""
    from time import perf_counter

    from ffaa.data.images import shown
    from ffaa.timeline import timeline

    started, clip = perf_counter(), result.verdict
    name, people = folder.name_for(clip.source.path), []
    for person, faces in zip(clip.people, result.faces, strict=True):
        telling = []
        for place, (one, face) in enumerate(zip(person.telling, faces, strict=True), 1):
            path = folder.telling_path(name, person.person, place)
            folder.write_heatmap(path, assistant.heatmap(face, one.verdict))
            if without_text:
                second = folder.telling_path(name, person.person, place, with_text=False)
                folder.write_heatmap(second, assistant.heatmap(face, one.verdict, with_text=False))
            verdict = one.verdict.model_copy(update={"heatmap": shown(path)})
            telling.append(one.model_copy(update={"verdict": verdict}))
        people.append(person.model_copy(update={"telling": telling}))
    drawn = perf_counter()
    path = folder.timeline_path(name)
    folder.write_heatmap(path, timeline(clip))
    timings = clip.timings.model_copy(
        update={"heatmap": drawn - started, "total": clip.timings.total + perf_counter() - started}
    )
    written = clip.model_copy(update={"people": people, "timeline": shown(path), "timings": timings})
    folder.write_clip_json(name, written)
    return written
