"""What every source does."""

import shutil

import av
import pytest
from tests.data.trees import FRAMES, WRITERS, args, variant, write_all

from ffaa.data.faces import detector
from ffaa.data.images import SUFFIXES
from ffaa.data.sources import SOURCES
from ffaa.data.sources.base import inside
from ffaa.errors import InputError, UsageError
from ffaa.types import Label

KINDS = list(SOURCES)
PUBLISHED = [kind for kind in KINDS if kind not in ("folder", "csv")]
# A list that the official splits come from, and another list of the collection.
OFFICIAL = {
    "faceforensics": "splits/val.json",
    "celebdf": "List_of_testing_videos.txt",
    "deeperforensics": "lists/splits/test.txt",
    "pgc": "CelebA/Eval/list_eval_partition.txt",
    "ddvqa": "DQ_FF++/split/train.json",
}


@pytest.fixture(scope="module")
def face(hopper):
    return hopper[60:420, 90:450]


@pytest.fixture(scope="module")
def trees(tmp_path_factory, face):
    """.root, and the expected items by kind."""
    root = tmp_path_factory.mktemp("trees")
    return root, write_all(root, face)


def read(root, kind, **more):
    return list(SOURCES[kind].read(root, args(kind, **more)))


@pytest.fixture
def copy(trees, tmp_path):
    """Copies one tree, to be damaged."""
    return lambda kind: shutil.copytree(trees[0] / kind, tmp_path / kind)


def test_every_source_has_a_tree():
    assert list(WRITERS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_items(trees, kind):
    root, expected = trees
    found = read(root / kind, kind)
    assert found == expected[kind]
    for item in found:
        for path in (item.path, item.reference, item.mask):
            assert not path or (root / kind / path).is_file()
    assert read(root / kind, kind) == found


@pytest.mark.parametrize("kind", KINDS)
def test_items_come_one_by_one(trees, kind):
    reader = SOURCES[kind].read(trees[0] / kind, args(kind))
    assert [next(reader), next(reader)] == trees[1][kind][:2]


def test_the_trees_hold_faces(trees, face):
    root, expected = trees
    assert len(detector()(variant(face, "a"))) == 1
    for kind in ("faceforensics", "dffd"):
        for item in expected[kind]:
            for path in filter(None, (item.path, item.mask)):
                if item.is_video:
                    with av.open(str(root / kind / path)) as video:
                        assert sum(1 for _ in video.decode(video=0)) == FRAMES
                else:
                    assert (root / kind / path).suffix in SUFFIXES


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_folder_is_named_with_the_way_to_get_it(tmp_path, kind):
    with pytest.raises(InputError) as caught:
        read(tmp_path / "nowhere", kind)
    message = str(caught.value)
    assert message.startswith(f"{kind}: expected ")
    assert str(tmp_path / "nowhere") in message
    assert SOURCES[kind].obtain in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_is_no_collection(tmp_path, kind):
    with pytest.raises(InputError, match=rf"^{kind}: "):
        read(tmp_path, kind)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_is_shown_of_a_source(kind):
    source = SOURCES[kind]
    assert "https://" in source.obtain or "http://" in source.obtain
    for line in (source.about, source.obtain, source.layout):
        assert line
        assert "\n" not in line


@pytest.mark.parametrize("kind", KINDS)
def test_methods_filter(trees, kind):
    root, expected = trees
    names = sorted({"real" if i.label is Label.REAL else i.method for i in expected[kind]})
    for name in names:
        found = read(root / kind, kind, methods=[name])
        assert found == [i for i in expected[kind] if (i.method or "real") == name]
    assert read(root / kind, kind, methods=names) == expected[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "csv"])
def test_an_unknown_method_is_an_error_that_names_the_known(trees, kind):
    with pytest.raises(
        UsageError, match=rf"{kind}: no method 'Nonesuch'; it has .*{trees[1][kind][-1].method or 'real'}"
    ):
        read(trees[0] / kind, kind, methods=["Nonesuch"])


@pytest.mark.parametrize(
    ("kind", "method", "folder"),
    [
        ("faceforensics", "FaceShifter", "manipulated_sequences/FaceShifter"),
        ("faceforensics", "real", "original_sequences"),
        ("deepfakedetection", "DeepFakeDetection", "manipulated_sequences/DeepFakeDetection/c23"),
        ("celebdf", "Celeb-DF-v2", "Celeb-synthesis"),
        ("dffd", "stargan", "stargan"),
        ("deeperforensics", "end_to_end_level_1", "manipulated_videos/end_to_end_level_1"),
        ("pgc", "PGGAN", "PGGAN"),
        ("whichfaceisreal", "real", "0_real"),
    ],
)
def test_a_part_that_is_missing(trees, copy, kind, method, folder):
    root = copy(kind)
    shutil.rmtree(root / folder)
    rest = [i.path for i in trees[1][kind] if (i.method or "real") != method]
    assert [i.path for i in read(root, kind)] == rest
    with pytest.raises(InputError, match=f"{kind}: expected the folder .*{folder}"):
        read(root, kind, methods=[method])
    (root / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=f"^{kind}: "):
        read(root, kind, methods=[method])


@pytest.mark.parametrize(("kind", "name"), OFFICIAL.items())
def test_official_lists(trees, copy, kind, name):
    root = copy(kind)
    (root / name).unlink()
    with pytest.raises(InputError, match=rf"{kind}: expected .*{name.split('/')[-1]}.*official: false"):
        read(root, kind)
    found = read(root, kind, official=False)
    assert [i.path for i in found] == [i.path for i in trees[1][kind]]
    assert {i.split for i in found} == {""}


@pytest.mark.parametrize(
    ("kind", "name", "content", "match"),
    [
        ("faceforensics", "splits/val.json", "[[", "val.json: no valid JSON"),
        ("faceforensics", "splits/val.json", '{"a": 1}', "val.json: expected a list of pairs"),
        ("faceforensics", "splits/val.json", '[["720"]]', "val.json: expected pairs"),
        ("faceforensics", "splits/val.json", '[["720", "071"]]', r"val.json: video 071 is also in train.json"),
        ("ddvqa", "DQ_FF++/split/test.json", "", "test.json: no valid JSON"),
        ("ddvqa", "DQ_FF++/test_set/Original/Original.json", "[]", "Original.json: expected an object"),
        ("ddvqa", "DQ_FF++/test_set/Original/Original.json", '{"4_000": {}}', "Original.json: .*4_000"),
        ("ddvqa", "DQ_FF++/test_set/Original/Original.json", '{"5_000_003": {}}', "Original.json: .*5_000_003"),
        ("ddvqa", "DQ_FF++/test_set/Original/Original.json", '{"../5_000": {}}', "Original.json: path '../5_000'"),
        ("celebdf", "List_of_testing_videos.txt", "1 YouTube-real/00170.mp4\nid0\n", "videos.txt: line 2: .*'id0'"),
        ("celebdf", "List_of_testing_videos.txt", "0 YouTube-real/00170.mp4\n", "videos.txt: line 1"),
        ("celebdf", "List_of_testing_videos.txt", b"\xff\xfe", "videos.txt: cannot be read as UTF-8"),
        ("deeperforensics", "lists/splits/val.txt", "003\n", "val.txt: '003' is not named"),
        ("deeperforensics", "lists/splits/val.txt", "003_M101.mp4\n", "val.txt: actor M101 is also in train.txt"),
        ("dfdc", "test/metadata.json", "{", "test/metadata.json: no valid JSON"),
        ("dfdc", "test/metadata.json", "[]", "test/metadata.json: expected an object"),
        ("dfdc", "test/metadata.json", '{"a.mp4": {"split": "test"}}', "test/metadata.json: a.mp4: expected label"),
        ("dfdc", "test/metadata.json", '{"a.mp4": {"label": "MAYBE"}}', "test/metadata.json: a.mp4: expected label"),
        ("dfdc", "test/metadata.json", '{"../a.mp4": {"label": "REAL"}}', "path '../a.mp4' leaves"),
        ("dfdc", "test/metadata.json", '{"a": {"label": "FAKE", "original": "/etc/b"}}', "path '/etc/b' leaves"),
        ("pgc", "CelebA/Eval/list_eval_partition.txt", "000001.jpg\n", "partition.txt: line 1"),
        ("pgc", "CelebA/Eval/list_eval_partition.txt", "000001.jpg 3\n", "partition.txt: partition 3"),
        ("pgc", "CelebA/Anno/identity_CelebA.txt", "000001.jpg x\n", "identity_CelebA.txt: line 1"),
        ("multiffdi", "valset_label.txt", "name,label\na.jpg,1\n", "valset_label.txt: expected the columns"),
        ("multiffdi", "valset_label.txt", "img_name,target\na.jpg,2\n", "valset_label.txt: row 1: target is '2'"),
        ("multiffdi", "valset_label.txt", "img_name,target\na.jpg\n", "valset_label.txt: row 1"),
        ("multiffdi", "valset_label.txt", "img_name,target\n/a.jpg,1\n", "valset_label.txt: row 1: path '/a.jpg'"),
    ],
)
def test_malformed_lists_are_named(copy, kind, name, content, match):
    root = copy(kind)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=match) as caught:
        read(root, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("faceforensics", "original_sequences/youtube/c23/videos/000.mp4", "zero.mp4"),
        ("faceforensics", "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4", "000.mp4"),
        ("deepfakedetection", "original_sequences/actors/c23/videos/01__exit_phone_room.mp4", "01.mp4"),
        ("celebdf", "Celeb-synthesis/id0_id1_0000.mp4", "id0_0000.mp4"),
        ("deeperforensics", "manipulated_videos/end_to_end/003_W101.mp4", "003.mp4"),
    ],
)
def test_names_unlike_the_published_are_an_error(copy, kind, old, new):
    root = copy(kind)
    (root / old).rename((root / old).with_name(new))
    with pytest.raises(InputError, match=rf"{kind}: .*{new}.* named"):
        read(root, kind)


@pytest.mark.parametrize("path", ["", ".", "/a.jpg", "../a.jpg", "b/../../a.jpg", "c:/a.jpg", r"b\..\a.jpg", r"\\h\a"])
def test_paths_stay_below_the_root(path):
    with pytest.raises(InputError, match="list.txt: row 3: path .* leaves"):
        inside(path, "list.txt: row 3")


def test_paths_below_the_root_are_kept():
    assert [inside(p, "") for p in ("a.jpg", "b/c..d/é x.jpg", "./a")] == ["a.jpg", "b/c..d/é x.jpg", "./a"]
