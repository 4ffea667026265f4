import sqlite3
import stat

import pytest

from ffaa.errors import InputError, UsageError
from ffaa.serve import page_history as module
from ffaa.serve.page_history import History
from ffaa.serve.page_result import Shown


def shown(name="a.jpg", text="secret-words"):
    article = f"<article>{text} {name}</article>"
    return Shown(
        name=name, said=f"leans fake {text}", kind="Face", article=article, faces=["x"], boxes=[[1, 2, 3, 4]],
        records="{}", report="<!doctype html>" + article,
    )  # fmt: skip


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "h.sqlite", clock=lambda: 12.5)


def test_kept_listed_opened_deleted(history):
    first, second = history.keep(shown("a.jpg")), history.keep(shown("b.jpg"))
    assert [(k.id, k.at, k.name, k.said) for k in history.all()] == [
        (second, 12.5, "b.jpg", "leans fake secret-words"), (first, 12.5, "a.jpg", "leans fake secret-words")
    ]  # fmt: skip
    assert history.open(first) == shown("a.jpg")
    assert History(history.path).open(second) == shown("b.jpg")  # another start
    assert history.delete(first) == 1
    assert history.delete(first) == 0
    with pytest.raises(InputError, match="not kept any more"):
        history.open(first)
    assert history.delete() == 1
    assert history.all() == []


def test_what_is_deleted_is_not_in_the_file(history):
    one = history.keep(shown("a.jpg", "many-words " * 5000))
    history.keep(shown("b.jpg"))
    assert b"a.jpg" in history.path.read_bytes()
    large = history.path.stat().st_size
    history.delete(one)
    left = history.path.read_bytes()
    assert b"a.jpg" not in left
    assert b"many-words" not in left
    assert b"b.jpg" in left
    assert len(left) <= large
    assert [path.name for path in history.path.parent.iterdir()] == ["h.sqlite"]


def test_only_its_owner_may_read_it(history):
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600


def test_the_oldest_go_first(history, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(5):
        history.keep(shown(f"{number}.jpg"))
    assert [kept.name for kept in history.all()] == ["4.jpg", "3.jpg", "2.jpg"]
    assert b"0.jpg" not in history.path.read_bytes()


def test_files_of_others_are_left_alone(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE jobs (id)")
    before = other.read_bytes()
    with pytest.raises(UsageError, match="another program's"):
        History(other)
    assert other.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("no database" * 100)
    with pytest.raises(UsageError, match="cannot be used as history"):
        History(text)
    assert text.read_text() == "no database" * 100
    with pytest.raises(UsageError, match="cannot be used as history"):
        History(tmp_path / "none" / "h.sqlite")


def test_a_result_of_another_version_is_told(history):
    one = history.keep(shown())
    with sqlite3.connect(history.path) as db:
        db.execute("UPDATE kept SET shown = ?", (module.zlib.compress(b'{"name": "a"}'),))
    with pytest.raises(InputError, match="another version"):
        history.open(one)
    with sqlite3.connect(history.path) as db:
        db.execute("UPDATE kept SET shown = ?", (b"torn",))
    with pytest.raises(InputError, match="another version"):
        history.open(one)
    assert history.delete(one) == 1
