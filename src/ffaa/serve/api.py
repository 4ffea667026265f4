"""The API: photos in, verdicts out, as JSON. `create_app` is all that a server needs; it mounts the web page too."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from ffaa import __version__
from ffaa.serve import openapi, problems
from ffaa.serve.fetch_url import fetch
from ffaa.serve.guard import Guard
from ffaa.serve.jobs import FullError, JobStore
from ffaa.serve.page_history import check_history
from ffaa.serve.problems import ApiError
from ffaa.serve.queue import Gatherer, Judge
from ffaa.serve.results import Accepted, AnalyzeReply, Health, JobReply, records
from ffaa.serve.service import Service
from ffaa.serve.settings import ServeSettings
from ffaa.serve.upload import is_clip, read_form, require_multipart

JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{22}$", description="as POST /v1/jobs gave it")]
router = APIRouter()


def create_app(settings: ServeSettings, assistant: Judge | None = None) -> FastAPI:
    """The ASGI app. assistant: a loaded one; otherwise the settings' model is loaded when the app starts.

    `app.state.service.gatherer` is the queue, which the page (at '/', unless `settings.page` is off) and the API (/v1,
    /healthz, /metrics and /openapi.json) share. Raises UsageError for settings that cannot be.
    """
    check_history(settings)
    service = Service(settings, (lambda: assistant) if assistant is not None else _loader(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="ffaa", version=__version__, summary="Says of each face in a photo whether it looks real or forged.",
        description=openapi.DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    app.state.service = service
    app.include_router(router)
    problems.install(app, router.routes)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization"], expose_headers=["Retry-After", "Location"],
        )  # fmt: skip
    if settings.page:
        from ffaa.serve.page import add_page  # seconds of Gradio, which a server without a page is spared

        add_page(app, service)
    else:
        app.add_api_route("/", pointer, response_class=PlainTextResponse, include_in_schema=False)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics, draining=lambda: service.draining)
    openapi.complete(app, settings)
    return app


def gatherer_of(app: FastAPI) -> Gatherer:
    """The queue of an app that `create_app` made."""
    service: Service = app.state.service
    return service.gatherer


def _loader(settings: ServeSettings) -> Callable[[], Judge]:
    def load() -> Judge:
        import torch

        from ffaa.assistant import Assistant

        if settings.threads:
            torch.set_num_threads(settings.threads)
        return Assistant(settings.model, settings.device, min_face=settings.min_face)

    return load


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _json(value: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(value.model_dump_json(), status, headers, "application/json")


def pointer() -> str:
    return "ffaa: POST a photo to /v1/analyze, described in /openapi.json\n"


@router.post("/v1/analyze", tags=["photos"], response_model=AnalyzeReply, responses=openapi.ANALYZE,
             openapi_extra=openapi.ANALYZE_BODY)  # fmt: skip
async def analyze(request: Request) -> Response:
    """Judge the faces of one photo.

    The answer has one record per face, the same as `ffaa analyze --json` prints. A verdict is an opinion to check,
    never proof.
    """
    service = _service(request)
    require_multipart(request)
    service.enter(request)
    try:
        service.gatherer.check()
        with service.receiving():
            form = await read_form(request, "file", 1, ("url",))
            try:
                service.check_options(form.options)
                if bool(form.files) == bool(form.url):
                    raise ApiError(422, "give one photo: a file in the field 'file', or an address in 'url'")
                if form.url:
                    if not service.settings.allow_urls:
                        raise ApiError(422, "this server fetches no addresses; send the photo as a file", "url")
                    photo, name = await fetch(form.url, service.settings), "photo"
                    future = service.gatherer.submit(photo, form.options, name)
                else:
                    upload = form.files[0]
                    if is_clip(upload.head()):
                        raise ApiError(415, f"{upload.name}: a video; photos only here")
                    future = service.gatherer.submit(upload.file, form.options, upload.name)
                    form.files.clear()  # the queue closes it
            finally:
                form.close()
        analysis = await service.answer(request, future)
    except ApiError:
        raise
    except Exception as error:
        told = service.told(error)
        if told is None:
            raise
        raise told from None
    return _json(AnalyzeReply(results=records(analysis)))


def _store(service: Service) -> JobStore:
    if service.store is None:
        raise ApiError(404, "jobs are off; the operator can start the server with --jobs DIR", "jobs_off")
    return service.store


@router.post("/v1/jobs", tags=["jobs"], status_code=202, response_model=Accepted, responses=openapi.JOBS,
             openapi_extra=openapi.JOBS_BODY)  # fmt: skip
async def accept_job(request: Request) -> Response:
    """Hand in up to some hundred files and ask for the results later.

    An accepted job ends even when the server is killed and started again. Its files are deleted when they were judged,
    its results after a day or whatever the operator set.
    """
    service = _service(request)
    store = _store(service)
    require_multipart(request)
    who = service.enter(request)
    with service.receiving():
        form = await read_form(request, "files", service.settings.job_files)
        try:
            service.check_options(form.options)
            if not form.files:
                raise ApiError(422, "a job needs at least one file in the field 'files'")
            service.rate.charge(who, len(form.files) - 1)
            owner = service.job_owner(request)
            files = [(upload.file, upload.name) for upload in form.files]
            job = await run_in_threadpool(store.accept, owner, files, form.options)
        except FullError as error:
            raise service.refuse("busy", str(error), 60) from None
        except (OSError, sqlite3.Error) as error:
            problems.log.error("a job could not be kept: %s", error)
            raise ApiError(503, "jobs cannot be kept now; try again later", retry_after=60) from None
        finally:
            form.close()
    if service.worker is not None:
        service.worker.wake()
    url = f"/v1/jobs/{job}"
    return _json(Accepted(id=job, url=url), 202, {"Location": url})


@router.get("/v1/jobs/{job}", tags=["jobs"], response_model=JobReply, responses=openapi.JOB)
def look_at_job(request: Request, job: JobId) -> Response:
    """How far a job is, with the results there are."""
    service = _service(request)
    store = _store(service)
    found = store.look(job, service.job_owner(request))
    if found is None:
        raise ApiError(404, "no such job; it may have expired")
    return _json(JobReply.model_validate(found))


@router.delete("/v1/jobs/{job}", tags=["jobs"], status_code=204, responses=openapi.JOB_GONE)
def delete_job(request: Request, job: JobId) -> Response:
    """Forget a job, with its files and results."""
    service = _service(request)
    if not _store(service).delete(job, service.job_owner(request)):
        raise ApiError(404, "no such job; it may have expired")
    return Response(status_code=204)


@router.get("/healthz", tags=["operation"], response_model=Health, responses={503: {"model": Health}})
def health(request: Request) -> Response:
    """200 when photos are taken; 503 while the model is loaded and while the server shuts down."""
    status = _service(request).status
    return _json(Health.model_validate({"status": status}), 200 if status == "ready" else 503)


@router.get("/metrics", tags=["operation"], response_class=Response, responses=openapi.METRICS)
def metrics(request: Request) -> Response:
    """For Prometheus. Needs a key where keys are in force."""
    service = _service(request)
    service.who(request)
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
