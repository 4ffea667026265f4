import pyarrow as pa
import pyarrow.parquet
import pytest

from ffaa.data import manifest
from ffaa.data.build import build
from ffaa.data.manifest import SCHEMA, held_for_mids
from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Label


@pytest.fixture(scope="module")
def rows(tiny_manifest):
    return manifest.read_csv(tiny_manifest / "manifest.csv")


def test_csv_rows(rows):
    assert len(rows) == 44
    assert rows[0].box is None
    real, fake = rows[0], rows[1]
    assert (real.label, real.forgery_type, real.regions) == (Label.REAL, ForgeryType.REAL, ())
    assert (fake.label, fake.forgery_type) == (Label.FAKE, ForgeryType.IDENTITY_EXCHANGE)
    assert fake.regions == ("mouth", "left_eye")
    assert (fake.width, fake.height) == (144, 144)
    assert {r.test_set for r in rows} == {"tiny", "set 1", "set 2"}


def test_parquet_round_trip(rows, tmp_path):
    box = Box(left=1, top=2, right=30, bottom=40)
    given = [rows[0], rows[1].model_copy(update={"box": box, "faces": 2}), *rows[2:6]]
    manifest.write(tmp_path / "m.parquet", given)
    assert manifest.read(tmp_path / "m.parquet") == given
    assert [p.name for p in tmp_path.iterdir()] == ["m.parquet"]
    assert pyarrow.parquet.read_schema(tmp_path / "m.parquet").names == SCHEMA.names


@pytest.mark.parametrize("read", [manifest.read_csv, manifest.read])
def test_a_missing_file_says_so(read, tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        read(tmp_path / "none")


@pytest.mark.parametrize("metadata", [{}, {"ffaa_manifest": "0"}])
def test_another_version_is_refused(rows, tmp_path, metadata):
    manifest.write(tmp_path / "m.parquet", rows[:2])
    table = pyarrow.parquet.read_table(tmp_path / "m.parquet").replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(InputError, match="build it again"):
        manifest.read(tmp_path / "m.parquet")


def changed(tiny_manifest, tmp_path, change):
    path = tmp_path / "m.csv"
    lines = (tiny_manifest / "manifest.csv").read_text().splitlines()
    path.write_text("\n".join(change(lines[:4])) + "\n")
    return path


def test_missing_columns_are_named(tiny_manifest, tmp_path):
    path = changed(tiny_manifest, tmp_path, lambda lines: [",".join(line.split(",")[:10]) for line in lines])
    with pytest.raises(InputError, match="columns missing: width, height"):
        manifest.read_csv(path)


@pytest.mark.parametrize(
    ("old", "new", "match"), [(",fake,", ",forged,", "photo 2: label"), (",144,", ",wide,", "wide")]
)
def test_bad_values_are_named(tiny_manifest, tmp_path, old, new, match):
    path = changed(tiny_manifest, tmp_path, lambda lines: [*lines[:2], lines[2].replace(old, new), *lines[3:]])
    with pytest.raises(InputError, match=match):
        manifest.read_csv(path)


def test_further_columns_do_no_harm(tiny_manifest, tmp_path, rows):
    path = changed(tiny_manifest, tmp_path, lambda lines: [f"{line},{i or 'note'}" for i, line in enumerate(lines)])
    assert manifest.read_csv(path) == rows[:3]


def test_held_photos_follow_their_group(rows):
    for share in (0.3, 0.5):
        groups = {}
        for row in rows:
            groups.setdefault(row.group, set()).add(held_for_mids(row, share))
        assert all(len(found) == 1 for found in groups.values())
        assert {True, False} == set.union(*groups.values())
    assert not any(held_for_mids(r, 0.0) for r in rows)
    held = [{r.path for r in rows if held_for_mids(r, share)} for share in (0.1, 0.3, 0.6)]
    assert held[0] <= held[1] <= held[2]  # a larger share only adds


def test_held_share(rows):
    many = [rows[0].model_copy(update={"group": "", "sha256": f"{i:064x}"}) for i in range(4000)]
    assert sum(held_for_mids(r, 0.15) for r in many) / 4000 == pytest.approx(0.15, abs=0.02)
    assert held_for_mids(many[0], 0.5) == held_for_mids(many[0].model_copy(update={"path": "moved.jpg"}), 0.5)


def test_build_finds_the_faces(tiny_run, rows):
    """What the tiny run's first stage wrote."""
    found = manifest.read(tiny_run.folder / "faces.parquet")
    assert [r.path for r in found] == [r.path for r in rows]
    boxed = [r for r in found if r.box]
    assert len(boxed) > 30
    for row in boxed:
        assert 0 <= row.box.left < row.box.right <= 144
        assert 0 <= row.box.top < row.box.bottom <= 144
        assert row.box.width >= 40
        assert row.faces >= 1
    assert all(r.faces == 0 for r in found if r.box is None)
    assert [r.model_copy(update={"box": None, "faces": 0}) for r in found] == rows


def test_build_limits_every_set_and_label(tiny_manifest, tmp_path):
    found = build(tiny_manifest / "manifest.csv", tmp_path / "f.parquet", limit=1, workers=1)
    assert [(r.split, r.test_set, r.label.value) for r in found] == [
        (split, name, label)
        for split, name in (
            ("train", "tiny"),
            ("val", "tiny"),
            ("test", "tiny"),
            ("bench", "set 1"),
            ("bench", "set 2"),
        )
        for label in ("real", "fake")
    ]
    assert manifest.read(tmp_path / "f.parquet") == found


def test_schema_is_what_the_docs_say():
    assert SCHEMA.names[:12] == [
        "path", "sha256", "label", "forgery_type", "method", "dataset", "split", "bench", "group", "regions", "width",
        "height",
    ]  # fmt: skip
    assert SCHEMA.field("left").type == pa.int32()
