"""What is particular to single collections."""

import json
import shutil

import pytest
from tests.data.trees import (
    args,
    write_celebdf,
    write_ddvqa,
    write_deeperforensics,
    write_dfdc,
    write_dffd,
    write_faceforensics,
    write_gandiffface,
    write_multiffdi,
    write_pgc,
)

from ffaa.data.sources import SOURCES
from ffaa.errors import InputError, UsageError


@pytest.fixture(scope="module")
def face(hopper):
    return hopper[60:420, 90:450]


def read(root, kind, **more):
    return list(SOURCES[kind].read(root, args(kind, **more)))


@pytest.mark.parametrize(("compression", "name"), [("c40", "c40"), ("raw", "raw"), ("raw", "c0")])
def test_compressions_of_faceforensics(tmp_path, face, compression, name):
    items = write_faceforensics(tmp_path, face)
    with pytest.raises(InputError, match=f"youtube/{compression}/videos"):
        read(tmp_path, "faceforensics", compression=compression)
    for folder in sorted(tmp_path.glob("*_sequences/*/c23")):
        shutil.move(folder, folder.with_name(name))
    found = read(tmp_path, "faceforensics", compression=compression)
    assert [i.path for i in found] == [i.path.replace("c23", name) for i in items]
    assert [i.reference for i in found] == [i.reference.replace("c23", name) for i in items]
    assert [i.mask for i in found] == [i.mask for i in items]


def test_pairs_of_faceforensics_meet_and_others_do_not(tmp_path, face):
    write_faceforensics(tmp_path, face)
    meeting = {frozenset(i.groups) for i in read(tmp_path, "faceforensics") if i.method}
    assert meeting == {frozenset(f"faceforensics/{v}" for v in pair)
                       for pair in (("000", "003"), ("054", "071"), ("672", "720"))}  # fmt: skip


def test_originals_and_masks_that_are_not_there_are_not_named(tmp_path, face):
    write_faceforensics(tmp_path, face)
    shutil.rmtree(tmp_path / "original_sequences")
    shutil.rmtree(tmp_path / "manipulated_sequences/Deepfakes/masks")
    found = read(tmp_path, "faceforensics")
    assert {i.reference for i in found} == {""}
    assert {bool(i.mask) for i in found if i.method == "Deepfakes"} == {False}
    assert {bool(i.mask) for i in found if i.method == "Face2Face"} == {True}


def test_hidden_and_foreign_files_are_left_out(tmp_path, face):
    items = write_celebdf(tmp_path, face)
    (tmp_path / "Celeb-real/._id0_0000.mp4").write_bytes(b"")
    (tmp_path / "Celeb-real/readme.txt").write_text("no video")
    assert read(tmp_path, "celebdf") == items


def test_celebrities_alone(tmp_path, face):
    items = write_celebdf(tmp_path, face)
    shutil.rmtree(tmp_path / "YouTube-real")
    assert read(tmp_path, "celebdf") == [i for i in items if "YouTube" not in i.path]


def test_deeperforensics_meets_faceforensics(tmp_path, face):
    """Swaps onto video 000 and that video itself must stay together."""
    write_faceforensics(tmp_path / "a", face)
    write_deeperforensics(tmp_path / "b", face)
    originals = {g for i in read(tmp_path / "a", "faceforensics", methods=["real"]) for g in i.groups}
    swaps = read(tmp_path / "b", "deeperforensics", methods=["end_to_end"])
    assert [set(i.groups) & originals for i in swaps] == [{"faceforensics/000"}, {"faceforensics/003"}]


def test_dffd_needs_its_splits(tmp_path, face):
    write_dffd(tmp_path, face)
    for part in ("train", "validation", "test"):
        shutil.rmtree(tmp_path / "ffhq" / part)
    with pytest.raises(InputError, match=r"dffd: expected .*ffhq/train.*dffd-dataset.html"):
        read(tmp_path, "dffd")


def test_gandiffface_needs_a_folder_per_person(tmp_path, face):
    write_gandiffface(tmp_path, face)
    shutil.copy(tmp_path / "White_Female/120/3.png", tmp_path / "z.png")
    with pytest.raises(InputError, match=r"gandiffface: .*z.png lies in no person's folder"):
        read(tmp_path, "gandiffface")


def test_dfdc_in_other_places(tmp_path, face):
    """The parts below train/, and one part (as Kaggle's sample) as root."""
    items = write_dfdc(tmp_path, face)
    (tmp_path / "train").mkdir()
    for part in sorted(tmp_path.glob("dfdc_*")):
        shutil.move(part, tmp_path / "train" / part.name)
    assert sorted(i.path for i in read(tmp_path, "dfdc")) == sorted(
        f"train/{i.path}" if i.path.startswith("dfdc") else i.path for i in items
    )
    sample = read(tmp_path / "train/dfdc_train_part_0", "dfdc")
    assert [(i.path, i.reference) for i in sample] == [("owxbbpjpch.mp4", "wynotylpnm.mp4"), ("wynotylpnm.mp4", "")]


def test_dfdc_test_labels_as_csv(tmp_path, face):
    items = [i for i in write_dfdc(tmp_path, face) if i.path.startswith("test")]
    (tmp_path / "test/metadata.json").unlink()
    for folder in tmp_path.glob("dfdc_*"):
        shutil.rmtree(folder)
    labels = tmp_path / "test/labels.csv"
    labels.write_text("filename,label\nbwdmzwhdnw.mp4,0\naalscayrfi.mp4,1\n")
    assert read(tmp_path, "dfdc") == items
    labels.write_text("filename,label\nbwdmzwhdnw.mp4,2\n")
    with pytest.raises(InputError, match="labels.csv: bwdmzwhdnw.mp4: expected label"):
        read(tmp_path, "dfdc")
    labels.write_text("bwdmzwhdnw.mp4,0\n")
    with pytest.raises(InputError, match="labels.csv: expected the columns filename,label"):
        read(tmp_path, "dfdc")


def test_celeba_without_identities_and_with_the_lists_beside(tmp_path, face):
    items = write_pgc(tmp_path, face)
    (tmp_path / "CelebA/Anno/identity_CelebA.txt").unlink()
    shutil.move(tmp_path / "CelebA/Eval/list_eval_partition.txt", tmp_path / "CelebA/list_eval_partition.txt")
    shutil.move(tmp_path / "CelebA/Img/img_align_celeba", tmp_path / "CelebA/img_align_celeba")
    found = read(tmp_path, "pgc", methods=["real"])
    assert [i.split for i in found] == [i.split for i in items if not i.method]
    assert {i.groups for i in found} == {()}


def test_multiffdi_must_be_told_the_forgery_type(tmp_path, face):
    items = write_multiffdi(tmp_path, face)
    with pytest.raises(UsageError, match="types: {MultiFFDI: identity_exchange}"):
        read(tmp_path, "multiffdi", types={})
    assert read(tmp_path, "multiffdi", types={}, methods=["real"]) == [items[1]]


def test_multiffdi_reads_the_list_it_is_told(tmp_path, face):
    items = write_multiffdi(tmp_path, face)
    assert read(tmp_path, "multiffdi", manifest="valset_label.txt") == items[2:]
    (tmp_path / "chosen.csv").write_text(f"img_name,target\n{items[0].path},1\n")
    (one,) = read(tmp_path, "multiffdi", manifest="chosen.csv")
    assert (one.path, one.split) == (items[0].path, "")
    with pytest.raises(InputError, match="other.csv"):
        read(tmp_path, "multiffdi", manifest="other.csv")


def lines(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")


def test_ddvqa_answers_in_one_file(tmp_path):
    lines(
        tmp_path / "answers.jsonl",
        {"path": "FaceShifter_2_044_945.jpg", "label": "fake", "qa": []},
        {"path": "Face2Face_1_035_036.jpg"},
        {"path": "real_5_000.jpg", "label": "real"},
    )
    found = read(tmp_path, "ddvqa")
    assert [(i.path, i.label, i.method, i.forgery_type, i.groups, i.split) for i in found] == [
        ("FaceShifter_2_044_945.jpg", "fake", "FaceShifter", "Identity exchange",
         ("faceforensics/044", "faceforensics/945"), ""),
        ("Face2Face_1_035_036.jpg", "fake", "Face2Face", "Facial attribute manipulation",
         ("faceforensics/035", "faceforensics/036"), ""),
        ("real_5_000.jpg", "real", "", "Real", ("faceforensics/000",), ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 2: expected a JSON object"),
        ('["a"]', "line 2: expected a JSON object"),
        ('{"label": "real"}', "line 2: expected a JSON object with a path"),
        ('{"path": "../real_5_000.jpg"}', "line 2: path '../real_5_000.jpg' leaves"),
        ('{"path": "photo.jpg"}', "line 2: 'photo.jpg' does not end in"),
        ('{"path": "real_5_000.jpg", "label": "fake"}', "line 2: label 'fake' contradicts"),
    ],
)
def test_a_bad_line_of_answers(tmp_path, line, match):
    lines(tmp_path / "answers.jsonl", {"path": "real_5_000.jpg"}, line)
    with pytest.raises(InputError, match=f"answers.jsonl: {match}"):
        read(tmp_path, "ddvqa")


def test_ddvqa_follows_the_lists_and_not_the_folders(tmp_path, face):
    """5_720 lies in train_set, but its video is in val.json."""
    write_ddvqa(tmp_path, face)
    assert {i.path: i.split for i in read(tmp_path, "ddvqa")}["frames/5_720.jpg"] == "val"
