"""A folder of photos becomes forgeries with a manifest, also when the run is killed half-way."""

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.data.forge import folder
from ffaa.data.forge.base import ForgeRecipe
from ffaa.data.forge.files import append, read
from ffaa.data.forge.folder import COLUMNS, Found, forge_folder
from ffaa.data.forge.operations import OPERATIONS, recreate
from ffaa.data.sources.base import TYPES
from ffaa.errors import InputError, UsageError

NAMES = ["a", "b", "c", "d", "e"]  # five usable photos: two pairs and an odd one


@pytest.fixture(scope="module")
def photos(tmp_path_factory, hopper, astronaut):
    """Five photos with a face of their own pixels, and four that cannot be used."""
    folder = tmp_path_factory.mktemp("photos")
    faces = (hopper[90:400, 110:420], astronaut[20:230, 110:320])
    for number, name in enumerate(NAMES):
        photo = cv2.resize(faces[number % 2], (240, 240), interpolation=cv2.INTER_AREA)
        photo = cv2.convertScaleAbs(photo, alpha=1 - 0.05 * number)
        Image.fromarray(photo).save(folder / f"{name}.{'jpg' if number % 2 else 'png'}")
    (folder / "sub").mkdir()
    Image.fromarray(cv2.convertScaleAbs(cv2.imread(str(folder / "a.png")))[..., ::-1]).save(folder / "sub" / "a.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "grey.png")
    Image.fromarray(cv2.resize(astronaut, (150, 150))).save(folder / "tiny.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("forge") / "out"
    calls = []
    assert forge_folder(photos, out, seed=5, progress=lambda *call: calls.append(call)) == out / "manifest.csv"
    return out, calls


def rows(out, name="manifest.csv"):
    with (out / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(out):
    """Relative path -> sha256 of everything but the notes, whose order tells the history."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("faces.jsonl", "progress.jsonl")
    }


def test_every_photo_once_by_every_operation(run):
    out, _ = run
    found = rows(out)
    assert list(found[0]) == list(COLUMNS)
    real = [r for r in found if r["label"] == "real"]
    assert len(real) == 5
    for name, made in OPERATIONS.items():
        forged = [r for r in found if r["method"] == name]
        assert len(forged) == (4 if made.people == 2 else 5)  # the odd one has nobody to exchange faces with
        assert {TYPES[r["forgery_type"]] for r in forged} == {made.forgery_type}
        assert {r["label"] for r in forged} == {"fake"}
        assert all(r["path"].startswith(f"fake/{name}/") for r in forged)
    empty = ("method", "mask", "reference", "regions")
    assert {(r["forgery_type"], *(r[name] for name in empty)) for r in real} == {("real", "", "", "", "")}


def test_files_are_what_the_manifest_says(run):
    out, _ = run
    for row in rows(out):
        data = (out / row["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        image = np.array(Image.open(out / row["path"]))
        assert image.shape == (int(row["height"]), int(row["width"]), 3)
        if row["label"] == "fake":
            mask, before = (np.array(Image.open(out / row[name])) for name in ("mask", "reference"))
            assert mask.dtype == np.uint8
            assert mask.shape == image.shape[:2]
            assert np.array_equal(image[mask == 0], before[mask == 0])
            assert not np.array_equal(image, before)
            assert row["regions"]
    listed = {row[name] for row in rows(out) for name in ("path", "mask", "reference")} - {""}
    assert {name for name in files(out) if name.endswith(".png")} == listed


def test_real_and_forged_files_are_of_one_encoder(run):
    """The chunks before the pixels, with their settings, do not tell them apart."""
    out, _ = run
    heads = {}
    for row in rows(out):
        data = (out / row["path"]).read_bytes()
        compression = data.index(b"IDAT") + 4
        heads.setdefault(data[24:29] + data[compression : compression + 2], set()).add(row["label"])
        chunks, place = [], 8
        while place < len(data):
            length = int.from_bytes(data[place : place + 4], "big")
            chunks.append(data[place + 4 : place + 8])
            place += 12 + length
        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    assert list(heads.values()) == [{"real", "fake"}]


def test_groups_hold_a_pair_and_all_its_forgeries(run):
    out, _ = run
    groups = {}
    for row in rows(out):
        groups.setdefault(row["group"], set()).add(row["reference"] or row["path"])
    assert sorted(len(members) for members in groups.values()) == [1, 2, 2]
    whose = {member: group for group, members in groups.items() for member in members}
    pixels = {}
    for line in (out / "recipes.jsonl").read_text().splitlines():
        record = json.loads(line)
        sources = [source["sha256"] for source in record["recipe"]["sources"]]
        assert pixels.setdefault(record["reference"], sources[0]) == sources[0]
    for line in (out / "recipes.jsonl").read_text().splitlines():
        record = json.loads(line)
        for source in record["recipe"]["sources"]:
            (photo,) = [path for path, digest in pixels.items() if digest == source["sha256"]]
            assert whose[photo] == whose[record["reference"]]


def test_recipes_make_the_same_pixels(run):
    out, _ = run
    records = [json.loads(line) for line in (out / "recipes.jsonl").read_text().splitlines()]
    assert len(records) == 28
    photos = {}
    for record in records:
        photos.setdefault(record["recipe"]["sources"][0]["sha256"], np.array(Image.open(out / record["reference"])))
    for record in records[::4]:
        recipe = ForgeRecipe.model_validate(record["recipe"])
        again = recreate(recipe, [photos[source.sha256] for source in recipe.sources])
        assert np.array_equal(again.image, np.array(Image.open(out / record["path"])))
        assert np.array_equal(np.round(again.mask * 255), np.array(Image.open(out / record["mask"])))


def test_what_cannot_be_used_is_listed(run, photos):
    out, calls = run
    root = photos[0].parent
    reasons = {str(Path(row["path"]).relative_to(root)): row["reason"] for row in rows(out, "rejected.csv")}
    assert set(reasons) == {"sub/a.png", "grey.png", "tiny.png", "broken.jpg"}
    assert "same pixels" in reasons["sub/a.png"]
    assert "no face found" in reasons["grey.png"]
    assert "only faces below" in reasons["tiny.png"]
    assert "no image" in reasons["broken.jpg"]
    assert calls[8] == ("faces", 9, 9)
    assert calls[-1] == ("forgeries", 28, 28)


@pytest.mark.parametrize("stop", [3, 12, 25])
def test_a_killed_run_goes_on(run, photos, tmp_path, monkeypatch, stop):
    out, _ = run
    calls = []

    def kill(*call):
        calls.append(call)
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forge_folder(photos, tmp_path / "out", seed=5, progress=kill)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    notes = tmp_path / "out" / ("faces.jsonl" if stop < 9 else "progress.jsonl")
    with notes.open("a") as file:
        file.write('{"stem": "half a li')  # as a power cut leaves it
    looked, made = [], []
    real_look, real_forge = folder._look, folder._forge_one
    monkeypatch.setattr(folder, "_look", lambda *job: looked.append(job) or real_look(*job))
    monkeypatch.setattr(folder, "_forge_one", lambda *job: made.append(job) or real_forge(*job))
    forge_folder(reversed(photos), tmp_path / "out", seed=5)
    assert len(looked) == max(0, 9 - stop)
    assert len(made) == 28 - max(0, stop - 9)
    assert files(tmp_path / "out") == files(out)


def test_two_workers_give_the_same_files(run, photos, tmp_path):
    out, _ = run
    forge_folder(photos, tmp_path / "out", seed=5, workers=2)
    assert files(tmp_path / "out") == files(out)


def test_count_is_a_seeded_draw(photos, tmp_path):
    kept = {}
    for seed in range(4):
        out = tmp_path / str(seed)
        forge_folder(photos, out, ["retouch"], count=2, seed=seed, split="train", dataset="mine", max_side=128)
        found = rows(out)
        assert len(found) == 4
        assert {(r["split"], r["dataset"], r["width"], r["height"]) for r in found} == {("train", "mine", "128", "128")}
        assert len({r["group"] for r in found}) == 2  # nobody exchanged faces
        assert len(list((out / "real").iterdir())) == 2
        kept[seed] = tuple(r["path"] for r in found if r["label"] == "real")
    assert len(set(kept.values())) > 1


def test_other_settings_need_another_folder(run, photos):
    out, _ = run
    before = files(out)
    for change in ({"seed": 6}, {"operations": ["swap"]}, {"count": 2}):
        with pytest.raises(UsageError, match="other photos or settings"):
            forge_folder(photos, out, **{"seed": 5} | change)
    with pytest.raises(UsageError, match="other photos or settings"):
        forge_folder(photos[:3], out, seed=5)
    with pytest.raises(UsageError, match="unknown forgery"):
        forge_folder(photos, out, ["morph"], seed=5)
    assert files(out) == before


def test_no_usable_photo(photos, tmp_path):
    with pytest.raises(InputError, match="no usable face in 1 photo"):
        forge_folder([p for p in photos if p.name == "grey.png"], tmp_path / "out")


def test_a_cut_off_line_is_removed(tmp_path):
    path = tmp_path / "notes.jsonl"
    assert read(path, Found) == []
    with path.open("w") as file:
        append(file, Found(source="x.png", reason="é"))
        file.write('{"source": "y')
    assert [found.source for found in read(path, Found)] == ["x.png"]
    assert path.read_bytes().endswith(b"\n")
