"""Reviews out to and in from Label Studio (https://labelstud.io/guide/task_format), for teams that work there.

Import TASKS.json into a project whose labelling interface is `CONFIG`; bring back the export named JSON (not JSON-MIN).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from ffaa.errors import InputError, UsageError
from ffaa.types import Record
from ffaa.vqa.decision import Choice, Decision, Reviewed, Text, text_of
from ffaa.vqa.review import Store
from ffaa.vqa.row import VqaRow

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio names files below its LOCAL_FILES_DOCUMENT_ROOT
PARTS = ("description", "reasoning", "result")
CONFIG = """<View>
  <View style="display: flex; gap: 1em">
    <Image name="image" value="$image" /><Image name="beside" value="$beside" />
  </View>
  <Header value="$truth" />
  <Header value="Image description" />
  <TextArea name="description" toName="image" editable="true" maxSubmissions="1" rows="4" />
  <Header value="Forgery reasoning" />
  <TextArea name="reasoning" toName="image" editable="true" maxSubmissions="1" rows="6" />
  <Header value="Analysis result" />
  <TextArea name="result" toName="image" editable="true" maxSubmissions="1" rows="1" />
  <Choices name="decision" toName="image" choice="single" required="true" showInline="true">
    <Choice value="accept" hotkey="a" /><Choice value="edit" hotkey="e" /><Choice value="reject" hotkey="r" />
  </Choices>
  <TextArea name="note" toName="image" maxSubmissions="1" rows="1" placeholder="Note" />
</View>
"""


class Imported(Record):
    """What an import brought. problems: a line for every annotation that was left out."""

    rows: int
    decisions: int
    problems: list[str]


def export_tasks(store: Store, path: Path, prefix: str = LOCAL_FILES) -> int:
    """Write every row as a task, the teacher's text as its prediction, decisions as annotations. Returns their number.

    prefix: put before the images' paths. A reviewer whose name is an e-mail address is named in completed_by too.
    """
    part, count = path.with_name(path.name + ".part"), 0
    with part.open("w", encoding="utf-8") as file:
        file.write("[")
        for reviewed in store.reviewed():
            file.write((",\n" if count else "\n") + json.dumps(_task(reviewed, prefix), ensure_ascii=False))
            count += 1
        file.write("\n]\n")
    part.replace(path)
    return count


def _task(reviewed: Reviewed, prefix: str) -> dict[str, Any]:
    row = reviewed.row
    images = {"image": row.image, "beside": row.reference or row.mask or row.image}
    truth = f"Truth: {row.label.value}, {row.forgery_type.value}" + (f", {row.method}" if row.method else "")
    prediction = {"model_version": row.teacher, "result": _texts(text_of(row))}
    return {
        "data": {k: prefix + quote(v) for k, v in images.items()}
        | {"truth": truth, "question": row.question, "row": row.model_dump(mode="json")},
        "predictions": [prediction],
        "annotations": [_annotation(d) for d in reviewed.decisions],
    }


def _texts(text: Text) -> list[dict[str, Any]]:
    return [_area(name, getattr(text, name)) for name in PARTS]


def _area(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "image", "type": "textarea", "value": {"text": [text]}}


def _annotation(decision: Decision) -> dict[str, Any]:
    choice = {
        "id": "decision", "from_name": "decision", "to_name": "image", "type": "choices",
        "value": {"choices": [decision.decision.value]}, "meta": {"reviewer": decision.reviewer},
    }  # fmt: skip
    result = [choice, *_texts(decision.after)] + ([_area("note", decision.note)] if decision.note else [])
    told = {"result": result, "created_at": decision.time, "updated_at": decision.time, "was_cancelled": False}
    return told | ({"completed_by": {"email": decision.reviewer}} if "@" in decision.reviewer else {})


def import_tasks(store: Store, path: Path) -> Imported:
    """Take in the tasks of an export and their annotations, oldest first; what is there already is not doubled.

    A text that was changed counts as an edit, whatever was chosen beside it but 'reject'. Raises InputError where the
    file is no such export or a task was not written by `export_tasks`.
    """
    try:
        tasks = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(tasks, list):
        raise InputError(f"{path}: not a list of tasks; export the project as JSON")
    rows: list[VqaRow] = []
    found: list[tuple[str, int, int, dict[str, Any]]] = []
    for number, task in enumerate(tasks, 1):
        try:
            rows.append(VqaRow.model_validate(task["data"]["row"]))
            for annotation in task.get("annotations", []):
                found.append((_time(annotation), number, len(rows) - 1, annotation))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = "data.row is damaged" if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: task {number} is not one that ffaa made ({what}); export as JSON") from error
    added, _ = store.add(rows)
    decisions, problems = 0, []
    for when, number, place, annotation in sorted(found, key=lambda f: f[:2]):
        try:
            reviewer, choice, text, note = _read(annotation, rows[place])
            decisions += store.record(reviewer, rows[place], choice, text, note, when)
        except UsageError as error:
            problems.append(f"task {number}: {error}")
    return Imported(rows=added, decisions=decisions, problems=problems)


def _time(annotation: dict[str, Any]) -> str:
    told = annotation.get("updated_at") or annotation["created_at"]
    when = datetime.fromisoformat(told)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _read(annotation: dict[str, Any], row: VqaRow) -> tuple[str, Choice, Text, str]:
    if annotation.get("was_cancelled"):
        raise UsageError("skipped by the annotator")
    parts = {r["from_name"]: r for r in annotation.get("result", []) if "from_name" in r}
    chosen = parts.get("decision", {}).get("value", {}).get("choices", [])
    if len(chosen) != 1 or chosen[0] not in set(Choice):
        raise UsageError("no decision was chosen")
    texts = {name: " ".join(parts[name]["value"]["text"]) for name in (*PARTS, "note") if name in parts}
    original = text_of(row)
    text = Text.model_validate({name: texts.get(name, getattr(original, name)) for name in PARTS})
    choice = Choice(chosen[0])
    if choice is not Choice.REJECT:
        choice = Choice.ACCEPT if text == original else Choice.EDIT
    by = annotation.get("completed_by")
    by = by.get("email") or by.get("id") if isinstance(by, dict) else by
    name = parts["decision"].get("meta", {}).get("reviewer") or (f"label-studio-{by}" if isinstance(by, int) else by)
    if not name:
        raise UsageError("nobody is named in completed_by")
    return str(name), choice, text, texts.get("note", "")
