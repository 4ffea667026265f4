"""A build from a tree that holds every published layout at once."""

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from tests.data import trees

from ffaa.data import manifest
from ffaa.data.build import build
from ffaa.data.recipe import DataRecipe
from ffaa.data.verify import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory, hopper):
    """(expected items by kind, rows by photo, rejected rows, folder)."""
    root, out = tmp_path_factory.mktemp("layouts"), tmp_path_factory.mktemp("built")
    items = trees.write_all(root, hopper[60:420, 90:450])
    recipe = DataRecipe(
        name="all", sources=[trees.args(kind) for kind in trees.WRITERS], frames=3, pose=False, leaks="drop", val=0.3,
        test=0.3, duplicates=False,
    )  # fmt: skip
    build(recipe, root, out, workers=2)
    rows = {}
    for row in manifest.scan(out):
        rows.setdefault(row.photo, []).append(row)
    return items, rows, pyarrow.parquet.read_table(out / manifest.REJECTED_NAME).to_pylist(), out


def pairs(built):
    """(kind, item, rows) of every expected item that gave faces."""
    items, rows, _, _ = built
    return [(k, item, rows[f"{k}/{item.path}"]) for k in items for item in items[k] if f"{k}/{item.path}" in rows]


def test_every_item_is_a_face_or_is_rejected_as_a_leak(built):
    items, rows, rejected, _ = built
    listed = {f"{kind}/{item.path}" for kind in items for item in items[kind]}
    out = {r["photo"]: r["kind"] for r in rejected}
    assert set(rows) | set(out) == listed
    assert set(out.values()) <= {"leak"}
    assert len(rows) > 0.8 * len(listed)


@pytest.mark.parametrize("kind", list(trees.WRITERS))
def test_labels_types_methods_and_collections(built, kind):
    found = [p for p in pairs(built) if p[0] == kind]
    assert found
    for _, item, rows in found:
        assert {(r.label, r.forgery_type, r.method, r.dataset, r.regions) for r in rows} == {
            (item.label, item.forgery_type, item.method, item.dataset or kind, item.regions)
        }
        assert len(rows) == (3 if item.is_video else 1)
        assert len({r.time for r in rows}) == len(rows)


def test_items_that_share_a_key_share_a_group_and_a_split(built):
    first, keys = {}, set()
    for _, item, rows in pairs(built):
        assert len({(r.group, r.split) for r in rows}) == 1
        for key in item.groups:
            assert rows[0].group
            assert first.setdefault(key, (rows[0].group, rows[0].split)) == (rows[0].group, rows[0].split)
            keys.add(key)
    assert len({group for group, _ in first.values()}) > 10  # not all in one


def test_official_splits_are_kept(built):
    given = [(item.split, rows[0].split) for _, item, rows in pairs(built) if item.split]
    assert len(given) > 20
    assert all(official == split for official, split in given)
    assert {"train", "val", "test"} <= {official for official, _ in given}


def test_masks_and_references_are_cut_like_the_face(built):
    _, _, _, out = built
    masked = [(item, r) for _, item, rows in pairs(built) for r in rows if item.mask]
    assert len({r.dataset for _, r in masked}) >= 4
    for _, row in masked:
        mask = cv2.imread(str(out / row.mask), cv2.IMREAD_GRAYSCALE)
        assert mask.shape == (224, 224)
        assert 0.02 < (mask > 127).mean() < 0.98
    referred = [r for _, item, rows in pairs(built) for r in rows if item.reference]
    assert len({r.dataset for r in referred}) >= 3
    for row in referred:
        assert cv2.imread(str(out / row.reference)).shape == (224, 224, 3)


def test_frames_of_a_video_differ_and_stay_in_order(built):
    videos = [rows for _, item, rows in pairs(built) if item.is_video]
    assert len(videos) > 20
    for rows in videos:
        assert [r.time for r in rows] == sorted(r.time for r in rows)
        assert len({r.sha256 for r in rows}) == 3
        assert all(r.bits_per_pixel > 0 and r.jpeg_quality is None for r in rows)
    assert not np.isnan([r.sharpness for rows in videos for r in rows]).any()


def test_verify_agrees(built):
    problems = [line for line in verify(built[3]) if "nearly equal" not in line and "the same file" not in line]
    assert problems == []
