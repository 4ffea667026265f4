"""What stands before the web page: its addresses, keys, uploads, and what its browser may load.

Gradio's own routes for files, for its API and for reading other addresses are shut. A photo reaches the server through
`/page/upload`, as a nameless temporary file that whoever judges it takes out once, by a random ticket.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ffaa.serve import problems
from ffaa.serve.problems import ApiError
from ffaa.serve.queue import BusyError
from ffaa.serve.rate import address_group
from ffaa.serve.service import Service
from ffaa.serve.upload import Upload, read_form, require_multipart

COOKIE = "ffaa_key"
JOIN = "/gradio_api/queue/join"
JOIN_BYTES = 64 * 1024
TICKET_SECONDS = 60.0
TICKETS = 32
EXAMPLES = ("astronaut.jpg", "grace_hopper.jpg", "forged_swap.jpg")
# What Gradio's page asks for; the rest of its routes (files, proxy, API, monitoring, ...) does not exist here.
_GRADIO = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/(assets|static)/[\w./-]+"
    r"|/gradio_api/(queue/(join|data)|startup-events|info|cancel|reset|theme\.css|app_id)"
)
# Gradio's pages have inline scripts and styles, and build functions from text. Everything comes from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without a referrer a form names no origin, and `guard` wants one
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
router = APIRouter(prefix="/page", include_in_schema=False)


@dataclass
class Ticket:
    upload: Upload
    until: float


class Tickets:
    """Files that were received and are not judged yet; each is taken once, within TICKET_SECONDS."""

    def __init__(
        self, most: int = TICKETS, seconds: float = TICKET_SECONDS, clock: Callable[[], float] = time.monotonic
    ):
        self.most, self.seconds, self._clock = most, seconds, clock
        self._lock = threading.Lock()
        self._held: dict[str, Ticket] = {}
        self._timer: threading.Timer | None = None

    def add(self, upload: Upload) -> str:
        """A name for the file, 128 random bits. Raises ApiError 429 when too many wait."""
        with self._lock:
            self._drop_old()
            if len(self._held) >= self.most:
                upload.file.close()
                raise ApiError(429, "too many uploads at once; try again", "busy", self.seconds)
            name = secrets.token_urlsafe(16)
            self._held[name] = Ticket(upload, self._clock() + self.seconds)
            self._watch()
        return name

    def take(self, name: object) -> Upload | None:
        """The file, which the caller closes; None when there is none of that name (any more)."""
        with self._lock:
            self._drop_old()
            found = self._held.pop(name, None) if isinstance(name, str) else None
        return None if found is None else found.upload

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            for ticket in self._held.values():
                ticket.upload.file.close()
            self._held.clear()

    def _watch(self) -> None:
        """Sees to it that a file which nobody takes goes, also when nobody comes."""
        if self._timer is None:
            self._timer = threading.Timer(self.seconds, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        with self._lock:
            self._timer = None
            self._drop_old()
            if self._held:
                self._watch()

    def _drop_old(self) -> None:
        for name in [name for name, ticket in self._held.items() if ticket.until <= self._clock()]:
            self._held.pop(name).upload.file.close()


def page_owner(service: Service, headers: Headers, client: str | None) -> str | None:
    """Who uses the page: the holder of the key in its cookie; the address, where no keys are in force. None: nobody."""
    if service.keys is None:
        return address_group(client)
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if cookie is None else service.keys.owner(cookie.value)


def _enter(request: Request) -> None:
    """May this visitor send a file now? Raises ApiError 401, 429 or 503."""
    service: Service = request.app.state.service
    found = page_owner(service, request.headers, request.client.host if request.client else None)
    if found is None:
        raise ApiError(401, "a key is needed; load the page again and give it")
    service.enter(request, found)
    try:
        service.gatherer.check()
    except BusyError as error:
        raise service.refuse("busy", str(error), error.retry_after) from None


@router.post("/upload")
async def upload(request: Request) -> Response:
    """Receives one photo or video; answers with a ticket that the page hands to the queue."""
    service: Service = request.app.state.service
    require_multipart(request)
    _enter(request)
    with service.receiving():
        form = await read_form(request, "file", 1)
    if len(form.files) != 1:
        form.close()
        raise ApiError(422, "give one file in the field 'file'")
    return JSONResponse({"ticket": request.app.state.tickets.add(form.files[0])})


@router.post("/example/{number}")
def example(request: Request, number: int) -> Response:
    """A ticket for one of the example photos."""
    _enter(request)
    if not 0 <= number < len(EXAMPLES):
        raise ApiError(404, "no such example")
    name = EXAMPLES[number]
    file = files("ffaa").joinpath("assets/examples", name).open("rb")
    return JSONResponse({"ticket": request.app.state.tickets.add(Upload(file, name))})


@router.post("/key")
async def give_key(request: Request) -> Response:
    """Takes a key from the form of the page that asks for it, and keeps it in the browser until that is closed."""
    service: Service = request.app.state.service
    if service.keys is None:
        return RedirectResponse("/", 303)
    client = address_group(request.client.host if request.client else None)
    wait = service.rate.take(client)
    if wait:
        raise service.refuse("rate_limited", "too many tries in a short time; wait", wait)
    body = (await _body(request.receive)).decode("utf-8", "replace")
    key = parse_qs(body).get("key", [""])[0].strip()
    if service.keys.owner(key) is None or not re.fullmatch(r"[\w-]+", key, re.ASCII):
        return key_form("That key is not known here.")
    reply = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    reply.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure, path="/")
    return reply


@router.post("/leave")
def leave() -> Response:
    reply = RedirectResponse("/", 303)
    reply.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return reply


def key_form(message: str = "") -> HTMLResponse:
    """The page that asks for a key."""
    text = files("ffaa").joinpath("assets/page/key.html").read_text("utf-8")
    return HTMLResponse(text.replace("MESSAGE", escape(message)), 401, HEADERS | {"Cache-Control": "no-store"})


async def _body(receive: Receive) -> bytes:
    """A small body. Raises ApiError 413."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the connection ended before the body did", "bad_request")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > JOIN_BYTES:
            raise ApiError(413, "too large")
    return body


def names_files(value: Any) -> bool:
    """Does a JSON value hold what Gradio takes for a file? It would open it, or fetch it where it is an address."""
    if isinstance(value, dict):
        return {"path", "meta"} <= value.keys() or any(map(names_files, value.values()))
    return isinstance(value, list) and any(map(names_files, value))


class PageMount(Mount):
    """Gradio's app at '/', for the addresses of its page only; all others are the API's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or not _GRADIO.fullmatch(scope["path"]) or ".." in scope["path"]:
            return Match.NONE, {}
        return super().matches(scope)


class Door:
    """ASGI middleware around Gradio's app: asks for a key, lets no files be named, sets the headers of the page."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, client = Headers(scope=scope), (scope.get("client") or (None,))[0]
        path = scope["path"]
        answer = partial(self._with_headers, send, path.startswith(("/assets/", "/static/")))
        if page_owner(self.service, headers, client) is None:
            refused = key_form() if path == "/" else problems.reply(401, "unauthorized", "a key is needed")
            await refused(scope, receive, answer)
            return
        # The server has seen to these where they come from a proxy it believes; Gradio would believe them of anybody.
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"x-forwarded-host", b"x-forwarded-proto")]
        scope = {**scope, "headers": kept}
        if path == JOIN:
            try:
                receive = await self._checked(receive)
            except ApiError as error:
                await problems.reply(error.status_code, error.code, str(error.detail))(scope, receive, answer)
                return
        await self.app(scope, receive, answer)

    async def _checked(self, receive: Receive) -> Receive:
        """The body, read and found to name no file. Raises ApiError."""
        body = await _body(receive)
        try:
            bad = names_files(json.loads(body))
        except (ValueError, RecursionError):
            bad = True
        if bad:
            raise ApiError(400, "no request of this page", "bad_request")
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    @staticmethod
    async def _with_headers(send: Send, static: bool, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if not static:
                headers["Cache-Control"] = "no-store"
        await send(message)
