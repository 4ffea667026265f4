"""Judges the files of jobs, a few at once, so that the models get whole batches."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ffaa.clip import analyze_clip
from ffaa.data.images import shown
from ffaa.errors import FFAAError, InputError
from ffaa.serve.jobs import Claim, JobStore
from ffaa.serve.metrics import Metrics
from ffaa.serve.problems import of_error
from ffaa.serve.queue import ClosedError, Gatherer, Options
from ffaa.serve.results import records
from ffaa.serve.upload import is_clip
from ffaa.types_clip import ClipAnalysis, ClipVerdict

log = logging.getLogger("ffaa.serve")
POLL_SECONDS = 1.0  # for files that another process accepted
SWEEP_SECONDS = 60.0


def judge_file(gatherer: Gatherer, path: Path, name: str, options: Options) -> list[dict[str, Any]]:
    """The records of one file of a job, as JSON values: of a photo one per face, of a video one. Raises FFAAError.

    name: what the client calls the file; it stands in the records and errors in place of `path`.
    """
    with path.open("rb") as file:
        clip = is_clip(file.read(16))
    if clip:
        return [judge_clip(gatherer, path, name, options).verdict.model_dump(mode="json")]
    analysis = gatherer.submit(path.open("rb"), options, name, patient=True).result()
    return [record.model_dump(mode="json") for record in records(analysis)]


def judge_clip(gatherer: Gatherer, path: Path, name: str, options: Options) -> ClipAnalysis:
    """The analysis of a video, under its client's `name`; for jobs and for the page. Raises FFAAError."""
    if options.whole_image:
        raise InputError(f"{name}: is a video, and whole_image is for photos; leave it out for this file")
    own = shown(path)  # a random name, so nothing else is replaced
    assistant: Any = gatherer.assistant()  # the queue itself asks for less of it than a video does
    try:
        found = analyze_clip(assistant, path, evidence=options.evidence)
    except InputError as error:
        raise InputError(str(error).replace(own, name)) from error
    except FFAAError as error:
        raise FFAAError(str(error).replace(own, name)) from error
    verdict = ClipVerdict.model_validate(_renamed(found.verdict.model_dump(mode="json"), own, name))
    return ClipAnalysis(verdict, found.faces)


def _renamed(value: Any, old: str, new: str) -> Any:
    """A JSON value with `old` replaced in all its texts."""
    if isinstance(value, dict):
        return {key: _renamed(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, old, new) for one in value]
    return value.replace(old, new) if isinstance(value, str) else value


class Worker:
    """Claims files of `store` while it runs. judge: `judge_file`."""

    def __init__(
        self, store: JobStore, gatherer: Gatherer, metrics: Metrics, at_once: int,
        judge: Callable[[Gatherer, Path, str, Options], list[dict[str, Any]]] = judge_file,
    ):  # fmt: skip
        self.name = secrets.token_hex(8)
        self._store, self._gatherer, self._metrics, self._judge = store, gatherer, metrics, judge
        self._at_once, self._working, self._stop = at_once, 0, False
        self._change = threading.Condition()
        self._pool = ThreadPoolExecutor(at_once, "job")
        self._claiming = threading.Thread(target=self._claim_all, name="jobs", daemon=True)
        self._living = threading.Thread(target=self._keep_alive, name="jobs-lease", daemon=True)

    def start(self) -> None:
        self._claiming.start()
        self._living.start()

    def wake(self) -> None:
        """There may be something to do."""
        with self._change:
            self._change.notify_all()

    def close(self) -> None:
        """Claims nothing more; returns when the files in work are ended. What waits is left to the next start."""
        with self._change:
            self._stop = True
            self._change.notify_all()
        self._claiming.join()
        self._pool.shutdown()
        self._living.join()

    def _claim_all(self) -> None:
        try:
            self._gatherer.assistant()
        except ClosedError:
            return  # without a model every file would fail; another start may have one
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stop or self._working < self._at_once)
                if self._stop:
                    return
                free = self._at_once - self._working
            claims = self._try(partial(self._store.claim, self.name, free)) or []
            with self._change:
                self._working += len(claims)
                if not claims and not self._stop:
                    self._change.wait(POLL_SECONDS)
            for claim in claims:
                self._pool.submit(self._work, claim)

    def _work(self, claim: Claim) -> None:
        outcome = self._outcome(claim)
        while (ended := self._try(lambda: self._store.end(claim, self.name, outcome))) is None:
            time.sleep(POLL_SECONDS)  # a full disk: what was judged is not thrown away
            if self._stop:
                break
        if ended:
            self._metrics.job_files.labels("error" if "error" in outcome else "judged").inc()
        with self._change:
            self._working -= 1
            self._change.notify_all()

    def _outcome(self, claim: Claim) -> dict[str, Any]:
        try:
            return {"results": self._judge(self._gatherer, claim.path, claim.name, claim.options)}
        except FFAAError as error:
            told = of_error(error)
            return {"error": {"code": told.code, "message": str(told.detail)}}
        except FileNotFoundError:  # its job was deleted
            return {"error": {"code": "not_found", "message": "the waiting file is gone"}}
        except Exception:
            log.exception("a file of a job failed")
            return {"error": {"code": "internal", "message": "the server failed on this file; see its log"}}

    def _keep_alive(self) -> None:
        """Prolongs the leases, also while closing, until the files in work are ended."""
        swept = float("-inf")
        while True:
            self._try(lambda: self._store.prolong(self.name))
            if time.monotonic() - swept > SWEEP_SECONDS:
                swept = time.monotonic()
                self._try(self._store.sweep)
            with self._change:
                done = self._change.wait_for(
                    lambda: self._stop and not self._working, self._store.settings.lease_seconds / 3
                )
            if done and not self._claiming.is_alive():
                return

    def _try(self, work: Callable[[], Any]) -> Any:
        """A full disk or a locked file is told and tried again later, it does not end the worker."""
        try:
            return work()
        except (OSError, sqlite3.Error):
            log.exception("the jobs folder %s cannot be used", self._store.path.parent)
            return None
