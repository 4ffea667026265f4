"""What the page lets through, and what of Gradio it shuts; without a browser."""

import io
import json
from pathlib import Path

import httpx
import pytest

from ffaa.errors import UsageError
from ffaa.serve.api import create_app
from ffaa.serve.keys import new_key
from ffaa.serve.page_door import COOKIE, EXAMPLES, JOIN, Tickets, names_files
from ffaa.serve.problems import ApiError
from ffaa.serve.upload import Upload

pytest.importorskip("gradio", reason="pip install 'ffaa[serve]'")

FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def page(start):
    return start(page=True)


def test_the_page_is_at_the_root_and_the_api_stays(page, png):
    answer = page.client.get("/")
    assert answer.status_code == 200
    assert "gradio_config" in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    answer = page.client.post("/v1/analyze", files={"file": ("a.png", png())})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert page.client.get("/openapi.json").json()["paths"].keys() == {"/v1/analyze", "/healthz", "/metrics"}
    answer = page.client.post("/healthz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_the_examples_are_those_of_the_repository():
    root = Path(__file__).parents[2]
    for name in EXAMPLES:
        shipped = root / "src/ffaa/assets/examples" / name
        assert shipped.read_bytes() == (root / "examples/photos" / name).read_bytes()


def test_without_a_page(start):
    answer = start(page=False).client.get("/")
    assert answer.text.startswith("ffaa: POST a photo")


SHUT = (
    "/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/file=/etc/passwd", "/gradio_api/file=../../x",
    "/assets/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fx.py",
    "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/deep_link", "/monitoring", "/gradio_api/heartbeat/a",
    "/gradio_api/runs", "/gradio_api/token", "/gradio_api/custom_component/a/b/c/d", "/svelte/x.js",
    "/gradio_api/stream/a/b/c/playlist.m3u8", "/gradio_api/upload_progress?upload_id=a", "/login", "/dev/reload",
)  # fmt: skip


def test_gradios_other_routes_are_shut(page, raw):
    for path in SHUT:  # over a socket: a client would tidy the path up
        answer = raw(page.port, b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode())
        assert answer.startswith(b"HTTP/1.1 404"), path
        assert b'"not_found"' in answer, path
    for path in ("upload", "run/judge", "call/judge", "component_server"):
        assert page.client.post(f"/gradio_api/{path}", json={"data": [FILE]}).status_code == 404, path


def test_no_file_is_named_to_the_queue(page, tmp_path):
    """Gradio would open a path, and fetch an address, that stands in the value of any component."""
    outside = {"path": f"http://127.0.0.1:{page.port}/healthz", "meta": {"_type": "gradio.FileData"}}
    for value in (FILE, outside, [[{"a": FILE}]]):
        body = {"data": [value, True, False], "fn_index": 0, "session_hash": "abc"}
        assert page.client.post(JOIN, json=body).status_code == 400
    text = json.dumps({"data": [FILE]}).replace("gradio.FileData", "gradio\\u002eFileData")
    assert page.client.post(JOIN, content=text).status_code == 400
    assert page.client.post(JOIN, content=b"{").status_code == 400
    assert page.client.post(JOIN, content=b"[" * 60_000).status_code == 400
    assert page.client.post(JOIN, content=b" " * 100_000).status_code == 413
    assert not names_files({"data": [True, "path", {"path": "a"}, None]})


def test_an_upload_is_held_once_and_not_for_long(page, png):
    answer = page.client.post("/page/upload", files={"file": ("a/b.png", png())})
    ticket = answer.json()["ticket"]
    tickets = page.app.state.tickets
    upload = tickets.take(ticket)
    assert (upload.name, upload.file.read()) == ("b.png", png())
    upload.file.close()
    assert tickets.take(ticket) is None
    assert tickets.take(["a"]) is None
    assert page.client.post("/page/upload", content=b"x").status_code == 415
    assert page.client.post("/page/upload", files={"other": ("a", b"x")}).status_code == 422
    assert page.client.post("/page/upload", data={"whole_image": "true"}, files={}).status_code == 415
    for number, name in enumerate(EXAMPLES):
        ticket = page.client.post(f"/page/example/{number}").json()["ticket"]
        example = tickets.take(ticket)
        assert example.name == name
        example.file.close()
    assert page.client.post("/page/example/99").status_code == 404


def test_tickets_run_out():
    now = [0.0]
    tickets = Tickets(most=2, seconds=10, clock=lambda: now[0])
    files = [io.BytesIO(b"x") for _ in range(4)]
    first = tickets.add(Upload(files[0], "a"))
    tickets.add(Upload(files[1], "b"))
    with pytest.raises(ApiError, match="too many uploads"):
        tickets.add(Upload(files[2], "c"))
    assert files[2].closed
    now[0] = 11
    assert tickets.take(first) is None
    assert files[0].closed
    assert files[1].closed
    tickets.add(Upload(files[3], "d"))
    tickets.close()
    assert files[3].closed


def test_a_file_that_nobody_takes_goes_by_itself(wait_for):
    tickets, file = Tickets(seconds=0.05), io.BytesIO(b"x")
    tickets.add(Upload(file, "a"))
    wait_for(lambda: file.closed)
    assert not tickets._held


def test_without_a_key_nothing_of_the_page_is_open(start, png, tmp_path):
    key = new_key(tmp_path / "keys")
    server = start(page=True, keys=tmp_path / "keys")
    answer = server.client.get("/")
    assert answer.status_code == 401
    assert "gradio" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for path in ("/config", "/gradio_api/info", "/theme.css"):
        assert server.client.get(path).status_code == 401
    assert server.client.post(JOIN, json={"data": []}).status_code == 401
    assert server.client.post("/page/upload", files={"file": ("a.png", png())}).status_code == 401
    assert server.client.post("/page/example/0").status_code == 401
    assert server.client.post("/page/key", data={"key": "ffaa_wrong"}).status_code == 401
    assert server.client.post("/page/key", data={"key": "x" * 100_000}).status_code == 413
    answer = server.client.post("/page/key", data={"key": key})
    assert answer.status_code == 303
    assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
    assert server.client.get("/").status_code == 200
    (tmp_path / "keys").write_text("")  # taken away while the server runs
    assert server.client.get("/").status_code == 401
    strange = httpx.get(server.url, headers={"Cookie": f"{COOKIE}=\x80; =".encode("latin-1")}, trust_env=False)
    assert strange.status_code == 401


def test_uploads_count_towards_the_rate(start, png):
    server = start(page=True, rate_per_minute=1, burst=2)
    for _ in range(2):
        assert server.client.post("/page/upload", files={"file": ("a.png", png())}).status_code == 200
    answer = server.client.post("/page/example/0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 1


def test_pages_of_other_sites_may_not_send(page, png):
    answer = page.client.post(
        "/page/upload", files={"file": ("a.png", png())}, headers={"Origin": "https://example.org"}
    )
    assert answer.status_code == 403


def test_only_a_proxy_that_is_believed_says_where_the_page_is(start):
    told = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for proxies, scheme in (([], "http"), (["127.0.0.1"], "https")):
        server = start(page=True, proxies=proxies)
        text = server.client.get("/", headers=told).text
        assert f'"root":"{scheme}://127.0.0.1:{server.port}"' in text
        assert "evil.example" not in text


def test_the_page_ends_with_its_server(start, png):
    server = start(page=True)
    server.client.post("/page/upload", files={"file": ("a.png", png())})
    (held,) = server.app.state.tickets._held.values()
    server.stop()
    assert held.upload.file.closed


def test_a_history_is_refused_where_others_could_read_it(settings, tmp_path, fake):
    file = tmp_path / "history.sqlite"
    new_key(tmp_path / "keys")
    for changes in (
        {"host": "0.0.0.0", "no_keys": True}, {"keys": tmp_path / "keys"}, {"proxies": ["127.0.0.1"]},
        {"hosts": ["a.example"]}, {"origins": ["https://a.example"]}, {"page": False},
    ):  # fmt: skip
        with pytest.raises(UsageError, match="--history"):
            create_app(settings(**({"page": True, "history": file} | changes)), fake)
    assert not file.exists()
