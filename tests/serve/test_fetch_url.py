import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ffaa.errors import TooLargeError
from ffaa.serve import fetch_url
from ffaa.serve.fetch_url import UrlError, fetch, public


@pytest.fixture
def site():
    """A web server on loopback: .port, .seen (path, Host header)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.seen.append((self.path, self.headers["Host"]))
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path[4:].replace("PORT", str(self.server.server_port)))
                self.end_headers()
                return
            body = {"/photo": b"a photo", "/large": bytes(5000)}.get(self.path, b"x")
            self.send_response(404 if self.path == "/none" else 200)
            if self.path == "/packed":
                self.send_header("Content-Encoding", "gzip")
            if self.path == "/slow":
                body = b"." * 100
            self.send_header("Content-Length", "7" if self.path == "/lies" else str(len(body)))
            self.end_headers()
            for byte in body if self.path == "/slow" else ():
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.05)
            if self.path != "/slow":
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.port = [], server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def get(site, settings, monkeypatch):
    """Fetches from the site; names ending in .public are on the Internet, and are 127.0.0.1."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if host.endswith("public") else ["10.0.0.1", "93.184.216.34"]

    def call(url, **changes):
        chosen = settings(url_ports=[site.port], **changes)
        return asyncio.run(fetch(url.replace("PORT", str(site.port)), chosen))

    call.asked = asked
    monkeypatch.setattr(fetch_url, "resolve", resolve)
    monkeypatch.setattr(fetch_url, "public", lambda addresses: addresses == ["127.0.0.1"])
    return call


def test_a_photo_comes_from_the_address_that_was_checked(get, site):
    assert get("http://a.public:PORT/photo#x") == b"a photo"
    assert get.asked == ["a.public"]  # resolved once: nothing can change between check and connection
    assert site.seen == [("/photo", f"a.public:{site.port}")]


def test_redirects_are_followed_and_checked_again(get, site):
    assert get("http://a.public:PORT/to//photo") == b"a photo"
    assert get("http://a.public:PORT/to/http://b.public:PORT/photo") == b"a photo"
    assert get.asked == ["a.public", "a.public", "a.public", "b.public"]
    with pytest.raises(UrlError, match="not a public one"):
        get("http://a.public:PORT/to/http://inside:PORT/photo")
    with pytest.raises(UrlError, match="only http"):
        get("http://a.public:PORT/to/file:///etc/passwd")
    with pytest.raises(UrlError, match="more than 3 times"):
        get("http://a.public:PORT/to//to//to//to//to//photo")
    assert get("http://a.public:PORT/to//to//to//photo") == b"a photo"


def test_one_private_address_among_several_is_enough(get, site):
    with pytest.raises(UrlError, match="not a public one"):
        get("http://mixed:PORT/photo")
    assert site.seen == []


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [("/none", UrlError, "404"), ("/packed", UrlError, "compressed"), ("/large", TooLargeError, "more than"),
     ("/slow", UrlError, "within"), ("/lies", UrlError, "could not be fetched")],
)  # fmt: skip
def test_answers_that_are_not_taken(get, path, error, words):
    with pytest.raises(error, match=words):
        get(f"http://a.public:PORT{path}", max_bytes=1024, url_seconds=0.5)


def test_a_real_loopback_address_is_refused(site, settings):
    for host in (
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::ffff:127.0.0.1]",
    ):
        with pytest.raises(UrlError, match="not a public one|not known"):
            asyncio.run(fetch(f"http://{host}:{site.port}/photo", settings(url_ports=[site.port])))
    assert site.seen == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
     "fec0::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::", "64:ff9b::7f00:1",
     "2001:0:4136:e378::1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not public([address])
    assert not public(["93.184.216.34", address])


def test_addresses_that_are_public():
    assert public(["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])


@pytest.mark.parametrize(
    "url",
    ["", "photo.jpg", "ftp://a.public/x", "file:///etc/passwd", "http://", "http://a.public:99999/", "http://[::1/x",
     "http://user:secret@a.public/", "http://a.public:22/", "https://a.public:8443/", "http://a.public/ x",
     "http://a.public/\r\nHost: b", "http://a.püblic/", "http://a.public/" + "x" * 3000, "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_no_address(get, url, site):
    with pytest.raises(UrlError):
        get(url)
    assert site.seen == []
