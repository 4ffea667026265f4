import json

import pytest
import typer
from typer.testing import CliRunner

from ffaa.cli import vqa
from ffaa.types import ForgeryType, Label
from ffaa.vqa.conversation import write_jsonl
from ffaa.vqa.decision import Choice
from ffaa.vqa.review import Store
from ffaa.vqa.row import Sentence, VqaRow


@pytest.fixture
def call(tmp_path):
    """Runs `ffaa vqa review` on tmp_path/r.sqlite and returns what it printed."""
    app = typer.Typer()
    app.add_typer(vqa.app, name="vqa")

    def run(*args):
        result = CliRunner().invoke(app, ["vqa", "review", str(tmp_path / "r.sqlite"), *map(str, args)])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def rows(tmp_path):
    sentences = [Sentence(part="description", text="A face."), Sentence(part="reasoning", text="No seam.")]
    path = tmp_path / "rows.jsonl"
    write_jsonl(
        path,
        (
            VqaRow(
                image=f"{i}.png", sha256=str(i), label=Label.REAL, forgery_type=ForgeryType.REAL, question="Real?",
                teacher="t", prompt_version="1", seed=0, raw="", sentences=sentences, result=Label.REAL,
                probability=0.9, stated_type=ForgeryType.REAL,
            )
            for i in range(3)
        ),
    )  # fmt: skip
    return path


def test_rows_in_and_decisions_out(call, rows, tmp_path):
    assert "3 rows taken in, 0 were there" in call("--rows", rows, "--reviews", 2)
    assert "0 rows taken in, 3 were there" in call("--rows", rows)
    store = Store(tmp_path / "r.sqlite")
    assert store.reviews == 2
    for name in ("ann", "bob"):
        for row, choice in ((1, Choice.ACCEPT), (2, Choice.REJECT)):
            store.decide(name, row, choice, store.view(name, row).text)
    out = call("--out", tmp_path / "out", "--to-label-studio", tmp_path / "tasks.json")
    assert "1 rows accepted, 1 rejected" in out
    assert "3 rows: 1 kept, 1 rejected, 0 disagreements, 1 open" in out
    names = ("accepted", "rejected", "log", "agreement")
    counts = [len((tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()) for name in names]
    assert counts == [1, 1, 4, 1]
    assert json.loads((tmp_path / "out" / "agreement.jsonl").read_text())["kappa_keep"] == 1
    assert (tmp_path / "tasks.xml").read_text().startswith("<View>")


def test_label_studio_brings_rows_and_decisions(call, rows, tmp_path):
    call("--rows", rows, "--to-label-studio", tmp_path / "tasks.json")
    (tmp_path / "r.sqlite").unlink()
    assert "3 rows, 0 decisions taken in" in call("--from-label-studio", tmp_path / "tasks.json")
