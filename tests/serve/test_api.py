import threading

import pytest

from ffaa.errors import FFAAError, WeightsError
from ffaa.serve import api, fetch_url
from ffaa.serve.keys import new_key
from ffaa.serve.queue import BusyError
from ffaa.types import NoFace, Verdict


def send(server, data, name="photo.png", **fields):
    return server.client.post("/v1/analyze", files={"file": (name, data)}, data=fields)


def error(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (only,) = answer.json().items()
    assert only[0] == "error"
    assert set(only[1]) == {"code", "message"}
    assert only[1]["code"] == code
    assert "\n" not in only[1]["message"]
    assert "Traceback" not in answer.text
    return only[1]["message"]


def test_a_photo_gives_the_records_of_the_command_line(start, png):
    server = start()
    answer = send(server, png(), "2-faces.png")
    assert answer.status_code == 200
    found = [Verdict.model_validate(record) for record in answer.json()["results"]]
    assert [(v.face_index, v.face_count, v.source.path) for v in found] == [
        (0, 2, "2-faces.png"),
        (1, 2, "2-faces.png"),
    ]
    (record,) = send(server, png(), "0-faces.png").json()["results"]
    none = NoFace.model_validate(record)
    assert none.message == "no face found; set whole_image"  # in the API's own words


def test_options(start, png, fake):
    server = start()
    (record,) = send(server, png(), whole_image="true", evidence="true").json()["results"]
    assert record["crop"]["whole_image"]
    send(server, png(), whole_image="false")
    assert fake.evidence == [True, False]


def test_evidence_without_the_mesh_is_told(start, png, monkeypatch):
    def gone(name):
        raise WeightsError(f"{name}: not here")

    monkeypatch.setattr("ffaa.weights.part_folder", gone)
    message = error(send(start(), png(), evidence="true"), 422, "no_evidence")
    assert "face mesh" in message


def test_mistakes_of_users(start, png):
    server = start(max_pixels=2000, max_bytes=100_000)
    post = server.client.post
    assert error(send(server, b"text", "a.jpg"), 400, "unreadable").startswith("a.jpg: ")
    error(send(server, b""), 400, "unreadable")
    error(send(server, png(0, 64)), 413, "too_large")
    error(send(server, b"\0\0\0\x18ftypisom0000"), 415, "unsupported")
    error(send(server, png(), "unread.png"), 422, "not_decided")
    error(send(server, png(), "99-faces.png"), 413, "too_large")
    error(post("/v1/analyze", json={}), 415, "unsupported")
    error(post("/v1/analyze"), 415, "unsupported")
    error(post("/v1/analyze", content=b"x", headers={"content-type": "multipart/form-data"}), 400, "bad_request")
    error(post("/v1/analyze", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"}), 400,
          "bad_request")  # fmt: skip
    for fields in ({"evidence": "yes"}, {"other": "1"}, {"evidence": ["true", "true"]}, {"file": "text"}):
        error(post("/v1/analyze", files={"file": png()}, data=fields), 422, "invalid")
    error(post("/v1/analyze", files={"photo": png()}), 422, "invalid")
    error(post("/v1/analyze", files=[("file", png()), ("file", png())]), 400, "bad_request")
    error(post("/v1/analyze", files={"evidence": (None, "true")}), 422, "invalid")
    error(post("/v1/analyze", files={"file": png()}, data={"evidence": "x" * 9000}), 400, "bad_request")
    error(post("/v1/analyze", files={"file": png()}, headers={"content-encoding": "gzip"}), 415, "unsupported")
    error(server.client.get("/v1/analyze"), 405, "method_not_allowed")
    error(server.client.get("/v1/../etc/passwd"), 404, "not_found")
    assert server.service.gatherer.depth == 0


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "C:\\Windows\\x.png", "a\r\nb\x1b[31m.png", "x" * 3000, "..", "é\u202e"]
)
def test_names_are_only_shown(start, png, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = send(start(), png(), name).json()["results"][0]["source"]["path"]
    assert len(shown) <= 400
    assert shown.isprintable()
    assert "/" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_one_plain_line(start, png, caplog):
    server = start()
    message = error(send(server, png(), "crash.png"), 500, "internal")
    assert "operator" in message
    assert "models" not in message
    assert "RuntimeError" in caplog.text  # the trace is in the log
    assert send(server, png()).status_code == 200


def test_a_full_queue_is_429_before_the_body_is_read(start, fake, png, wait_for, raw):
    server = start(queue=2)
    fake.gate.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(send(server, png()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.service.gatherer.depth == 2)
    refused = send(server, png())
    assert "2 photos wait" in error(refused, 429, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    head = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    answer = raw(server.port, head + b"Content-Length: 9999\r\n\r\n", until=b"\r\n")
    assert answer.startswith(b"HTTP/1.1 429")
    fake.gate.set()
    for thread in threads:
        thread.join(20)
    assert [a.status_code for a in answers] == [200, 200]
    assert send(server, png()).status_code == 200


def test_a_queue_that_fills_while_a_body_comes_is_429_too(start, png, monkeypatch):
    server = start()

    def full(*args):
        raise BusyError("full", 7)

    monkeypatch.setattr(server.service.gatherer, "submit", full)
    answer = send(server, png())
    error(answer, 429, "busy")
    assert answer.headers["retry-after"] == "7"


def test_an_answer_that_takes_too_long_is_504_and_leaves_the_queue(start, fake, png, wait_for):
    server = start(seconds=0.3)
    fake.gate.clear()
    error(send(server, png()), 504, "over_time")
    fake.gate.set()
    wait_for(lambda: server.service.gatherer.depth == 0)


def test_a_client_that_goes_away_is_dropped(start, fake, png, wait_for, raw):
    server = start()
    fake.gate.clear()
    thread = threading.Thread(target=send, args=(server, png(), "first.png"))
    thread.start()
    fake.began.acquire()
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="gone.png"\r\n\r\n' + png() + b"\r\n--b--\r\n"
    head = (
        b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert raw(server.port, head + body, seconds=0.3) == b"<still open>"
    wait_for(lambda: 'status="400"' in server.client.get("/metrics").text)  # its leaving was noticed
    fake.gate.set()
    thread.join(20)
    send(server, png(), "last.png")
    assert fake.batches == [["first.png"], ["last.png"]]


def test_too_many_photos_in_a_short_time(start, png):
    server = start(rate_per_minute=60, burst=2)
    assert [send(server, png()).status_code for _ in range(2)] == [200, 200]
    answer = send(server, png())
    error(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    assert server.client.get("/healthz").status_code == 200


def test_keys(start, png, tmp_path):
    key, other = (new_key(tmp_path / "keys") for _ in range(2))
    server = start(keys=tmp_path / "keys", jobs=tmp_path / "jobs")
    calls = [
        lambda **o: server.client.post("/v1/analyze", files={"file": png()}, **o),
        lambda **o: server.client.post("/v1/jobs", files={"files": png()}, **o),
        lambda **o: server.client.get("/metrics", **o),
        lambda **o: server.client.get("/v1/jobs/" + "a" * 22, **o),
        lambda **o: server.client.delete("/v1/jobs/" + "a" * 22, **o),
    ]
    for call in calls:
        for header in (None, "Bearer wrong", f"Basic {key}", key, "Bearer"):
            answer = call(headers={"authorization": header} if header else {})
            error(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert call(headers={"authorization": f"Bearer {key}"}).status_code in {200, 202, 404}
    assert server.client.get("/healthz").status_code == 200
    mine, others = ({"authorization": f"Bearer {k}"} for k in (key, other))
    url = calls[1](headers=mine).json()["url"]
    assert server.client.get(url, headers=mine).status_code == 200
    error(server.client.get(url, headers=others), 404, "not_found")
    error(server.client.delete(url, headers=others), 404, "not_found")


def test_addresses_are_fetched_only_where_allowed(start, png, monkeypatch):
    async def fetch(url, settings):
        if "bad" in url:
            raise fetch_url.UrlError("the address is not a public one; it is not fetched")
        return png()

    monkeypatch.setattr("ffaa.serve.api.fetch", fetch)
    form = {"url": (None, "http://a.example/x.png")}
    server = start()
    assert "fetches no addresses" in error(server.client.post("/v1/analyze", files=form), 422, "url")
    server = start(allow_urls=True)
    (record,) = server.client.post("/v1/analyze", files=form).json()["results"]
    assert record["source"]["path"] == "photo"
    message = error(server.client.post("/v1/analyze", files={"url": (None, "http://bad.example")}), 422, "url")
    assert "not a public one" in message
    error(server.client.post("/v1/analyze", files=form | {"file": png()}), 422, "invalid")


def test_a_loopback_address_is_refused_by_the_server_itself(start):
    server = start(allow_urls=True)
    url = f"http://127.0.0.1:{server.port}/healthz"
    for address in (url, "http://localhost/", "http://169.254.169.254/latest/meta-data/"):
        error(server.client.post("/v1/analyze", files={"url": (None, address)}), 422, "url")


def test_jobs(start, png, tmp_path, wait_for):
    server = start(jobs=tmp_path / "jobs", job_files=3, rate_per_minute=6, burst=5)
    photos = [("files", ("a.png", png(1))), ("files", ("../2-faces.png", png(2))), ("files", ("c.txt", b"text"))]
    answer = server.client.post("/v1/jobs", files=photos)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == accepted["url"] == f"/v1/jobs/{accepted['id']}"

    def look():
        return server.client.get(accepted["url"]).json()

    wait_for(lambda: look()["state"] == "done")
    a, two, c = look()["files"]
    assert [Verdict.model_validate(r).source.path for r in a["results"]] == ["a.png"]
    assert (two["name"], len(two["results"])) == ("2-faces.png", 2)
    assert c["error"]["code"] == "unreadable"
    assert list((tmp_path / "jobs" / "spool").iterdir()) == []
    assert server.client.delete(accepted["url"]).status_code == 204
    error(server.client.get(accepted["url"]), 404, "not_found")
    error(server.client.delete(accepted["url"]), 404, "not_found")
    error(server.client.get("/v1/jobs/short"), 422, "invalid")
    error(server.client.post("/v1/jobs", files=[*photos, photos[0]]), 400, "bad_request")
    error(server.client.post("/v1/jobs", files={"whole_image": (None, "true")}), 422, "invalid")
    error(server.client.post("/v1/jobs", files=photos), 429, "rate_limited")  # each file counts


def test_jobs_are_off_without_a_folder(start, png):
    server = start()
    assert "--jobs DIR" in error(server.client.post("/v1/jobs", files={"files": png()}), 404, "jobs_off")
    error(server.client.get("/v1/jobs/" + "a" * 22), 404, "jobs_off")
    assert not any("jobs" in path for path in server.client.get("/openapi.json").json()["paths"])


def test_a_job_that_cannot_be_kept(start, png, tmp_path, monkeypatch):
    server = start(jobs=tmp_path / "jobs", waiting_files=1)
    monkeypatch.setattr(server.service.worker, "_judge", lambda *args: threading.Event().wait(1))
    assert server.client.post("/v1/jobs", files={"files": png()}).status_code == 202
    answer = server.client.post("/v1/jobs", files=[("files", png()), ("files", png())])
    error(answer, 429, "busy")
    assert answer.headers["retry-after"]

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.service.store, "accept", full)
    assert "space" not in error(server.client.post("/v1/jobs", files={"files": png()}), 503, "unavailable")


def test_health_and_what_is_refused_while_loading(start, png, fake, wait_for):
    release = threading.Event()

    def load():
        assert release.wait(20)
        return fake

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_loader", lambda settings: load)
        server = start(None)
    assert (server.client.get("/healthz").status_code, server.client.get("/healthz").json()) == (
        503, {"status": "loading"}
    )  # fmt: skip
    answer = send(server, png())
    error(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    release.set()
    wait_for(lambda: server.client.get("/healthz").status_code == 200)
    assert server.client.get("/healthz").json() == {"status": "ready"}
    server.service.draining = True
    answer = server.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
    assert answer.headers["connection"] == "close"
    error(send(server, png()), 503, "unavailable")


def test_a_model_that_cannot_be_loaded_ends_the_server(start):
    def load():
        raise FFAAError("no weights")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_loader", lambda settings: load)
        server = start(None)
    server.thread.join(20)
    assert not server.thread.is_alive()


def test_metrics(start, png):
    server = start()
    send(server, png(), "2-faces.png")
    send(server, b"text")
    text = server.client.get("/metrics").text
    for line in (
        'ffaa_requests_total{method="POST",route="/v1/analyze",status="200"} 1.0',
        'ffaa_requests_total{method="POST",route="/v1/analyze",status="400"} 1.0',
        'ffaa_rejected_total{code="unreadable"} 1.0',
        "ffaa_faces_total 2.0",
        "ffaa_queue_depth 0.0",
        "ffaa_batch_faces_sum 2.0",
        'ffaa_stage_seconds_count{stage="judge"} 1.0',
    ):
        assert line in text.splitlines()
    server.client.get("/v1/unknown")
    server.client.request("BREW", "/v1/unknown")
    text = server.client.get("/metrics").text
    assert "unknown" not in text
    assert "BREW" not in text


def test_the_log_holds_no_names(start, png, caplog):
    caplog.set_level("INFO")
    server = start()
    send(server, png(), "secret.png")
    server.client.get("/secret?secret=secret")
    assert "POST /v1/analyze 200" in caplog.text
    lines = [r.getMessage() for r in caplog.records if r.name != "httpx"]
    assert not any("secret" in line for line in lines)
