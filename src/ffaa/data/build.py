"""From a CSV of photos to a manifest with the largest face of every photo."""

from __future__ import annotations

import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from ffaa.data import manifest
from ffaa.data.crops import read_photo
from ffaa.data.faces import detector, split_by_size
from ffaa.data.manifest import Row

log = logging.getLogger(__name__)


def with_face(root: Path, row: Row) -> Row:
    """The row with its largest usable face and the number of usable faces."""
    usable, _ = split_by_size(detector()(read_photo(root, row)))
    return row.model_copy(update={"box": usable[0].box if usable else None, "faces": len(usable)})


def build(csv: Path, out: Path, limit: int | None = None, workers: int | None = None) -> list[Row]:
    """Find the face of every photo listed in `csv` (paths relative to its folder) and write `out` (Parquet).

    limit: at most so many rows per split, test set and label, in file order.
    """
    rows = manifest.read_csv(csv)
    if limit is not None:
        seen: dict[tuple[str, str, str], int] = {}
        kept = []
        for row in rows:
            key = (row.split, row.test_set, row.label.value)
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= limit:
                kept.append(row)
        rows = kept
    # Spawned: in a forked process, setNumThreads can wait for ever for OpenCV's threads, which were not forked.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), spawn, cv2.setNumThreads, (1,)) as pool:
        found = []
        for row in pool.map(partial(with_face, csv.parent), rows, chunksize=32):
            found.append(row)
            if len(found) % 2000 == 0:
                log.info("faces: %d of %d photos", len(found), len(rows))
    manifest.write(out, found)
    return found
