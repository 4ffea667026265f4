"""Hostile uploads to a real server: nothing may end in a 5xx, a trace, a file left behind or memory without bound.

Mutated images and clips, wrong types, content types, lengths and names that lie, bombs of pixels, zips, scans and text,
slow and broken-off bodies, broken multipart; to /v1/analyze and /v1/jobs, whose results are read too. Seeded: the same
uploads every time.
Run: python benchmarks/serve_hostile.py [--count 2000] [--seed 0] [--out results/serve-hostile.json]
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import re
import socket
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from PIL import Image
from serving import PHOTOS, Running, serving, write

BODY_SECONDS = 3
TRACE = re.compile(rb'Traceback|File "|\.py"?[,:] line|site-packages')
NAMES = (
    "../../etc/passwd", "..\\..\\boot.ini", "/dev/stdin", "a\x00b.png", "con.png", "x" * 5000, "\u202egnp.exe", "|id",
    "$(id).png", "%2e%2e%2f", "http://127.0.0.1/", "a\r\nX-Evil: 1", '"; filename="b', "é" * 300, ".", "",
)  # fmt: skip
TYPES = ("image/jpeg", "text/html", "application/x-php", "image/svg+xml", "multipart/form-data", "x" * 3000, "")
OTHERS = (
    b"", b"<script>alert(1)</script>", b"%PDF-1.7\n", b"\x7fELF" + bytes(500), b"{}", b"GIF89a", b"\xff\xd8\xff",
    b"RIFF\0\0\0\0WEBP", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x1cftypheic" + bytes(200),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
)  # fmt: skip
IMAGES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
CONTENT_TYPES = (
    "multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=",
    "multipart/mixed; boundary=b", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=" + "b" * 5000, 'multipart/form-data; boundary=b; charset="none"',
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Small files of every kind that is read."""
    found: dict[str, bytes] = {}
    for path in PHOTOS[:2]:
        with Image.open(path) as photo:
            small = photo.convert("RGB").resize((260, 260))  # the face is just large enough
        for kind, options in (*((kind, {}) for kind in IMAGES), ("JPEG", {"progressive": True})):
            file = io.BytesIO()
            small.save(file, kind, **options)
            found[f"{path.stem}-{kind}{len(options)}"] = file.getvalue()
    for kind in ("mp4", "matroska", "avi", "mpegts"):
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as clip:
            stream = clip.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 64
            for number in range(5):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number * 40, np.uint8), format="rgb24")
                clip.mux(stream.encode(frame))
            clip.mux(stream.encode())
        found[f"clip-{kind}"] = file.getvalue()
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bits turned, pieces cut, doubled, overwritten, the end lost; the head is hit as often as the rest."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20))):
        if not found:
            break
        place = rng.randrange(min(len(found), 64) if rng.random() < 0.5 else len(found))
        length = rng.choice((1, 2, 4, 64, 1024))
        way = rng.randrange(6)
        if way == 0:
            found[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            found[place : place + length] = rng.randbytes(length)
        elif way == 2:
            del found[place : place + length]
        elif way == 3:
            found[place:place] = found[place : place + length]
        elif way == 4:
            found[place : place + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
        else:
            del found[max(1, place) :]
    return bytes(found)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, mode: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs(kinds: dict[str, bytes]) -> list[bytes]:
    """Little to send, much to unpack."""
    zeros = zlib.compress(bytes(60_000_000), 9)
    text = zlib.compress(b"a" * 50_000_000, 9)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../bomb", bytes(50_000_000))
        archive.writestr("inner.zip", zipped.getvalue())
    progressive = next(data for name, data in kinds.items() if name.endswith("JPEG1"))
    last = progressive.rindex(b"\xff\xda")
    gif = bytearray(next(data for name, data in kinds.items() if "GIF" in name))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(next(data for name, data in kinds.items() if "BMP" in name))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    return [
        png(60_000, 60_000, zeros),
        png(2**31 - 1, 2**31 - 1, zeros),
        png(7_000, 7_000, zlib.compress(bytes(49_007_000), 9)),  # within the limits: it is decoded
        png(4_000, 4_000, zlib.compress(bytes(64_004_000), 9), mode=6),
        png(64, 64, zlib.compress(bytes(65 * 64)), chunk(b"zTXt", b"k\0\0" + text)),
        png(64, 64, zlib.compress(bytes(65 * 64)), chunk(b"iCCP", b"k\0\0" + text)),
        png(64, 64, zlib.compress(bytes(65 * 64)), *[chunk(b"tEXt", b"k\0" + b"a" * 1000)] * 5000),
        zipped.getvalue(),
        progressive[:-2] + progressive[last:-2] * 3000 + progressive[-2:],
        bytes(gif),
        bytes(bmp),
    ]


def multipart(data: bytes, name: str, kind: str, field: str = "file") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    return head.encode("utf-8", "replace") + data + b"\r\n--b--\r\n"


class Attack:
    """Sends the uploads and keeps what came back."""

    def __init__(self, server: Running, seed: int):
        self.server, self.seed = server, seed
        self.kinds = seeds()
        self.clips = [data for name, data in self.kinds.items() if name.startswith("clip-")]
        self.bombs = bombs(self.kinds)
        self.packed = gzip.compress(bytes(50_000_000))
        self.job_ends: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.jobs: list[str] = []
        host, port = server.url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self.ways: list[tuple[int, Callable[[random.Random], tuple[int, bytes]]]] = [
            (45, self.mutated), (12, self.other), (8, self.bomb), (10, self.named), (10, self.job),
            (8, self.lying_length), (3, self.slow), (4, self.broken_multipart),
        ]  # fmt: skip

    def one(self, number: int) -> None:
        rng = random.Random(f"{self.seed}-{number}")
        way = rng.choices([way for _, way in self.ways], [weight for weight, _ in self.ways])[0]
        try:
            status, body = way(rng)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, OSError) as error:
            self.ends[f"{way.__name__} closed"] += 1
            if way.__name__ not in {"lying_length", "slow", "broken_multipart", "bomb"}:
                self.wrong.append(f"{number} {way.__name__}: {type(error).__name__}")
            return
        self.ends[f"{way.__name__} {status}"] += 1
        if status >= 500 or TRACE.search(body):
            self.wrong.append(f"{number} {way.__name__}: {status} {body[:200]!r}")
        if status == 202:
            self.jobs.append(json.loads(body)["url"])
        elif status >= 400 and not body.startswith((b'{"error":{"code":"', b"Invalid HTTP request")):
            self.wrong.append(f"{number} {way.__name__}: not the shape of an error: {body[:200]!r}")

    def post(self, body: bytes, path: str = "/v1/analyze", **headers: str) -> tuple[int, bytes]:
        head = {"content-type": "multipart/form-data; boundary=b"} | headers
        for _ in range(60):
            answer = httpx.post(self.server.url + path, content=body, headers=head, timeout=300, trust_env=False)
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers["retry-after"]))
        return answer.status_code, answer.content

    def some(self, rng: random.Random) -> bytes:
        return mutate(rng.choice(list(self.kinds.values())), rng)

    def mutated(self, rng: random.Random) -> tuple[int, bytes]:
        return self.post(multipart(self.some(rng), "a.jpg", rng.choice(("image/jpeg", "image/png"))))

    def other(self, rng: random.Random) -> tuple[int, bytes]:
        """Another type than it says."""
        data = rng.choice((*OTHERS, rng.randbytes(rng.choice((1, 15, 3000, 200_000)))))
        return self.post(multipart(data, "a.png", rng.choice(TYPES)))

    def bomb(self, rng: random.Random) -> tuple[int, bytes]:
        if rng.random() < 0.1:
            return self.post(self.packed, **{"content-encoding": "gzip"})
        return self.post(multipart(rng.choice(self.bombs), "bomb.png", "image/png"))

    def named(self, rng: random.Random) -> tuple[int, bytes]:
        return self.post(multipart(self.some(rng), rng.choice(NAMES), rng.choice(TYPES)))

    def job(self, rng: random.Random) -> tuple[int, bytes]:
        """A clip as often as all else together: only jobs take them."""
        data = mutate(rng.choice(self.clips), rng) if rng.random() < 0.5 else self.some(rng)
        data = rng.choice(self.bombs) if rng.random() < 0.1 else data
        return self.post(multipart(data, rng.choice(NAMES[:6]), "image/png", "files"), "/v1/jobs")

    def ended(self, url: str, seconds: float = 600) -> bool:
        """Whether a job ends; what it says of its file is held to the same rules."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = httpx.get(self.server.url + url, timeout=60, trust_env=False)
            if (job := answer.json())["state"] != "done":
                time.sleep(0.2)
                continue
            for file in job["files"]:
                told = file["error"]["code"] if file["error"] else file["results"][0]["kind"]
                self.job_ends[told] += 1
                if told == "internal" or TRACE.search(answer.content):
                    self.wrong.append(f"{url}: {answer.content[:200]!r}")
            return True
        return False

    def raw(self, head: bytes, body: bytes, pause: float = 0.0) -> tuple[int, bytes]:
        """A request byte by byte, as no library would send it."""
        with socket.create_connection(self.address, timeout=BODY_SECONDS * 4) as connection:
            connection.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
            step = max(1, len(body) // 8) if pause else max(1, len(body))
            for place in range(0, len(body), step):
                connection.sendall(body[place : place + step])
                time.sleep(pause)
            answer = b""
            while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
                answer += more
            head, _, found = answer.partition(b"\r\n\r\n")
            if size := re.search(rb"content-length: (\d+)", head):
                while len(found) < int(size[1]) and (more := connection.recv(65536)):
                    found += more
                found = found[: int(size[1])]
            else:  # the HTTP library's own refusal, perhaps in chunks
                while more := connection.recv(65536):
                    found += more
                found = found[max(0, found.find(b"Invalid HTTP request")) :]
        if not head:
            raise OSError("closed without an answer")
        return int(head.split(b" ")[1]), found

    def lying_length(self, rng: random.Random) -> tuple[int, bytes]:
        body = multipart(self.some(rng), "a.jpg", "image/jpeg")
        true = len(body)
        length = rng.choice((b"Content-Length: %d" % (true // 2), b"Content-Length: %d" % (true + 500),
                             b"Content-Length: 99999999999999", b"Content-Length: -1", b"Content-Length: x",
                             b"Content-Length: %d\r\nContent-Length: 5" % true, b"X: y",
                             b"Content-Length: %d\r\nTransfer-Encoding: chunked" % true,
                             b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"))  # fmt: skip
        return self.raw(b"Content-Type: multipart/form-data; boundary=b\r\n" + length + b"\r\n", body)

    def slow(self, rng: random.Random) -> tuple[int, bytes]:
        """Slower than allowed, or broken off in the middle."""
        body = multipart(self.some(rng), "a.jpg", "image/jpeg")
        head = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n" % len(body)
        if rng.random() < 0.5:
            with socket.create_connection(self.address, timeout=10) as connection:
                connection.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n" + body[:-50])
            raise OSError("broken off")
        return self.raw(head, body, BODY_SECONDS / 6)

    def broken_multipart(self, rng: random.Random) -> tuple[int, bytes]:
        good = multipart(self.some(rng), "a.jpg", "image/jpeg")
        fields = (b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % i for i in range(2000))
        flag = b'--b\r\nContent-Disposition: form-data; name="evidence"\r\n\r\n'
        body = rng.choice((
            mutate(good, rng), good[:-10], b"--b\r\n" * 5000, b"--b\r\nX: " + b"a" * 200_000 + good, b"".join(fields),
            good.replace(b'name="file"', b"name*=utf-8''file"), good.replace(b"--b--", b"--b") * 20,
            flag + b"x" * 500_000,
        ))  # fmt: skip
        return self.post(body, **{"content-type": rng.choice(CONTENT_TYPES)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="of the model")
    parser.add_argument("--memory-mib", type=float, default=2500, help="the server may never take more")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    good = {"file": (PHOTOS[0].name, PHOTOS[0].read_bytes())}
    with serving(threads=options.threads, body_seconds=BODY_SECONDS, waiting_files=100_000) as server:
        attack = Attack(server, options.seed)
        before = httpx.post(server.url + "/v1/analyze", files=good, timeout=300, trust_env=False).json()
        start, there = server.memory(), set(server.left())
        started = time.monotonic()
        with ThreadPoolExecutor(options.clients) as pool:
            list(pool.map(attack.one, range(options.count)))
        unended = [url for url in attack.jobs if not attack.ended(url)]
        elapsed = time.monotonic() - started
        after = httpx.post(server.url + "/v1/analyze", files=good, timeout=300, trust_env=False).json()
        memory, left, log = server.memory(), set(server.left()) - there, server.log
    same = [[{k: v for k, v in r.items() if k != "timings"} for r in one["results"]] for one in (before, after)]
    failures = (
        attack.wrong
        + [f"left behind: {name}" for name in sorted(left)]
        + [f"job never ended: {url}" for url in unended]
    )
    failures += ["a trace in the server's log"] if "Traceback" in log else []
    failures += ["another verdict on a good photo afterwards"] if same[0] != same[1] else []
    failures += [f"memory: {memory}"] if memory["most"] > options.memory_mib else []
    report: dict[str, Any] = {
        "uploads": options.count,
        "seed": options.seed,
        "clients": options.clients,
        "seconds": round(elapsed, 1),
        "by_way_and_status": dict(sorted(attack.ends.items())),
        "jobs": len(attack.jobs),
        "job_files_by_end": dict(sorted(attack.job_ends.items())),
        "memory_start_mib": start["now"],
        "memory_end_mib": memory["now"],
        "memory_most_mib": memory["most"],
        "failures": failures[:50],
    }
    write(options.out, report)
    if failures:
        raise SystemExit(f"{len(failures)} failures" + ("\n" + log[-3000:] if "Traceback" in log else ""))


if __name__ == "__main__":
    main()
