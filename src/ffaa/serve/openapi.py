"""What /openapi.json says beyond the types: bodies, examples, every status that a route may answer with."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ffaa.serve.problems import CODES, ErrorReply
from ffaa.serve.settings import ServeSettings

DESCRIPTION = """Photos of faces in; for each face whether it looks real or forged, which kind of forgery, how sure, and
why. A model's opinion, to be checked by a person, never proof. Hard cases and low match scores are uncertain: read
`difficulty`, `match_score` and `cautions` with every `label`. Errors have one shape, `ErrorReply`; after 429
and 503 the header `Retry-After` gives seconds to wait."""

MESSAGES = {
    400: "photo.jpg: the content is no image that can be read, whatever its name says; give a JPEG, PNG, WebP, GIF, "
    "TIFF, BMP, HEIC or AVIF photo",
    401: "a key is needed: send the header 'Authorization: Bearer KEY'",
    403: "pages of other sites may not call this; its operator can allow them (origins)",
    404: "no such job; it may have expired",
    408: "the body did not arrive within 30 s",
    413: "the body is larger than 20.1 MiB; send a smaller file",
    415: "send the photo as multipart/form-data, field 'file'; curl -F file=@photo.jpg does",
    422: "unknown field 'photo'; known: evidence, file, url, whole_image",
    429: "32 photos wait already; try again later",
    503: "the server is loading; try again",
    504: "not judged within 120 s; try again later",
}
_WHY = {
    400: "The photo cannot be read, or the body is no multipart.",
    401: "No key, or an unknown one.",
    403: "Addressed by another name, or called by a page of another site.",
    404: "Not there, or jobs are off.",
    408: "The body came too slowly.",
    413: "Too many bytes, pixels or faces.",
    415: "Not multipart, compressed, or a video.",
    422: "Fields that cannot be, or answers of the model that could not be read.",
    429: "The queue is full or the rate is used up; see Retry-After.",
    503: "Loading, shutting down, or out of disk; see Retry-After.",
    504: "Not judged in time.",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        example = {"error": {"code": CODES[status], "message": MESSAGES[status]}}
        found[status] = {
            "model": ErrorReply,
            "description": _WHY[status],
            "content": {"application/json": {"example": example}},
        }
        if status in {429, 503}:
            found[status]["headers"] = _RETRY
    return found


def _example(value: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"example": value}}}


VERDICT = json.loads((files("ffaa.serve") / "example_verdict.json").read_text("utf-8"))
NO_FACE = {
    "kind": "no_face",
    "schema_version": VERDICT["schema_version"],
    "source": {"path": "wall.jpg", "sha256": "0" * 64, "width": 640, "height": 480, "notes": []},
    "message": "no face found (frontal faces only); for a photo that is a face crop already set whole_image",
}
_JOB_ID = "Zk3vQ1p9T0a7xWc2LrB8dA"
_JOB = {
    "id": _JOB_ID,
    "state": "running",
    "created": 1767225600.0,
    "ended": None,
    "files": [
        {"name": "wall.jpg", "state": "done", "results": [NO_FACE]},
        {"name": "notes.txt", "state": "done", "error": {"code": "unreadable", "message": MESSAGES[400]}},
        {"name": "photo.jpg", "state": "queued"},
    ],
}

ANALYZE = _errors(400, 401, 403, 408, 413, 415, 422, 429, 503, 504) | {
    200: {
        "description": "One record per face (the verdict here is shortened: fewer measures and weight files).",
        "content": {
            "application/json": {
                "examples": {
                    "a forged face": {"value": {"results": [VERDICT]}},
                    "no face": {"value": {"results": [NO_FACE]}},
                }
            }
        },
    }
}
JOBS = _errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 503) | {
    202: {
        "description": "Accepted: it will end.",
        "headers": {"Location": {"description": "Where to ask for it.", "schema": {"type": "string"}}},
        "links": {
            name: {"operationId": name, "parameters": {"job": "$response.body#/id"}}
            for name in ("look_at_job", "delete_job")
        },
        **_example({"id": _JOB_ID, "url": f"/v1/jobs/{_JOB_ID}"}),
    }
}
JOB = _errors(401, 403, 404, 422) | {200: {"description": "The job.", **_example(_JOB)}}
JOB_GONE = _errors(401, 403, 404, 422)
METRICS = _errors(401, 403) | {
    200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

_FLAGS = {
    "whole_image": {"type": "boolean", "default": False, "description": "The photo is a face crop already."},
    "evidence": {
        "type": "boolean",
        "default": False,
        "description": "Measure the face, and mark each sentence of the answer that this bears out or denies.",
    },
}
_FILE = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC or AVIF."}


def _body(properties: dict[str, Any], **rest: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties | _FLAGS, "additionalProperties": False, **rest}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


ANALYZE_BODY = _body({"file": _FILE}, required=["file"])
JOBS_BODY = _body({"files": {"type": "array", "items": _FILE, "minItems": 1}}, required=["files"])


def complete(app: FastAPI, settings: ServeSettings) -> None:
    """Makes `app.openapi` say what these settings make of the API: limits, addresses, keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    found = copy.deepcopy(found)  # parts of it are the constants above
    paths = found["paths"]
    if settings.jobs is None:
        paths = {path: item for path, item in paths.items() if not path.startswith("/v1/jobs")}
    else:
        _schema(paths, "/v1/jobs")["properties"]["files"]["maxItems"] = settings.job_files
    found["paths"] = paths
    if settings.allow_urls:
        url = {"type": "string", "format": "uri", "maxLength": 2048, "description": "Instead of a file."}
        schema = _schema(paths, "/v1/analyze")
        schema["properties"]["url"] = url
        del schema["required"]
        schema["oneOf"] = [{"required": ["file"]}, {"required": ["url"]}]
    if settings.keys is not None:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, item in paths.items():
            if path != "/healthz":
                for operation in item.values():
                    operation["security"] = [{"key": []}]
    return found


def _schema(paths: dict[str, Any], path: str) -> dict[str, Any]:
    """Of a multipart body."""
    schema: dict[str, Any] = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    return schema
