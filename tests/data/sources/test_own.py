"""One's own folders and CSV files."""

import csv

import pytest
from tests.data.trees import args, write_csv, write_folder

from ffaa.data.sources import SOURCES
from ffaa.data.sources.base import SourceArgs
from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType


@pytest.fixture(scope="module")
def face(hopper):
    return hopper[60:420, 90:450]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, face):
    root = tmp_path_factory.mktemp("folder")
    return root, write_folder(root, face)


def read(root, kind, **more):
    return list(SOURCES[kind].read(root, SourceArgs(kind=kind, root="mine", **more)))


@pytest.mark.parametrize("types", [{}, {"swap": "identity_exchange"}, {"swap": "identity_exchange", "retouch": "real"}])
def test_methods_without_a_type_are_named(folder, types):
    names = "retouch" if types else "retouch, swap"
    with pytest.raises(UsageError, match=rf"no forgery type for {names} in .*types: {{retouch: identity_exchange}}"):
        read(folder[0], "folder", types=types)


def test_types_of_methods_left_out_are_not_needed(folder):
    assert len(read(folder[0], "folder", methods=["real"])) == 2
    assert len(read(folder[0], "folder", methods=["real", "swap"], types={"swap": "identity_exchange"})) == 4


def test_two_folders_do_not_meet(folder):
    root, items = folder
    types = args("folder").types
    other = {g for i in read(root, "folder", types=types) for g in i.groups}
    assert other == {"mine/a", "mine/more/b", "mine/c"}
    assert not other & {g for i in items for g in i.groups}


def test_reals_alone(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.jpg").write_bytes(b"x")
    assert [i.path for i in read(tmp_path, "folder")] == ["real/a.jpg"]


def table(root, text, **more):
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return read(root, "csv", **more)


def test_the_two_columns_that_must_be_there(tmp_path):
    (one, two) = table(tmp_path, "label,path\nreal,a.jpg\n\nFake,b.mp4\n", types={"": "identity_exchange"})
    assert (one.path, one.label, one.forgery_type, one.groups, one.split) == ("a.jpg", "real", "Real", (), "")
    assert (two.path, two.label, two.forgery_type, two.is_video) == ("b.mp4", "fake", "Identity exchange", True)


def test_a_spreadsheet_with_byte_order_mark(tmp_path):
    assert [i.path for i in table(tmp_path, '\ufeffpath,label\r\n"a, b.jpg",0\r\n')] == ["a, b.jpg"]


def test_types_fill_in_what_the_file_leaves_out(tmp_path):
    text = "path,label,method,forgery_type\na.jpg,fake,sd,\nb.jpg,fake,sd,identity_exchange\n"
    found = table(tmp_path, text, types={"sd": "entire_face_synthesis"})
    assert [i.forgery_type for i in found] == [ForgeryType.ENTIRE_FACE_SYNTHESIS, ForgeryType.IDENTITY_EXCHANGE]


def test_the_manifest_that_training_reads(tiny_manifest):
    """All columns of a manifest pass as they stand."""
    with (tiny_manifest / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = read(tiny_manifest, "csv")
    assert len(found) == 44
    names = {kind: kind.value.lower().replace(" ", "_") for kind in ForgeryType}
    assert [
        (i.path, i.label.value, names[i.forgery_type], i.method, i.dataset, i.split, i.bench, i.groups, i.regions)
        for i in found
    ] == [
        (r["path"], r["label"], r["forgery_type"], r["method"], r["dataset"], r["split"], r["bench"], (r["group"],),
         tuple(filter(None, r["regions"].split(";"))))
        for r in rows
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("a.jpg,maybe,,,,", "label 'maybe' is none of real, fake"),
        ("a.jpg,,,,,", "label '' is none of"),
        ("a.jpg,fake,,,,", "no forgery_type, and `types` has none for method ''"),
        ("a.jpg,fake,blur,,,", "forgery_type 'blur' is none of real, identity_exchange"),
        ("a.jpg,real,identity_exchange,,,", "label real with forgery_type identity_exchange"),
        ("a.jpg,fake,real,,,", "label fake with forgery_type real"),
        ("a.jpg,real,,valid,,", "split 'valid' is none of train, val, test, bench"),
        ("../a.jpg,real,,,,", "path '../a.jpg' leaves"),
        ("/etc/a.jpg,real,,,,", "path '/etc/a.jpg' leaves"),
        (",real,,,,", "path '' leaves"),
        ("a.jpg,real,,,/m.png,", "path '/m.png' leaves"),
        ("a.jpg,real,,,,b/../../r.png", "path 'b/../../r.png' leaves"),
        ("a.jpg,real,,,", "5 values for 6 columns"),
        ("a.jpg,real,,,,,", "7 values for 6 columns"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, match):
    text = f"path,label,forgery_type,split,mask,reference\nok.jpg,real,,,,\n{row}\n"
    with pytest.raises(InputError, match=f"manifest.csv: row 2: {match}"):
        table(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "columns", "error", "match"),
    [
        ("path\na.jpg\n", {}, InputError, r"no column 'label' \(for label\); it has path"),
        ("path,label\na.jpg,real\n", {"path": "file"}, InputError, r"no column 'file' \(for path\)"),
        ("path,label\na.jpg,real\n", {"split": "part"}, InputError, r"no column 'part' \(for split\)"),
        ("path,label\na.jpg,real\n", {"colour": "label"}, UsageError, "no column 'colour'; `columns` may name path"),
        ("", {}, InputError, "no column 'path'"),
        ('path,label\n"a.jpg,real\n', {}, InputError, "cannot be read as CSV"),
        ("path,label\n", {}, InputError, "no photo or video"),
    ],
)
def test_bad_tables(tmp_path, text, columns, error, match):
    with pytest.raises(error, match=match):
        table(tmp_path, text, columns=columns)


def test_a_file_in_another_encoding(tmp_path):
    (tmp_path / "manifest.csv").write_bytes("path,label\né.jpg,real\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest.csv: cannot be read as CSV"):
        read(tmp_path, "csv")


@pytest.mark.parametrize("manifest", ["../m.csv", "/m.csv", "none.csv"])
def test_the_manifest_lies_inside_the_root(tmp_path, manifest):
    with pytest.raises(InputError, match="m.csv|none.csv"):
        read(tmp_path, "csv", manifest=manifest)


def test_fakes_without_a_method_are_not_real(tmp_path, face):
    write_csv(tmp_path, face)
    text = "path,label,forgery_type,method\na.jpg,real,,camera\nb.jpg,fake,identity_exchange,\n"
    assert [i.path for i in table(tmp_path, text, methods=["real"])] == ["a.jpg"]
    with pytest.raises(InputError, match="no photo or video of gan"):
        table(tmp_path, text, methods=["real", "gan"])
