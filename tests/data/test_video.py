"""Videos written by the tests themselves: every frame shows its number as a grey level, and which way is up."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from ffaa.data import stream
from ffaa.data.scenes import even, share
from ffaa.data.stream import VideoLimits
from ffaa.data.video import Frame, frames_at, probe, sample_times
from ffaa.errors import InputError, UsageError

WIDTH, HEIGHT, RATE = 96, 64, 25
RED = (200, 30, 30)
KINDS = [
    ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "libx264"), ("a.h264", "libx264"), ("a.ts", "libx264"),
    ("a.mpg", "mpeg2video"), ("b.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("b.mkv", "ffv1"), ("c.avi", "mjpeg"),
]  # fmt: skip


def picture(number, size=(WIDTH, HEIGHT)):
    """Grey level 4 x number, the upper left quarter red."""
    pixels = np.full((size[1], size[0], 3), 4 * number, np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = RED
    return pixels


@pytest.fixture
def write(tmp_path):
    def make(name, codec="libx264", pictures=50, rate=RATE, pts=None, fmt=None, turn=None, **options):
        pictures = [picture(i) for i in range(pictures)] if isinstance(pictures, int) else pictures
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream(codec, rate=rate, options={"g": "12", "threads": "1", **options})
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = fmt or {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            if pts:
                video.codec_context.time_base = Fraction(1, 1000)
            if turn is not None:
                video.set_display_rotation(turn)
            for i, pixels in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(pixels)
                frame.pts, frame.time_base = (pts[i], Fraction(1, 1000)) if pts else (i, Fraction(1, rate))
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        return path

    return make


def number(pixels):
    """What `picture` wrote, from the lower right quarter."""
    return float(pixels[-pixels.shape[0] // 4, -pixels.shape[1] // 4].mean()) / 4


def refused(call, *words):
    with pytest.raises(InputError) as caught:
        list(call())
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# --- frames and times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_every_container_gives_the_frames_at_the_times(write, name, codec):
    path = write(name, codec)
    times = sample_times(path, 5)
    assert times == pytest.approx([0.2, 0.6, 1.0, 1.4, 1.8], abs=0.001)
    frames = frames_at(path, times)
    found = list(frames)
    assert frames.broken is None
    assert [f.index for f in found] == [0, 1, 2, 3, 4]
    assert [f.time for f in found] == pytest.approx(times, abs=0.001)
    assert [number(f.pixels) for f in found] == pytest.approx([5, 15, 25, 35, 45], abs=1.1)
    assert all(f.pixels.shape == (HEIGHT, WIDTH, 3) and f.pixels.dtype == np.uint8 for f in found)
    info = probe(path)
    assert (info.width, info.height, info.frames, info.broken) == (WIDTH, HEIGHT, 50, None)
    assert (info.seconds, info.fps) == pytest.approx((2, 25), abs=0.01)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        *((name, codec, {}) for name, codec in KINDS),
        ("c.mp4", "libx264", {"x264-params": "open-gop=1:scenecut=0"}),
        ("c.mkv", "libx264", {"x264-params": "open-gop=1:scenecut=0"}),
    ],
)
def test_seeking_changes_no_pixel(write, name, codec, options):
    path = write(name, codec, pictures=60, **options)
    every = {f.index: f.pixels for f in frames_at(path, [i / RATE for i in range(60)])}
    assert len(every) == 60
    for wanted in ([2, 30, 57], [20, 50], [59], [12, 36, 37], [47]):
        found = list(frames_at(path, [i / RATE for i in wanted]))
        assert [round(f.time * RATE) for f in found] == wanted
        assert all(np.array_equal(f.pixels, every[i]) for f, i in zip(found, wanted))


def test_seeking_pays(write, monkeypatch):
    path = write("a.mp4", pictures=60)
    passed = []
    plain = stream.Video.decoded

    def counted(*args, **more):
        for item in plain(*args, **more):
            passed.append(item)
            yield item

    monkeypatch.setattr(stream.Video, "decoded", counted)
    list(frames_at(path, [0.0, 2.0]))
    assert len(passed) < 10


def test_times_at_or_after(write):
    path = write("a.mp4")
    found = list(frames_at(path, [0.0, 0.01, 0.0401, 0.0414, 0.05, 1.0]))
    assert [(f.index, round(f.time, 3)) for f in found] == [(0, 0.0), (1, 0.04), (4, 0.08), (5, 1.0)]


def test_the_times_of_a_video_give_the_matching_frames_of_its_mask(write):
    video = write("video.mkv", rate=30, pictures=60)
    for name, codec in (("mask.mp4", "libx264"), ("mask.avi", "ffv1"), ("mask.ts", "libx264")):
        mask = write(name, codec, rate=30, pictures=60)
        times = [f.time for f in frames_at(video, sample_times(video, 7))]
        found = list(frames_at(mask, times))
        assert [f.index for f in found] == list(range(7))
        assert [number(f.pixels) for f in found] == pytest.approx([round(t * 30) for t in times], abs=0.8)


@pytest.mark.parametrize("how", ["even", "scene"])
@pytest.mark.parametrize("n", [3, 4, 100])
def test_fewer_frames_than_asked_for_come_once_each(write, how, n):
    path = write("a.mp4", pictures=3)
    times = sample_times(path, n, how)
    assert times == pytest.approx([0, 0.04, 0.08])
    assert len(list(frames_at(path, times))) == 3


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.h264", "libx264")])
def test_one_frame(write, name, codec):
    path = write(name, codec, pictures=1)
    for how in ("even", "scene"):
        assert sample_times(path, 8, how) == [0.0]
    (frame,) = frames_at(path, [0.0])
    assert isinstance(frame, Frame)
    assert (frame.index, frame.time) == (0, 0.0)
    assert probe(path).frames == 1


def test_variable_frame_rate(write):
    pts = [0, 10, 20, 30, 40, 1000, 1500, 1510, 1520, 3000]
    path = write("a.mkv", "ffv1", pictures=10, pts=pts)
    assert sample_times(path, 10) == pytest.approx([t / 1000 for t in pts], abs=0.001)
    assert sample_times(path, 3) == pytest.approx([1.0, 1.52, 3.0], abs=0.001)
    assert [number(f.pixels) for f in frames_at(path, [0.015, 0.9, 1.6])] == pytest.approx([2, 5, 9], abs=0.6)


def test_missing_duration(write, tmp_path):
    live = tmp_path / "live.webm"
    whole = write("a.mkv", "libvpx-vp9")
    with av.open(str(whole)) as source, av.open(str(live), "w", options={"live": "1"}) as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    with av.open(str(live)) as container:
        assert container.duration is None
    assert probe(live).seconds == pytest.approx(2, abs=0.01)
    assert sample_times(live, 5) == pytest.approx([0.2, 0.6, 1.0, 1.4, 1.8], abs=0.001)


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "size", "corner"),
    [
        ({"turn": 0}, (96, 64), "upper left"),
        ({"turn": 90}, (64, 96), "lower left"),  # anticlockwise
        ({"turn": -90}, (64, 96), "upper right"),
        ({"turn": 180}, (96, 64), "lower right"),
    ],
)
def test_rotation_is_applied(write, changes, size, corner):
    path = write("a.mp4", pictures=2, **changes)
    (frame,) = frames_at(path, [0.0])
    height, width = frame.pixels.shape[:2]
    assert (width, height) == size
    assert (probe(path).width, probe(path).height) == size
    vertical, horizontal = corner.split()
    y, x = height // 4 * (1 if vertical == "upper" else 3), width // 4 * (1 if horizontal == "left" else 3)
    assert np.abs(frame.pixels[y, x].astype(int) - RED).max() < 12
    assert frame.pixels[height - 1 - y, width - 1 - x].max() < 12


@pytest.mark.parametrize(
    ("name", "codec", "fmt", "size"),
    [
        ("a.mkv", "ffv1", "yuv444p", (97, 63)), ("a.mp4", "libx264", "yuv444p", (97, 63)),
        ("a.mp4", "libx264", "yuv420p10le", (96, 64)), ("a.mkv", "ffv1", "yuv422p10le", (50, 34)),
        ("a.mkv", "ffv1", "bgr0", (33, 65)), ("a.mkv", "libx264", "yuvj420p", (98, 66)),
    ],
)  # fmt: skip
def test_odd_sizes_and_deep_pixels(write, name, codec, fmt, size):
    path = write(name, codec, [picture(20, size)] * 3, fmt=fmt)
    (frame,) = frames_at(path, [0.0])
    assert frame.pixels.shape == (size[1], size[0], 3)
    assert np.abs(frame.pixels[5, 5].astype(int) - RED).max() < 12
    assert number(frame.pixels) == pytest.approx(20, abs=1)


def test_bits_per_pixel_tell_compression(write):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(6)]
    fine, coarse = (probe(write(f"{crf}.mp4", pictures=noise, crf=crf)).bits_per_pixel for crf in ("20", "45"))
    assert 20 > fine > 3 * coarse > 0


# --- scenes ----------------------------------------------------------------------------------------------------------


def test_scenes_are_found_and_get_frames_by_their_length(write):
    colours = {(30, 60, 160): 75, (200, 200, 190): 12, (20, 120, 30): 38}
    shots = [np.full((HEIGHT, WIDTH, 3), c, np.uint8) for c, count in colours.items() for _ in range(count)]
    path = write("a.mp4", pictures=shots)
    for n, counts in ((1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [6, 1, 3])):
        seen = [f.pixels[5, 5] for f in frames_at(path, sample_times(path, n, "scene"))]
        found = [sum(np.abs(p.astype(int) - c).max() < 25 for p in seen) for c in colours]
        assert found == counts
    assert sample_times(path, 3, "even") != sample_times(path, 3, "scene")


def test_one_shot_is_sampled_evenly(write):
    path = write("a.mp4")
    assert sample_times(path, 7, "scene") == sample_times(path, 7, "even")


def test_share_and_even():
    assert share(10, [5.0, 3.0, 2.0], [100, 100, 100]) == [5, 3, 2]
    assert share(2, [1.0, 5.0, 3.0], [9, 9, 9]) == [0, 1, 1]
    assert share(6, [9.0, 1.0], [2, 100]) == [2, 4]
    assert share(500, [1.0, 1.0], [3, 4]) == [3, 4]
    ends = [i / 10 for i in range(11)]
    assert even(ends, 0, 10, 5) == [1, 3, 5, 7, 9]
    assert even(ends, 4, 8, 4) == [4, 5, 6, 7]
    assert even([0.0, 0.1, 0.2, 5.0, 6.0], 0, 4, 3) == [1, 2, 3]


def test_wrong_requests(write):
    path = write("a.mp4", pictures=2)
    for call in (lambda: sample_times(path, 0), lambda: sample_times(path, 3, "random")):
        with pytest.raises(UsageError, match="'even'"):
            call()
    for times in ([0.1, 0.05], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(UsageError, match="ascend"):
            frames_at(path, times)


# --- broken and hostile files ----------------------------------------------------------------------------------------


def test_times_past_the_end_are_told(write):
    frames = frames_at(write("a.mp4"), [1.0, 1.9, 2.5, 3.0])
    assert len(list(frames)) == 2
    assert "2 of 4 frames are missing" in frames.broken
    refused(lambda: frames_at(write("b.mp4"), [5.0]), "shorter")
    nothing = frames_at(write("c.mp4"), [])
    assert list(nothing) == []


@pytest.mark.parametrize("name", ["a.mkv", "c.avi", "a.webm", "a.ts"])
def test_truncated_files_give_what_can_be_read(write, name):
    path = write(name, dict(KINDS)[name])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    times = sample_times(path, 4)
    assert 0.5 < times[-1] < 1.6
    frames = frames_at(path, times)
    found = list(frames)
    assert len(found) >= 3
    assert [number(f.pixels) for f in found] == pytest.approx([round(f.time * RATE) for f in found], abs=1.1)
    if name != "a.ts":  # which states no length: nothing tells that some is missing
        assert frames.broken == probe(path).broken or "missing" in frames.broken
        assert "what can be read ends after" in frames.broken


def test_mp4_without_its_index_is_refused(write):
    path = write("a.mp4")
    path.write_bytes(path.read_bytes()[:-1000])
    refused(lambda: sample_times(path, 4), "a.mp4", "its end is missing")


def test_damaged_frames_are_missing_not_patched_up(write):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    # Without arithmetic coding, which decodes nearly any bytes to something.
    path = write("a.mkv", pictures=[np.roll(noise, i, axis=1) for i in range(60)], **{"x264-params": "cabac=0"})
    times = [i / RATE for i in range(60)]
    whole = {f.index: f.pixels for f in frames_at(path, times)}
    with av.open(str(path)) as container:
        key = next(p for p in container.demux(video=0) if p.is_keyframe and p.pts > 900)
    data = bytearray(path.read_bytes())
    for place in range(key.pos + key.size // 4, key.pos + key.size // 2):
        data[place] ^= 255
    path.write_bytes(data)
    frames = frames_at(path, times)
    found = list(frames)
    first = round(key.pts / 1000 * RATE)
    missing = set(range(60)) - {f.index for f in found}
    assert set(range(first, first + 12)) <= missing  # up to the next key frame
    assert missing <= set(range(first - 2, first + 12))  # the decoder may drop what it held back
    assert all(np.array_equal(f.pixels, whole[f.index]) for f in found)
    assert f"{len(missing)} of 60 frames are missing" in frames.broken


def test_files_that_are_no_video(tmp_path, write):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "zeros.mp4").write_bytes(bytes(100_000))
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(100_000))
    (tmp_path / "text.avi").write_text("no video\n" * 1000)
    Image.fromarray(picture(9)).save(tmp_path / "photo.jpg")
    Image.fromarray(picture(9)).save(tmp_path / "photo.png")
    (tmp_path / "photo.jpg").rename(tmp_path / "jpeg.mp4")
    (tmp_path / "photo.png").rename(tmp_path / "png.mp4")
    for path in sorted(tmp_path.iterdir()):
        for call in (lambda p=path: [probe(p)], lambda p=path: sample_times(p, 3), lambda p=path: frames_at(p, [0.0])):
            refused(call, path.name)


def test_sound_without_pictures(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    refused(lambda: sample_times(path, 3), "no video stream")


def test_playlists_reach_no_other_file(write, tmp_path):
    other = write("a.ts")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{other}'\n")
    for name in ("list.mp4", "concat.mp4"):
        refused(lambda n=name: sample_times(tmp_path / n, 3), name)


def test_other_decoders_are_not_used(write):
    refused(lambda: sample_times(write("a.avi", "zmbv", fmt="bgr0"), 3), "zmbv", "convert")


def test_pipes_folders_addresses_and_missing_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(lambda: sample_times(tmp_path / "pipe.mp4", 3), "no regular file")
    refused(lambda: sample_times(tmp_path, 3), tmp_path.name)
    refused(lambda: sample_times(tmp_path / "missing.mp4", 3), "no such file")
    refused(lambda: sample_times("http://localhost/a.mp4", 3), "not fetched")
    refused(lambda: sample_times("a\0.mp4", 3), "cannot be read")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (VideoLimits(max_bytes=500), "MB"),
        (VideoLimits(max_pixels=WIDTH * HEIGHT - 1), "96 x 64"),
        (VideoLimits(max_seconds=1.9), "2 s long"),
        (VideoLimits(max_frames=49), "49 frames"),
        (VideoLimits(max_wall=0), "longer than 0 s"),
    ],
)
def test_limits(write, limits, words):
    path = write("a.mkv")
    for call in (lambda: [probe(path, limits)], lambda: sample_times(path, 3, limits=limits)):
        refused(call, words, "a.mkv")
    refused(lambda: frames_at(path, [0.0], limits), words)


def test_the_wall_clock_stands_still_between_frames_and_stops_decoding(write, monkeypatch):
    path = write("a.mkv")
    now = [0.0]
    monkeypatch.setattr(stream.time, "monotonic", lambda: now[0])
    frames = frames_at(path, [0.0, 0.5, 1.0, 1.5], VideoLimits(max_wall=10))
    next(frames)
    now[0] += 1000  # the caller's own time
    assert next(frames).index == 1
    plain = stream.Video.decoded

    def slow(*args, **more):
        for item in plain(*args, **more):
            now[0] += 3
            yield item

    monkeypatch.setattr(stream.Video, "decoded", slow)
    frames = frames_at(path, [0.0, 0.04, 0.08, 0.12, 0.16, 0.2], VideoLimits(max_wall=10))
    assert len(list(frames)) == 4
    assert "longer than 10 s" in frames.broken
    assert "2 of 6" in frames.broken


def test_sizes_that_change_on_the_way(write, tmp_path):
    """A stream whose second half is larger than the limit."""
    small, large = write("a.h264", pictures=12), write("b.h264", pictures=[picture(3, (320, 240))] * 12)
    path = tmp_path / "c.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    times = [i / RATE for i in range(24)]
    assert len({f.pixels.shape for f in frames_at(path, times)}) == 2
    frames = frames_at(path, times, VideoLimits(max_pixels=WIDTH * HEIGHT))
    assert [f.pixels.shape for f in frames] == [(HEIGHT, WIDTH, 3)] * 12
    assert "320 x 240" in frames.broken


def test_nothing_stays_open(write):
    path = write("a.mp4")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        frames = frames_at(path, [0.0, 0.5])
        next(frames)
        del frames
        sample_times(path, 3)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
