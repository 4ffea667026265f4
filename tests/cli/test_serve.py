import hashlib
from types import SimpleNamespace

import pytest

from ffaa.serve import server


@pytest.fixture
def started(monkeypatch):
    """What a server would have been started with."""
    found = SimpleNamespace(settings=None)

    def run(settings, announce):
        server.check(settings)
        found.settings = settings
        announce("http://127.0.0.1:1")

    monkeypatch.setattr("ffaa.serve.server.run", run)
    return found


def test_the_defaults(run, started):
    result = run("serve")
    assert result.code == 0
    assert "http://127.0.0.1:1 - Ctrl+C ends it" in result.err
    assert (started.settings.host, started.settings.port, started.settings.model) == ("127.0.0.1", 7860, "nano")


def test_options_win_over_the_file(run, started, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("port: 1\nqueue: 5\nallow_urls: true\n")
    assert run("serve", "--config", path, "--port", 2, "--jobs", tmp_path / "jobs", "--threads", 3).code == 0
    found = started.settings
    assert (found.port, found.queue, found.allow_urls, found.jobs, found.threads) == (2, 5, True, tmp_path / "jobs", 3)


def test_mistakes_are_one_line(run, started, tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("quue: 5\n")
    result = run("serve", "--config", path)
    assert result.code == 2
    assert "did you mean 'queue'" in result.err
    result = run("serve", "--host", "0.0.0.0")
    assert result.code == 2
    assert "--no-keys" in result.err
    assert len(result.err.splitlines()) == 1
    assert run("serve", "--host", "0.0.0.0", "--no-keys").code == 0
    assert run("serve", "--device", "gpu").code == 2


def test_a_new_key_is_printed_once_and_its_hash_kept(run, started, tmp_path):
    result = run("serve", "--new-key", tmp_path / "keys")
    key = result.out.strip()
    assert (tmp_path / "keys").read_text().strip() == hashlib.sha256(key.encode()).hexdigest()
    assert key not in result.err
    assert started.settings is None
