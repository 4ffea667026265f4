"""A server as a process of its own: how it starts, ends, and is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

import ffaa
from ffaa.errors import UsageError
from ffaa.serve import server as module
from ffaa.types import Verdict

# The models are not the point: each batch of the fake takes a moment, and what was judged is noted in a file.
PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import FakeAssistant
from ffaa.serve import api, server
from ffaa.serve.settings import ServeSettings

class Slow(FakeAssistant):
    def finish(self, found, evidence=False):
        time.sleep(0.15)
        result = super().finish(found, evidence)
        with Path(sys.argv[2], "judged").open("a") as file:
            file.writelines(one.source.path + "\\n" for one in found)
        return result

api._loader = lambda settings: Slow
server.run(ServeSettings(port=0, page=False, jobs=Path(sys.argv[2], "jobs"), lease_seconds=1, batch=2,
                         rate_per_minute=0, job_files=1000), lambda address: print(address, flush=True))
"""


@pytest.fixture
def launch(tmp_path):
    """Starts the program; .client, and the process's own methods."""
    running = []

    def begin():
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        address = process.stdout.readline().strip()
        process.client = httpx.Client(base_url=address, timeout=20, trust_env=False)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if process.client.get("/healthz").status_code == 200:
                return process
            time.sleep(0.02)
        raise AssertionError("not ready")

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_during_jobs_every_job_ends_and_none_twice(launch, tmp_path, png, wait_for):
    server = launch()
    wanted = {}
    for job in range(3):
        names = [f"{job}-{i}.png" for i in range(6)]
        answer = server.client.post("/v1/jobs", files=[("files", (name, png(i))) for i, name in enumerate(names)])
        wanted[answer.json()["url"]] = names
    judged = tmp_path / "judged"

    def ended(server):
        found = [server.client.get(url).json() for url in wanted]
        return sum(file["state"] == "done" for job in found for file in job["files"])

    wait_for(lambda: ended(server) >= 3)
    before = {url: server.client.get(url).json() for url in wanted}
    server.send_signal(signal.SIGKILL)
    server.wait()
    known = len(judged.read_text().split())
    assert known < 18  # it was killed in the middle

    server = launch()
    again = launch()  # another worker on the same folder
    wait_for(lambda: ended(server) == 18)
    for url, names in wanted.items():
        job = again.client.get(url).json()
        assert job["state"] == "done"
        assert [file["name"] for file in job["files"]] == names
        assert [file["results"][0]["source"]["path"] for file in job["files"]] == names
        for old, new in zip(before[url]["files"], job["files"], strict=True):
            assert old["state"] != "done" or old == new
    finished = [f["name"] for job in before.values() for f in job["files"] if f["state"] == "done"]
    later = judged.read_text().split()[known:]
    assert not set(finished) & set(later)  # what had ended was not judged again
    assert len(later) == len(set(later))
    wait_for(lambda: not any((tmp_path / "jobs" / "spool").iterdir()))  # a file is removed behind its last word


def test_sigterm_ends_what_was_accepted(launch, tmp_path, png, wait_for):
    server = launch()
    job = server.client.post("/v1/jobs", files=[("files", (f"{i}.png", png(i))) for i in range(30)]).json()["url"]
    answers = []

    def ask(name):
        answers.append(httpx.post(f"{server.client.base_url}/v1/analyze", files={"file": (name, png())}, timeout=20))

    threads = [threading.Thread(target=ask, args=(f"now {i}.png",)) for i in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: "ffaa_queue_depth 6.0" in server.client.get("/metrics").text)
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(20)
    assert [a.status_code for a in answers] == [200] * 6
    assert server.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        server.client.get("/healthz")
    server = launch()  # what waited was handed to the next start
    states = [file["state"] for file in server.client.get(job).json()["files"]]
    assert states.count("done") < 30
    wait_for(lambda: server.client.get(job).json()["state"] == "done")
    names = [name for name in (tmp_path / "judged").read_text().split("\n") if name and "now" not in name]
    assert sorted(names) == sorted(f"{i}.png" for i in range(30))


def test_it_refuses_for_a_while_before_it_ends(start, png):
    server = start(drain_seconds=0.6)
    server.server.handle_exit(signal.SIGTERM, None)
    assert server.client.get("/healthz").json() == {"status": "draining"}
    answer = server.client.post("/v1/analyze", files={"file": png()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    server.thread.join(20)
    assert not server.thread.is_alive()


def test_a_second_signal_does_not_wait(start):
    server = start(drain_seconds=60)
    server.server.handle_exit(signal.SIGTERM, None)
    server.server.handle_exit(signal.SIGTERM, None)
    server.thread.join(20)
    assert not server.thread.is_alive()


def test_it_does_not_stand_open_without_keys(settings, tmp_path):
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UsageError, match="--no-keys"):
            module.check(settings(host=host))
        module.check(settings(host=host, no_keys=True))
        module.check(settings(host=host, keys=tmp_path / "keys"))
    module.check(settings())


def test_a_taken_port_is_told(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="give another --host or --port"):
            module.listen(settings(port=taken.getsockname()[1]))
    with pytest.raises(UsageError, match="cannot be listened on"):
        module.listen(settings(host="192.0.2.1"))


def test_nano_over_http_says_what_it_says_on_the_command_line(tmp_path):
    """The real model, from the real command to the last byte."""
    photo = Path(__file__).parents[2] / "examples/photos/forged_swap.jpg"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ffaa", "serve", "--port", "0", "--jobs", str(tmp_path), "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = process.stderr.readline().split()[0]
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
            while client.get("/healthz").json() != {"status": "ready"}:
                time.sleep(0.1)
            files = {"file": ("a/forged_swap.jpg", photo.read_bytes())}
            (found,) = client.post("/v1/analyze", files=files).json()["results"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    (expected,) = ffaa.analyze(photo)
    assert found["source"]["path"] == "forged_swap.jpg"
    got = Verdict.model_validate(found)
    assert [answer.raw for answer in got.answers] == [answer.raw for answer in expected.answers]
    assert (got.label, got.chosen_index, got.box, got.cautions) == (
        expected.label, expected.chosen_index, expected.box, expected.cautions
    )  # fmt: skip
    assert got.forgery_score == pytest.approx(expected.forgery_score, abs=1e-6)
    assert got.source.sha256 == expected.source.sha256
