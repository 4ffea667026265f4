import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ffaa.errors import InputError, UsageError
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import read_jsonl
from ffaa.vqa.decision import Choice, Reviewed, Text, cohen_kappa, read_result, revised, text_of
from ffaa.vqa.review import LEASE, Store
from ffaa.vqa.row import Sentence, VqaRow

ACCEPT, EDIT, REJECT = Choice


def vqa_row(i=0, **changes):
    texts = (("description", f"Face {i} in light."), ("description", "It is e.g. sharp."), ("reasoning", "A seam."))
    values = {
        "image": f"{i}.png", "sha256": str(i), "label": Label.FAKE, "forgery_type": ForgeryType.IDENTITY_EXCHANGE,
        "question": "Real?", "teacher": "t", "prompt_version": "1", "seed": 0, "raw": "whole",
        "sentences": [Sentence(part=p, text=t, evidence=[f"item{n}"]) for n, (p, t) in enumerate(texts)],
        "result": Label.FAKE, "probability": 0.9, "stated_type": ForgeryType.IDENTITY_EXCHANGE,
    }  # fmt: skip
    return VqaRow(**values | changes)


@pytest.fixture
def make(tmp_path):
    """A store of `rows` rows; .now is its clock."""

    def made(rows=3, reviews=1, together=False):
        store = Store(tmp_path / "r.sqlite", reviews, together, clock=lambda: store.now)
        store.now = 1000.0
        store.add(vqa_row(i) for i in range(rows))
        return store

    return made


def edited(view, more="Mine."):
    return view.text.model_copy(update={"reasoning": f"{view.text.reasoning} {more}"})


def decide(store, reviewer, row, choice, text=None, note=""):
    view = store.view(reviewer, row)
    store.decide(reviewer, row, choice, text or (edited(view) if choice is EDIT else view.text), note)


def test_the_three_parts_and_back():
    text = text_of(vqa_row())
    assert text.description == "Face 0 in light. It is e.g. sharp."
    assert text.result == "fake, 0.90, Identity exchange"
    assert text_of(vqa_row(probability=None, result=None)).result == "?, ?, Identity exchange"
    assert Text(description=" a\n b ", reasoning="", result="").description == "a b"
    assert read_result(" FAKE ,0.9, identity  exchange") == (Label.FAKE, 0.9, ForgeryType.IDENTITY_EXCHANGE)


@pytest.mark.parametrize("line", ["", "fake", "fake, 90, Real", "fake, 1.2, Real", "fake, 0.9, Swap", "fake, ?, Real"])
def test_an_unreadable_result_line_is_told(line):
    with pytest.raises(UsageError, match="write it as 'fake, 0.92, Identity exchange'"):
        read_result(line)


def test_sentences_that_stay_keep_their_evidence():
    row = vqa_row()
    text = Text(
        description="New here. It is e.g. sharp. Face 0 in light.", reasoning="A seams. Why? (It bends.) end",
        result="fake, 0.80, Identity exchange",
    )  # fmt: skip
    new = revised(row, text)
    assert [(s.part[0], s.text, s.evidence) for s in new.sentences] == [
        ("d", "New here.", []), ("d", "It is e.g. sharp.", ["item1"]), ("d", "Face 0 in light.", ["item0"]),
        ("r", "A seams.", []), ("r", "Why?", []), ("r", "(It bends.)", []), ("r", "end", []),
    ]  # fmt: skip
    assert (new.description, new.reasoning) == (text.description, text.reasoning)
    assert (new.probability, new.raw) == (0.8, "whole")


def test_accept_edit_reject_and_export(make, tmp_path):
    store = make()
    for choice in (ACCEPT, EDIT, REJECT):
        view = store.next("ann")
        store.decide("ann", view.id, choice, edited(view) if choice is EDIT else view.text, choice.value)
    assert store.next("ann") is None
    assert store.export(tmp_path / "kept.jsonl", tmp_path / "no.jsonl") == (2, 1)
    kept = list(read_jsonl(tmp_path / "kept.jsonl", VqaRow))
    assert kept[0] == vqa_row(0, reviewed_by=["ann"])
    assert kept[1].reasoning == "A seam. Mine."
    (no,) = read_jsonl(tmp_path / "no.jsonl", Reviewed)
    assert no.row == vqa_row(2)
    assert (no.decisions[0].note, no.decisions[0].reviewer) == ("reject", "ann")
    log = store.log()
    assert [(d.decision, d.before == d.after) for d in log] == [(ACCEPT, True), (EDIT, False), (REJECT, True)]
    assert log[0].time == "1970-01-01T00:16:40+00:00"


def test_taking_rows_in_twice_adds_none(make):
    store = make(3)
    assert store.add([vqa_row(1), vqa_row(3)]) == (1, 1)
    assert store.progress().rows == 4


@pytest.mark.parametrize(
    ("choice", "change", "message"),
    [
        (ACCEPT, {"reasoning": "Other."}, "save it as an edit"),
        (EDIT, {}, "nothing was changed"),
        (EDIT, {"reasoning": " "}, "need words"),
        (EDIT, {"result": "real, 0.90, Real"}, "the truth is fake, Identity exchange"),
        (EDIT, {"result": "fake, 0.90, Entire face synthesis"}, "the truth is"),
    ],
)
def test_what_may_not_be_kept_is_refused_and_leaves_no_trace(make, choice, change, message):
    store = make()
    text = text_of(vqa_row()).model_dump() | change
    with pytest.raises(UsageError, match=message):
        store.decide("ann", 1, choice, Text(**text))
    assert store.log() == []
    assert store.progress().open == 3


def test_a_row_without_a_readable_result_cannot_be_accepted(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    store.add([vqa_row(result=None)])
    with pytest.raises(UsageError, match="analysis result"):
        decide(store, "ann", 1, ACCEPT)
    decide(store, "ann", 1, EDIT, text_of(vqa_row()))
    assert store.progress().kept == 1


@pytest.mark.parametrize("name", ["", "  ", "x" * 81])
def test_a_reviewer_has_a_name(make, name):
    with pytest.raises(UsageError, match="enter your name"):
        make().next(name)


def test_the_log_is_append_only(make, tmp_path):
    store = make()
    decide(store, "ann", 1, ACCEPT)
    decide(store, "ann", 1, REJECT)
    decide(store, "ann", 1, REJECT)  # the same again is no new decision
    assert [d.decision for d in store.log()] == [ACCEPT, REJECT]
    assert store.progress().rejected == 1
    db = sqlite3.connect(tmp_path / "r.sqlite")
    for statement in ("DELETE FROM log", "UPDATE log SET decision = 'accept'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.close()


def test_a_row_is_with_one_reviewer_until_the_lease_ends(make):
    store = make(2)
    assert (store.next("ann").id, store.next("bob").id, store.next("ann").id) == (1, 2, 1)
    assert store.next("cleo") is None
    store.now += LEASE / 2
    store.draft("ann", 1, text_of(vqa_row(0)))  # typing renews
    store.now += LEASE / 2 + 1
    assert store.next("cleo").id == 2
    store.now += LEASE / 2
    assert store.next("bob").id == 1


def test_several_may_have_a_row_at_once_where_wanted(make):
    store = make(1, reviews=2, together=True)
    assert [bool(store.next(name)) for name in ("ann", "bob", "cleo")] == [True, True, False]
    decide(store, "ann", 1, ACCEPT)
    assert store.next("cleo") is None  # bob has it, and one is enough
    assert store.next("bob").others == []


def test_next_and_previous_go_over_ones_own_rows(make):
    store = make(4)
    decide(store, "bob", 2, ACCEPT)
    decide(store, "ann", 1, REJECT)
    assert store.next("ann").id == 3
    assert store.step("ann", 3, True).id == 4
    assert store.step("ann", 4, True) is None
    back = store.step("ann", 3, False)
    assert (back.id, back.own.decision) == (1, REJECT)  # 2 is settled, by another


def test_a_draft_is_kept_and_comes_first(make):
    store = make()
    view = store.view("ann", 3)
    assert store.draft("ann", 3, edited(view), "why")
    again = Store(store.path).next("ann")
    assert (again.id, again.draft, again.note) == (3, edited(view), "why")
    assert store.view("bob", 3).draft is None
    assert not store.draft("ann", 3, view.text)
    assert store.view("ann", 3).draft is None


def test_a_draft_that_arrives_after_its_decision_is_none(make):
    store = make()
    text = edited(store.next("ann"))
    store.draft("ann", 1, text)
    store.decide("ann", 1, EDIT, text)
    assert not store.draft("ann", 1, text)
    assert store.view("ann", 1).draft is None


@pytest.mark.parametrize(
    ("reviews", "choices", "state"),
    [
        (1, [ACCEPT], "kept"), (2, [ACCEPT], "open"), (2, [ACCEPT, EDIT], "kept"), (2, [REJECT, REJECT], "rejected"),
        (2, [ACCEPT, REJECT], "contested"), (2, [ACCEPT, REJECT, REJECT], "rejected"),
        (2, [REJECT, EDIT, ACCEPT], "kept"), (3, [ACCEPT, ACCEPT, REJECT], "contested"),
        (3, [ACCEPT, ACCEPT, REJECT, REJECT], "contested"), (3, [ACCEPT, ACCEPT, REJECT, ACCEPT], "kept"),
    ],
)  # fmt: skip
def test_when_a_row_is_settled(make, reviews, choices, state):
    store = make(1, reviews)
    for name, choice in zip("abcd", choices, strict=False):
        decide(store, name, 1, choice)
    progress = store.progress("a")
    assert getattr(progress, state) == 1
    assert progress.mine == 1


def test_disagreements_come_first_and_show_what_others_said(make):
    store = make(3, reviews=2)
    text = edited(store.view("ann", 2))
    decide(store, "ann", 2, EDIT, text, "jaw")
    assert store.view("cleo", 2).text == text_of(vqa_row(1))  # not yet: they decide unseen
    decide(store, "bob", 2, REJECT)
    view = store.next("cleo")
    assert (view.id, view.state, view.text) == (2, "contested", text)
    assert [(d.reviewer, d.note) for d in view.others] == [("ann", "jaw"), ("bob", "")]
    store.decide("cleo", 2, ACCEPT, view.text)
    (kept,) = store.reviewed("kept")
    assert kept.decisions[-1].informed
    assert store.agreement()[0].counts == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert len(store.agreement()) == 1  # cleo saw the others' decisions


def test_two_different_edits_are_a_disagreement_and_the_last_one_stands(make, tmp_path):
    store = make(1, reviews=2)
    for name in ("ann", "bob"):
        decide(store, name, 1, EDIT, edited(store.view(name, 1), name))
    assert store.progress().contested == 1
    decide(store, "cleo", 1, EDIT, text_of(vqa_row()).model_copy(update={"description": "By cleo."}))
    store.export(tmp_path / "kept.jsonl", tmp_path / "no.jsonl")
    (kept,) = read_jsonl(tmp_path / "kept.jsonl", VqaRow)
    assert (kept.description, kept.reasoning) == ("By cleo.", "A seam.")
    assert kept.reviewed_by == ["ann", "bob", "cleo"]


def test_an_edit_stands_when_its_author_accepts_it_later(make, tmp_path):
    store = make(1)
    decide(store, "ann", 1, EDIT)
    decide(store, "ann", 1, REJECT)
    decide(store, "ann", 1, ACCEPT)
    store.export(tmp_path / "kept.jsonl", tmp_path / "no.jsonl")
    assert next(read_jsonl(tmp_path / "kept.jsonl", VqaRow)).reasoning == "A seam. Mine."


def test_the_number_of_reviews_is_kept_and_may_change(make, tmp_path):
    store = make(2, reviews=1)
    decide(store, "ann", 1, ACCEPT)
    path = tmp_path / "r.sqlite"
    assert Store(path, 2).progress().open == 2
    assert Store(path).reviews == 2
    assert Store(path, 1).progress().kept == 1
    with pytest.raises(UsageError, match="at least 1"):
        Store(path, 0)


def test_kappa_of_the_textbook():
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert cohen_kappa(np.array([[5, 0], [0, 5]])) == 1
    assert cohen_kappa(np.array([[7, 0], [0, 0]])) is None
    assert cohen_kappa(np.zeros((2, 2), int)) is None


def test_agreement_of_two_reviewers(make):
    store = make(4, reviews=2)
    for name, choices in (("ann", (ACCEPT, EDIT, REJECT, ACCEPT)), ("bob", (ACCEPT, ACCEPT, REJECT, REJECT))):
        for row, choice in enumerate(choices, 1):
            decide(store, name, row, choice)
    (pair,) = store.agreement()
    assert (pair.first, pair.second) == ("ann", "bob")
    assert pair.counts == [[1, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert pair.kappa == pytest.approx((0.5 - 6 / 16) / (10 / 16))
    assert pair.kappa_keep == pytest.approx(0.5)


def test_reviewers_at_the_same_time_lose_nothing(make):
    store = make(12, reviews=2)

    def work(name):
        while (view := store.next(name)) is not None:
            store.decide(name, view.id, ACCEPT, view.text)

    def all_of_it(name):
        for _ in range(200):
            work(name)
            if store.progress(name).mine == 12:
                return

    threads = [threading.Thread(target=all_of_it, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.progress().kept == 12
    assert sorted((d.row, d.reviewer) for d in store.log()) == [(i, n) for i in range(1, 13) for n in ("ann", "bob")]


KILLED = """
import sys
from pathlib import Path
from ffaa.vqa.decision import Choice
from ffaa.vqa.review import Store
store = Store(Path(sys.argv[1]))
while (view := store.next("ann")) is not None:
    store.decide("ann", view.id, Choice.ACCEPT, view.text)
    print(view.id, flush=True)
"""


def test_a_killed_process_loses_no_decision_it_reported(make, tmp_path):
    store = make(200)
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "r.sqlite")],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    told = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.communicate()[0].split()]
    found = [d.row for d in store.log()]
    assert found[: len(told)] == told
    assert len(found) <= len(told) + 1
    assert store.progress().kept == len(found)


def test_another_file_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "a.sqlite").write_text("no database, and long enough to be looked at by the library\n" * 20)
    with pytest.raises(InputError, match="is it a review file"):
        Store(tmp_path / "a.sqlite")
    db = sqlite3.connect(tmp_path / "b.sqlite")
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    with pytest.raises(InputError, match="no review file"):
        Store(tmp_path / "b.sqlite")
    with pytest.raises(InputError, match="no such folder"):
        Store(tmp_path / "none" / "c.sqlite")
    with pytest.raises(UsageError, match="row 9 is not in"):
        Store(tmp_path / "d.sqlite").view("ann", 9)
    with pytest.raises(UsageError, match="row 9 is not in"):
        Store(tmp_path / "d.sqlite").draft("ann", 9, text_of(vqa_row()))
