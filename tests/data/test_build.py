"""Builds end to end, without the published layouts (tests/data/sources) but with everything that can go wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from ffaa.data import build as module
from ffaa.data import manifest
from ffaa.data.build import build, csv_recipe, rows_of_csv
from ffaa.data.crops import plain_face, read_photo, train_sample
from ffaa.data.faces import detector, split_by_size
from ffaa.data.images import load_photo
from ffaa.data.recipe import DataRecipe
from ffaa.data.verify import verify
from ffaa.data.work import Work
from ffaa.errors import InputError, UsageError, WeightsError
from ffaa.types import ForgeryType, Label

TYPES = {"swap": "identity_exchange", "gan": "entire_face_synthesis"}


def portrait(photo, frame, seed, side=200):
    """A face crop unlike others: shifted, scaled, recoloured and with a pattern over it, so that hashes differ."""
    rng = np.random.default_rng(seed)
    left, top, right, bottom = frame
    dx, dy = rng.integers(-8, 9, 2)
    part = cv2.resize(photo[top + dy : bottom + dy, left + dx : right + dx], (side, side)).astype(np.float32)
    low = (rng.normal(0, 10, (1, 1, 3)) + rng.normal(0, 28, (9, 9, 1))).astype(np.float32)
    low = cv2.resize(low, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(part * rng.uniform(0.8, 1.1) + low, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tree(tmp_path_factory, hopper, astronaut):
    """root/photos/{real,fake/swap,fake/gan,masks/swap}: 12 real, 8 swap (masks, one black), 6 gan; a photo without a
    face, a broken one, an equal copy, a re-encoded copy, and one file under both labels."""
    root = tmp_path_factory.mktemp("tree")
    photos = root / "photos"
    frames = ((hopper, (90, 60, 450, 420)), (astronaut, (130, 20, 330, 220)))
    for name, count in (("real", 12), ("fake/swap", 8), ("fake/gan", 6)):
        (photos / name).mkdir(parents=True)
        for i in range(count):
            seed = 100 * len(name) + i
            Image.fromarray(portrait(*frames[i % 2], seed)).save(photos / name / f"{name[-1]}{i:02}.png")
    (photos / "masks" / "swap").mkdir(parents=True)
    for i in range(8):
        mask = np.zeros((200, 200), np.uint8)
        if i != 3:
            mask[60:140, 60:140] = 255
        Image.fromarray(mask).save(photos / "masks" / "swap" / f"p{i:02}.png")
    Image.fromarray(np.full((150, 150, 3), 99, np.uint8)).save(photos / "real" / "empty.png")
    (photos / "real" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    (photos / "real" / "z-copy.png").write_bytes((photos / "real" / "l00.png").read_bytes())
    Image.open(photos / "real" / "l01.png").save(photos / "real" / "z-again.jpg", quality=70)
    (photos / "fake" / "gan" / "both.png").write_bytes((photos / "real" / "l02.png").read_bytes())
    return root


def recipe(**changes):
    source = {"kind": "folder", "root": "photos", "types": TYPES, "name": "mine"}
    return DataRecipe.model_validate(
        {"name": "t", "sources": [source], "pose": False, "val": 0.2, "test": 0.2} | changes
    )


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "set"
    report = build(recipe(), tree, out, workers=0, command="the command")
    return out, report


def rejected(out):
    return {
        r["photo"]: (r["kind"], r["reason"]) for r in pyarrow.parquet.read_table(out / "rejected.parquet").to_pylist()
    }


def same_set(one, two):
    """The same manifests and crops, byte for byte."""
    names = [{p.relative_to(out).as_posix() for p in out.rglob("*") if p.suffix in {".png", ".parquet", ".tar"}}
             for out in (one, two)]  # fmt: skip
    return names[0] == names[1] and all((one / n).read_bytes() == (two / n).read_bytes() for n in names[0])


# --- what comes out --------------------------------------------------------------------------------------------------


def test_rows(built, tree):
    out, _ = built
    rows = manifest.read(out)
    assert len(rows) == 11 + 7 + 6
    by_method = {(r.method, r.label, r.forgery_type) for r in rows}
    assert by_method == {
        ("", Label.REAL, ForgeryType.REAL),
        ("swap", Label.FAKE, ForgeryType.IDENTITY_EXCHANGE),
        ("gan", Label.FAKE, ForgeryType.ENTIRE_FACE_SYNTHESIS),
    }
    assert {r.dataset for r in rows} == {"mine"}
    assert [r.photo for r in rows] == sorted((r.photo for r in rows), key=lambda p: ("fake" in p, p))
    for row in rows:
        photo = load_photo(tree / row.photo)
        face = plain_face(photo.pixels, row.model_copy(update={"size": 0}), 224)
        assert np.array_equal(read_photo(out, row), face.image)
        assert row.crop == face.crop
        assert (row.photo_sha256, row.photo_width) == (photo.source.sha256, 200)
        assert row.face_size == pytest.approx((row.box.width * row.box.height) ** 0.5)
        assert row.bits_per_pixel == pytest.approx(row.photo_bytes * 8 / 40_000)
        assert row.sharpness > 0
        assert 0 < row.brightness < 1
        assert row.yaw is None
        assert row.jpeg_quality is None


def test_the_box_is_the_largest_usable_face(built, tree):
    row = manifest.read(built[0])[0]
    usable, _ = split_by_size(detector()(load_photo(tree / row.photo).pixels))
    assert (row.box, row.score, row.faces) == (usable[0].box, usable[0].score, len(usable))


def test_masks_are_cut_alike(built):
    out, _ = built
    masked = [r for r in manifest.read(out) if r.mask]
    assert {r.method for r in masked} == {"swap"}
    assert len(masked) == 7
    for row in masked:
        mask = cv2.imread(str(out / row.mask), cv2.IMREAD_GRAYSCALE)
        region, full = row.crop.region, np.zeros((200, 200), np.uint8)
        full[60:140, 60:140] = 255
        part = full[region.top : region.bottom, region.left : region.right]
        assert mask.shape == (224, 224)
        assert (mask > 127).mean() == pytest.approx((part > 127).mean(), abs=0.02)


def test_what_is_left_out_and_why(built):
    why = rejected(built[0])
    assert {p.removeprefix("photos/"): kind for p, (kind, _) in why.items()} == {
        "real/empty.png": "no face",
        "real/broken.jpg": "unreadable",
        "real/z-copy.png": "duplicate",
        "real/z-again.jpg": "near duplicate",
        "real/l02.png": "conflict",
        "fake/gan/both.png": "conflict",
        "fake/swap/p03.png": "unchanged",
    }
    assert why["photos/real/z-copy.png"][1].endswith("photos/real/l00.png")
    assert why["photos/real/l02.png"][1].endswith("photos/fake/gan/both.png")
    assert "photos/real/l01.png" in why["photos/real/z-again.jpg"][1]
    assert str(built[0]) not in why["photos/real/broken.jpg"][1]


def test_no_crop_of_a_rejected_face_stays(built):
    out, _ = built
    rows = manifest.read(out)
    assert {p.relative_to(out).as_posix() for p in (out / "crops").rglob("*.*")} == {r.path for r in rows}
    assert {p.relative_to(out).as_posix() for p in (out / "masks").rglob("*.*")} == {r.mask for r in rows if r.mask}
    assert not list(out.rglob("*.part"))


def test_the_report(built):
    out, report = built
    assert report == json.loads((out / "build.json").read_text())
    assert (report["items"], report["faces"], report["rejected"]) == (31, 24, 7)
    assert report["datasets"] == {
        "mine": {"faces": 24, "no face": 1, "unreadable": 1, "duplicate": 1, "near duplicate": 1, "conflict": 2,
                 "unchanged": 1}
    }  # fmt: skip
    assert (report["command"], report["seed"]) == ("the command", 0)
    assert report["recipe"]["sources"][0]["types"] == TYPES
    assert report["peak_memory_mb"] > 10


def test_splits_are_seeded_and_stratified(built, tree, tmp_path):
    splits = {r.photo: r.split for r in manifest.read(built[0])}
    assert set(splits.values()) == {"train", "val", "test"}
    for part, total in (("real/", 11), ("swap/", 7), ("gan/", 6)):
        found = [s for p, s in splits.items() if part in p]
        assert abs(found.count("val") - 0.2 * total) <= 1.2  # photos that nearly agree move together
        assert abs(found.count("test") - 0.2 * total) <= 1.2
    build(recipe(seed=5), tree, tmp_path / "other", workers=0)
    assert {r.photo: r.split for r in manifest.read(tmp_path / "other")} != splits


def test_verify_finds_it_in_order(built):
    assert list(verify(built[0])) == []


# --- variants --------------------------------------------------------------------------------------------------------


def test_engines_and_workers_give_the_same_set(built, tree, tmp_path):
    """Row for row and byte for byte: this process, two processes, a real local Ray of two workers."""
    build(recipe(), tree, tmp_path / "two", workers=2)
    assert same_set(built[0], tmp_path / "two")
    build(recipe(), tree, tmp_path / "ray", engine="ray", workers=2)
    assert same_set(built[0], tmp_path / "ray")


@pytest.mark.parametrize("kind", ["webdataset", "arrow"])
def test_shards_hold_the_same_crops(built, tree, tmp_path, kind):
    build(recipe(shards=kind, shard_rows=4), tree, tmp_path / "s", workers=0)
    packed, plain = manifest.read(tmp_path / "s"), manifest.read(built[0])
    assert [r.sha256 for r in packed] == [r.sha256 for r in plain]
    assert not (tmp_path / "s" / "crops").exists()
    assert (tmp_path / "s" / "masks").exists()
    for a, b in zip(packed, plain, strict=True):
        assert np.array_equal(read_photo(tmp_path / "s", a), read_photo(built[0], b))
    assert list(verify(tmp_path / "s")) == []


def test_without_crops_rows_point_to_the_photos(built, tree, tmp_path):
    build(recipe(size=None, no_face="whole", duplicates=False), tree, tmp_path / "s", workers=0)
    rows = {r.path: r for r in manifest.read(tmp_path / "s")}
    assert "photos/real/z-copy.png" in rows
    empty = rows["photos/real/empty.png"]
    assert (empty.box, empty.faces, empty.size, empty.width) == (None, 0, 0, 150)
    assert rows["photos/fake/swap/p00.png"].mask == "photos/masks/swap/p00.png"
    assert not (tmp_path / "s" / "crops").exists()
    assert sorted(verify(tmp_path / "s", tree))[0].startswith(
        "photos/fake/gan/both.png: the same file is labelled otherwise"
    )
    for row in manifest.read(built[0])[:3]:
        assert rows[row.photo].box == row.box


def test_every_face_of_a_photo_shares_its_group(tree, tmp_path, hopper, astronaut):
    root = tmp_path / "data" / "photos" / "real"
    root.mkdir(parents=True)
    pair = np.concatenate([cv2.resize(hopper, (512, 512)), astronaut], axis=1)
    Image.fromarray(pair).save(root / "pair.png")
    source = {"kind": "folder", "root": "photos", "types": TYPES}
    settings = recipe(sources=[source], faces="every")
    build(settings, tmp_path / "data", tmp_path / "s", workers=0)
    rows = manifest.read(tmp_path / "s")
    assert [r.track for r in rows] == [0, 1]
    assert [r.faces for r in rows] == [2, 2]
    assert len({r.path for r in rows}) == 2
    assert {r.group for r in rows} == {"photos/pair"}
    assert rows[0].box.width * rows[0].box.height >= rows[1].box.width * rows[1].box.height


def test_crops_train_like_photos(built):
    """A crop's own file and face box go through the training augmentation."""
    out, _ = built
    for row in manifest.read(out)[:4]:
        sample = train_sample(out, row, 96, np.random.default_rng(1))
        assert sample.image.shape == (96, 96, 3)
        left, top, right, bottom = sample.rect
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 96


def test_samples_are_seeded_and_proportional(tree, tmp_path):
    source = {"kind": "folder", "root": "photos", "types": TYPES, "sample": 9}
    drawn = []
    for name in "ab":
        build(recipe(sources=[source]), tree, tmp_path / name, workers=0)
        drawn.append({r.photo for r in manifest.read(tmp_path / name)} | set(rejected(tmp_path / name)))
    assert len(drawn[0]) == 9
    assert drawn[0] == drawn[1]
    build(recipe(sources=[source | {"sample": None, "per_class": 3}]), tree, tmp_path / "c", workers=0)
    found = {r.photo for r in manifest.read(tmp_path / "c")} | set(rejected(tmp_path / "c"))
    assert sum("/real/" in p for p in found) == sum("/fake/" in p for p in found) == 3


# --- a CSV's own splits ----------------------------------------------------------------------------------------------


def csv(root, rows):
    lines = ["path,label,forgery_type,method,dataset,split,bench,group"]
    lines += [f"photos/{path},{label},{kind},,{name},{split},{bench},{group}" for path, label, kind, name, split, bench, group in rows]  # fmt: skip  # noqa: E501
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_a_leak_is_an_error_that_lists_the_pairs(tree, tmp_path):
    csv(
        tree,
        [
            ("real/l00.png", "real", "real", "c", "train", "", "g"),
            ("real/l01.png", "real", "real", "c", "test", "", "g"),
        ],
    )
    settings = recipe(sources=[{"kind": "csv", "root": "."}])
    with pytest.raises(InputError, match=r"1 leaks: .*real/l00\.png and .*real/l01\.png; mend the splits"):
        build(settings, tree, tmp_path / "s", workers=0)
    assert not (tmp_path / "s" / "manifest.parquet").exists()
    dropping = settings.model_copy(update={"leaks": "drop"})
    seen = []
    build(dropping, tree, tmp_path / "s", workers=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]  # the same folder goes on; nothing is looked at again
    assert [r.photo for r in manifest.read(tmp_path / "s")] == ["photos/real/l01.png"]
    with pytest.raises(InputError, match="other settings"):
        build(settings, tree, tmp_path / "s", workers=0)
    build(dropping, tree, tmp_path / "d", workers=0)
    assert [(r.photo, r.split) for r in manifest.read(tmp_path / "d")] == [("photos/real/l01.png", "test")]
    assert rejected(tmp_path / "d")["photos/real/l00.png"][0] == "leak"


def test_given_splits_and_benchmark_sets_stay(tree, tmp_path):
    csv(tree, [
        ("real/l00.png", "real", "real", "c", "bench", "SET", ""),
        ("fake/gan/n00.png", "fake", "entire_face_synthesis", "c", "val", "", ""),
        ("real/l04.png", "real", "real", "c", "train", "", "x"),
        ("real/l05.png", "real", "real", "c", "train", "", "x"),
    ])  # fmt: skip
    build(recipe(sources=[{"kind": "csv", "root": "."}]), tree, tmp_path / "s", workers=0)
    found = {
        r.photo.removeprefix("photos/"): (r.split, r.bench, r.group, r.test_set) for r in manifest.read(tmp_path / "s")
    }
    assert found == {
        "real/l00.png": ("bench", "SET", "", "SET"),
        "fake/gan/n00.png": ("val", "", "", "c"),
        "real/l04.png": ("train", "", "x", "c"),
        "real/l05.png": ("train", "", "x", "c"),
    }
    build(recipe(sources=[{"kind": "csv", "root": ".", "bench": "ALL"}]), tree, tmp_path / "b", workers=0)
    assert {(r.split, r.bench) for r in manifest.read(tmp_path / "b")} == {("bench", "ALL")}


def test_rows_of_csv(tiny_manifest, tiny_rows):
    rows = rows_of_csv(tiny_manifest / "manifest.csv")
    assert [(r.path, r.label, r.forgery_type, r.split, r.bench, r.regions, r.method) for r in rows] == [
        (r.path, r.label, r.forgery_type, r.split, r.bench, r.regions, r.method) for r in tiny_rows
    ]
    with pytest.raises(InputError, match="no such manifest"):
        rows_of_csv(tiny_manifest / "none.csv")


def test_csv_recipe_keeps_every_row(tiny_manifest, tiny_rows, tmp_path):
    assert len(tiny_rows) == 44
    assert len([r for r in tiny_rows if r.box]) > 30
    for row in tiny_rows:
        assert (row.width, row.height, row.size) == (144, 144, 0)
        assert row.box is None or (0 <= row.box.left < row.box.right <= 144 and row.box.width >= 40)
    build(csv_recipe(tiny_manifest / "manifest.csv", 1), tiny_manifest, tmp_path / "s", workers=0)
    found = [(r.split, r.test_set, r.label.value) for r in manifest.read(tmp_path / "s")]
    sets = (("train", "tiny"), ("val", "tiny"), ("test", "tiny"), ("bench", "set 1"), ("bench", "set 2"))
    assert sorted(found) == sorted((split, name, label) for split, name in sets for label in ("real", "fake"))


# --- nothing lost ----------------------------------------------------------------------------------------------------

KILL_AT = ["list_items", "keep_drawn", "commit 1", "commit 3", "finish", "finish half", "report", "tidy"]


@pytest.mark.parametrize("point", KILL_AT)
def test_a_build_that_is_stopped_anywhere_ends_with_the_same_set(built, tree, tmp_path, monkeypatch, point):
    class Killed(BaseException):
        """Not caught by anything, as a kill is not."""

    left = int(point.split()[1]) if point.startswith("commit ") else 1

    def stop_before(owner, name):
        original = getattr(owner, name)

        def stop(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, stop)

    monkeypatch.setattr("ffaa.data.engines.BATCH", 4)
    if point.startswith("commit"):
        stop_before(Work, "commit")
    elif point in {"list_items", "keep_drawn"}:
        stop_before(Work, point)
    elif point == "finish half":
        left = 10
        stop_before(manifest.Writer, "add")
    elif point == "report":
        stop_before(module, "versions")
    else:
        stop_before(module, point)
    with pytest.raises(Killed):
        build(recipe(), tree, tmp_path / "s", workers=0)
    monkeypatch.undo()
    build(recipe(), tree, tmp_path / "s", workers=0)
    assert same_set(built[0], tmp_path / "s")


@pytest.mark.parametrize("photos", [1, 12])
def test_a_killed_process_goes_on(built, tree, tmp_path, photos):
    """SIGKILL, once so many crops are there; two workers."""
    (tmp_path / "r.yaml").write_text(recipe().model_dump_json())  # JSON is YAML
    command = [sys.executable, "-m", "ffaa", "data", "build", tmp_path / "r.yaml", "--data", tree, "--out",
               tmp_path / "s", "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and len(list((tmp_path / "s").rglob("*.png"))) < photos:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while _alive(process.pid):  # its workers end by themselves
        time.sleep(0.05)
    build(recipe(), tree, tmp_path / "s", workers=0)
    assert same_set(built[0], tmp_path / "s")


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_complete_build_is_left_as_it_is(built, tree, tmp_path, monkeypatch):
    build(recipe(), tree, tmp_path / "s", workers=0)
    monkeypatch.setattr(module, "finish", None)
    monkeypatch.setattr(module, "listed", None)
    assert build(recipe(), tree, tmp_path / "s", workers=0)["faces"] == 24


def test_a_full_disk_stops_cleanly_and_goes_on(built, tree, tmp_path, monkeypatch):
    from pathlib import Path

    original, left = Path.write_bytes, [9]

    def full(self, data):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(28, "No space left on device", str(self))
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="no space left on device.*make room and run the same command again"):
        build(recipe(), tree, tmp_path / "s", workers=0)
    monkeypatch.undo()
    build(recipe(), tree, tmp_path / "s", workers=0)
    assert same_set(built[0], tmp_path / "s")


# --- bad use ---------------------------------------------------------------------------------------------------------


def test_another_recipe_in_the_same_folder_is_refused(built, tree):
    with pytest.raises(InputError, match="other settings.*give another --out"):
        build(recipe(seed=9), tree, built[0], workers=0)


def test_unknown_names(tree, tmp_path):
    with pytest.raises(UsageError, match="unknown engine 'x'; known: local, ray"):
        build(recipe(), tree, tmp_path, engine="x")
    with pytest.raises(UsageError, match="unknown kind of source 'x'; known: .*celebdf"):
        build(recipe(sources=[{"kind": "x", "root": "."}]), tree, tmp_path)


def test_no_face_at_all(tmp_path):
    (tmp_path / "photos" / "real").mkdir(parents=True)
    Image.fromarray(np.full((150, 150, 3), 99, np.uint8)).save(tmp_path / "photos" / "real" / "empty.png")
    with pytest.raises(InputError, match="not one usable face.*real/empty.png: no face of at least 40 px"):
        build(recipe(), tmp_path, tmp_path / "s", workers=0)


def test_pose_needs_the_face_mesh_before_the_first_photo(tree, tmp_path, monkeypatch):
    def missing(name):
        raise WeightsError(f"part {name} is missing")

    monkeypatch.setattr("ffaa.weights.part_folder", missing)
    with pytest.raises(WeightsError, match="face-mesh"):
        build(recipe(pose=True), tree, tmp_path / "s", workers=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"val": 0.6, "test": 0.5}, "leave nothing for train"), ({"shards": "arrow", "size": None}, "give a size"),
     ({"sources": []}, "at least 1")],
)  # fmt: skip
def test_impossible_recipes(changes, match):
    with pytest.raises(ValueError, match=match):
        recipe(**changes)
