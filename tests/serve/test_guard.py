import threading

import pytest

HEAD = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


def status(answer):
    return int(answer.split(b" ", 2)[1])


def test_every_answer_has_the_headers(start, png):
    server = start()
    answers = [
        server.client.get("/healthz"), server.client.get("/metrics"), server.client.get("/nope"),
        server.client.post("/v1/analyze", files={"file": png()}), server.client.post("/v1/analyze"),
        server.client.post("/v1/analyze", files={"file": ("crash.png", png())}),
        server.client.get("/openapi.json"), server.client.get("/"),
    ]  # fmt: skip
    assert [a.status_code for a in answers] == [200, 200, 404, 200, 415, 500, 200, 200]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    for answer in answers[3:7]:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"


def test_a_page_beside_the_api_may_have_a_policy_of_its_own(start):
    def page(app):
        from fastapi.responses import HTMLResponse

        app.add_api_route("/page", lambda: HTMLResponse("<p>", headers={"X-Frame-Options": "SAMEORIGIN"}))

    answer = start(prepare=page).client.get("/page")
    assert "content-security-policy" not in answer.headers
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_a_declared_length_over_the_limit_is_refused_unread(start, raw):
    server = start(max_bytes=2000)
    answer = raw(server.port, HEAD + b"Content-Length: 99999999\r\n\r\n", until=b"too_large")
    assert status(answer) == 413
    assert b"too_large" in answer
    answer = raw(server.port, HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", until=b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413")  # and never "100 Continue"


@pytest.mark.parametrize("chunked", [True, False])
def test_bytes_are_counted_whatever_the_length_says(start, raw, chunked):
    """Without a length, and with one that is too small: what is over it is no part of the request."""
    server = start(max_bytes=2000)
    body = PART + bytes(100_000)
    if chunked:
        answer = raw(server.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body), body, seconds=2)
        assert status(answer) == 413
    else:
        answer = raw(server.port, HEAD + b"Content-Length: 500\r\n\r\n", body, seconds=2)
        assert status(answer) == 422  # the form ends before its file
    assert b"Traceback" not in answer


def test_a_body_that_does_not_end_is_cut_off(start, raw):
    server = start(body_seconds=0.3)
    answer = raw(server.port, HEAD + b"Content-Length: 5000\r\n\r\n" + PART, seconds=3)
    assert status(answer) == 408
    assert b"body_too_slow" in answer
    assert server.service._uploads == 0


def test_a_body_that_the_client_gave_up_is_forgotten(start, raw, wait_for, caplog):
    server = start()
    raw(server.port, HEAD + b"Content-Length: 5000\r\n\r\n" + PART, seconds=0.2)
    wait_for(lambda: server.service._uploads == 0)
    assert "Traceback" not in caplog.text
    assert server.client.get("/healthz").status_code == 200


def test_a_head_that_does_not_end_is_cut_off(start, raw):
    server = start(header_seconds=0.3)
    assert raw(server.port, b"POST /v1/analyze HTTP/1.1\r\nHost: a", seconds=3) == b""
    assert raw(server.port, seconds=3) == b""  # nothing at all
    good = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(server.port, good, 0.3, b"GET /he", seconds=3)  # the second request on a kept connection
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"<still open>" not in answer


def test_a_body_after_the_answer_is_not_taken_for_ever(start, raw, monkeypatch):
    monkeypatch.setattr("ffaa.serve.server.LINGER", 0.2)
    server = start(max_bytes=2000)
    answer = raw(server.port, HEAD + b"Content-Length: 99999999\r\n\r\n", bytes(1000), seconds=3)
    assert status(answer) == 413
    assert b"<still open>" not in answer


def test_slow_requests_are_answered_though_their_head_was_long_ago(start, fake, png, wait_for):
    server = start(header_seconds=0.2)
    fake.gate.clear()
    threading.Timer(0.8, fake.gate.set).start()
    assert server.client.post("/v1/analyze", files={"file": png()}).status_code == 200
    assert server.client.get("/healthz").status_code == 200


def test_a_head_that_is_too_long(start, raw):
    answer = raw(start().port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, seconds=3)
    assert answer.startswith((b"HTTP/1.1 4", b"<reset>"))


def test_too_many_uploads_at_once(start, raw, png):
    server = start(uploads=1)
    thread = threading.Thread(target=raw, args=(server.port, HEAD + b"Content-Length: 5000\r\n\r\n" + PART),
                              kwargs={"seconds": 1})  # fmt: skip
    thread.start()
    while not server.service._uploads:
        pass
    answer = server.client.post("/v1/analyze", files={"file": png()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
    thread.join(20)


def test_other_names_are_refused_on_loopback(start):
    server = start()
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert server.client.get("/healthz", headers={"host": host}).status_code == 403
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:5", "LOCALHOST"):
        assert server.client.get("/healthz", headers={"host": host}).status_code == 200
    server = start(hosts=["ffaa.example"])
    assert server.client.get("/healthz", headers={"host": "ffaa.example:443"}).status_code == 200
    assert server.client.get("/healthz").status_code == 403


def test_pages_of_other_sites_may_not_call(start, png):
    server = start()
    for origin in ("https://evil.example", "null"):
        answer = server.client.post("/v1/analyze", files={"file": png()}, headers={"origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers
    own = server.client.post("/v1/analyze", files={"file": png()}, headers={"origin": server.url})
    assert own.status_code == 200


def test_pages_of_allowed_sites_may(start, png):
    server = start(origins=["https://good.example"])
    headers = {"origin": "https://good.example", "access-control-request-method": "POST"}
    assert server.client.options("/v1/analyze", headers=headers).status_code == 200
    answer = server.client.post("/v1/analyze", files={"file": png()}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    bad = server.client.post("/v1/analyze", files={"file": png()}, headers={"origin": "https://evil.example"})
    assert bad.status_code == 403


def test_addresses_behind_a_proxy(start, png):
    """X-Forwarded-For counts only when it comes from a proxy that the operator named."""
    first, second = ({"x-forwarded-for": f"203.0.113.{i}"} for i in (1, 2))
    for proxies, expected in (([], [200, 429]), (["127.0.0.1"], [200, 200])):
        server = start(proxies=proxies, rate_per_minute=1, burst=1)
        found = [
            server.client.post("/v1/analyze", files={"file": png()}, headers=h).status_code for h in (first, second)
        ]
        assert found == expected
