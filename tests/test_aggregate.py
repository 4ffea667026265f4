import pytest

from ffaa.aggregate import label_of, person_verdict
from ffaa.types import Box, Difficulty, ForgeryType, Label, Verdict
from ffaa.types_clip import FrameScore, TellingFrame
from ffaa.wording import person_explain, person_headline

SWAP, SYNTHESIS = ForgeryType.IDENTITY_EXCHANGE, ForgeryType.ENTIRE_FACE_SYNTHESIS


def frame(score, label=None, hard=False, kind=SWAP, width=120, time=0.0, lacks=False):
    """What a frame of this forgery score says; the label follows the score where none is given."""
    label = label or (Label.FAKE if score >= 0.5 else Label.REAL)
    fake = label is Label.FAKE
    return FrameScore(
        time=time,
        box=Box(left=0, top=0, right=width, bottom=width),
        label=label,
        forgery_type=kind if fake else ForgeryType.REAL,
        forgery_score=score,
        match_score=score if fake else 1 - score,
        difficulty=Difficulty.HARD if hard else Difficulty.EASY,
        lacks_detail=lacks,
    )


@pytest.fixture
def judge():
    telling = [TellingFrame.model_construct(frame=0, verdict=Verdict.model_construct())]

    def call(frames, unread=0, model=()):
        return person_verdict(1, frames, unread, telling, model)

    return call


def test_the_score_is_the_mean_and_the_spread_is_given(judge):
    found = judge([frame(s) for s in (0.9, 0.8, 0.1, 0.7, 0.6)])
    assert found.forgery_score == pytest.approx(0.62)
    assert found.match_score == pytest.approx(0.62)
    assert found.median == pytest.approx(0.7)
    assert found.quartiles == pytest.approx((0.6, 0.8))
    assert (found.share_fake, found.agreement) == (0.8, 0.8)
    assert len(found.frames) == 5
    real = judge([frame(s) for s in (0.1, 0.2, 0.3, 0.2)])
    assert (real.label, real.forgery_type) == (Label.REAL, ForgeryType.REAL)
    assert real.match_score == pytest.approx(0.8)
    assert (real.share_fake, real.agreement) == (0, 1)


def test_fake_from_a_half_on():
    assert label_of([frame(0.5), frame(0.5)]) == (Label.FAKE, 0.5)
    assert label_of([frame(0.5), frame(0.48)])[0] is Label.REAL
    assert label_of([frame(1.0)] * 3)[1] == 1.0


@pytest.mark.parametrize(
    ("frames", "easy"),
    [
        ([frame(0.9)] * 4, True),
        ([frame(0.9)] * 3, False),  # too few
        ([frame(0.9)] * 3 + [frame(0.9, hard=True)], True),
        ([frame(0.9)] * 2 + [frame(0.9, hard=True)] * 2, False),
        ([frame(0.9)] * 3 + [frame(0.1)], True),
        ([frame(0.9)] * 5 + [frame(0.1)] * 2, False),  # they disagree
        ([frame(0.9, Label.REAL)] * 8, False),  # all say real, and MIDS believes none of them
    ],
)
def test_easy_only_when_most_frames_are_easy_and_agree(judge, frames, easy):
    assert judge(frames).difficulty is (Difficulty.EASY if easy else Difficulty.HARD)


def test_the_type_is_the_one_that_most_fake_frames_name(judge):
    swap, made, none = frame(0.9), frame(0.9, kind=SYNTHESIS), frame(0.9, kind=None)
    assert judge([swap, swap, made]).forgery_type is SWAP
    assert judge([swap, swap, made, made]).forgery_type is None
    assert judge([none, none, swap]).forgery_type is None
    assert judge([made, *[frame(0.6, Label.REAL)] * 5]).forgery_type is SYNTHESIS
    assert judge([frame(0.9, Label.REAL)] * 4).forgery_type is None


def test_cautions(judge):
    assert judge([frame(0.9)] * 4, model=["of the model"]).cautions == ["of the model"]
    few = judge([frame(0.9)], unread=2).cautions
    assert few[0].startswith("seen in 1 frame only: too few to show whether frames agree")
    assert few[1] == "2 frames more left out: none of the three answers could be read"
    mixed = judge([frame(0.9, hard=True)] * 2 + [frame(0.1, width=79)] * 2).cautions
    assert mixed == [
        "the frames disagree: 2 of 4 say fake, 2 say real",
        "hard case in 2 of 4 frames: the three answers do not agree",
        "the score is not near 0 or 1 (0.50): the decision is uncertain",
        "the face is less than 80 px wide in 2 of 4 frames; traces of forgery may be lost at this size",
    ]
    against = judge([frame(0.9, Label.REAL)] * 4)
    assert against.label is Label.FAKE
    assert against.cautions == ["most frames say real, while their scores lean to fake"]


@pytest.mark.parametrize(("lacking", "finding"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_face_that_lacks_fine_detail_in_too_many_frames_is_no_finding(judge, lacking, finding):
    found = judge([frame(0.95, lacks=k < lacking) for k in range(4)])
    assert (found.share_lacking, found.difficulty) == (lacking / 4, Difficulty.EASY)
    assert [c.split(";")[0] for c in found.cautions] == (
        [f"the face lacks fine detail (blurred or enlarged) in {lacking} of 4 frames"] if lacking else []
    )
    assert person_headline(found).startswith("FAKE in 4 of 4 frames" if finding else "leans fake, uncertain")
    assert ("lacks fine detail" in person_explain(found)) is not finding
