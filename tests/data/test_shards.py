import hashlib
import io
import json
import tarfile

import cv2
import numpy as np
import pyarrow.ipc
import pytest

from ffaa.data.crops import read_photo
from ffaa.data.manifest import record, row_of
from ffaa.data.shards import ARROW_BATCH, ShardWriter, read_bytes
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label

COUNT = ARROW_BATCH + 9


def image(i):
    pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    return pixels, cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


def pack(folder, kind, rows=ARROW_BATCH + 2):
    from ffaa.data.manifest import Row

    writer, found = ShardWriter(folder, kind, rows), []
    for i in range(COUNT):
        data = image(i)[1]
        row = Row(
            path=f"crops/ab/face-{i}.png", sha256=hashlib.sha256(data).hexdigest(), length=len(data), width=16,
            height=16, size=16, label=Label.REAL, forgery_type=ForgeryType.REAL, split="val" if i == 3 else "train",
        )  # fmt: skip
        found.append(row_of(writer.add(record(row), data)))
    writer.close()
    return found


@pytest.mark.parametrize(("kind", "suffix"), [("webdataset", "tar"), ("arrow", "arrow")])
def test_every_face_is_read_back(tmp_path, kind, suffix):
    rows = pack(tmp_path, kind)
    names = sorted(p.name for p in (tmp_path / "shards").iterdir())
    assert names == [f"train-00000.{suffix}", f"train-00001.{suffix}", f"val-00000.{suffix}"]
    for i, row in enumerate(rows):
        assert row.shard.startswith("shards/val" if i == 3 else "shards/train")
        assert hashlib.sha256(read_bytes(tmp_path, row)).hexdigest() == row.sha256
    assert np.array_equal(read_photo(tmp_path, rows[5]), image(5)[0])


@pytest.mark.parametrize("kind", ["webdataset", "arrow"])
def test_the_same_faces_give_the_same_bytes(tmp_path, kind):
    for name in "ab":
        (tmp_path / name).mkdir()
        pack(tmp_path / name, kind)
    first, second = ([p.read_bytes() for p in sorted((tmp_path / n / "shards").iterdir())] for n in "ab")
    assert first == second


def test_a_tar_is_a_webdataset(tmp_path):
    rows = pack(tmp_path, "webdataset")
    with tarfile.open(tmp_path / "shards" / "train-00000.tar") as tar:
        names = tar.getnames()
        assert names[:4] == [
            "crops_ab_face-0.png",
            "crops_ab_face-0.json",
            "crops_ab_face-1.png",
            "crops_ab_face-1.json",
        ]
        assert tar.extractfile(names[0]).read() == image(0)[1]
        assert json.load(io.TextIOWrapper(tar.extractfile(names[1])))["sha256"] == rows[0].sha256


def test_an_arrow_shard_holds_the_manifests_columns(tmp_path):
    pack(tmp_path, "arrow")
    table = pyarrow.ipc.open_file(tmp_path / "shards" / "train-00000.arrow").read_all()
    assert table.num_rows == ARROW_BATCH + 2
    assert table["image"][0].as_py() == image(0)[1]
    assert table["label"][0].as_py() == "real"


@pytest.mark.parametrize("kind", ["webdataset", "arrow"])
def test_a_missing_shard_is_named(tmp_path, kind):
    row = pack(tmp_path, kind)[0]
    (tmp_path / row.shard).unlink()
    with pytest.raises(InputError, match=r"train-00000\..*cannot be read"):
        read_bytes(tmp_path, row)
