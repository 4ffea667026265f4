import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from ffaa.cli.main import main
from ffaa.data import manifest, plots, stats
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.types import Box, ForgeryType, Label

SWAP, EDIT, GAN = (
    ForgeryType.IDENTITY_EXCHANGE,
    ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION,
    ForgeryType.ENTIRE_FACE_SYNTHESIS,
)


def rows_of(count, dataset, kind=ForgeryType.REAL, method="", split="train", bench="", **more):
    """Faces whose photos are 101, 102 ... px wide and 200 px high."""
    label = Label.REAL if kind is ForgeryType.REAL else Label.FAKE
    return [
        Row(
            path=f"{dataset}/{method or 'real'}-{split}-{i}.png", label=label, forgery_type=kind, method=method,
            dataset=dataset, split=split, bench=bench, photo_width=101 + i, photo_height=200, **more,
        )
        for i in range(count)
    ]  # fmt: skip


ROWS = [
    *rows_of(21, "ffpp", face_size=80.0, sharpness=5.0, yaw=-12.0),
    *rows_of(4, "ffpp", split="val"),
    *rows_of(6, "ffpp", SWAP, "Deepfakes", jpeg_quality=90),
    *rows_of(3, "ffpp", EDIT, "NeuralTextures", split="test"),
    *rows_of(5, "dffd", GAN, "PGGAN", brightness=100.0),
    *rows_of(2, "celeba", split="bench", bench="PGC"),
    *rows_of(1, "pggan", GAN, "PGGAN", split="bench", bench="PGC"),
]


@pytest.fixture
def write(tmp_path):
    """Writes a built set: rows, and (dataset, kind) of what was left out, or no rejected.parquet for None."""

    def do(rows, rejected=None):
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        manifest.write(folder / manifest.NAME, rows)
        if rejected is not None:
            table = pa.table({"dataset": [r[0] for r in rejected], "kind": [r[1] for r in rejected]})
            pyarrow.parquet.write_table(table, folder / stats.REJECTED_NAME)
        return folder

    return do


def test_composition_methods_and_sets(write):
    found = stats.describe(stats.tally(write(ROWS)))
    assert (found.faces, found.real, found.fake) == (42, 27, 15)
    assert [(s.forgery_type, s.dataset, s.faces) for s in found.composition] == [
        (ForgeryType.REAL, "celeba", 2),
        (ForgeryType.REAL, "ffpp", 25),
        (SWAP, "ffpp", 6),
        (EDIT, "ffpp", 3),
        (GAN, "dffd", 5),
        (GAN, "pggan", 1),
    ]
    assert found.composition[1].splits == {"train": 21, "val": 4}
    methods = [(s.method, s.splits) for s in found.methods if s.dataset == "ffpp"]
    assert methods == [
        ("real", {"train": 21, "val": 4}),
        ("Deepfakes", {"train": 6}),
        ("NeuralTextures", {"test": 3}),
    ]
    (bench,) = found.bench
    assert (bench.name, bench.real, bench.fake, bench.sources) == ("PGC", 2, 1, ["celeba", "pggan"])


def test_sizes_and_quality(write):
    found = stats.describe(stats.tally(write(ROWS)))
    (ffpp,) = [m for m in found.sizes if m.dataset == "ffpp"]
    widths = [101 + i for n in (21, 4, 6, 3) for i in range(n)]
    short = ffpp.measures["photo_short"]
    assert (short.count, short.min, short.max) == (34, 101, 121)
    assert (short.p05, short.median, short.p95) == tuple(np.quantile(widths, (0.05, 0.5, 0.95)))
    assert ffpp.measures["photo_long"].min == ffpp.measures["photo_long"].max == 200
    assert ffpp.measures["face_size"].count == 21  # 0 stands for unknown
    real, fake = [m for m in found.quality if m.dataset == "ffpp"]
    assert (real.label, real.faces, fake.label, fake.faces) == (Label.REAL, 25, Label.FAKE, 9)
    assert real.measures["abs_yaw"].median == 12
    assert real.measures["sharpness"].count == 21
    assert fake.measures["sharpness"] is None
    assert fake.measures["jpeg_quality"].median == 90


def test_quantiles():
    found = stats.quantiles(list(range(101)))
    assert (found.count, found.min, found.p05, found.median, found.p95, found.max) == (101, 0, 5, 50, 95, 100)
    assert stats.quantiles([]) is None


def test_left_out(write):
    folder = write(ROWS, [("ffpp", "no face"), ("ffpp", "no face"), ("dffd", "duplicate")])
    found = stats.describe(stats.tally(folder))
    assert found.rejected == {"dffd": {"duplicate": 1}, "ffpp": {"no face": 2}}
    (folder / stats.REJECTED_NAME).write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"rejected.parquet: no Parquet file"):
        stats.tally(folder)
    pyarrow.parquet.write_table(pa.table({"other": [1]}), folder / stats.REJECTED_NAME)
    with pytest.raises(InputError, match="no columns dataset and kind"):
        stats.tally(folder)
    (folder / stats.REJECTED_NAME).unlink()
    found = stats.describe(stats.tally(folder))
    assert found.rejected is None
    assert "what was left out is not known" in stats.markdown(stats.tables(found))


def test_the_tables_in_words(write, capsys):
    tables = stats.tables(stats.describe(stats.tally(write(ROWS, []))))
    lines = stats.markdown(tables).splitlines()
    assert "| type | source | train | val | test | bench | all |" in lines
    assert "| Real | all | 21 | 4 | 0 | 2 | 27 |" in lines
    assert "|  | ffpp | 21 | 4 | 0 | 0 | 25 |" in lines
    assert "| PGC | 2 : 1 | celeba, pggan |" in lines
    assert "| ffpp | real | 25 | 5 (21) | - | - | - | 12 (21) |" in lines
    assert not any("Left out" in line for line in lines)
    stats.show(tables)
    out = capsys.readouterr().out
    assert "42 faces: 27 real, 15 fake" in out
    assert "\x1b" not in out


def test_names_are_shown_as_they_are(write, capsys):
    tables = stats.tables(stats.describe(stats.tally(write(rows_of(2, "a|[red]b\x1b[31m")))))
    assert "a\\|[red]b?[31m" in stats.markdown(tables)
    stats.show(tables)
    assert "a|[red]b?[31m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (1234.4, "1,234"), (12.0, "12"), (0.12345, "0.123"), (99.96, "100")]
)
def test_numbers(value, text):
    assert stats.number(value) == text


# --- the folder of --out --------------------------------------------------------------------------------------------


@pytest.fixture
def built(write, hopper, astronaut):
    """12 real and 12 fake crops of 64 px, each with a shade of its own, and a benchmark set."""
    folder, rows = write([]), []
    for n, row in enumerate(
        [
            *rows_of(12, "ffpp"),
            *rows_of(12, "ffpp", SWAP, "a$b$"),
            *rows_of(2, "pggan", GAN, split="bench", bench="PGC"),
        ]
    ):
        pixels = cv2.resize((hopper, astronaut)[n % 2][:400, 60:460], (64, 64), interpolation=cv2.INTER_AREA)
        path = folder / row.path
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels // 2 + np.uint8(4 * n)).save(path)
        rows.append(row.model_copy(update={"width": 64, "height": 64, "size": 64, "red": 1.0}))
    return write(rows, [])


def report(folder, out, seed=0, data=None):
    found = stats.tally(folder)
    tables = stats.tables(stats.describe(found))
    notes = plots.write_report(out, folder, found, tables, {"stats": {}}, data, seed)
    return notes, {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_report_is_the_same_again_and_follows_the_seed(built, tmp_path):
    notes, first = report(built, tmp_path / "a")
    assert notes == []
    assert set(first) == {
        "stats.md", "stats.json", "composition.png", "measures.png", "sheet-training.png", "sheet-bench.png",
    }  # fmt: skip
    assert report(built, tmp_path / "b")[1] == first
    other = report(built, tmp_path / "c", seed=1)[1]
    assert other["sheet-training.png"] != first["sheet-training.png"]
    assert other["composition.png"] == first["composition.png"]
    assert b"![sheet-bench.png](sheet-bench.png)" in first["stats.md"]


def test_the_draw_does_not_depend_on_the_order(built):
    rows = manifest.read(built)
    before = plots.examples(built, None, 0).lines(False)
    manifest.write(built / manifest.NAME, rows[::-1])
    after = plots.examples(built, None, 0).lines(False)
    assert after == before
    assert [(caption, len(drawn)) for caption, drawn in before] == [
        ("ffpp\nreal\n12 faces", 10),
        ("ffpp\na$b$\n12 faces", 10),
    ]
    assert len({row.path for _, drawn in before for row in drawn}) == 20


def test_a_sheet_shows_the_faces(built):
    lines = plots.examples(built, None, 0, columns=2).lines(True)
    image = np.array(plots.sheet(lines, built, None))
    assert image.shape == (plots.TILE + 2 * plots.GAP, plots.CAPTION + 10 * (plots.TILE + plots.GAP) + plots.GAP, 3)
    for column, row in enumerate(lines[0][1]):
        left = plots.CAPTION + column * (plots.TILE + plots.GAP)
        tile = image[plots.GAP : plots.GAP + plots.TILE, left : left + plots.TILE]
        pixels = np.array(Image.open(built / row.path))
        assert tile.mean() == pytest.approx(pixels.mean(), abs=1)
    assert (image[:, left + plots.TILE :] == 255).all()
    assert (image[:, : plots.CAPTION] < 128).any()  # the caption


def test_faces_without_crops_need_the_photos(write, tmp_path, hopper):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(hopper).save(photos / "h.png")
    row = Row(
        path="h.png", label=Label.REAL, forgery_type=ForgeryType.REAL, dataset="own", split="train",
        box=Box(left=150, top=100, right=400, bottom=350),
    )  # fmt: skip
    folder = write([row, row.model_copy(update={"path": "v.mp4", "time": 1.0})])
    notes, files = report(folder, tmp_path / "a")
    assert notes == ["2 faces have no crop and are on no sheet; give --data, the photos' folder"]
    assert "sheet-training.png" not in files
    notes, files = report(folder, tmp_path / "b", data=photos)
    assert notes == ["1 faces have no crop and are on no sheet: they are frames of videos"]
    assert "sheet-training.png" in files
    (photos / "h.png").unlink()
    with pytest.raises(InputError, match=r"h.png"):
        report(folder, tmp_path / "c", data=photos)


def test_many_methods_take_several_sheets(built, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "SHEET_ROWS", 1)
    files = report(built, tmp_path / "a")[1]
    assert [name for name in sorted(files) if "sheet" in name] == [
        "sheet-bench.png",
        "sheet-training-2.png",
        "sheet-training.png",
    ]


def test_an_empty_manifest(write, tmp_path):
    folder = write([])
    notes, files = report(folder, tmp_path / "a")
    assert (notes, set(files)) == ([], {"stats.md", "stats.json"})
    assert b"The manifest holds no face." in files["stats.md"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(built, tmp_path, capsys):
    assert main(["data", "stats", str(built)]) == 0
    assert "26 faces: 12 real, 14 fake" in capsys.readouterr().out
    assert main(["data", "stats", str(built), "--json", "--out", str(tmp_path / "o"), "--seed", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seed"] == 3
    assert stats.Stats.model_validate(found["stats"]).fake == 14
    assert found["shortcuts"] is None
    assert json.loads((tmp_path / "o" / "stats.json").read_text()) == found


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none"], 1, "no such manifest"),
        (["set", "--out", "set/manifest.parquet"], 1, "another --out"),
        ([], 2, "FOLDER"),
        (["set", "--seed", "-1"], 2, "--seed"),
    ],
)
def test_what_goes_wrong_is_one_line(write, tmp_path, monkeypatch, capsys, arguments, code, words):
    write(ROWS)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "stats", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ffaa: ")
    assert words in line
