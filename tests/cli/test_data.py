import json

import numpy as np
import pytest
from PIL import Image

from ffaa.cli.main import main
from ffaa.data import manifest

RECIPE = """
name: small
pose: {pose}
val: 0
test: 0
sources:
  - {{kind: folder, root: photos, types: {{swap: identity_exchange}}}}
"""


@pytest.fixture
def collection(tmp_path, hopper, astronaut):
    """FOLDER with photos/real and photos/fake/swap, and a recipe."""
    for name, photo in (("real/a.png", hopper), ("fake/swap/b.png", astronaut)):
        path = tmp_path / "data" / "photos" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(photo).save(path)
    (tmp_path / "r.yaml").write_text(RECIPE.format(pose="true"))
    return tmp_path


def build(folder, *more):
    return main(["data", "build", str(folder / "r.yaml"), "--data", str(folder / "data"), "--out", str(folder / "out"),
                 "--workers", "0", *more])  # fmt: skip


def test_build_verify_and_stats(collection, capsys):
    assert build(collection) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 faces of 2 photos and videos, 0 left out")
    assert "  folder: 2 faces" in out
    rows = manifest.read(collection / "out")
    assert [r.photo for r in rows] == ["photos/real/a.png", "photos/fake/swap/b.png"]
    assert all(abs(r.yaw) < 30 and abs(r.pitch) < 30 and abs(r.roll) < 20 for r in rows)
    report = json.loads((collection / "out" / "build.json").read_text())
    assert report["command"].startswith("ffaa ")
    assert main(["data", "verify", str(collection / "out")]) == 0
    assert "all 2 rows are in order" in capsys.readouterr().out
    assert main(["data", "stats", str(collection / "out")]) == 0
    assert "Identity exchange" in capsys.readouterr().out


def test_verify_finds_a_changed_crop_and_a_missing_one(collection, capsys):
    build(collection)
    first, second = (collection / "out" / r.path for r in manifest.read(collection / "out"))
    Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(first)
    second.unlink()
    capsys.readouterr()
    assert main(["data", "verify", str(collection / "out")]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 2
    assert "the file has changed" in lines[0]
    assert "cannot be read" in lines[1]
    assert "2 problems" in captured.err


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("sources: [{kind: folder, root: photos}]", 2, "name: Field required"),
        ("name: x\nsources: [{kind: nowhere, root: .}]", 2, "unknown kind of source 'nowhere'"),
        ("name: x\nsources: [{kind: folder, rot: .}]", 2, "did you mean 'root'?"),
        ("name: x\npose: false\nsources: [{kind: folder, root: photos}]", 2, "no forgery type for swap"),
        ("name: x\npose: false\nsources: [{kind: celebdf, root: photos}]", 1, "Celeb-real"),
        ("name: x\npose: false\nsources: [{kind: csv, root: gone}]", 1, "gone"),
    ],
)
def test_bad_recipes_are_one_line(collection, capsys, text, code, message):
    (collection / "r.yaml").write_text(text)
    assert build(collection) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ffaa: ")
    assert message in error


def test_a_folder_without_a_manifest(tmp_path, capsys):
    assert main(["data", "verify", str(tmp_path)]) == 1
    assert "`ffaa data build` makes one" in capsys.readouterr().err


def test_sources_are_explained(capsys):
    assert main(["data", "sources"]) == 0
    out = capsys.readouterr().out
    for kind in ("faceforensics", "celebdf", "dffd", "gandiffface", "dfdc", "csv", "folder"):
        assert f"\n{kind}\n" in f"\n{out}"
    assert out.count("  obtain: ") == out.count("  expects: ") > 10


def test_forge_then_build(collection, capsys):
    """Forgeries from a folder, then a manifest from them, with masks."""
    photos = str(collection / "data" / "photos")
    out = collection / "forged"
    assert main(["data", "forge", photos, "--out", str(out), "--operation", "swap", "--operation", "retouch",
                 "--workers", "1"]) == 0  # fmt: skip
    assert str(out / "manifest.csv") in capsys.readouterr().out
    (collection / "r.yaml").write_text("name: f\npose: false\nval: 0\ntest: 0\nsources: [{kind: csv, root: forged}]\n")
    assert main(["data", "build", str(collection / "r.yaml"), "--data", str(collection), "--out",
                 str(collection / "set"), "--workers", "0"]) == 0  # fmt: skip
    rows = manifest.read(collection / "set")
    assert sorted((r.method, r.forgery_type.value) for r in rows if r.label.value == "fake") == [
        ("retouch", "Facial attribute manipulation"), ("retouch", "Facial attribute manipulation"),
        ("swap", "Identity exchange"), ("swap", "Identity exchange"),
    ]  # fmt: skip
    assert all((collection / "set" / r.mask).is_file() for r in rows if r.label.value == "fake")
    assert len({r.group for r in rows}) == 1  # the two people exchanged faces


def test_forge_bad_use(tmp_path, capsys):
    assert main(["data", "forge", str(tmp_path), "--out", str(tmp_path / "o"), "--operation", "swapp"]) == 2
    assert "unknown forgery 'swapp'; known: " in capsys.readouterr().err
    assert main(["data", "forge", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert "no photos there" in capsys.readouterr().err


def test_forge_from_a_manifest_takes_its_real_training_photos(collection, capsys):
    photos = collection / "data" / "photos"
    Image.fromarray(np.asarray(Image.open(photos / "real/a.png"))[:, ::-1]).save(photos / "real/c.png")
    (photos / "more.csv").write_text(
        "path,label,forgery_type,split,group\nreal/a.png,real,,train,g\nreal/c.png,real,,train,g\nreal/b.png,real,,test,"
        "\nfake/swap/b.png,fake,identity_exchange,train,\n"
    )
    out = collection / "forged"
    assert main(["data", "forge", str(photos / "more.csv"), "--out", str(out), "--operation", "retouch",
                 "--workers", "1"]) == 0  # fmt: skip
    assert len(list((out / "real").iterdir())) == 1  # one of the group
    assert {p.name for p in (out / "real").iterdir()} <= {"a.png", "c.png"}
    (photos / "none.csv").write_text("path,label,split\nreal/a.png,real,bench\n")
    assert main(["data", "forge", str(photos / "none.csv"), "--out", str(collection / "other")]) == 1
    assert "no real photo in split train" in capsys.readouterr().err
