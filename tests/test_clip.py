"""Videos of the two public-domain portraits, made here: moving, cut, truncated, crowded."""

import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ffaa import clip as module
from ffaa.clip import ClipLimits, analyze_clip
from ffaa.data.faces import Detection, cut
from ffaa.data.stream import VideoLimits
from ffaa.data.video import Frames, frames_at, sample_times
from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.types import Box, Difficulty, Label
from ffaa.types_clip import MAX_TELLING, ClipVerdict, FrameScore

SIZE = (360, 640, 3)
SCORED = set(FrameScore.model_fields) - {"time"}


@pytest.fixture(scope="module")
def heads(hopper, astronaut):
    return {"hopper": hopper[60:420, 90:450], "astronaut": astronaut[20:220, 130:330]}


@pytest.fixture(scope="module")
def picture(heads):
    """[(name, x, y, side), ...] -> a frame with these portraits."""

    def make(*people, wall=70):
        pixels = np.full(SIZE, wall, np.uint8)
        for name, x, y, side in people:
            pixels[y : y + side, x : x + side] = cv2.resize(heads[name], (side, side), interpolation=cv2.INTER_AREA)
        return pixels

    return make


@pytest.fixture(scope="module")
def two(make_clip, picture, tmp_path_factory):
    """Hopper on the right, closer to the camera than Collins on the left; both move."""
    pictures = [
        picture(("astronaut", 10 + 2 * i, 60, 190), ("hopper", 330 - 2 * i, 20, 300)) for i in range(20)
    ]  # fmt: skip
    return make_clip(tmp_path_factory.mktemp("clips") / "two.mp4", pictures)


@pytest.fixture(scope="module")
def found(tiny_assistant, two):
    return analyze_clip(tiny_assistant, two, frames=3)


def test_people_by_how_much_of_the_screen_they_fill(found, two):
    clip = found.verdict
    assert [p.person for p in clip.people] == [1, 2]
    large, small = clip.people
    assert all(a.box.width > b.box.width and a.box.left > b.box.right for a, b in zip(large.frames, small.frames))
    assert [f.time for f in large.frames] == pytest.approx(sample_times(two, 3))
    assert large.frames[0].box.left > large.frames[-1].box.left
    assert small.frames[0].box.left < small.frames[-1].box.left
    source = clip.source
    assert (source.width, source.height, source.codec, source.sampling, source.broken) == (
        640,
        360,
        "h264",
        "even",
        None,
    )
    assert (source.seconds, source.fps, source.frames) == pytest.approx((2, 10, 20))
    assert (source.frames_asked, source.frames_read, source.bytes) == (3, 3, two.stat().st_size)
    assert len(source.sha256) == 64
    assert (clip.people_left_out, clip.message) == (0, "")
    assert clip.cautions == [module.UNMEASURED]
    assert (clip.model, clip.seed) == ("nano-tiny", 0)
    assert clip.timings.find > 0
    assert clip.timings.total > clip.timings.judge > 0
    assert ClipVerdict.model_validate_json(clip.model_dump_json()) == clip


def test_a_frame_gets_the_verdict_it_gets_as_a_photo(found, two, tiny_assistant):
    (frame,) = frames_at(two, sample_times(two, 3)[1:2])
    photo, compared = tiny_assistant.analyze(frame.pixels), 0
    assert len(photo) == 2
    for person, images in zip(found.verdict.people, found.faces, strict=True):
        scored = person.frames[1]
        (as_photo,) = [v for v in photo if v.box == scored.box]
        assert scored.model_dump(include=SCORED) == as_photo.model_dump(include=SCORED)
        for one, face in zip(person.telling, images, strict=True):
            if one.frame == 1:
                beside = {"timings", "source"}
                assert one.verdict.model_dump(exclude=beside) == as_photo.model_dump(exclude=beside)
                assert np.array_equal(face.image, photo.faces[as_photo.face_index].image)
                compared += 1
    assert compared


def test_the_telling_frames_are_the_strongest(found):
    for person, images in zip(found.verdict.people, found.faces, strict=True):
        assert 1 <= len(person.telling) == len(images) <= MAX_TELLING
        for label in Label:
            scores = sorted((f.match_score for f in person.frames if f.label is label), reverse=True)
            told = [one.verdict.match_score for one in person.telling if one.verdict.label is label]
            assert told == scores[: len(told)]
        said = {f.label for f in person.frames}
        assert {one.verdict.label for one in person.telling} == said  # one against, where one says so
        assert len({one.frame for one in person.telling}) == len(person.telling)
        first = person.telling[0].verdict.source
        assert first.notes == [f"frame at {person.frames[person.telling[0].frame].time:.2f} s of a video"]


def test_after_a_cut_there_is_somebody_else(stub, tiny_assistant, make_clip, picture, tmp_path):
    shots = [picture(("astronaut", 200, 40, 280))] * 5 + [picture(("hopper", 100, 20, 330), wall=200)] * 10
    seeing = stub()
    seeing.detect = tiny_assistant.detect
    clip = analyze_clip(seeing, make_clip(tmp_path / "cut.mp4", shots), frames=3).verdict
    assert [len(p.frames) for p in clip.people] == [2, 1]
    assert all(p.difficulty is Difficulty.HARD for p in clip.people)
    assert clip.people[0].cautions[0].startswith("seen in 2 frames only: too few to show whether frames agree")


def test_of_a_truncated_video_what_can_be_read_is_given(stub, make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mkv", noise(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = analyze_clip(stub(), path, frames=6).verdict
    assert len(clip.people) == 1
    assert clip.source.seconds < 2
    assert clip.source.broken.startswith(str(path))
    assert clip.cautions[0] == f"the video is not whole: {clip.source.broken}"


def test_damage_in_the_middle_is_said(stub, make_clip, tmp_path):
    path = make_clip(tmp_path / "a.ts", noise(30))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    clip = analyze_clip(stub(), path, frames=30).verdict
    assert 0 < len(clip.people[0].frames) < 30
    assert "frames are missing" in clip.cautions[0]


def test_what_is_no_video_is_said_in_one_line(stub, make_clip, tmp_path):
    good = make_clip(tmp_path / "good.mp4", noise(12))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "headless.mp4").write_bytes(good.read_bytes()[:-800])  # its index is at the end
    cases = [
        (tmp_path / "text.mp4", {}, "no video that can be read"),
        (tmp_path / "zero.mp4", {}, "empty"),
        (tmp_path / "headless.mp4", {}, "its end is missing; give a whole video"),
        (tmp_path / "none.mp4", {}, "no such file"),
        (good, {"max_seconds": 1}, "the limit is 1 s"),
        (good, {"max_pixels": 1000}, "above the limit"),
        (good, {"max_bytes": 1000}, "the limit is"),
        (good, {"max_frames": 5}, "above the limit of 5 frames"),
    ]
    for path, limits, words in cases:
        with pytest.raises(InputError) as caught:
            analyze_clip(stub(), path, limits=ClipLimits(video=VideoLimits(**limits)))
        assert words in str(caught.value)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_numbers_out_of_range(stub):
    for frames, people in ((0, 8), (257, 8), (4, 0), (4, 33)):
        with pytest.raises(UsageError):
            analyze_clip(stub(), "any.mp4", frames=frames, limits=ClipLimits(people=people))


# --- with a stub for the models ---------------------------------------------------------------------------------------


def noise(count, size=(128, 192, 3)):
    """Frames that do not compress to nothing, of one shot."""
    rng = np.random.default_rng(1)
    return [np.clip(128 + rng.normal(0, 25, size), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def still(make_clip, tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("still") / "still.mp4", noise(40))


@pytest.fixture(scope="module")
def stub(tiny_assistant, hopper):
    """Builds an assistant that finds the same boxes in every frame and says what `says(placed)` changes in it."""
    (verdict,) = tiny_assistant.analyze(hopper)

    def make(boxes=((20, 20, 90, 90),), says=lambda placed: {}, small=()):
        found = [[Detection(Box(left=a, top=b, right=c, bottom=d), 1.0) for a, b, c, d in of] for of in (boxes, small)]

        def verdicts_of(placed):
            return [
                None
                if changes is None
                else verdict.model_copy(update={"source": p.source, "box": p.face.box, **changes})
                for p in placed
                for changes in [says(p)]
            ]

        return SimpleNamespace(
            engine=SimpleNamespace(name="stub", hashes={}, cautions=["of the model"]), versions={}, seed=3, min_face=40,
            detect=lambda pixels: found, cut=lambda pixels, one: cut(pixels, one, 64, "stub"), verdicts_of=verdicts_of,
            examine=lambda face, verdict: verdict.model_copy(update={"cautions": ["examined"]}),
        )  # fmt: skip

    return make


GRID = tuple((x, y, x + 28, y + 30 - y // 10) for y in (4, 44, 84) for x in (4, 36, 68, 100, 132))


def test_only_the_largest_people_are_judged(stub, still):
    judged = []
    clip = analyze_clip(
        stub(GRID, lambda p: judged.append(p) or {}), still, frames=4, limits=ClipLimits(people=2)
    ).verdict
    assert [p.frames[0].box.height for p in clip.people] == [30, 30]
    assert clip.people_left_out == len(GRID) - 2
    assert f"{len(GRID) - 2} more people were found and not judged" in clip.cautions[0]
    assert len(judged) == 8
    assert {(p.count, p.index) for p in judged} == {(15, 0), (15, 1)}


def test_nobody(stub, still):
    clip = analyze_clip(stub(()), still, frames=4).verdict
    assert clip.people == []
    assert clip.message.startswith("no face found in 4 frames")
    clip = analyze_clip(stub((), small=[(0, 0, 30, 30)]), still, frames=4).verdict
    assert "30 px wide, at least 40 px are needed" in clip.message


def test_frames_whose_answers_cannot_be_read_are_counted(stub, still):
    turn = iter(range(9))
    clip = analyze_clip(stub(says=lambda p: {} if next(turn) % 3 else None), still, frames=6).verdict
    (person,) = clip.people
    assert (len(person.frames), person.unread) == (4, 2)
    assert "2 frames more left out" in " ".join(person.cautions)
    assert person.cautions[-1] == "of the model"
    with pytest.raises(FFAAError, match="none of the answers"):
        analyze_clip(stub(says=lambda p: None), still, frames=4)
    alone = stub(GRID[:2], lambda p: {} if p.index else None)
    clip = analyze_clip(alone, still, frames=4).verdict
    assert [p.person for p in clip.people] == [1]
    assert clip.cautions[0] == "1 more people were found and could not be judged"


def test_evidence_is_for_the_telling_frames(stub, still, monkeypatch):
    (person,) = analyze_clip(stub(), still, frames=4, evidence=True).verdict.people
    assert [one.verdict.cautions for one in person.telling] == [["examined"]] * len(person.telling)

    def missing():
        raise InputError("no mesh")

    monkeypatch.setattr(module, "require_mesh", missing)
    with pytest.raises(InputError, match="no mesh"):
        analyze_clip(stub(), still, evidence=True)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_when_the_time_is_up_what_is_done_is_given(stub, still, clock):
    def slow(placed):
        clock[0] += 1.0
        return {}

    clip = analyze_clip(stub(says=slow), still, frames=40, limits=ClipLimits(seconds=10)).verdict
    (person,) = clip.people
    assert len(person.frames) == 16  # two batches of eight faces
    assert clip.cautions[0].startswith("the time limit of 10 s was reached: faces from 1.6 s")
    assert clip.timings.judge == 16
    late = stub()
    boxes = late.detect(None)
    late.detect = lambda pixels: clock.__setitem__(0, clock[0] + 9) or boxes
    with pytest.raises(InputError, match="0.5 s were not enough to judge a face"):
        analyze_clip(late, still, frames=4, limits=ClipLimits(seconds=0.5))


def test_finding_faces_takes_at_most_half_of_the_time(stub, still, clock):
    slow = stub()
    boxes = slow.detect(None)
    slow.detect = lambda pixels: clock.__setitem__(0, clock[0] + 2) or boxes
    clip = analyze_clip(slow, still, frames=20, limits=ClipLimits(seconds=11)).verdict
    assert clip.source.frames_read == len(clip.people[0].frames) == 3
    assert clip.cautions[0].startswith("half of the time limit of 11 s was up: no face was looked for after")


def test_a_file_that_changes_meanwhile_is_refused(stub, still, make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", noise(10))
    swapped = stub()
    boxes, calls = swapped.detect(None), []

    def detect(pixels):
        calls.append(1)
        if len(calls) == 4:
            make_clip(path, noise(10, (64, 96, 3)))
        return boxes

    swapped.detect = detect
    with pytest.raises(InputError, match="changed while it was read"):
        analyze_clip(swapped, path, frames=4)


class Watched:
    """Counts, while faces are found and cut, how many frames and face images are in memory at most."""

    def __init__(self, monkeypatch, assistant):
        self.pictures, self.faces, self.most = [], [], (0, 0)
        self._detect, self._cut = assistant.detect, assistant.cut
        assistant.detect, assistant.cut = self.detect, self.cut
        monkeypatch.setattr(module, "frames_at", self.frames_at)

    def frames_at(self, *args):
        return WatchedFrames(self.pictures, *args)

    def detect(self, pixels):
        self.count()
        return self._detect(pixels)

    def cut(self, pixels, box):
        face = self._cut(pixels, box)
        self.faces.append(weakref.ref(face.image))
        self.count()
        return face

    def count(self):
        alive = (sum(ref() is not None for ref in refs) for refs in (self.pictures, self.faces))
        self.most = tuple(map(max, self.most, alive))


class WatchedFrames(Frames):
    def __init__(self, pictures, path, times, limits):
        super().__init__(path, times, limits)
        self.pictures = pictures

    def __next__(self):
        frame = super().__next__()
        self.pictures.append(weakref.ref(frame.pixels))
        return frame


def test_memory_does_not_grow_with_length(stub, still, monkeypatch):
    """One frame at a time, the faces of one batch, and of each person the strongest frames for each label."""
    most = []
    for frames in (10, 40):
        one = stub(GRID[:3])
        watched = Watched(monkeypatch, one)
        clip = analyze_clip(one, still, frames=frames).verdict
        assert [len(p.frames) for p in clip.people] == [frames] * 3
        assert (len(watched.pictures), len(watched.faces)) == (2 * frames, 3 * frames)
        most.append(watched.most)
    assert most[0] == most[1]
    assert most[1][0] <= 2
    assert most[1][1] <= 3 * MAX_TELLING * len(Label) + module.FACES_AT_ONCE + 1
