import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ffaa.cli.main import main

HEAVY = ("torch", "transformers", "cv2", "numpy", "PIL", "pydantic", "rich")


def _raise(error):
    raise error


def start(*args, **options):
    code = "import sys; from ffaa.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, *args]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ffaa.cli.main import main; assert main(['--help']) == 0; "
        f"print([m for m in {('torch', 'transformers', 'cv2', 'numpy')} if m in sys.modules], file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stderr == "[]\n"
    assert all(verb in process.stdout for verb in ("analyze", "schema", "weights", "doctor"))


@pytest.mark.parametrize("verb", [["analyze"], ["schema"], ["doctor"], ["weights"], ["weights", "import"]])
def test_every_verb_has_help(run, verb):
    result = run(*verb, "--help")
    assert result.code == 0
    assert "Usage: ffaa" in result.out


def test_no_verb_shows_the_help(run):
    result = run()
    assert result.code == 2
    assert "analyze" in result.out + result.err


def test_unknown_verb(run):
    result = run("analyse")
    assert result.code == 2
    assert "analyse" in result.err
    assert len(result.err.splitlines()) == 1


def test_unexpected_errors_are_one_line(run, photo, monkeypatch):
    result = run("analyze", photo("crash.png"))
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("ffaa: unexpected RuntimeError: something broke")
    assert "FFAA_DEBUG=1" in line
    monkeypatch.setenv("FFAA_DEBUG", "1")
    assert "Traceback" in run("analyze", photo("crash.png")).err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "full", "run/part"),
            "run/part: no space left on device; make room there and run it again",
        ),
        (OSError(errno.ENOSPC, "full"), "no space left on device; make room there and run it again"),
        (PermissionError(errno.EACCES, "no", "a"), "a: permission denied; allow it, or choose another path"),
        (FileExistsError(errno.EEXIST, "no", "a"), "a: file exists; choose another path"),
        (FileNotFoundError(errno.ENOENT, "no", "a"), "unexpected FileNotFoundError"),
    ],
)
def test_what_the_file_system_refuses_is_no_bug(run, monkeypatch, error, line):
    monkeypatch.setattr("ffaa.cli.main.app", lambda **words: _raise(error))
    result = run("schema")
    assert result.code == 1
    assert result.err.startswith(f"ffaa: {line}")
    assert ("a bug" in result.err) == line.startswith("unexpected")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: np.empty(1 << 55),
        lambda: torch.empty(1 << 55),
        lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")),
        lambda: _raise(MemoryError()),
        lambda: _raise(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
    ids=["numpy", "torch", "cuda", "python", "system"],
)
def test_too_little_memory_is_no_bug(run, monkeypatch, work):
    monkeypatch.setattr("ffaa.cli.main.app", lambda **words: work())
    result = run("schema")
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("ffaa: out of memory (")
    assert "a smaller batch" in line
    assert "a bug" not in line


def test_interrupt(run, photo):
    assert run("analyze", photo("interrupt.png")).code == 130


def test_errors_of_ours_keep_their_exit_code(run):
    result = run("weights", "verify", "unknown")
    assert result.code == 2
    assert result.err.startswith("ffaa: unknown model 'unknown'")
    result = run("weights", "verify", "ffaa-mistral-7b")
    assert result.code == 1


def test_errors_are_red_only_in_a_terminal(run, monkeypatch):
    assert "\x1b" not in run("weights", "verify", "unknown").err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("weights", "verify", "unknown").err.startswith("\x1b[31mffaa: ")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("weights", "verify", "unknown").err


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(run, monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr("ffaa.cli.main.app", lambda **words: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    assert run("doctor").code == 0
    assert seen == [spins]


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(start("schema"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.wait()
    process.stderr.close()
    assert error == b""


def test_main_returns_a_code():
    assert main(["schema"]) == 0
