import cv2
import numpy as np
import pytest

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label, Support
from ffaa.vqa.faithfulness import check, measure, table
from ffaa.vqa.teachers.grounded_teacher import record_of


def test_what_the_grounded_teacher_writes_holds(rows, crops):
    found = measure(rows, crops)
    assert found.rows == len(rows)
    assert found.sentences == sum(len(row.sentences) for row in rows)
    assert found.share == 1.0
    assert found.control < 0.8  # the same sentences, of other faces
    assert found.contradicted == []
    assert {"evidence", "manifest", "balance", "frame"} <= set(found.by_source)
    assert sum(count for of in found.by_source.values() for count in of.values()) == found.sentences
    assert found.by_source["evidence"].get("supported", 0) > 0.5 * found.sentences


def test_a_seeded_draw(rows, crops):
    assert measure(rows, crops, 2, 1) == measure(rows, crops, 2, 1)
    found = measure(rows, crops, 2)
    assert found.rows == 2
    assert 0 < found.distinct_trigrams < 1
    same = measure([rows[0], rows[0]], crops)
    assert same.distinct_sentences == pytest.approx(measure([rows[0]], crops).distinct_sentences / 2, abs=1e-3)


def test_texts_of_other_faces_do_not_hold(rows, crops):
    """Each row with the sentences of the next one: what it says that it rests on does not help."""
    swapped = [a.model_copy(update={"sentences": b.sentences}) for a, b in zip(rows, [*rows[1:], rows[0]], strict=True)]
    found = measure(swapped, crops)
    assert found.share < 0.8
    assert 0 < len(found.contradicted) <= 10
    assert found.contradicted[0][1] in table(found).notes[2]


def test_a_changed_photo_is_noticed(rows, crops, tmp_path):
    """The crops turned dark and grey, the rows as they were."""
    for face in manifest.read(crops):
        grey = cv2.cvtColor(read_photo(crops, face), cv2.COLOR_RGB2GRAY) // 4
        (tmp_path / face.path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / face.path), grey)
    (tmp_path / manifest.NAME).write_bytes((crops / manifest.NAME).read_bytes())
    assert measure(rows, tmp_path).share < 0.9


def test_what_a_sentence_speaks_of(crops):
    faces = manifest.read(crops)
    fake = next(f for f in faces if f.label is Label.FAKE).model_copy(update={"regions": ("nose", "mouth")})
    record = record_of(fake, read_photo(crops, fake))
    assert check("The face looks like a forgery.", fake, record) == ("manifest", Support.SUPPORTED)
    assert check("The face looks like a genuine photo.", fake, record) == ("manifest", Support.CONTRADICTED)
    assert check("The change concerns the nose and mouth.", fake, record) == ("manifest", Support.SUPPORTED)
    assert check("The change concerns the skin.", fake, record) == ("other", Support.NOT_MEASURABLE)
    whole = "The whole face appears to have been generated."
    assert check(whole, fake, record) == ("manifest", Support.CONTRADICTED)
    other = fake.model_copy(update={"forgery_type": ForgeryType.ENTIRE_FACE_SYNTHESIS})
    assert check(whole, other, record) == ("manifest", Support.SUPPORTED)
    closings = ["The measured traits favour a forgery moderately.", "The evidence is weak, and it leans to a forgery.",
                "Measurement alone would not have shown that this is forged.",
                "Together, the measured traits point clearly to a forgery.",
                "The measured traits hardly settle the matter, and a forgery remains the reading."]  # fmt: skip
    supports = [check(text, fake, record) for text in closings]
    assert sorted(s for _, s in supports) == [Support.CONTRADICTED] * 4 + [Support.SUPPORTED]
    assert {source for source, _ in supports} == {"balance"}
    assert check("It was a fine day.", fake, record) == ("other", Support.NOT_MEASURABLE)


def test_a_row_of_another_set_is_refused(rows, crops):
    with pytest.raises(InputError, match=r"no x\.jpg in its manifest"):
        measure([rows[0].model_copy(update={"image": "x.jpg"})], crops)
    assert np.isclose(measure([rows[0]], crops).share, 1.0)
