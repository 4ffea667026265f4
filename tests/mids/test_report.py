from tests.mids.test_train import FAKE, REAL, mined

from ffaa.mids.report import learnt, report, table

RECORDS = [
    mined(0, REAL, (REAL, REAL, REAL)).model_copy(update={"dataset": "a"}),
    mined(1, FAKE, (REAL, REAL, REAL)).model_copy(update={"dataset": "a"}),
    mined(2, REAL, (REAL, REAL, FAKE)).model_copy(update={"dataset": "a"}),
    mined(3, FAKE, (FAKE, FAKE, REAL)).model_copy(update={"dataset": "b"}),
    mined(4, FAKE, (FAKE, FAKE, REAL)),
    mined(5, FAKE, (FAKE, None, REAL)).model_copy(update={"dataset": "b"}),
]


def test_what_is_learnt():
    assert [m.row for m in learnt(RECORDS, False)] == [2, 3, 4]
    assert [m.row for m in learnt(RECORDS, True)] == [0, 1, 2, 3, 4]
    assert [m.row for m in learnt(RECORDS, False, one_answer=True)] == [0, 1, 2, 3, 4, 5]


def test_every_count_by_hand():
    found = report(RECORDS)
    c = found.all
    assert (c.faces, c.real, c.fake, c.easy, c.easy_right, c.hard) == (6, 2, 4, 2, 1, 4)
    assert (c.unparsed, c.unread, c.kept) == (1, 1, 3)
    assert c.classes == [2, 1, 2, 4]
    assert c.all_classes == [5, 1, 2 + 3 + 1, 4 + 1]
    assert list(found.collections) == ["(no collection)", "a", "b"]
    assert found.collections["a"].classes == [2, 1, 0, 0]
    assert found.collections["b"].kept == 1
    assert found.reasons == {"none": 1}
    assert report(RECORDS, keep_easy=True).all.classes == [5, 1, 5, 4]


def test_the_table_shows_them():
    lines = table(report(RECORDS)).splitlines()
    assert lines[-2] == "| all | 6 | 2 (1) | 4 | 1 | 3 | 2 (22%) | 1 (11%) | 2 (22%) | 4 (44%) |"
    assert lines[-1] == "Easy faces are left out. 1 answers unread: 1 x none."
    assert table(report([])).splitlines()[-2].startswith("| all | 0 ")
