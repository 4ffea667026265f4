"""Photos and videos on disk -> what a report shows of them, one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from ffaa.data.credentials import read_clip_credentials, read_credentials
from ffaa.data.facts import FileFacts, file_facts
from ffaa.data.images import load_bytes, read_bytes, shown
from ffaa.errors import InputError
from ffaa.serve.report import SHOWN_FACES, Reported, ReportedClip
from ffaa.types import Analysis, Credentials, CredentialStatus, Failure
from ffaa.types_clip import ClipAnalysis

CHANGED = "the file changed while it was analysed"


def report_photos(
    assistant: Any,
    paths: Iterable[str],
    whole_image: bool = False,
    evidence: bool = False,
    trust_list: str | None = None,
) -> Iterator[Reported]:
    """Analyses the photos in order and reads each file once more for the picture, its facts and its credentials.

    assistant: an `Assistant`. trust_list: see `read_credentials`. A file that changed meanwhile becomes a Failure.
    """
    for path, result in _paired(assistant, paths, whole_image=whole_image, evidence=evidence):
        try:
            data = read_bytes(path)
        except InputError as error:
            yield Reported(result if isinstance(result, Failure) else Failure(path=shown(path), message=str(error)))
            continue
        facts, credentials = file_facts(data, path), read_credentials(data, trust_list)
        if isinstance(result, Failure):
            yield Reported(result, None, [], facts, credentials)
        elif result.source.sha256 != facts.sha256:
            yield Reported(_changed(path))
        else:
            largest = list(zip(result.faces, result, strict=True))[:SHOWN_FACES]
            heats = [assistant.heat(face, verdict) for face, verdict in largest]
            yield Reported(result, load_bytes(data, shown(path)).pixels, heats, facts, credentials)


def reported_clip(
    assistant: Any, result: ClipAnalysis | Failure, path: str | Path, trust_list: str | None = None
) -> ReportedClip:
    """An analysed video for a report: with the heatmaps of its telling frames, and what its file says of itself.

    assistant: the `Assistant` that judged it. path: of the file, which is read once more; one that changed meanwhile
    becomes a Failure. trust_list: see `read_credentials`.
    """
    from ffaa.data.stream import VideoLimits, opened  # photos alone need no PyAV

    try:
        with opened(path, VideoLimits()) as video:
            sha256 = video.sha256()
            credentials = read_clip_credentials(video.file, trust_list)
    except InputError as error:
        return ReportedClip(result if isinstance(result, Failure) else Failure(path=shown(path), message=str(error)))
    if isinstance(result, Failure):
        facts = FileFacts(name=shown(PurePath(path).name), sha256=sha256, bytes=video.size)
        return ReportedClip(result, [], facts, credentials)
    if result.verdict.source.sha256 != sha256:
        return ReportedClip(_changed(path))
    people = zip(result.verdict.people, result.faces, strict=True)
    heats = [
        [assistant.heat(face, one.verdict) for face, one in zip(faces, p.telling, strict=True)] for p, faces in people
    ]
    return ReportedClip(result, heats, None, credentials)


def _changed(path: str | Path) -> Failure:
    return Failure(path=shown(path), message=f"{shown(path)}: {CHANGED}; analyse it again")


def with_credentials(assistant: Any, paths: Iterable[str], **options: Any) -> Iterator[Analysis | Failure]:
    """`assistant.analyze_many` with each photo's content credentials in its source and in its verdicts' source."""
    for path, result in _paired(assistant, paths, **options):
        yield result if isinstance(result, Failure) else _credited(path, result)


def _credited(path: str, result: Analysis) -> Analysis:
    try:
        data = read_bytes(path)
        found = read_credentials(data)
        same = file_facts(data, path).sha256 == result.source.sha256
    except InputError:
        same = False
    if not same:
        found = Credentials(status=CredentialStatus.NOT_CHECKED, reason=CHANGED)
    source = result.source.model_copy(update={"credentials": found})
    verdicts = [verdict.model_copy(update={"source": source}) for verdict in result.verdicts]
    return Analysis(source, verdicts, result.message, result.faces)


def _paired(assistant: Any, paths: Iterable[str], **options: Any) -> Iterator[tuple[str, Analysis | Failure]]:
    """Each result with the path it came from; the one in the result is escaped and may not open the file again."""
    given: deque[str] = deque()

    def noted() -> Iterator[str]:
        for path in paths:
            given.append(path)
            yield path

    for result in assistant.analyze_many(noted(), **options):
        yield given.popleft(), result
