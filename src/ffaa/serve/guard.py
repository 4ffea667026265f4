"""What stands before every route: limits on the body while it is received, who may call, headers, counting, the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ffaa.serve import problems
from ffaa.serve.metrics import Metrics
from ffaa.serve.problems import ApiError
from ffaa.serve.settings import ServeSettings

log = logging.getLogger("ffaa.serve")
OVERHEAD = 64 * 1024  # of a multipart body, beside the file
PER_FILE = 2 * 1024
API = ("/v1/", "/healthz", "/metrics", "/openapi.json")
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
API_HEADERS = HEADERS | {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware, the outermost. `draining`: says whether the server is shutting down."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics, draining: Callable[[], bool]):
        self.app, self.settings, self.metrics, self.draining = app, settings, metrics, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        headers = _headers(scope["path"], self.settings)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mutable = MutableHeaders(scope=message)
                for name, value in headers.items():
                    mutable.setdefault(name, value)
                if self.draining():
                    mutable["Connection"] = "close"
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is not None:
                self.metrics.rejected.labels(refused.code).inc()
                reply = problems.reply(refused.status_code, refused.code, str(refused.detail), refused.headers)
                await reply(scope, receive, answer)
            else:
                await self.app(scope, _Limited(scope, receive, self.settings), answer)
        except Exception:
            log.exception("a request failed")  # where it is read by the operator, not by the client
            if status:
                raise  # too late for another answer
            self.metrics.rejected.labels("internal").inc()
            await problems.unexpected()(scope, receive, answer)
        finally:
            self._count(scope, status, time.monotonic() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        allowed = self.settings.allowed_hosts
        if allowed and name not in allowed:
            return ApiError(403, "this server does not answer to that name; its operator can allow it (hosts)")
        origin = headers.get("origin")
        if origin and scope["method"] not in {"GET", "HEAD", "OPTIONS"} and not self._same(origin, host):
            return ApiError(403, "pages of other sites may not call this; its operator can allow them (origins)")
        length = headers.get("content-length", "")
        most, _ = body_limits(scope["path"], self.settings)
        if length.isdecimal() and int(length) > most:
            return _too_large(most)
        if headers.get("content-encoding", "identity").lower() != "identity":
            return ApiError(415, "compressed bodies are not taken; send the file as it is")
        return None

    def _same(self, origin: str, host: str) -> bool:
        return origin in self.settings.origins or origin.lower().split("://")[-1] == host

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # The pattern, not the path: ids would make a series each, and names belong in no log.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in {"GET", "POST", "DELETE", "HEAD", "OPTIONS"} else "other"
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        often = route in {"/healthz", "/metrics"} or scope["path"].startswith(("/assets/", "/static/"))
        log.log(logging.DEBUG if often else logging.INFO, "%s %s %d %.3fs", method, route, status, seconds)


def body_limits(path: str, settings: ServeSettings) -> tuple[int, float]:
    """(bytes, seconds) that a body sent to `path` may take."""
    if path == "/v1/jobs":
        return settings.job_bytes + OVERHEAD + PER_FILE * settings.job_files, settings.job_body_seconds
    if path == "/page/upload":  # a photo or a video
        return max(settings.max_bytes, settings.job_bytes) + OVERHEAD, settings.job_body_seconds
    return settings.max_bytes + OVERHEAD, settings.body_seconds


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most / 2**20:.1f} MiB; send a smaller file")


def _headers(path: str, settings: ServeSettings) -> dict[str, str]:
    if not path.startswith(API):
        return HEADERS
    if settings.origins:  # other sites were allowed to read answers
        return API_HEADERS | {"Cross-Origin-Resource-Policy": "cross-origin"}
    return API_HEADERS


class _Limited:
    """`receive` that raises ApiError when the body has too many bytes or takes too long, whatever its length said."""

    def __init__(self, scope: Scope, receive: Receive, settings: ServeSettings):
        self.receive = receive
        self.most, self.seconds = body_limits(scope["path"], settings)
        self.until: float | None = None
        self.bytes, self.done = 0, False

    async def __call__(self) -> Message:
        if self.done:
            return await self.receive()  # tells when the client goes away
        loop = asyncio.get_running_loop()
        self.until = self.until or loop.time() + self.seconds
        try:
            async with asyncio.timeout_at(self.until):
                message = await self.receive()
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.seconds:g} s") from None
        self.done = not message.get("more_body", False)
        self.bytes += len(message.get("body", b""))
        if self.bytes > self.most:
            raise _too_large(self.most)
        return message
