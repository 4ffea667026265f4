"""The web page: a photo or video in, what the model says of it out. Gradio, on the same port and queue as the API.

The page's parts are in assets/page. What is shown is made once, sent to the browser and forgotten here; which face is
looked at, and the downloads, are the browser's matter.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from ffaa import wording
from ffaa.data.images import load_bytes
from ffaa.errors import FFAAError, WeightsError
from ffaa.evidence.examine import require_mesh
from ffaa.serve.page_door import EXAMPLES, Door, PageMount, Tickets, router
from ffaa.serve.page_history import History
from ffaa.serve.page_result import WHOLE, Shown, show_clip, show_photo
from ffaa.serve.pictures import data_uri
from ffaa.serve.queue import BusyError, Options
from ffaa.serve.service import Service
from ffaa.serve.upload import Upload, is_clip
from ffaa.serve.worker import judge_clip
from ffaa.types import Analysis

log = logging.getLogger("ffaa.serve")
TITLE = "Face forgery analysis"
POLL_SECONDS = 0.25
COPY_BYTES = 2**20
THUMB = 112
SAYS = ("Real portrait: Eileen Collins", "Real portrait: Grace Hopper", "Forged: Hopper's face in Collins's photo")


def add_page(app: FastAPI, service: Service) -> None:
    """Mounts the page at '/' of an app that `create_app` makes. Raises UsageError for a history that cannot be."""
    page = _Page(service)
    app.state.tickets, app.state.history = page.tickets, page.history
    app.include_router(router)
    blocks = page.blocks()
    blocks.state_session_capacity = 1  # Gradio remembers what it sent to each browser; of one at most, see `_forget`
    gr.mount_gradio_app(
        app, blocks, "/", footer_links=[], run_history=False, show_error=False, max_file_size=1, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, css=_report_css() + _text("style.css"),
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        app_kwargs={"middleware": [Middleware(Door, service=service)]},
    )  # fmt: skip
    mounted: Any = app.routes.pop()
    page.holder = mounted.app.state_holder
    app.routes.append(PageMount("/", mounted.app))
    service.at_close.append(page.close)


def _text(name: str) -> str:
    return files("ffaa").joinpath("assets/page", name).read_text("utf-8")


def _report_css() -> str:
    """The report's style, for what stands in '.report' only."""
    css = files("ffaa").joinpath("assets/report/style.css").read_text("utf-8")
    for whole in (":root", "body"):
        css = css.replace(f"{whole} {{", "& {")
    screen = css.split("@media print")[0]
    return f".report {{\n{screen}\n& {{ margin: 0; max-width: none; }} }}"


class _Page:
    """One page of one server."""

    def __init__(self, service: Service):
        self.service, self.tickets = service, Tickets()
        self.history = None if service.settings.history is None else History(service.settings.history)
        self.holder: Any = None
        self._pool = ThreadPoolExecutor(2, "page")
        self._clips = ThreadPoolExecutor(1, "page-clip")
        self._clip_in_work = False
        try:
            require_mesh()
            self.not_measured = ""
        except WeightsError as error:
            self.not_measured = str(error)

    def close(self) -> None:
        self.tickets.close()
        self._pool.shutdown()
        self._clips.shutdown(cancel_futures=True)

    # --- judging ---

    async def judge(
        self, whole_image: bool, evidence: bool, keep: bool, event: gr.EventData, request: gr.Request
    ) -> AsyncIterator[list[Any]]:
        """Values of status, result and the list of what is kept, as it goes on."""
        told: Any = event._data
        upload = self.tickets.take(told.get("ticket") if isinstance(told, dict) else None)
        if upload is None:
            yield self._told(_failed("The file is not here any more; send it again."), None)
            return
        yield self._told(_busy(f"{upload.name}: looking for faces ..."), None)
        options = Options(bool(whole_image), bool(evidence) and not self.not_measured)
        steps = self._clip(upload, options) if is_clip(upload.head()) else self._photo(upload, options)
        try:
            async for step in steps:
                if isinstance(step, str):
                    yield self._told(_busy(step), gr.skip())
                    continue
                kept = ""
                if keep and self.history is not None:
                    await asyncio.to_thread(self.history.keep, step)
                    kept = " Kept in the list below."
                yield self._told(f"{escape(step.name)}: done.{kept}", step.for_browser(), bool(kept))
        except Exception as error:
            yield self._told(_failed(self._why(error)), None)
        finally:
            upload.file.close()
            self._forget(request.session_hash)

    async def _photo(self, upload: Upload, options: Options) -> AsyncIterator[str | Shown]:
        settings, gatherer = self.service.settings, self.service.gatherer
        data = await asyncio.to_thread(upload.file.read, settings.max_bytes + 1)
        future = gatherer.submit(data, options, upload.name)
        try:
            async for step in self._waiting(future, upload.name):
                yield step
            analysis: Analysis = future.result()
        finally:
            future.cancel()  # when the visitor is gone; nothing happens to one that is done
        yield f"{upload.name}: drawing heatmaps ..."
        told = (gatherer.assistant(), data, analysis, settings.limits, self._why_not(options))
        yield await asyncio.wrap_future(self._pool.submit(show_photo, *told))

    def _why_not(self, options: Options) -> str:
        return "" if options.evidence else self.not_measured or "it was not asked for"

    async def _waiting(self, future: Future[Analysis], name: str) -> AsyncIterator[str]:
        """What is to be told until the photo is judged."""
        said = ""
        while not future.done():
            others = self.service.gatherer.depth - 1
            now = f"{name}: the model writes its answers ..."
            if not future.running():
                now = f"{name}: looking for faces ..." + (f" {others} photos are waiting or in work." if others else "")
            if now != said:
                said = now
                yield said
            await asyncio.sleep(POLL_SECONDS)

    async def _clip(self, upload: Upload, options: Options) -> AsyncIterator[str | Shown]:
        if self._clip_in_work:
            raise BusyError("another video is in work, and one is judged at a time", 60)
        self._clip_in_work = True
        future = self._clips.submit(self._judge_clip, upload.file, upload.name, options)
        yield f"{upload.name}: a video; looking for people and judging them, which takes minutes ..."
        shown: Shown = await asyncio.wrap_future(future)
        yield shown

    def _judge_clip(self, file: IO[bytes], name: str, options: Options) -> Shown:
        """A video is read by its path, so that it lies in a private folder while it is judged."""
        gatherer = self.service.gatherer
        try:
            with tempfile.TemporaryDirectory(prefix="ffaa-page-") as folder:
                path = Path(folder, "video")
                with path.open("wb") as copy, file:
                    while part := file.read(COPY_BYTES):
                        copy.write(part)
                found = judge_clip(gatherer, path, name, options)
                return show_clip(gatherer.assistant(), found, path, self._why_not(options))
        finally:
            self._clip_in_work = False

    def _why(self, error: Exception) -> str:
        """One line for the visitor; a fault of ours goes to the log."""
        told = self.service.told(error)
        if told is None:
            log.error("the page failed on a file", exc_info=error)
            return "The server failed on this file; its operator finds the reason in the log."
        wait = told.headers.get("Retry-After") if told.headers else None
        return f"Not analysed: {told.detail}" + (f" (in {wait} s)" if wait else "")

    def _forget(self, session: str | None) -> None:
        """What Gradio remembers of this browser's results."""
        if self.holder is not None:
            self.holder.session_data.pop(session, None)

    # --- what was kept ---

    def _list(self) -> Any:
        if self.history is None:
            return gr.skip()
        rows = [(f"{datetime.fromtimestamp(k.at):%Y-%m-%d %H:%M} {k.name}: {k.said}", k.id) for k in self.history.all()]
        return gr.update(choices=rows, value=rows[0][1] if rows else None)

    def _told(self, status: str, shown: Any, changed: bool = False) -> list[Any]:
        told = [f"<p>{status}</p>" if not status.startswith("<p") else status, shown]
        return [*told, self._list() if changed else gr.skip()]

    def _with_history(self, work: Callable[[History], list[Any]]) -> list[Any]:
        assert self.history is not None  # the buttons are there only with one
        try:
            return work(self.history)
        except FFAAError as error:
            return self._told(_failed(str(error)), None, True)

    def _not_chosen(self) -> list[Any]:
        """A click before the list had come, or with nothing in it; the list is brought."""

        def told(history: History) -> list[Any]:
            why = "Choose a result from the list." if history.all() else "Nothing is kept."
            return self._told(_failed(why), gr.skip(), True)

        return self._with_history(told)

    def open_kept(self, id: int | None) -> list[Any]:
        if id is None:
            return self._not_chosen()
        return self._with_history(lambda h: self._told("Kept result.", h.open(int(id)).for_browser()))

    def delete_kept(self, id: int | None) -> list[Any]:
        if id is None:
            return self._not_chosen()
        return self._with_history(lambda h: self._told(f"{h.delete(int(id))} deleted.", None, True))

    def delete_all(self, sure: bool) -> list[Any]:
        if not sure:
            return self._told("Nothing was deleted.", gr.skip())
        return self._with_history(lambda h: self._told(f"{h.delete()} deleted.", None, True))

    # --- layout ---

    def blocks(self) -> gr.Blocks:
        settings = self.service.settings
        most = max(settings.max_bytes, settings.job_bytes)
        with gr.Blocks(title=TITLE, analytics_enabled=False, elem_id="page") as blocks:
            gr.HTML(_head(settings.keys is not None), elem_id="page-head", js_on_load=None)
            drop = gr.HTML(
                None, html_template=_text("drop.html").replace("EXAMPLES", _examples()), js_on_load=_text("drop.js"),
                elem_id="page-drop", apply_default_css=False, most=most,
            )  # fmt: skip
            with gr.Accordion("Options, for the next file", open=False):
                whole = gr.Checkbox(False, label=WHOLE)
                evidence = gr.Checkbox(
                    not self.not_measured, label="Hold each sentence against what can be measured on the face",
                    interactive=not self.not_measured,
                    info=f"Not here: {self.not_measured}" if self.not_measured else None,
                )  # fmt: skip
            keep = gr.Checkbox(
                False, label="Keep the next result on this computer (with the pictures in it)", elem_id="page-keep",
                visible=self.history is not None,
            )  # fmt: skip
            status = gr.HTML(
                "", html_template='<div role="status" aria-live="polite">${value}</div>', elem_id="page-status",
                js_on_load=None,
            )  # fmt: skip
            result = gr.HTML(
                None, html_template=_text("result.html"), js_on_load=_text("result.js"), elem_id="page-result",
                apply_default_css=False,
            )  # fmt: skip
            with gr.Accordion("Kept results", open=False, visible=self.history is not None):
                kept = gr.Dropdown([], label="Result", elem_id="page-kept", interactive=True)
                with gr.Row():
                    show = gr.Button("Open", elem_id="page-open")
                    delete = gr.Button("Delete", elem_id="page-delete")
                    clear = gr.Button("Delete all", elem_id="page-clear", variant="stop")
            sure = gr.Checkbox(visible="hidden")

            outputs = [status, result, kept]
            quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
            # The queue behind it says when it is full; this one only bounds how many wait for that word.
            drop.submit(self.judge, [whole, evidence, keep], outputs, concurrency_limit=settings.queue + 8, **quiet)
            if self.history is not None:
                show.click(self.open_kept, [kept], outputs, **quiet)
                delete.click(self.delete_kept, [kept], outputs, **quiet)
                ask = "() => [confirm('Delete all kept results?')]"
                clear.click(self.delete_all, [sure], outputs, js=ask, **quiet)
                blocks.load(self._list, None, [kept], **quiet)
        blocks.queue(api_open=False, max_size=settings.queue + 8)
        return blocks


def _busy(text: str) -> str:
    return f'<p class="busy">{escape(text)}</p>'


def _failed(text: str) -> str:
    return f'<p class="failed" role="alert">{escape(text)}</p>'


def _head(keys: bool) -> str:
    leave = '<form method="post" action="/page/leave"><button>Forget my key</button></form>' if keys else ""
    return (
        f"<h1>{TITLE}</h1><p>Is this face real or forged, how, how surely, and why? Give a photo or a short video.</p>"
        f'<p class="notice"><strong>{wording.NEVER_PROOF}</strong> It is often wrong, most of all on kinds of forgery '
        "it has not seen. Never by itself a reason to accuse, dismiss, block or publish. Files are not kept.</p>"
        + leave
    )


def _examples() -> str:
    """Buttons with the example photos, which are in the public domain."""
    buttons = []
    for number, (name, says) in enumerate(zip(EXAMPLES, SAYS, strict=True)):
        with files("ffaa").joinpath("assets/examples", name).open("rb") as file:
            thumb = data_uri(load_bytes(file.read(), name).pixels, THUMB)
        buttons.append(
            f'<button type="button" data-example="{number}"><img src="{thumb}" alt=""> {escape(says)}</button>'
        )
    return f'<div class="examples" role="group" aria-label="Examples">Examples: {"".join(buttons)}</div>'
