"""`ffaa vqa`: conversations out of a manifest, and what people make of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffaa.cli.extras import needs
from ffaa.errors import UsageError

app = typer.Typer(help="Make, filter, review and export conversations about faces.", no_args_is_help=True)


@app.command("review")
def review(
    store: Annotated[Path, typer.Argument(metavar="FILE", help="The review file (SQLite); made where it is missing.")],
    rows: Annotated[list[Path] | None, typer.Option(help="Rows to take in, JSON Lines; may be given again.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the manifest: opens the page.")] = None,
    reviews: Annotated[int | None, typer.Option(min=1, help="People per row; default as before, 1 at first.")] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Several people may have a row open at once, where it needs several.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The page is at http://127.0.0.1:PORT.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
    from_label_studio: Annotated[Path | None, typer.Option(help="Take in an export of Label Studio (JSON).")] = None,
    to_label_studio: Annotated[Path | None, typer.Option(help="Write tasks, and FILE.xml, the interface.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write: accepted.jsonl, rejected.jsonl, log.jsonl, agreement.jsonl.")
    ] = None,
) -> None:
    """Accept, edit or reject rows in the browser. Takes in, then shows the page (with --images), then writes."""
    with needs("review"):
        from ffaa.vqa import label_studio
        from ffaa.vqa.conversation import read_jsonl, write_jsonl
        from ffaa.vqa.review import Store
        from ffaa.vqa.row import VqaRow

    opened = Store(store, reviews, together)
    for path in rows or []:
        added, known = opened.add(read_jsonl(path, VqaRow))
        typer.echo(f"{path}: {added} rows taken in, {known} were there")
    if from_label_studio is not None:
        brought = label_studio.import_tasks(opened, from_label_studio)
        for problem in brought.problems:
            typer.echo(problem, err=True)
        typer.echo(f"{from_label_studio}: {brought.rows} rows, {brought.decisions} decisions taken in")
    if images is not None:
        with needs("review"):
            from ffaa.serve.review_page import HOST, serve
        typer.echo(f"http://{HOST}:{port} - Ctrl+C ends it", err=True)
        serve(opened, images, port, browser)
    if to_label_studio is not None:
        count = label_studio.export_tasks(opened, to_label_studio)
        to_label_studio.with_suffix(".xml").write_text(label_studio.CONFIG, encoding="utf-8")
        typer.echo(f"{to_label_studio}: {count} tasks")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        kept, rejected = opened.export(out / "accepted.jsonl", out / "rejected.jsonl")
        write_jsonl(out / "log.jsonl", opened.log())
        write_jsonl(out / "agreement.jsonl", opened.agreement())
        typer.echo(f"{out}: {kept} rows accepted, {rejected} rejected")
    p = opened.progress()
    typer.echo(f"{p.rows} rows: {p.kept} kept, {p.rejected} rejected, {p.contested} disagreements, {p.open} open")


class TeacherName(StrEnum):
    GROUNDED = "grounded"
    OPENAI = "openai"


class Format(StrEnum):
    LLAVA = "llava"
    CHAT = "chat"


class Variant(StrEnum):
    R = "R"
    DR = "DR"
    FR = "FR"
    ALL = "All"


Rows = Annotated[Path, typer.Argument(metavar="ROWS", help="Rows, JSON Lines, as `generate` or `review` write them.")]


@app.command("generate")
def generate(
    manifest: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that `ffaa data build` wrote.")],
    out: Annotated[Path, typer.Option(help="Rows to write, JSON Lines.")],
    teacher: Annotated[TeacherName, typer.Option(help="grounded measures and writes, offline.")] = TeacherName.GROUNDED,
    split: Annotated[str, typer.Option(help="Of the manifest.")] = "train",
    count: Annotated[int | None, typer.Option(min=1, help="At most so many faces, a seeded draw.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides over questions and wordings.")] = 0,
    workers: Annotated[int | None, typer.Option(min=0, help="Of grounded: processes; default one per core.")] = None,
    settings: Annotated[Path | None, typer.Option(help="Of openai: YAML (model, prices, cap, limits ...).")] = None,
    cache: Annotated[Path | None, typer.Option(help="Of openai: paid replies; default OUT with .cache.sqlite.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Of openai: print what it may cost, and end.")] = False,
) -> None:
    """Write a conversation about every face of a split. A killed run goes on, and pays nothing twice."""
    with needs("vqa"):
        from functools import partial

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from ffaa.mllm.answer import format_answer, parse_answer
        from ffaa.settings import load_yaml
        from ffaa.types import Role
        from ffaa.vqa import produce
        from ffaa.vqa.teachers import TEACHERS
        from ffaa.vqa.teachers.chat import OpenAIArgs

    with needs("vqa"):
        if teacher is TeacherName.GROUNDED:
            chosen = TEACHERS["grounded"](format_answer, workers)
        else:
            args = load_yaml(settings, OpenAIArgs) if settings else OpenAIArgs.model_validate({})
            parse = partial(parse_answer, role=Role.ANCHOR, prompt="")
            chosen = TEACHERS["openai"](args, parse, cache or out.with_suffix(".cache.sqlite"))
    if estimate:
        if teacher is TeacherName.GROUNDED:
            typer.echo("the grounded teacher costs nothing")
            return
        rows = produce.chosen(manifest, split, count, seed)
        typer.echo(chosen.estimate(produce.asks(manifest, rows, seed)).model_dump_json(indent=1))
        return
    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    with bar:
        task = bar.add_task("rows", total=None)
        written = produce.generate(
            manifest, out, chosen, split, count, seed,
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    typer.echo(f"{out}: {written} rows by {chosen.name}")


@app.command("filter")
def filter_(
    rows: Rows,
    out: Annotated[Path, typer.Option(help="Rows that stay, JSON Lines.")],
    rejected: Annotated[Path, typer.Option(help="Rows that go, with all reasons, JSON Lines.")],
    settings: Annotated[Path | None, typer.Option(help="YAML with thresholds; see docs/vqa.md.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="The manifest's folder: named regions are checked on masks.")
    ] = None,
) -> None:
    """Drop rows with a wrong format or result, contradictions, unfounded claims, duplicates ..., and say why."""
    with needs("vqa"):
        from ffaa.settings import load_yaml
        from ffaa.vqa import claims
        from ffaa.vqa.filter import Filter, FilterArgs, filter_file

    args = load_yaml(settings, FilterArgs) if settings else FilterArgs.model_validate({})
    changed = claims.mask_regions(images) if images else None
    counts = filter_file(rows, out, rejected, Filter(args, changed=changed))
    typer.echo(counts.model_dump_json(indent=1))


@app.command("export")
def export(
    rows: Rows,
    out: Annotated[Path, typer.Option(help="Training file to write.")],
    format_: Annotated[
        Format, typer.Option("--format", help="llava: the published JSON; chat: messages.")
    ] = Format.LLAVA,
    variant: Annotated[Variant, typer.Option(help="Lines of the answer: Fig. 3's ablation.")] = Variant.ALL,
    seed: Annotated[int, typer.Option(min=0, help="Of the third that gets a hypothetical prompt.")] = 0,
) -> None:
    """Write training files; a seeded third of the conversations presumes what is true, as in the paper."""
    with needs("vqa"):
        from ffaa.mllm.answer import format_answer
        from ffaa.mllm.template import hypothesis_prompt
        from ffaa.types import Label
        from ffaa.vqa import export as writer
        from ffaa.vqa.conversation import read_jsonl
        from ffaa.vqa.row import VqaRow

    prompts = {label: [hypothesis_prompt(label)] for label in Label}
    asked = writer.with_hypotheses(read_jsonl(rows, VqaRow), prompts, seed)
    done = writer.export(asked, out, format_.value, variant.value, format_answer)
    typer.echo(done.model_dump_json(indent=1))


@app.command("stats")
def stats(
    rows: Rows,
    out: Annotated[Path | None, typer.Option(help="Folder for tables, JSON, the word cloud, 20 random rows.")] = None,
    information: Annotated[
        bool, typer.Option("--information", help="What a classifier of the text alone tells: type, from which lines.")
    ] = False,
    faithfulness: Annotated[
        int | None, typer.Option(min=1, help="With --images: read so many rows back and measure their faces anew.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that the rows were made from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the classifier's folds and the rows read back.")] = 0,
) -> None:
    """What the rows hold: counts, lengths, words, repetition; whether the text carries the type, and whether it is true
    of the photos."""
    if (faithfulness is None) is not (images is None):
        raise UsageError("--faithfulness N and --images FOLDER go together; give both")
    with needs("vqa"):
        from ffaa.data.stats import Table, show
        from ffaa.types import Record
        from ffaa.vqa import faithfulness as reread
        from ffaa.vqa import information as reading
        from ffaa.vqa import stats as counted
        from ffaa.vqa.conversation import read_jsonl
        from ffaa.vqa.row import VqaRow

    found = counted.describe(counted.tally(read_jsonl(rows, VqaRow)))
    more: dict[str, tuple[Record, Table]] = {}
    if information:
        read = reading.measure(read_jsonl(rows, VqaRow), seed)
        more["information"] = (read, reading.table(read))
    if images is not None:
        held = reread.measure(list(read_jsonl(rows, VqaRow)), images, faithfulness, seed)
        more["faithfulness"] = (held, reread.table(held))
    show([*counted.tables(found), *(table for _, table in more.values())])
    if out is not None:
        counted.write_report(out, found, more, counted.sample(read_jsonl(rows, VqaRow), seed=seed))
