import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import cv2

from ffaa.data.processes import ProcessPool

LATE = """
import multiprocessing, os, time
from ffaa.data.processes import start_worker

def late(parent):
    print("there", flush=True)
    while os.getppid() == parent:
        time.sleep(0.01)
    start_worker()
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=late, args=(os.getpid(),)).start()
"""


def test_a_worker_whose_parent_was_killed_before_it_began_ends(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    source = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, tmp_path / "late.py"], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "there\n"
        process.kill()
        assert process.communicate(timeout=60)[0] == ""  # its output is closed when the worker, too, has ended
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_leaving_a_pool_gives_up_what_is_under_way():
    before = active_children()
    with ProcessPool(2) as pool:
        assert pool.submit(cv2.getNumThreads).result() == 1
        endless = pool.submit(time.sleep, 600)
        waiting = [pool.submit(time.sleep, 600) for _ in range(9)]
    assert endless.done()
    assert all(future.done() for future in waiting)
    assert active_children() == before
