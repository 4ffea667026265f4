"""A server on loopback with an assistant whose models are not the point."""

import io
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from ffaa.data.images import Photo, load_photo
from ffaa.types import Analysis, Box, Crop, Failure, Verdict


class FakeAssistant:
    """The interface of the queue. A photo's name tells its faces ('3-faces.png'); 'crash' and 'unread' fail.

    `gate`: judging waits until it is set; `began` counts runs of the models; `batches` holds the faces of each.
    """

    def __init__(self):
        self.gate, self.batches, self.evidence, self.began = threading.Event(), [], [], threading.Semaphore(0)
        self.gate.set()

    def find(self, photo, whole_image=False):
        loaded = photo if isinstance(photo, Photo) else load_photo(photo)
        name = loaded.source.path
        count = int(name.split("-")[0]) if "-faces" in name else 1
        return SimpleNamespace(source=loaded.source, faces=[whole_image] * count)

    def finish(self, found, evidence=False):
        if any(one.faces for one in found):
            self.batches.append([one.source.path for one in found])
            self.evidence.append(evidence)
            self.began.release()
            assert self.gate.wait(20)
        if any("crash" in one.source.path for one in found):
            raise RuntimeError("Traceback of the models")
        return [
            Failure(path=one.source.path, message="none of the three answers could be read")
            if "unread" in one.source.path
            else Analysis(one.source, verdicts(one), "" if one.faces else "no face found; use --whole-image")
            for one in found
        ]


def verdicts(found):
    from ffaa.serve.openapi import VERDICT

    base, count = Verdict.model_validate(VERDICT), len(found.faces)
    box = Box(left=0, top=0, right=9, bottom=9)
    return [
        base.model_copy(
            update={"source": found.source, "face_index": i, "face_count": count, "box": box,
                    "crop": Crop(region=box, padding=0, size=9, whole_image=whole)}
        )
        for i, whole in enumerate(found.faces)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def png():
    """Bytes of a small PNG, another one for every number."""

    def make(number=0, side=32):
        pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture
def fake():
    return FakeAssistant()


@pytest.fixture
def settings():
    """Settings without a rate limit, changed as told."""
    from ffaa.serve.settings import ServeSettings

    return lambda **changes: ServeSettings(
        **({"port": 0, "rate_per_minute": 0, "gather_seconds": 0, "page": False} | changes)
    )


@pytest.fixture
def start(settings, fake):
    """Starts a server; .url, .client (httpx), .service, .port, .stop(). `assistant` may be another one or None."""
    from ffaa.serve.api import create_app
    from ffaa.serve.server import listen, make_server

    running = []

    def begin(assistant=fake, prepare=lambda app: None, **changes):
        chosen = settings(**changes)
        app = create_app(chosen, assistant)
        prepare(app)
        server, listening = make_server(app, chosen), listen(chosen)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        port = listening.getsockname()[1]  # before it runs: it closes the socket when it ends
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

        def stop():
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

        found = SimpleNamespace(
            url=str(client.base_url), client=client, app=app, service=app.state.service, port=port, stop=stop,
            server=server, thread=thread,
        )  # fmt: skip
        running.append(found)
        wait_for(lambda: server.started and (assistant is None or app.state.service.gatherer.ready))
        return found

    yield begin
    fake.gate.set()
    for one in running:
        one.stop()
        one.client.close()


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


@pytest.fixture(name="wait_for")
def wait_for_fixture():
    return wait_for


@pytest.fixture
def raw():
    """Sends bytes over a socket and returns what came back until the other side closes, `until` came or `seconds` pass
    without a byte."""

    def send(port, *parts, seconds=5.0, until=None):  # a float among the parts is a pause
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            for part in parts:
                if isinstance(part, float):
                    time.sleep(part)
                else:
                    connection.sendall(part)
            found = b""
            try:
                while (until is None or until not in found) and (chunk := connection.recv(65536)):
                    found += chunk
            except TimeoutError:
                found += b"<still open>"
            except ConnectionResetError:
                found += b"<reset>"
        return found

    return send
