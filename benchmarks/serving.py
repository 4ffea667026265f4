"""A real `ffaa serve` for the benchmarks: started on a free port, watched, ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import yaml

import ffaa

MIB = 2**20
PHOTOS = sorted((Path(__file__).parent.parent / "examples/photos").glob("*.jpg"))


@dataclass
class Running:
    """url; process; folder: where it runs; its jobs, temporary files and log lie there."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def memory(self) -> dict[str, float]:
        """MiB in use now and at most, of the server's process."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = {name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1024 for name in ("VmRSS", "VmHWM")}  # type: ignore[index]
        return {"now": round(found["VmRSS"], 1), "most": round(found["VmHWM"], 1)}

    def metric(self, name: str) -> float:
        """A value of /metrics, 0 where there is none yet."""
        text = httpx.get(self.url + "/metrics", timeout=60, trust_env=False).text
        match = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def left(self) -> list[str]:
        """What lies in its folder beside its log, its settings and the jobs' database."""
        own = {"log", "serve.yaml", "jobs/jobs.sqlite", "jobs/jobs.sqlite-wal", "jobs/jobs.sqlite-shm"}
        found = (str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if not p.is_dir())
        return sorted(name for name in found if name not in own)


@contextmanager
def serving(**settings: Any) -> Iterator[Running]:
    """A server with these settings, ready; ended with SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="ffaa-serving-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        chosen = {"port": 0, "rate_per_minute": 0, "jobs": str(folder / "jobs")} | settings
        (folder / "serve.yaml").write_text(yaml.safe_dump(chosen))
        command = [sys.executable, "-m", "ffaa", "serve", "--config", str(folder / "serve.yaml")]
        modules = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        environment = os.environ | {
            "TMPDIR": str(folder / "tmp"), "MALLOC_ARENA_MAX": "2", "PYTHONPATH": os.pathsep.join(modules),
        }  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, env=environment, cwd=folder)
        try:
            yield Running(_ready(process, folder / "log"), process, folder)
            process.terminate()
            if process.wait(300) != 0:
                raise SystemExit(f"the server ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://\S+", log.read_text(errors="replace")):
            try:
                if httpx.get(found[0] + "/healthz", timeout=60, trust_env=False).status_code == 200:
                    return found[0]
            except httpx.HTTPError:
                pass
        time.sleep(0.2)
    raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def write(out: Path | None, report: dict[str, Any]) -> None:
    """Prints a report, with versions and command, and writes it."""
    names = ("torch", "fastapi", "uvicorn", "starlette", "pillow")
    command = "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    versions = {"ffaa": ffaa.__version__} | {name: version(name) for name in names}
    text = json.dumps(report | {"versions": versions, "command": command}, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")
