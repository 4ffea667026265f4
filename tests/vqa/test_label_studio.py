import json
import xml.etree.ElementTree as ET

import pytest

from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label
from ffaa.vqa.decision import Choice, text_of
from ffaa.vqa.label_studio import CONFIG, export_tasks, import_tasks
from ffaa.vqa.review import Store
from ffaa.vqa.row import Sentence, VqaRow


def vqa_row(i):
    return VqaRow(
        image=f"crops/a b{i}.png", sha256=str(i), label=Label.FAKE, forgery_type=ForgeryType.IDENTITY_EXCHANGE,
        reference="ref.png" if i == 0 else "", method="swap", question="Real?", teacher="t", prompt_version="1", seed=0,
        sentences=[Sentence(part="description", text=f"Face {i}."), Sentence(part="reasoning", text="A seam.")],
        raw="é", result=Label.FAKE, probability=0.9, stated_type=ForgeryType.IDENTITY_EXCHANGE,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "r.sqlite", 1)
    store.add(vqa_row(i) for i in range(3))
    return store


def annotation(choice="accept", by=7, when="2024-05-01T10:00:00.5Z", **texts):
    result = [
        {"from_name": name, "to_name": "image", "type": "textarea", "value": {"text": [text]}}
        for name, text in texts.items()
    ]
    if choice:
        chosen = {"from_name": "decision", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        result.append(chosen)
    return {"id": 1, "completed_by": by, "result": result, "was_cancelled": False, "created_at": when}


def write(tmp_path, *tasks):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def task(i, *annotations):
    return {"id": i, "data": {"row": vqa_row(i).model_dump(mode="json")}, "annotations": annotations}


def test_what_is_written_fits_the_interface(store, tmp_path):
    assert export_tasks(store, tmp_path / "tasks.json") == 3
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    first = tasks[0]
    assert first["data"]["image"] == "/data/local-files/?d=crops/a%20b0.png"
    assert first["data"]["beside"] == "/data/local-files/?d=ref.png"
    assert first["data"]["truth"] == "Truth: fake, Identity exchange, swap"
    controls = {element.get("name"): element for element in ET.fromstring(CONFIG).iter() if element.get("toName")}
    shown = [e.get("value")[1:] for e in ET.fromstring(CONFIG).iter() if (e.get("value") or "").startswith("$")]
    assert set(shown) <= first["data"].keys()
    for part in first["predictions"][0]["result"]:
        control = controls[part["from_name"]]
        assert part["type"] == control.tag.lower()
        assert part["to_name"] == control.get("toName")
    texts = {part["from_name"]: part["value"]["text"] for part in first["predictions"][0]["result"]}
    assert texts == {
        "description": ["Face 0."], "reasoning": ["A seam."], "result": ["fake, 0.90, Identity exchange"],
    }  # fmt: skip
    assert {c.get("value") for c in controls["decision"]} == set(Choice)


def test_rows_and_decisions_come_back(store, tmp_path):
    view = store.next("ann@example.org")
    store.decide("ann@example.org", 1, Choice.ACCEPT, view.text)
    text = text_of(vqa_row(1)).model_copy(update={"reasoning": "No seam."})
    store.decide("bob", 2, Choice.EDIT, text, "why")
    store.decide("bob", 3, Choice.REJECT, text_of(vqa_row(2)))
    export_tasks(store, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["annotations"][0]["completed_by"] == {"email": "ann@example.org"}
    assert "completed_by" not in tasks[1]["annotations"][0]
    other = Store(tmp_path / "other.sqlite")
    told = import_tasks(other, tmp_path / "tasks.json")
    assert (told.rows, told.decisions, told.problems) == (3, 3, [])
    assert other.log() == store.log()
    again = import_tasks(other, tmp_path / "tasks.json")
    assert (again.rows, again.decisions) == (0, 0)
    for name in ("store", "other"):
        {"store": store, "other": other}[name].export(tmp_path / f"{name}.jsonl", tmp_path / "no.jsonl")
    assert (tmp_path / "store.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_what_people_do_in_label_studio(store, tmp_path):
    changed = {"description": "A woman.", "note": "better"}
    path = write(
        tmp_path,
        task(0, annotation("accept", **changed)),
        task(1, annotation("edit"), annotation("reject", by={"id": 3, "email": "x@y.z"}, when="2024-05-01T09:00:00Z")),
        task(2, annotation(None), {**annotation(), "was_cancelled": True}, annotation(result="real, 0.9, Real")),
    )
    told = import_tasks(store, path)
    assert (told.rows, told.decisions) == (0, 3)
    assert [problem.partition(":")[0] for problem in told.problems] == ["task 3"] * 3
    assert any("no decision" in p for p in told.problems)
    assert any("skipped" in p for p in told.problems)
    assert any("the truth is fake" in p for p in told.problems)
    log = store.log()
    assert [(d.row, d.reviewer, d.decision) for d in log] == [
        (2, "x@y.z", Choice.REJECT), (1, "label-studio-7", Choice.EDIT), (2, "label-studio-7", Choice.ACCEPT),
    ]  # fmt: skip
    assert (log[1].after.description, log[1].note) == ("A woman.", "better")
    assert log[0].time == "2024-05-01T09:00:00+00:00"
    assert not log[2].informed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "not a list of tasks"),
        ('[{"data": {"image": "a.png"}}]', "task 1 is not one that ffaa made"),
        ('[{"data": {"row": {"image": "a.png"}}}]', "data.row is damaged"),
        ("[3]", "task 1 is not"),
    ],
)
def test_another_file_is_refused_whole(store, tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        import_tasks(store, path)
    assert store.progress().rows == 3
