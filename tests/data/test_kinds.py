import os

import numpy as np
import pytest
from PIL import Image

from ffaa.data.kinds import is_clip

PICTURES = [np.full((64, 96, 3), 20 * i, np.uint8) for i in range(6)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264"),
     ("a.mpg", "mpeg2video"), ("a.webm", "libvpx-vp9")],
)  # fmt: skip
def test_a_video_is_known_by_what_it_begins_with(make_clip, tmp_path, name, codec):
    path = make_clip(tmp_path / name, PICTURES, codec)
    for other in ("bare", "photo.jpg"):
        os.rename(path, path := tmp_path / other)
        assert is_clip(path)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif", "a.jpg", "a.tiff", "a.bmp"])
def test_photos_are_none_animated_ones_too(tmp_path, name):
    images = [Image.fromarray(p) for p in PICTURES]
    images[0].save(
        tmp_path / name, **({} if name[2:] in ("jpg", "bmp") else {"save_all": True, "append_images": images})
    )
    assert not is_clip(tmp_path / name)


def test_heic_shares_its_boxes_with_mp4_and_is_a_photo(tmp_path):
    for brand, clip in ((b"heic", False), (b"mif1", False), (b"isom", True), (b"qt  ", True)):
        (tmp_path / "a").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(32))
        assert is_clip(tmp_path / "a") is clip


def test_what_says_nothing_is_judged_by_its_name(tmp_path):
    (tmp_path / "text.MP4").write_text("text")
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "zero").touch()
    assert is_clip(str(tmp_path / "text.MP4"))
    assert is_clip("missing.webm")
    assert is_clip("no\0name.mp4")
    for name in ("text.jpg", "zero", "missing.png", ""):
        assert not is_clip(str(tmp_path / name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not is_clip(tmp_path / "pipe")
