import pyarrow.parquet
import pytest

from ffaa.data import manifest
from ffaa.data.faces import Detection, crop_region, cut, whole_image
from ffaa.data.manifest import NAME, ROW_GROUP, SCHEMA, Row, Writer, held_for_mids, record
from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Label

BOX = Box(left=61, top=50, right=130, bottom=119)


def row(i=0, **fields):
    fake = i % 2 == 1
    return Row(
        path=f"crops/{i}.png", sha256=f"{i:064x}", label=Label.FAKE if fake else Label.REAL,
        forgery_type=ForgeryType.IDENTITY_EXCHANGE if fake else ForgeryType.REAL, dataset="d", split="train",
        **fields,
    )  # fmt: skip


def test_round_trip(tmp_path):
    given = [
        row(0),
        row(1, box=BOX, regions=("mouth", "left_eye"), time=1.5, yaw=-3.25, jpeg_quality=80, group="v:1"),
        *(row(i) for i in range(2, ROW_GROUP + 5)),
    ]
    manifest.write(tmp_path / NAME, given)
    assert manifest.read(tmp_path / NAME) == given
    assert manifest.read(tmp_path) == given  # the folder names it too
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
    assert pyarrow.parquet.read_schema(tmp_path / NAME).names == SCHEMA.names
    assert pyarrow.parquet.ParquetFile(tmp_path / NAME).num_row_groups == 2


def test_every_field_has_a_column():
    flat = record(row(1, box=BOX))
    assert set(flat) == set(SCHEMA.names)
    assert (flat["left"], flat["bottom"]) == (61, 119)
    assert SCHEMA.field("time").type == "double"
    assert SCHEMA.field("width").type == "int32"
    assert SCHEMA.metadata[b"ffaa_manifest"] == manifest.VERSION.encode()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    manifest.write(tmp_path / NAME, [row(0)])
    with pytest.raises(KeyError), Writer(tmp_path / NAME) as writer:
        writer.add(record(row(1)) | {"width": {}["missing"]})
    assert manifest.read(tmp_path) == [row(0)]
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_missing_manifest_says_so(tmp_path):
    for path in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(InputError, match="no such manifest"):
            manifest.read(path)


def test_no_parquet_is_refused(tmp_path):
    (tmp_path / NAME).write_text("no")
    with pytest.raises(InputError, match="no Parquet file"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("metadata", [{}, {"ffaa_manifest": "1"}])
def test_another_version_is_refused(tmp_path, metadata):
    manifest.write(tmp_path / NAME, [row(0)])
    table = pyarrow.parquet.read_table(tmp_path / NAME).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / NAME)
    with pytest.raises(InputError, match=r"this ffaa reads version 2; build it again"):
        manifest.read(tmp_path)


def test_the_crop_of_a_row_is_the_crop_rule(hopper):
    box = Box(left=161, top=137, right=377, bottom=353)
    face = cut(hopper, Detection(box, 0.0), 224, "")
    found = row(box=box, size=224, padding=face.crop.padding, photo_width=512, photo_height=600)
    assert found.crop == face.crop
    region, _ = crop_region(box, 512, 600)
    scale = 224 / region.width
    assert found.file_box.left == round(40 * scale)
    assert found.file_box.right == round((40 + box.width) * scale)
    assert row(box=box).file_box == box
    assert row(box=box).crop is None


def test_the_crop_of_a_row_without_face_is_the_centre_square(hopper):
    face = whole_image(hopper, 336)
    found = row(size=336, photo_width=512, photo_height=600)
    assert found.crop == face.crop
    assert found.file_box is None


def test_held_photos_follow_their_group():
    rows = [row(i, group=f"g{i // 4}") for i in range(80)]
    for share in (0.3, 0.5):
        groups = {}
        for one in rows:
            groups.setdefault(one.group, set()).add(held_for_mids(one, share))
        assert all(len(found) == 1 for found in groups.values())
        assert {True, False} == set.union(*groups.values())
    assert not any(held_for_mids(r, 0.0) for r in rows)
    held = [{r.path for r in rows if held_for_mids(r, share)} for share in (0.1, 0.3, 0.6)]
    assert held[0] <= held[1] <= held[2]  # a larger share only adds


def test_held_share():
    many = [row(i) for i in range(4000)]
    assert sum(held_for_mids(r, 0.15) for r in many) / 4000 == pytest.approx(0.15, abs=0.02)
    assert held_for_mids(many[0], 0.5) == held_for_mids(many[0].model_copy(update={"path": "moved.jpg"}), 0.5)
