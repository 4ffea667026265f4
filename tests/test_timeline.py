import numpy as np
import pytest

from ffaa.timeline import timeline
from ffaa.types import Box, Difficulty, Label, Verdict
from ffaa.types_clip import ClipSource, ClipTimings, ClipVerdict, FrameScore, PersonVerdict, TellingFrame


def clip(people=1, label=Label.FAKE, hard=False, scores=(0.9, 0.8, 0.7)):
    frames = [
        FrameScore(
            time=float(i), box=Box(left=0, top=0, right=9, bottom=9), label=label, forgery_type=None, forgery_score=s,
            match_score=s, difficulty=Difficulty.HARD if hard else Difficulty.EASY,
        )
        for i, s in enumerate(scores)
    ]  # fmt: skip
    person = PersonVerdict.model_construct(
        frames=frames, label=label, forgery_score=float(np.mean(scores)), difficulty=frames[0].difficulty,
        quartiles=(min(scores), max(scores)), telling=[TellingFrame.model_construct(frame=0, verdict=Verdict)],
    )  # fmt: skip
    source = ClipSource.model_construct(seconds=3.0)
    numbered = [person.model_copy(update={"person": n + 1}) for n in range(people)]
    return ClipVerdict.model_construct(source=source, people=numbered, timings=ClipTimings())


def near(pixels, colour):
    return int((np.abs(pixels.astype(int) - colour).sum(2) < 12).sum())


RED, BLUE = (209, 73, 91), (27, 108, 168)


def test_a_row_per_person():
    heights = [timeline(clip(people)).shape for people in (1, 2, 8)]
    assert [shape[1:] for shape in heights] == [(900, 3)] * 3
    assert heights[0][0] < heights[1][0] < heights[2][0]
    assert timeline(clip()).dtype == np.uint8


def test_dots_say_what_the_frames_say():
    fake, real, hard = (timeline(clip(**how)) for how in ({}, {"label": Label.REAL}, {"hard": True}))
    assert near(fake, RED) > 100 > near(fake, BLUE)
    assert near(real, BLUE) > 100 > near(real, RED)
    assert near(hard, RED) < near(fake, RED)  # hollow


def test_dots_stand_where_the_score_is():
    def height(score):
        return np.argwhere(np.abs(timeline(clip(scores=(score,))).astype(int) - RED).sum(2) < 12)[:, 0].mean()

    high, middle, low = map(height, (0.9, 0.5, 0.1))
    assert high < middle < low
    assert middle == pytest.approx((high + low) / 2, abs=1)


def test_nobody_is_drawn_too():
    assert timeline(clip(0)).shape[1] == 900
