"""Engines: tasks in, outcomes out, in any order. ENGINES is the registry."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict

import cv2
import pyarrow as pa

from ffaa.data.extract import Job, batches, extract
from ffaa.data.manifest import Writer
from ffaa.data.processes import ProcessPool
from ffaa.data.work import Outcome, Rejected, Task, item_of, item_text
from ffaa.errors import InputError, MissingExtraError

BATCH = 16
QUEUED = 3  # batches per worker that are under way: enough to keep it busy, few enough to hold no memory
_PAGE = 512


def extract_all(tasks: list[Task], job: Job) -> list[Outcome]:
    """`extract` of several tasks."""
    return [extract(task, job) for task in tasks]


def local(tasks: Iterator[Task], job: Job, workers: int, address: str | None = None) -> Generator[list[Outcome]]:
    """A pool of `workers` processes on this machine; 0: in this process.

    A file that kills its process (a decoder's crash, too much memory) is found by trying the batches that were under
    way one task at a time, and is rejected; the others go on.
    """
    todo = batches(tasks, BATCH)
    if workers == 0:
        yield from (extract_all(batch, job) for batch in todo)
        return
    pool, under_way = ProcessPool(workers), dict[Future[list[Outcome]], list[Task]]()
    try:
        exhausted = False
        while True:
            while not exhausted and len(under_way) < QUEUED * workers:
                batch = next(todo, None)
                exhausted = batch is None
                if batch is not None:
                    under_way[pool.submit(extract_all, batch, job)] = batch
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            finished, suspects = list[Outcome](), list[Task]()
            for future in done:
                batch = under_way.pop(future)
                try:
                    finished += future.result()
                except BrokenProcessPool:
                    suspects += batch
            if suspects:
                suspects += [task for batch in under_way.values() for task in batch]
                under_way.clear()
                pool.shutdown(wait=True, cancel_futures=True)
                finished += _one_by_one(suspects, job)
                pool = ProcessPool(workers)
            yield finished
    finally:
        pool.stop()


def _one_by_one(tasks: list[Task], job: Job) -> list[Outcome]:
    outcomes, pool = [], ProcessPool(1)
    for task in tasks:
        try:
            outcomes.append(pool.submit(extract, task, job).result())
        except BrokenProcessPool:
            reason = "reading it ended the process (a decoder's crash or too little memory)"
            outcomes.append(Outcome(task.id, rejected=[Rejected("crash", reason)]))
            pool.shutdown(wait=True)
            pool = ProcessPool(1)
    pool.shutdown(wait=True)
    return outcomes


_TASKS = pa.schema([("id", pa.int64()), ("source", pa.int32()), ("item", pa.string())])


class _RayExtract:
    """A Ray actor: tables of tasks -> tables of outcomes (JSON). The job travels as a plain object."""

    def __init__(self, job: Job):
        cv2.setNumThreads(1)
        self.job = job

    def __call__(self, table: pa.Table) -> pa.Table:
        tasks = [Task(t["id"], t["source"], item_of(t["item"])) for t in table.to_pylist()]
        try:
            found = [json.dumps(asdict(o)) for o in extract_all(tasks, self.job)]
        except OSError as error:  # raised in the driver as what it is, not as Ray's report of a failed actor
            found = [json.dumps({"errno": error.errno, "strerror": error.strerror})]
        return pa.table({"outcome": pa.array(found, pa.string())})


def on_ray(tasks: Iterator[Task], job: Job, workers: int, address: str | None = None) -> Generator[list[Outcome]]:
    """The same as a Ray Data job, on a Ray of its own or the cluster at `address`.

    On a cluster, the folders of the data and of the build must be the same shared paths on every node.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("this needs the extra 'ray'; run: pip install 'ffaa[ray]'") from error
    listed = job.out / "tasks"
    shutil.rmtree(listed, ignore_errors=True)
    listed.mkdir(parents=True)
    pages, empty = 0, False
    while not empty:
        page = [next(tasks, None) for _ in range(_PAGE)]
        rows = [{"id": t.id, "source": t.source, "item": item_text(t.item)} for t in page if t is not None]
        empty = len(rows) < _PAGE
        if rows:
            with Writer(listed / f"{pages:06}.parquet", _TASKS) as writer:
                for row in rows:
                    writer.add(row)
            pages += 1
    if not pages:
        return
    mine = not ray.is_initialized()
    if mine:
        try:
            if address:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            else:
                with _same_imports():
                    # One more than the workers take: with none left, the task that reads the list would wait for ever.
                    ray.init(num_cpus=max(workers, 1) + 1, include_dashboard=False, log_to_driver=False,
                             configure_logging=False)  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        outcomes = ray.data.read_parquet(str(listed), override_num_blocks=pages).map_batches(
            _RayExtract, fn_constructor_args=(job,), batch_format="pyarrow", batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(workers, 1)), num_cpus=1,
        )  # fmt: skip
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield [_outcome(text.as_py()) for text in batch["outcome"]]
    finally:
        if mine:
            ray.shutdown()
        shutil.rmtree(listed, ignore_errors=True)


def _outcome(text: str) -> Outcome:
    flat = json.loads(text)
    if "errno" in flat:
        raise OSError(flat["errno"], flat["strerror"])
    return Outcome(**flat | {"rejected": [Rejected(**r) for r in flat["rejected"]]})


@contextmanager
def _same_imports() -> Iterator[None]:
    """Processes started inside find the modules that this one finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


Engine = Callable[[Iterator[Task], Job, int, str | None], Generator[list[Outcome]]]
ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}


def default_workers() -> int:
    """The cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
