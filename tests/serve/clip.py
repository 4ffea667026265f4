"""Videos as a report gets them, without any model."""

import numpy as np
from tests.cli.conftest import examined, make_verdict

from ffaa.aggregate import person_verdict
from ffaa.serve.report import ReportedClip
from ffaa.types import Box, Face, Label, Source
from ffaa.types_clip import ClipAnalysis, ClipSource, ClipTimings, ClipVerdict, FrameScore, TellingFrame

REAL = {"label": Label.REAL}
HEAT = np.zeros((224, 224), np.float32)
HEAT[10:60, 160:210] = 1


def make_person(number, frames, path="clips/a.mp4", with_examined=False):
    """frames: options of `make_verdict` for each, half a second apart; the first, second and last one are told."""
    verdicts = [
        make_verdict(
            Source(path=path, width=640, height=360), box=Box(left=10, top=10, right=110 + k, bottom=130), **of
        )
        for k, of in enumerate(frames)
    ]
    fields = set(FrameScore.model_fields) - {"time"}
    scores = [
        FrameScore(time=0.25 + k / 2, **{name: getattr(v, name) for name in fields}) for k, v in enumerate(verdicts)
    ]
    told = sorted({0, 1, len(frames) - 1} & set(range(len(frames))))
    telling = [TellingFrame(frame=k, verdict=examined(verdicts[k]) if with_examined else verdicts[k]) for k in told]
    return person_verdict(number, scores, 0, telling, ["of the model"])


def reported_clip(people=(({},) * 4,), path="clips/a.mp4", heats=True, with_examined=False, **changes):
    """people: of each the options of its frames' verdicts."""
    judged = [make_person(n, of, path, with_examined) for n, of in enumerate(people, 1)]
    source = ClipSource(
        path=path, sha256="ef" * 32, bytes=123456, width=640, height=360, seconds=6, fps=10, frames=60, codec="h264",
        sampling="even", frames_asked=16, frames_read=12,
    )  # fmt: skip
    verdict = ClipVerdict(
        source=source, people=judged, people_left_out=0, cautions=["measured on photos only"], model="nano", weights={},
        versions={}, seed=3, timings=ClipTimings(),
    )  # fmt: skip
    verdict = verdict.model_copy(update=changes)
    faces = [
        [Face(np.full((224, 224, 3), 90, np.uint8), v.verdict.box, v.verdict.crop) for v in p.telling] for p in judged
    ]
    return ReportedClip(ClipAnalysis(verdict, faces), [[HEAT] * len(of) for of in faces] if heats else [])
