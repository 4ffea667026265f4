import errno
import sqlite3

import pytest

from ffaa.data.sources.base import fake, real
from ffaa.data.work import PAGE, Outcome, Rejected, Work, disk, item_of, item_text
from ffaa.errors import InputError
from ffaa.types import ForgeryType

ITEMS = [
    real("a.jpg", groups=("v:1",), split="test"),
    fake("b.mp4", ForgeryType.IDENTITY_EXCHANGE, "swap", mask="m.mp4", regions=("mouth",)),
]


@pytest.fixture
def work(tmp_path):
    found = Work(tmp_path / "out")
    found.list_items((0, "s", i, item) for i, item in enumerate(ITEMS))
    yield found
    found.close()


@pytest.mark.parametrize("item", ITEMS)
def test_items_survive_as_text(item):
    assert item_of(item_text(item)) == item


def test_tasks_are_pending_until_committed(work):
    assert [t.item for t in work.pending()] == ITEMS
    first, second = work.pending()
    work.commit([Outcome(first.id, [{"path": "x"}, {"path": "y"}], [Rejected("leak", "why", 2.0)])])
    assert list(work.pending()) == [second]
    assert work.counts() == (2, 1)
    assert [(source, number, item, flat) for source, number, item, flat in work.faces()] == [
        (0, first.id, ITEMS[0], {"path": "x"}),
        (0, first.id, ITEMS[0], {"path": "y"}),
    ]
    assert list(work.rejected()) == [(0, ITEMS[0], Rejected("leak", "why", 2.0))]


def test_a_failed_commit_stores_nothing(work):
    first, second = work.pending()
    broken = Outcome(second.id, [{"path": object()}])
    with pytest.raises(TypeError):
        work.commit([Outcome(first.id, [{"path": "x"}]), broken])
    assert len(list(work.pending())) == 2
    assert list(work.faces()) == []


def test_an_item_is_stored_once(work):
    first, _ = work.pending()
    work.commit([Outcome(first.id, [{"path": "x"}])])
    with pytest.raises(sqlite3.IntegrityError):
        work.commit([Outcome(first.id, [{"path": "x"}])])
    assert len(list(work.faces())) == 1


def test_the_state_survives_closing(tmp_path, work):
    work.put("settings", "s")
    first, second = work.pending()
    work.commit([Outcome(first.id)])
    work.close()
    again = Work(tmp_path / "out")
    assert again.get("settings") == "s"
    assert again.get("other") is None
    assert list(again.pending()) == [second]
    again.close()


def test_pending_goes_over_pages_while_tasks_are_committed(tmp_path):
    work = Work(tmp_path)
    work.list_items((0, "s", i, real(f"{i}.jpg")) for i in range(2 * PAGE + 3))
    seen = []
    for task in work.pending():
        seen.append(task.item.path)
        work.commit([Outcome(task.id)])
    assert seen == [f"{i}.jpg" for i in range(2 * PAGE + 3)]
    work.close()


def test_draws(tmp_path):
    work = Work(tmp_path)
    lots = [5, 3, 9, 1, 7, 2]
    work.list_items((i % 2, "ab"[i // 2 % 2], lots[i], real(f"{i}.jpg")) for i in range(6))
    work.keep_drawn(0, None, 1)  # source 0: items 0 (a, 5), 2 (b, 9), 4 (a, 7)
    assert [t.item.path for t in work.pending()] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "5.jpg"]
    work.keep_drawn(1, 2, None)  # source 1: lots 3, 1, 2
    assert [t.item.path for t in work.pending()] == ["0.jpg", "2.jpg", "3.jpg", "5.jpg"]
    work.close()


def test_two_builds_cannot_share_a_folder(tmp_path, work):
    with pytest.raises(InputError, match="another build is writing here"), disk(tmp_path):
        Work(tmp_path / "out")


def test_other_troubles_of_the_folder_are_not_called_full(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file exists\); give a folder that can be written"), disk(tmp_path / "file"):
        Work(tmp_path / "file")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_full_disk_is_one_line(tmp_path, error):
    with pytest.raises(InputError, match="make room and run the same command again"), disk(tmp_path):
        raise error
