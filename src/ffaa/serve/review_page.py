"""The experts' page: one row at a time, the photo beside the text, decided with keys. Gradio, on this computer only.

The page itself holds nothing: the row's number and the name live in the browser, all else in the review file, so that
a reload or a new server goes on where the reviewer was. What is typed while no server answers is kept by the browser
and brought when the page is loaded again. Nothing is fetched from other hosts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware

from ffaa.data import manifest
from ffaa.data.images import load_photo
from ffaa.data.shards import read_bytes
from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.vqa.decision import Agreement, Choice, Decision, Text
from ffaa.vqa.review import Store, View

HOST = "127.0.0.1"
SHOWN = 640  # longest side of a picture on the page, pixels
KEYS = "a accept · e edit, then save · r reject · j next · k previous · Esc leaves a text box, Ctrl+Enter saves in it"
_BEGIN = "Enter your name to begin, then press Enter."
_HEAD = """<script>
const reviewTyped = "ffaa-review-KEY";
document.addEventListener("keydown", (event) => {
  const press = (name) => { event.preventDefault(); document.getElementById("review-" + name).click(); };
  const typing = event.target.matches("input, textarea, select, [contenteditable]");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("edit");
    return;
  }
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = {a: "accept", r: "reject", j: "next", k: "previous"}[event.key];
  if (name) press(name);
  if (event.key === "e") {
    if (document.querySelector("#review-status .draft")) return press("edit");
    event.preventDefault();
    document.querySelector("#review-description textarea").focus();
  }
});
document.addEventListener("input", (event) => {
  if (!event.target.closest("#review-description, #review-reasoning, #review-result, #review-note")) return;
  const value = (name) => document.querySelector(`#review-${name} textarea, #review-${name} input`).value;
  const names = ["name", "row", "description", "reasoning", "result", "note"];
  localStorage.setItem(reviewTyped, JSON.stringify(names.map(value)));
});
</script>"""
_TYPED = "(name, _) => [name, localStorage.getItem(reviewTyped) || '']"
_ARRIVED = "() => { localStorage.removeItem(reviewTyped); }"
_CSS = """
footer { display: none !important; }
#review-photos .row { display: flex; flex-wrap: wrap; gap: 1rem; }
#review-photos figure { margin: 0; flex: 1 1 12rem; max-width: 28rem; }
#review-photos img { width: 100%; image-rendering: auto; border-radius: 4px; }
#review-photos figcaption, #review-truth, #review-progress { font-size: 1rem; }
#review-status { min-height: 1.6rem; font-size: 1.05rem; }
#review-status .error { font-weight: 600; color: #b3261e; }
.dark #review-status .error { color: #ffb4ab; }
#review td, #review th { padding: 0.2rem 0.8rem; text-align: left; vertical-align: top; }
#review button { white-space: nowrap; }
#review textarea { font-size: 1.05rem; line-height: 1.5; }
#review button:focus-visible, #review textarea:focus-visible { outline: 3px solid #1a73e8; outline-offset: 2px; }
"""
# The frontend would otherwise look for fonts and scripts on other hosts.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class Photos:
    """Pictures of rows, from the folder that holds their manifest (which is asked where crops lie in shards)."""

    def __init__(self, folder: Path):
        self._folder = folder.resolve()
        self._packed: dict[str, manifest.Row] | None = None

    def html(self, name: str, caption: str) -> str:
        """A figure with the picture in it, or with the reason why there is none."""
        try:
            body = f'<img src="{self._uri(name)}" alt="{escape(caption)}">'
        except InputError as error:
            body = f"<p>{escape(str(error))}</p>"
        return f"<figure>{body}<figcaption>{escape(caption)}</figcaption></figure>"

    def _uri(self, name: str) -> str:
        image = Image.fromarray(load_photo(self._source(name)).pixels)
        image.thumbnail((SHOWN, SHOWN))
        file = io.BytesIO()
        image.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

    def _source(self, name: str) -> Path | Image.Image:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise InputError(f"{name}: lies outside {self._folder}; give the folder of the manifest")
        if path.is_file() or not (self._folder / manifest.NAME).is_file():
            return path
        if self._packed is None:
            self._packed = {row.path: row for row in manifest.scan(self._folder) if row.shard}
        if name not in self._packed:
            return path
        return Image.open(io.BytesIO(read_bytes(self._folder, self._packed[name])))


def _told(view: View, photos: Photos) -> tuple[str, str]:
    row = view.row
    figures = [photos.html(row.image, f"Photo of row {view.id}")]
    figures += [photos.html(row.reference, "Reference: the original face")] if row.reference else []
    figures += [photos.html(row.mask, "Mask: what was changed")] if row.mask else []
    truth = {
        "Truth": row.label.value, "Type": row.forgery_type.value, "Method": row.method,
        "Changed": ", ".join(row.regions), "Collection": row.dataset, "Question": row.question, "Teacher": row.teacher,
    }  # fmt: skip
    lines = [f"<tr><th scope=row>{name}</th><td>{escape(value)}</td></tr>" for name, value in truth.items() if value]
    lines += [f"<tr><th scope=row>{_who(d)}</th><td>{_what(d)}</td></tr>" for d in view.others]
    links = [f"<li>{escape(s.text)} <em>{escape(', '.join(s.evidence) or 'nothing')}</em></li>" for s in row.sentences]
    more = (
        f"<details><summary>What each sentence rests on</summary><ul>{''.join(links)}</ul></details>" if links else ""
    )
    more += f"<details><summary>The teacher's reply, whole</summary><pre>{escape(row.raw)}</pre></details>"
    return f'<div class="row">{"".join(figures)}</div>', f"<table>{''.join(lines)}</table>{more}"


def _who(decision: Decision) -> str:
    return f"{escape(decision.reviewer)}: {decision.decision.value}"


def _what(decision: Decision) -> str:
    parts = [escape(decision.note)] if decision.note else []
    if decision.after != decision.before:
        parts += [escape(part) for part in decision.after.model_dump().values()]
    return "<br>".join(parts)


def _progress(store: Store, reviewer: str) -> str:
    p = store.progress(reviewer)
    settled = p.kept + p.rejected
    bar = f'<progress max="{max(p.rows, 1)}" value="{settled}">{settled}</progress>'
    return (
        f"{bar} {settled} of {p.rows} rows settled: {p.kept} kept, {p.rejected} rejected; {p.contested} disagreements, "
        f"{p.open} open; {p.mine} decided by you; reviewers per row: {store.reviews}"
    )


def agreement_table(pairs: list[Agreement]) -> str:
    """HTML table of Cohen's kappa for every two reviewers, with counts."""
    if not pairs:
        return "<p>No two reviewers have decided the same row yet.</p>"

    def number(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.2f}"

    rows = "".join(
        f"<tr><td>{escape(p.first)}, {escape(p.second)}</td><td>{sum(map(sum, p.counts))}</td>"
        f"<td>{sum(p.counts[i][i] for i in range(3))}</td><td>{number(p.kappa)}</td>"
        f"<td>{number(p.kappa_keep)}</td></tr>"
        for p in pairs
    )
    names = ("Reviewers", "Rows both decided", "Same decision", "Kappa: accept, edit, reject", "Kappa: keep, reject")
    return f"<table><tr>{''.join(f'<th scope=col>{n}</th>' for n in names)}</tr>{rows}</table>"


def page(store: Store, photos: Photos) -> gr.Blocks:
    """The page as Gradio blocks, not yet served."""

    def show(name: str, view: View | None, status: str) -> list[Any]:
        """Values of `outputs`."""
        bars = [_progress(store, name), agreement_table(store.agreement())]
        if view is None:
            return [0, "", "", "", "", "", "", status, *bars]
        text = view.draft or view.text
        if view.draft:
            status += ' <span class="draft">Your unsaved draft was kept.</span>'
        if view.own:
            status += f" You decided: {view.own.decision.value}."
        if view.others:
            status += " Others disagree about this row; see what they decided."
        return [view.id, *_told(view, photos), text.description, text.reasoning, text.result, view.note, status, *bars]

    def start(name: str) -> list[Any]:
        view = store.next(name)
        return show(
            name, view, "" if view else "Nothing is left for you to decide. Previous (k) shows what you decided."
        )

    def signed_in(told: str, typed: str = "") -> list[Any]:
        told = told.strip()
        if not told:
            return [gr.skip(), *_keep(_BEGIN)]
        if typed:
            name, number, *parts, note = json.loads(typed)
            if name.strip() == told and int(number):
                store.draft(told, int(number), _text(*parts), note)
        return [told, *start(told)]

    def decide(choice: Choice) -> Callable[..., Any]:
        def run(name: str, row: float, description: str, reasoning: str, result: str, note: str) -> Any:
            try:
                store.decide(name, _open_row(row), choice, _text(description, reasoning, result), note)
            except FFAAError as error:
                return _failed(error)
            told = {"accept": "Accepted", "edit": "Edit saved", "reject": "Rejected"}[choice.value]
            values = start(name)
            values[7] = f"{told}: row {int(row)}. {values[7]}"
            return values

        return run

    def move(forward: bool) -> Callable[..., Any]:
        def run(name: str, row: float, description: str, reasoning: str, result: str, note: str) -> Any:
            try:
                if row:
                    store.draft(name, int(row), _text(description, reasoning, result), note)
                view = store.step(name, int(row) or 2**62, forward)
            except FFAAError as error:
                return _failed(error)
            return show(name, view, "") if view else _keep("There is no further row that way.")

        return run

    def draft(name: str, row: float, description: str, reasoning: str, result: str, note: str) -> str:
        try:
            changed = store.draft(name, _open_row(row), _text(description, reasoning, result), note)
        except FFAAError as error:
            return f'<span class="error">{escape(str(error))}</span>'
        return f'<span class="draft">Draft kept at {datetime.now():%H:%M:%S}.</span>' if changed else "As proposed."

    with gr.Blocks(title="FFA-VQA review", analytics_enabled=False, elem_id="review", fill_width=True) as blocks:
        kept_name = gr.BrowserState("", storage_key="ffaa-reviewer", secret="ffaa")
        row = gr.Number(0, visible="hidden", elem_id="review-row")
        typed = gr.Textbox(visible="hidden")
        with gr.Row():
            name = gr.Textbox(label="Your name", elem_id="review-name", max_lines=1, scale=1)
            progress = gr.HTML(_progress(store, ""), elem_id="review-progress")
        with gr.Row():
            with gr.Column(scale=2):
                pictures, truth = gr.HTML(elem_id="review-photos"), gr.HTML(elem_id="review-truth")
            with gr.Column(scale=3):
                boxes = [
                    gr.Textbox(label="Image description", lines=5, max_lines=12, elem_id="review-description"),
                    gr.Textbox(label="Forgery reasoning", lines=7, max_lines=16, elem_id="review-reasoning"),
                    gr.Textbox(
                        label="Analysis result, probability, forgery type", max_lines=1, elem_id="review-result"
                    ),
                    gr.Textbox(label="Note (optional)", max_lines=1, elem_id="review-note"),
                ]
                with gr.Row():
                    buttons = {
                        Choice.ACCEPT: gr.Button(
                            "Accept (a)", elem_id="review-accept", variant="primary", size="md", min_width=90
                        ),
                        Choice.EDIT: gr.Button("Save edit (e)", elem_id="review-edit", size="md", min_width=90),
                        Choice.REJECT: gr.Button(
                            "Reject (r)", elem_id="review-reject", variant="stop", size="md", min_width=90
                        ),
                    }
                    back = gr.Button("Previous (k)", elem_id="review-previous", size="md", min_width=90)
                    onward = gr.Button("Next (j)", elem_id="review-next", size="md", min_width=90)
                status = gr.HTML(
                    _BEGIN, elem_id="review-status", html_template='<div aria-live="polite">${value}</div>'
                )
                gr.HTML(KEYS)
        with gr.Accordion("Agreement of reviewers", open=False):
            agreement = gr.HTML(elem_id="review-agreement")

        inputs, outputs = [name, row, *boxes], [row, pictures, truth, *boxes, status, progress, agreement]
        # Without the queue every event is one request and an open tab needs no stream of the server that it began with.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        blocks.load(signed_in, [kept_name, typed], [name, *outputs], js=_TYPED, **quiet).then(js=_ARRIVED)
        name.submit(signed_in, [name], [kept_name, *outputs], **quiet)
        for choice, button in buttons.items():
            button.click(decide(choice), inputs, outputs, **quiet).then(js=_ARRIVED)
        back.click(move(False), inputs, outputs, **quiet).then(js=_ARRIVED)
        onward.click(move(True), inputs, outputs, **quiet).then(js=_ARRIVED)
        for box in boxes:
            # While one draft is on its way only the newest waits behind it.
            box.input(draft, inputs, [status], trigger_mode="always_last", **quiet)
    return blocks


def _text(description: str, reasoning: str, result: str) -> Text:
    return Text(description=description, reasoning=reasoning, result=result)


def _open_row(row: float) -> int:
    if not row:
        raise UsageError("no row is open; enter your name")
    return int(row)


def _keep(status: str) -> list[Any]:
    """Only the status changes, so that no typed text is lost."""
    return [*[gr.skip()] * 7, status, gr.skip(), gr.skip()]


def _failed(error: FFAAError) -> list[Any]:
    return _keep(f'<span class="error">{escape(str(error))}</span>')


class _OwnHostOnly:
    """Tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, named)


def serve(store: Store, folder: Path, port: int, browser: bool = False) -> None:
    """Serve the page on 127.0.0.1 until interrupted. Raises UsageError when the port is taken."""
    # What one file's page leaves in the browser is not taken for another's.
    head = _HEAD.replace("KEY", hashlib.sha256(str(store.path.resolve()).encode()).hexdigest()[:16])
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        page(store, Photos(folder)).launch(
            server_name=HOST, server_port=port, share=False, ssr_mode=False, quiet=True, inbrowser=browser,
            theme=theme, css=_CSS, head=head, footer_links=[], app_kwargs={"middleware": [Middleware(_OwnHostOnly)]},
        )  # fmt: skip
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used ({str(error).splitlines()[0]}); give another with --port"
        ) from error
