import numpy as np
import pytest

from ffaa.errors import UsageError
from ffaa.eval.compare import compare, table
from ffaa.eval.figures import right


def test_differences_are_those_of_the_figures(result):
    found = compare(result, "nano", "weak")
    assert list(found) == ["in domain/own", "A", "B", "in domain", "ALL"]
    for name, one in found.items():
        a, b = (result.groups[name].rows[row] for row in ("nano", "weak"))
        assert one.photos == a.real + a.fake
        assert one.acc.difference == pytest.approx(a.acc - b.acc)
        assert one.auc.difference == pytest.approx(a.auc - b.auc)
        assert one.acc.low <= one.acc.difference <= one.acc.high
        assert (one.mcnemar.only_a - one.mcnemar.only_b) / one.photos == pytest.approx(a.acc - b.acc)


def test_the_better_one_is_found_better_and_a_twin_is_not(result):
    found = compare(result, "nano", "weak")["ALL"]
    assert found.acc.low > 0
    assert max(found.acc.p, found.mcnemar.p) < 0.05
    same = compare(result, "nano", "nano")["ALL"]
    assert (same.acc.difference, same.acc.p, same.mcnemar.p, same.auc.p) == (0, 1, 1, 1)


def test_photos_only_one_gets_right_are_counted_on_the_same_photos(result):
    a, b = (right(result.photos.says[row], result.photos.fake) for row in ("nano", "weak"))
    inside = np.array(result.photos.set) == "B"
    found = compare(result, "nano", "weak")["B"].mcnemar
    assert (found.only_a, found.only_b) == ((a & ~b & inside).sum(), (b & ~a & inside).sum())


def test_a_row_that_is_not_there(result):
    with pytest.raises(UsageError, match="no row 'x' in this result; it has nano, nano/anchor"):
        compare(result, "nano", "x")


def test_the_table(result):
    shown = table("nano", "weak", compare(result, "nano", "weak"))
    assert shown.title == "nano minus weak"
    assert [row[0] for row in shown.rows] == ["in domain/own", "A", "B", "in domain", "ALL"]
    assert {len(row) for row in shown.rows} == {len(shown.header)}
    assert "0.05 / 5 = 0.0100" in shown.notes[0]
