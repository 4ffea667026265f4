"""A pool of processes that leaves none behind."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2


class ProcessPool(ProcessPoolExecutor):
    """`workers` processes with one OpenCV thread each; with `with`, what is under way at its end is given up.

    A worker ends when the process that started it has ended, also if that was killed before the worker had begun.
    """

    def __init__(self, workers: int):
        # Spawned: in a forked process, setNumThreads can wait for ever for OpenCV's threads, which were not forked.
        super().__init__(workers, multiprocessing.get_context("spawn"), start_worker)

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """End the workers, also in the middle of a task, and wait for that."""
        for process in list((self._processes or {}).values()):
            process.terminate()
        self.shutdown(wait=True, cancel_futures=True)


def start_worker() -> None:
    """To be called first in a spawned process that reads images: Ctrl+C is left to its parent, with which it ends."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Let this spawned process end when its parent has ended, at once where that was before this call."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a spawned process"

    def watch() -> None:
        parent.join()
        os._exit(1)  # nobody would read the outcome

    threading.Thread(target=watch, daemon=True).start()
