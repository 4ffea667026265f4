import pytest

from ffaa.mids.label import claimed_class, pair_label
from ffaa.types import Label

REAL, FAKE = Label.REAL, Label.FAKE


@pytest.mark.parametrize(
    ("image", "answer", "label"), [(REAL, REAL, 0), (REAL, FAKE, 1), (FAKE, REAL, 2), (FAKE, FAKE, 3)]
)
def test_pair_label_follows_eq_3(image, answer, label):
    assert pair_label(image, answer) == label


def test_claimed_class_is_the_class_of_a_right_answer():
    assert claimed_class(REAL) == 0
    assert claimed_class(FAKE) == 3
