"""What a client is told when something goes wrong: one JSON shape, {"error": {"code", "message"}}."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from ffaa.errors import FFAAError, InputError, TooLargeError

log = logging.getLogger("ffaa.serve")

CODES = {
    400: "unreadable", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "body_too_slow", 413: "too_large", 415: "unsupported", 422: "invalid", 429: "busy", 500: "internal",
    503: "unavailable", 504: "over_time",
}  # fmt: skip


class Problem(BaseModel):
    """code: for programs. message: for people, one line."""

    model_config = ConfigDict(extra="forbid")

    code: str
    message: str


class ErrorReply(BaseModel):
    """Every answer that is not a success."""

    model_config = ConfigDict(extra="forbid")

    error: Problem


class ApiError(HTTPException):
    """Ends a request with this status. code: from CODES where none is given. retry_after: seconds."""

    def __init__(self, status: int, message: str, code: str = "", retry_after: float | None = None):
        headers: dict[str, str] = {}
        if retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers or None)
        self.code = code or CODES[status]


def of_error(error: FFAAError) -> ApiError:
    """What the user of the API is told for an error of ours."""
    if isinstance(error, TooLargeError):
        return ApiError(413, str(error))
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    return ApiError(422, str(error), "not_decided")


def reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    body = ErrorReply(error=Problem(code=code, message=message)).model_dump()
    return JSONResponse(body, status, headers=dict(headers) if headers else None)


def _code(error: HTTPException) -> str:
    if isinstance(error, ApiError):
        return error.code
    if error.status_code == 400:
        return "bad_request"  # a body that is no multipart
    return CODES.get(error.status_code, "invalid")


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return reply(422, "invalid", f"{where}: {first['msg']}")


def unexpected() -> JSONResponse:
    """What a client is told of a fault of ours."""
    return reply(500, "internal", "the server failed on this request; its operator finds the reason in the log")


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Makes `app` answer every error in this shape. routes: those of the API."""

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _code(error)
        app.state.service.metrics.rejected.labels(code).inc()
        headers, message = error.headers, str(error.detail)
        if not isinstance(error, ApiError) and error.status_code == 404:
            message = "nothing is at this address; see /openapi.json"
        elif error.status_code == 405:
            # Of all routes at this address; the framework names those of the first.
            methods = _methods(request, [*routes, *app.routes])
            headers, message = {"Allow": methods}, f"this address takes {methods}"
        return reply(error.status_code, code, message, headers)

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, _invalid)


def _methods(request: Request, routes: Sequence[BaseRoute]) -> str:
    at_it = (r for r in routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in at_it for method in route.methods or ()}))
