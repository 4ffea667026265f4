"""What an operator of `ffaa serve` can set. Every field has a default that is safe on one machine."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ffaa.data.images import Limits

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class ServeSettings(BaseModel):
    """Settings of the server; YAML fills it (`ffaa.settings.load_yaml`), options of the command line win over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(7860, ge=0, le=65535, description="0: a free one")
    hosts: list[str] = Field([], description="names it may be addressed by; default: any, on loopback local ones")
    origins: list[str] = Field([], description="other web pages that may call it (CORS), as https://name")
    proxies: list[str] = Field([], description="addresses of reverse proxies whose X-Forwarded-For is believed")
    keys: Path | None = Field(None, description="file of API key hashes (`ffaa serve --new-key`)")
    no_keys: bool = Field(False, description="listen beyond this machine without keys")
    page: bool = Field(True, description="the web page at /")
    history: Path | None = Field(None, description="SQLite file for results that visitors of the page ask to keep")

    model: str = Field("nano", description="a name of `ffaa weights list`, or a model's folder")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto, cpu, cuda or mps")
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0: as torch chooses")
    min_face: int = Field(40, ge=1, description="smallest face that is judged, pixels")

    rate_per_minute: float = Field(60, ge=0, description="photos a minute per key, or per address without; 0: no limit")
    burst: int = Field(30, ge=1, description="photos at once before the rate counts")
    queue: int = Field(32, ge=1, description="photos accepted and not answered yet; more get 429")
    batch: int = Field(8, ge=1, le=8, description="faces the models take at once")
    gather_seconds: float = Field(0.1, ge=0, le=5, description="how long a batch waits for photos that are being read")
    decoders: int = Field(2, ge=1, le=64, description="threads that read photos and find faces")
    uploads: int = Field(64, ge=1, description="bodies that are received at once; more get 429")
    seconds: float = Field(120, gt=0, description="from the whole photo received to the answer; then 504")
    body_seconds: float = Field(30, gt=0, description="to receive a body; then 408")
    header_seconds: float = Field(10, gt=0, description="to receive a request's head; then the connection is closed")
    connections: int = Field(1000, ge=1, description="open connections; more get a bare 503")
    drain_seconds: float = Field(0, ge=0, description="after SIGTERM, how long to answer 503 on /healthz first")

    max_bytes: int = Field(20 * 2**20, ge=1024, description="of a photo")
    max_pixels: int = Field(50_000_000, ge=256, description="of a photo, width x height in its header")
    work_pixels: int = Field(12_000_000, ge=256, description="larger photos are scaled down to it")
    max_faces: int = Field(16, ge=1, description="in a photo")

    jobs: Path | None = Field(None, description="folder for /v1/jobs (database and waiting files); none: jobs are off")
    job_files: int = Field(100, ge=1, le=1000, description="files in a job")
    job_bytes: int = Field(256 * 2**20, ge=1024, description="of a job's files together")
    job_body_seconds: float = Field(300, gt=0, description="to receive a job's body; then 408")
    waiting_files: int = Field(1000, ge=1, description="files of all jobs that wait; more get 429")
    waiting_bytes: int = Field(4 * 2**30, ge=1024, description="of all jobs' waiting files; more get 429")
    lease_seconds: float = Field(30, ge=1, description="a worker that is not heard of for so long lost its files")
    attempts: int = Field(3, ge=1, description="a file whose worker died so often is given up")
    keep_seconds: float = Field(86_400, gt=0, description="results are deleted so long after a job ended")

    allow_urls: bool = Field(False, description="photos may be given as addresses; the server fetches them")
    url_seconds: float = Field(10, gt=0, description="to fetch one")
    url_ports: list[int] = Field([80, 443], description="of addresses that may be fetched")

    @property
    def limits(self) -> Limits:
        """Of a photo."""
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels, work_pixels=self.work_pixels)

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Names that a request's Host header may carry, lower case; empty: any.

        On loopback other names are refused: a page that points its own name at 127.0.0.1 (DNS rebinding) could
        otherwise read answers in the browser of whoever runs the server.
        """
        local = LOCAL_HOSTS if self.loopback else ()
        return frozenset(name.lower() for name in self.hosts or local)


def table() -> str:
    """All settings as a Markdown table, for docs/serve.md."""
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, field in ServeSettings.model_fields.items():
        value = field.default
        shown = "none" if value in (None, []) else f"{value:,}" if type(value) is int and value > 9999 else f"{value}"
        rows.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(rows)
