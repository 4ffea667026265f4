"""`ffaa serve` as a process: uvicorn with limits on a request's head, and a shutdown that ends what it accepted."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ffaa.errors import UsageError
from ffaa.serve.api import create_app
from ffaa.serve.service import Service
from ffaa.serve.settings import ServeSettings

LINGER = 5  # seconds that a client has to read an answer which came before its body ended
HEAD_BYTES = 32 * 1024


def protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, closing a connection whose request's head does not arrive in time.

    The same for a body that is still sent after the answer: it is thrown away, but not for ever.
    """

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(header_seconds, self._drop)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.our_state is h11.SEND_RESPONSE or self.conn.our_state is h11.SEND_BODY:
                self._stop()  # a request is being answered; its own limits count
            elif self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self._drop)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._timer is None and self.conn.their_state is h11.SEND_BODY:
                self._timer = self.loop.call_later(LINGER, self._drop)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _drop(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self.transport.close()

    return Protocol


class Server(uvicorn.Server):
    """SIGTERM and SIGINT: refuse with 503 for `drain_seconds`, then stop listening, end what was accepted, exit 0.

    A second SIGINT exits at once. Ends too when the model cannot be loaded.
    """

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.draining:
            self.force_exit = sig == signal.SIGINT
            self.should_exit = True
            return
        self.service.draining = True
        if self.service.settings.drain_seconds:
            timer = threading.Timer(self.service.settings.drain_seconds, self._exit)
            timer.daemon = True
            timer.start()
        else:
            self._exit()

    def _exit(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.service.gatherer.error is not None


def make_server(app: FastAPI, settings: ServeSettings) -> Server:
    """A server for an app of `create_app`, perhaps with a page mounted on it."""
    config = uvicorn.Config(
        app,
        http=protocol(settings.header_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it would write whole addresses; `guard` writes its own lines
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies or None,
        limit_concurrency=settings.connections,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=int(settings.body_seconds + settings.seconds) + 1,
    )
    return Server(config, app.state.service)


def check(settings: ServeSettings) -> None:
    """Raises UsageError for a server that would stand open to others without keys."""
    if not settings.loopback and settings.keys is None and not settings.no_keys:
        raise UsageError(
            f"{settings.host} can be reached from other machines: make a key (ffaa serve --new-key FILE) and start "
            "with --keys FILE, or say --no-keys"
        )


def listen(settings: ServeSettings) -> socket.socket:
    """The listening socket. Raises UsageError when the address is taken or not this machine's."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=settings.connections)
    except OSError as error:
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}); give another --host or --port"
        ) from error


def run(settings: ServeSettings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `announce` is told the address.

    Raises UsageError, WeightsError, or whatever kept the model from loading.
    """
    check(settings)
    app = create_app(settings)
    server = make_server(app, settings)
    listening = listen(settings)
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{name}:{listening.getsockname()[1]}")
    server.run(sockets=[listening])
    error = app.state.service.gatherer.error
    if error is not None:
        raise error
