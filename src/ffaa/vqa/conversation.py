"""One conversation: a question about a face and the answer to learn. JSON Lines on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label, Record

T = TypeVar("T", bound=Record)


class Conversation(Record):
    """`image` is the manifest path. `evidence`: measure -> word. `variant` seeds the augmentation the evidence was
    measured on. `hypothesis` is what the question presumes, None for a non-hypothetical one. `label` and
    `forgery_type` are what the answer says.
    The five lines are made of description, reasoning, label, probability and forgery_type where they are learnt.
    `links`: for every sentence of the answer's text, the evidence or manifest field it rests on.
    """

    image: str
    sha256: str
    variant: int
    label: Label
    forgery_type: ForgeryType
    question: str
    hypothesis: Label | None
    description: str
    reasoning: str
    probability: float = Field(ge=0, le=1)
    evidence: dict[str, str]
    links: list[str]
    teacher: str
    seed: int


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write records, one JSON object a line, replacing the file at once. Returns their number."""
    part, count = path.with_suffix(path.suffix + ".part"), 0
    with part.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")
            count += 1
    part.replace(path)
    return count


def read_jsonl(path: Path, kind: type[T]) -> Iterator[T]:
    """Read records of one kind. Raises InputError naming the line that does not fit."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the stage that writes it first")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"{path}:{number}: not a {kind.__name__} ({error.error_count()} errors)") from error


def resume_jsonl(path: Path, kind: type[T], multiple: int = 1) -> list[T]:
    """The records a killed run left in `path`, which is cut behind the last whole line and to a multiple of records.

    A kill can tear the last line or stop inside a batch; what is cut is made again. Missing file: no records.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    lines = lines[: len(lines) // multiple * multiple]
    size = sum(len(line) + 1 for line in lines)
    with path.open("r+b") as file:
        file.truncate(size)
    return list(read_jsonl(path, kind))
