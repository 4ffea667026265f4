import base64
import json
import re
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from ffaa.errors import InputError, UsageError
from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.detectors import About, Judgement, Says
from ffaa.eval.figures import make_result
from ffaa.eval.result import read_result, write_result
from ffaa.eval.run import face_of, run
from ffaa.eval.sheets import Faces, answering, compared, drawn, levels_figure, page, rows_of, write
from ffaa.types import Difficulty, Label

RECIPE = BenchRecipe(name="tiny", per_class=2)
REAL, FAKE = Label.REAL, Label.FAKE


class Speaker:
    """Three answers whose words hold markup; every second face is hard, the first of a batch unread."""

    name, rows = "said", ("said", "said/anchor", "said/majority")
    about = About(kind="ffaa", files={"f": "0"}, image_size=224, parameters=1, device="cpu")

    def judge(self, faces):
        out = []
        for n, face in enumerate(faces):
            score = float(face.image.mean() / 255)
            label = FAKE if score >= 0.5 else REAL
            says = {row: Says(label=label if n else None, score=score) for row in self.rows}
            hard = n % 2 == 1
            out.append(
                Judgement(
                    says=says, seconds=0.1, difficulty=Difficulty.HARD if hard else Difficulty.EASY,
                    results=[label, label.opposite if hard else label, label], words={"said": f"<b>words {n}</b>"},
                )
            )  # fmt: skip
        return out


@pytest.fixture(scope="module")
def made(tiny_manifest, tmp_path_factory):
    """(result as it is read back, its path, its records)."""
    root, one = tmp_path_factory.mktemp("sheets"), Speaker()
    found = run(RECIPE, tiny_manifest, [one], root / "r.records")
    write_result(root / "r.json", make_result(RECIPE, found, [one], "ffaa bench run <x>", 8, 20))
    return read_result(root / "r.json"), root / "r.json", root / "r.records"


def _shown(text):
    return [np.array(Image.open(BytesIO(base64.b64decode(data)))) for data in re.findall(r"base64,([^\"]+)", text)]


def test_the_draw_is_seeded_and_of_the_right_level(made):
    found = made[0]
    chosen = drawn(found, "said", 1)
    assert chosen == drawn(found, "said", 1)
    assert {name for name, _ in chosen} == set(found.sets)
    for (name, level), places in chosen.items():
        assert len(places) == 1
        for place in places:
            assert found.photos.set[place] == name
            assert found.photos.answers["said"].easy[place] == (level == "easy")
    draws = {
        str(drawn(found.model_copy(update={"recipe": RECIPE.model_copy(update={"seed": s})}), "said", 1))
        for s in range(8)
    }
    assert len(draws) > 1


def test_photos_of_both_labels_are_compared(made):
    found = made[0]
    places = compared(found, 4)
    assert len(set(places)) == 4
    assert [found.photos.fake[p] for p in places] == [False, True, False, True]
    assert all(found.photos.pool[p] == "ALL" for p in places)
    assert len(compared(found, 100)) == 8


def test_the_page_holds_the_faces_and_the_words(made, tiny_manifest):
    found, _, records = made
    faces = Faces(found, tiny_manifest)
    text = page(found, faces, "said", 2, 2, records)
    images = _shown(text)
    chosen = [p for places in drawn(found, "said", 2).values() for p in places] + compared(found, 2)
    assert len(images) == len(chosen)
    rows = rows_of(found, tiny_manifest)
    for image, place in zip(images, chosen, strict=True):
        assert (image == face_of(tiny_manifest, rows[place], 224)[0].image).all()
    assert "&lt;b&gt;words" in text
    assert "<b>words" not in text
    assert "ffaa bench run &lt;x&gt;" in text
    assert found.sample_sha256 in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    cell = faces.cell(0, "said")
    assert (cell.said, cell.right, "(wrong)" in cell.caption) == ("unread", False, True)
    later = faces.cell(1, "said")
    label, score = later.said.split(", ")
    assert float(score) == round(found.photos.says["said"].score[1], 2)
    assert later.right == ((label == "fake") == found.photos.fake[1])


def test_without_records_there_are_no_words(made, tiny_manifest, tmp_path):
    assert "no words kept" in page(made[0], Faces(made[0], tiny_manifest), "said", 1, 1, tmp_path)


def test_the_picture(made, tiny_manifest, tmp_path):
    found, _, records = made
    figure = levels_figure(found, Faces(found, tiny_manifest), "said", 2)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == sum(len(places) for places in drawn(found, "said", 2).values())
    assert all(re.match(r"(real|fake), called (real|fake|unread)", axes.get_title()) for axes in shown)
    write(found, tiny_manifest, tmp_path / "s.png", records, "said", 2, 0)
    told = json.loads(Image.open(tmp_path / "s.png").text["Description"])
    assert told["sample_sha256"] == found.sample_sha256
    with pytest.raises(UsageError, match=r"a sheet is .html or .png"):
        write(found, tiny_manifest, tmp_path / "s.pdf", records, "said", 2, 0)
    with pytest.raises(InputError, match="cannot be written"):
        write(found, tiny_manifest, tmp_path / "none" / "s.html", records, "said", 1, 1)


def test_other_photos_are_refused(made, tiny_manifest, tmp_path):
    found = made[0]
    (tmp_path / "photos").mkdir()
    for path in (tiny_manifest / "photos").iterdir():
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "manifest.csv").write_text((tiny_manifest / "manifest.csv").read_text())
    assert rows_of(found, tmp_path)
    first = tmp_path / rows_of(found, tmp_path)[0].path
    cv2.imwrite(str(first), np.zeros((144, 144, 3), np.uint8))
    with pytest.raises(InputError, match="not the photos of this result"):
        rows_of(found, tmp_path)
    first.unlink()
    with pytest.raises(InputError, match="no such photo"):
        rows_of(found, tmp_path)
    other = found.model_copy(update={"recipe": RECIPE.model_copy(update={"per_class": 1})})
    with pytest.raises(InputError, match="not the photos of this result"):
        rows_of(other, tiny_manifest)


def test_whose_easy_and_hard(made):
    found = made[0]
    assert answering(found, None) == "said"
    with pytest.raises(UsageError, match="'said/anchor' gives no three answers.*those that do: said"):
        drawn(found, "said/anchor", 1)
    none = found.model_copy(update={"photos": found.photos.model_copy(update={"answers": {}})})
    with pytest.raises(UsageError, match="no detector of this result"):
        answering(none, None)
