"""Every photo here is written by the test itself."""

import io
import os
import struct
import sys
import warnings
import zlib
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile

from ffaa.data.images import Limits, expand_paths, load_bytes, load_photo
from ffaa.errors import InputError, TooLargeError

# Left half dark red, right half light blue: survives JPEG, shows turns and mirrors.
LEFT, RIGHT = (120, 20, 20), (150, 180, 250)


def picture(width=64, height=48):
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2] = LEFT
    pixels[:, width // 2 :] = RIGHT
    return pixels


@pytest.fixture
def save(tmp_path):
    def write(name, image=None, **options):
        path = tmp_path / name
        (Image.fromarray(picture()) if image is None else image).save(path, **options)
        return path

    return write


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(pixels, color, tolerance=12):
    return np.abs(pixels.astype(int) - np.array(color)).max() <= tolerance


def refused(source, *words, limits=None):
    with pytest.raises(InputError) as caught:
        load_photo(source, limits or Limits())
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# --- good input ------------------------------------------------------------------------------------------------------


def test_plain_png_is_exact_and_hashed(save):
    photo = load_photo(str(save("a.png")))
    assert photo.pixels.dtype == np.uint8
    assert np.array_equal(photo.pixels, picture())
    assert (photo.source.width, photo.source.height, photo.source.notes) == (64, 48, [])
    assert len(photo.source.sha256) == 64


def test_16_bit_grey_png_is_scaled_not_clipped(save):
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    photo = load_photo(save("deep.png", Image.fromarray(ramp)))
    assert np.array_equal(photo.pixels[:, :, 1], np.round(ramp / 257).astype(np.uint8))
    assert len(np.unique(photo.pixels)) == 256
    assert photo.source.notes == ["16 bits a channel: scaled to 8"]


def test_cmyk_jpeg(save):
    photo = load_photo(save("print.jpg", Image.fromarray(picture()).convert("CMYK"), quality=95))
    assert near(photo.pixels[:, :24], LEFT)
    assert near(photo.pixels[:, 40:], RIGHT)
    assert "CMYK" in photo.source.notes[0]


def test_alpha_is_laid_on_white(save):
    rgba = np.dstack([picture(), np.full((48, 64), 255, np.uint8)])
    rgba[:24, :, 3] = 0
    photo = load_photo(save("a.png", Image.fromarray(rgba)))
    assert near(photo.pixels[:24], (255, 255, 255), 0)
    assert np.array_equal(photo.pixels[24:], picture()[24:])
    assert photo.source.notes == ["transparent: laid on white"]
    rgba[:, :, 3] = 255
    assert load_photo(Image.fromarray(rgba)).source.notes == []


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(save, transparent):
    image = Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE)
    if transparent:
        image.info["transparency"] = image.getpixel((0, 0))
    photo = load_photo(save("a.png", image))
    assert near(photo.pixels[:, :32], (255, 255, 255) if transparent else LEFT, 3)
    assert near(photo.pixels[:, 32:], RIGHT, 3)


@pytest.mark.parametrize(("mode", "expected"), [("L", 3), ("1", 3), ("LA", 3), ("YCbCr", 3)])
def test_other_modes(mode, expected):
    assert load_photo(Image.fromarray(picture()).convert(mode)).pixels.shape == (48, 64, expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "heic"])
@pytest.mark.parametrize(
    ("orientation", "shape", "left_at"),
    [(3, (48, 64), np.s_[:, 40:]), (6, (64, 48), np.s_[:24, :]), (8, (64, 48), np.s_[40:, :])],
)
def test_exif_orientation(save, suffix, orientation, shape, left_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    # As bytes: only then does pillow-heif write HEIC's own rotation, which is what counts there.
    photo = load_photo(save(f"turned.{suffix}", exif=exif.tobytes()))
    assert photo.pixels.shape[:2] == shape
    assert (photo.source.height, photo.source.width) == shape
    assert near(photo.pixels[left_at], LEFT, 30)


def test_damaged_exif_is_no_obstacle(save):
    path = save("a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert load_photo(path).pixels.shape == (48, 64, 3)


def test_heic(save):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    photo = load_photo(save("phone.heic"))
    assert near(photo.pixels[:, :24], LEFT, 30)
    data = save("phone.heic").read_bytes()
    cut = save("x.png").with_name("cut.heic")
    cut.write_bytes(data[: len(data) // 2])
    refused(cut, "cut.heic")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_first_frame_of_an_animation(save, suffix):
    frames = [Image.fromarray(picture()), Image.new("RGB", (64, 48), "green"), Image.new("RGB", (64, 48), "white")]
    photo = load_photo(save(f"moving.{suffix}", frames[0], save_all=True, append_images=frames[1:]))
    assert near(photo.pixels[:, :24], LEFT, 30)
    (note,) = photo.source.notes
    assert "first" in note
    assert ("animated" in note) == (suffix != "tif")


@pytest.mark.parametrize("name", ["été 写真 😀.png", "x" * 250 + ".png", "a\nb\x1b[31m.png", "[1] *?.png"])
def test_strange_names(save, name):
    path = save("plain.png").rename(save("plain.png").parent / name)
    source = load_photo(path).source
    assert source.path.isprintable()
    assert source.path == str(path) or not name.isprintable()


def test_undecodable_name_can_be_written_as_json(save):
    path = os.fsencode(save("plain.png").parent) + b"/caf\xe9.png"
    os.rename(save("plain.png"), path)
    source = load_photo(os.fsdecode(path)).source
    assert source.path.endswith("caf\\xe9.png")
    source.model_dump_json()


def test_grey_arrays_and_pil_images():
    grey = np.arange(400, dtype=np.uint8).reshape(20, 20)
    for array in (grey, grey[:, :, None]):
        photo = load_photo(array)
        assert np.array_equal(photo.pixels, np.dstack([grey] * 3))
    assert load_photo(grey.astype(np.uint16) * 257).pixels[3, 3, 0] == grey[3, 3]
    assert photo.source.path == "<array>"
    assert photo.source.sha256 is None
    image = Image.fromarray(picture())
    photo = load_photo(image)
    photo.pixels[:] = 0  # a copy
    assert np.array_equal(np.asarray(image), picture())


@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("jpg", "CMYK"), ("png", "RGBA"), ("png", "P")])
def test_large_photos_are_scaled_down(save, suffix, mode):
    path = save(f"large.{suffix}", Image.fromarray(picture(1600, 1200)).convert(mode))
    photo = load_photo(path, Limits(work_pixels=300 * 400))
    assert photo.pixels.shape == (300, 400, 3)
    assert near(photo.pixels[:, :190], LEFT, 20)
    assert any("scaled down from 1600 x 1200 px" in note for note in photo.source.notes)


def test_an_image_that_was_handed_over_is_not_changed(save):
    image = Image.open(save("large.jpg", Image.fromarray(picture(1600, 1200))))
    assert load_photo(image, Limits(work_pixels=300 * 400)).pixels.shape == (300, 400, 3)
    assert image.size == (1600, 1200)


def test_a_photo_above_pillows_own_limit_is_read(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (20_000, 9_500)).save(path)  # 190 million pixels
    assert load_photo(path, Limits(work_pixels=10_000)).source.width <= 200
    assert Image.MAX_IMAGE_PIXELS is not None


# --- bad input -------------------------------------------------------------------------------------------------------


def test_missing_and_folder(tmp_path):
    refused(tmp_path / "none.jpg", "none.jpg", "no such file", "check the path")
    refused(tmp_path, "is a folder")
    refused("https://example.org/a.jpg", "download")
    refused("a\0b", "cannot be read")
    refused("x" * 5000, "cannot be read")


def test_text_named_jpg(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("this is no photo\n" * 50)
    refused(path, "text.jpg", "no image that can be read")


def test_programs_and_documents_are_not_opened(tmp_path):
    path = tmp_path / "script.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    refused(path, "no image that can be read")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(save, suffix, share):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    path = save(f"cut.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, f"cut.{suffix}")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_damaged_bytes_never_escape_as_another_error(save):
    rng = np.random.default_rng(1)
    for suffix in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        path = save(f"noise.{suffix}")
        good = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            bad = good.copy()
            bad[rng.integers(0, len(bad), 6)] = rng.integers(0, 255, 6)
            path.write_bytes(bad.tobytes())
            with suppress(InputError):
                load_photo(path)


def test_one_pixel(save):
    refused(save("dot.png", Image.new("RGB", (1, 1))), "1 x 1 px", "at least 16 px")
    refused(np.zeros((500, 8), np.uint8), "8 x 500 px", "at least 16 px")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def test_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(40_000, 40_000))

    def decode(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    refused(path, "40,000 x 40,000 px", "limit of 200 million pixels", "smaller copy")
    refused(io_image(bomb(40_000, 40_000)), "<array>", "40,000 x 40,000 px")


def io_image(data):
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(data))
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_byte_limit_and_zero_bytes(save, tmp_path):
    refused(save("a.png"), "limit", limits=Limits(max_bytes=10))
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", "zero bytes")


def test_no_permission(save, monkeypatch):
    path = save("secret.png")

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ffaa.data.images.os.open", forbidden)  # the tests may run as root
    refused(path, "secret.png", "no permission")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    refused(tmp_path / "pipe.jpg", "pipe or device")
    refused("/dev/zero", "pipe or device")


def test_links(save, tmp_path):
    (tmp_path / "one.jpg").symlink_to(tmp_path / "two.jpg")
    (tmp_path / "two.jpg").symlink_to(tmp_path / "one.jpg")
    refused(tmp_path / "one.jpg", "one.jpg", "cannot be read")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    refused(tmp_path / "dangling.jpg", "target is missing")
    (tmp_path / "good.png").symlink_to(save("a.png"))
    assert load_photo(tmp_path / "good.png").pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (np.zeros((32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32, 3), bool), "bool"),
        (np.zeros((3, 32, 32), np.uint8), "channels last"),
        (np.zeros((0, 32, 3), np.uint8), "no pixels"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        (Image.new("F", (32, 32)), "floating-point"),
        (Image.new("LAB", (32, 32)), "LAB"),
    ],
)
def test_what_is_no_photo(source, word):
    refused(source, word)


def test_a_files_content_in_memory(save):
    data = save("a.png").read_bytes()
    photo = load_bytes(data, "name")
    same = load_photo(save("a.png"))
    assert np.array_equal(photo.pixels, same.pixels)
    assert photo.source == same.source.model_copy(update={"path": "name"})
    with pytest.raises(TooLargeError, match=r"^name: .* MB"):
        load_bytes(data, "name", Limits(max_bytes=50))
    with pytest.raises(TooLargeError, match="million pixels"):
        load_bytes(data, "name", Limits(max_pixels=50))
    with pytest.raises(InputError, match="empty"):
        load_bytes(b"", "name")


def scans(data, more):
    """A progressive JPEG whose last scan comes again and again."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * more + data[-2:]


def test_a_jpeg_of_very_many_scans_is_refused(save):
    data = save("a.jpg", progressive=True).read_bytes()
    assert 5 < data.count(b"\xff\xda") < 15
    assert load_bytes(scans(data, 40), "name").pixels.shape == (48, 64, 3)
    for more in (64, 5000):
        with pytest.raises(InputError, match="scans"):
            load_bytes(scans(data, more), "name")
    motion = data + b"\xff\xda\x00\x01" * 500  # what follows the picture, as the clip of a motion photo
    assert load_bytes(motion, "name").pixels.shape == (48, 64, 3)
    inside = save("b.jpg", progressive=True, comment=b"\xff\xda" * 500).read_bytes()
    assert load_bytes(inside, "name").pixels.shape == (48, 64, 3)


# --- paths -----------------------------------------------------------------------------------------------------------


def test_expand_paths(tmp_path, monkeypatch):
    for name in ("b/2.JPG", "b/1.png", "b/.hidden.png", "b/readme.txt", "b/c/3.heic", "[odd].png", "a.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "round").symlink_to(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    empty = []

    def expand(*args):
        return [path.replace(os.sep, "/") for path in expand_paths(args, empty.append)]

    assert expand("b") == ["b/1.png", "b/2.JPG", "b/c/3.heic"]
    assert expand("missing.jpg", "[odd].png", "b/readme.txt") == ["missing.jpg", "[odd].png", "b/readme.txt"]
    assert expand("b/*.JPG") == ["b/2.JPG"]
    assert expand("**/*.png") == ["[odd].png", "b/1.png"]
    assert not empty
    assert expand("empty", "nothing-*.jpg") == []
    assert empty == ["empty", "nothing-*.jpg"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("a.webp\r\n\nb\né x.png".encode())))
    assert expand("-") == ["a.webp", "b/1.png", "b/2.JPG", "b/c/3.heic", "é x.png"]
