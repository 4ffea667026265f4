import hashlib
import io

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from ffaa.data.facts import MAX_TEXT, file_facts


def photo(kind="JPEG", exif=None):
    file = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(file, kind, **({} if exif is None else {"exif": exif}))
    return file.getvalue()


def exif(**values):
    tags = {"make": 0x010F, "model": 0x0110, "software": 0x0131, "changed": 0x0132, "orientation": 0x0112}
    block = Image.Exif()
    for name, value in values.items():
        block[tags[name]] = value
    return block


def test_facts_of_a_file():
    block = exif(make="Acme", model="One", software="Edit 3", changed="2026:01:03 10:00:00", orientation=6)
    block.get_ifd(0x8769)[0x9003] = "2026:01:02 10:00:00"
    block.get_ifd(0x8825)[2] = tuple(TiffImagePlugin.IFDRational(x) for x in (51, 30, 0))
    data = photo(exif=block)
    facts = file_facts(data, "/home/somebody/secret/a.jpg")
    assert facts.model_dump() == {
        "name": "a.jpg", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "kind": "JPEG", "width": 40,
        "height": 30, "camera": "Acme One", "software": "Edit 3", "taken": "2026:01:02 10:00:00",
        "changed": "2026:01:03 10:00:00", "orientation": "turned by 90 degrees", "has_place": True, "note": "",
    }  # fmt: skip
    assert "51" not in facts.model_dump_json().replace(facts.sha256, "").replace(str(len(data)), "")


def test_a_file_without_exif():
    facts = file_facts(photo("PNG"), "b.png")
    assert (facts.kind, facts.camera, facts.taken, facts.has_place, facts.note) == ("PNG", "", "", False, "")


def test_hostile_texts_are_cut_and_on_one_line():
    facts = file_facts(photo(exif=exif(software="<script>\n\x1b[31m" + "x" * 5000, model="A\0\0")), "c\n<script>.jpg")
    assert facts.software.startswith("<script> ?[31mx")
    assert len(facts.software) == MAX_TEXT
    assert facts.camera == "A"
    assert facts.name == "c\\n<script>.jpg"


def test_what_is_no_image_or_has_a_damaged_block():
    facts = file_facts(b"text", "d.jpg")
    assert (facts.bytes, facts.kind, facts.note) == (4, "", "the content is no image")
    data = photo(exif=exif(make="Acme"))
    start = data.index(b"Exif\0\0") + 6
    for length in (0, 4, 9, 12):
        damaged = data[:start] + b"\xff" * length + data[start + length :]
        assert file_facts(damaged, "e.jpg").kind == "JPEG"


def test_a_picture_with_too_many_pixels_is_not_decoded(monkeypatch):
    file = io.BytesIO()
    Image.new("1", (15_000, 15_000)).save(file, "PNG")
    loaded = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: loaded.append(1))
    facts = file_facts(file.getvalue(), "f.png")
    assert (facts.width, facts.note) == (15_000, "too many pixels: its EXIF block was not read")
    assert loaded == []
    assert file_facts(photo("PNG"), "g.png").note == ""
    assert loaded == [1]  # so that the test would see a picture being decoded
