"""Multipart bodies: known fields only, each once; files stay in memory or in a nameless temporary file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import IO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from ffaa.data.images import shown
from ffaa.serve.problems import ApiError
from ffaa.serve.queue import Options

MAX_NAME = 100
FIELD_BYTES = 4096
FLAGS = ("whole_image", "evidence")


@dataclass
class Upload:
    """A file of a body; whoever takes it closes it. name: the client's, made harmless; never used as a path."""

    file: IO[bytes]
    name: str

    def head(self) -> bytes:
        """Its first 16 bytes."""
        found = self.file.read(16)
        self.file.seek(0)
        return found


@dataclass
class Form:
    files: list[Upload] = field(default_factory=list)
    url: str | None = None
    options: Options = field(default_factory=Options)

    def close(self) -> None:
        for upload in self.files:
            upload.file.close()


def require_multipart(request: Request) -> None:
    """Raises ApiError 415 for a body of another kind, before it is received."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, "send the photo as multipart/form-data, field 'file'; curl -F file=@photo.jpg does")


async def read_form(request: Request, file_field: str, max_files: int, extra: Collection[str] = ()) -> Form:
    """The fields of a body: `file_field`, the flags of `Options`, and those of `extra`. Raises ApiError."""
    most = len(FLAGS) + len(extra)
    try:
        data = await request.form(max_files=max_files, max_fields=most, max_part_size=FIELD_BYTES)
    except ClientDisconnect:
        raise ApiError(400, "the connection ended before the body did", "bad_request") from None
    form = Form()
    flags: dict[str, bool] = {}
    known = {file_field, *FLAGS, *extra}
    try:
        for name, value in data.multi_items():
            if isinstance(value, UploadFile):
                form.files.append(Upload(value.file, safe_name(value.filename)))
                if name != file_field:
                    raise _invalid(f"a file in the field '{safe_name(name)}'; files go into '{file_field}'")
            elif name == file_field:
                raise _invalid(f"'{file_field}' holds text; send it as a file (with a file name)")
            elif name not in known:
                raise _invalid(f"unknown field '{safe_name(name)}'; known: {', '.join(sorted(known))}")
            elif name in flags or (name == "url" and form.url is not None):
                raise _invalid(f"'{name}' is given twice")
            elif name in FLAGS:
                flags[name] = _flag(name, value)
            else:
                form.url = value
        form.options = Options(**flags)
    except ApiError:
        form.close()
        raise
    return form


def _flag(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise _invalid(f"'{name}' is true or false")
    return value == "true"


def _invalid(message: str) -> ApiError:
    return ApiError(422, message)


def safe_name(name: str | None) -> str:
    """The last part of a client's file name as one short printable line."""
    last = (name or "").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return shown(last.encode("utf-8", "replace")[-MAX_NAME:].decode("utf-8", "ignore")) or "photo"


def is_clip(head: bytes) -> bool:
    """Do these first 16 bytes begin a video (MP4 and its kin, Matroska, AVI, MPEG)?"""
    if head[4:8] == b"ftyp":
        return head[8:11] not in {b"hei", b"hev", b"mif", b"msf", b"avi"}  # HEIC and AVIF photos
    avi = head[:4] == b"RIFF" and head[8:11] == b"AVI"
    return avi or head.startswith((b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
