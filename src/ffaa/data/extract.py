"""One photo or video -> face crops on disk and their manifest records. The same for every engine."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffaa.data.faces import cut, detector, resize_square, split_by_size, whole_image
from ffaa.data.images import load_photo
from ffaa.data.landmarks import landmarks, pose
from ffaa.data.phash import phash
from ffaa.data.quality import jpeg_quality, measure_quality
from ffaa.data.recipe import DataRecipe
from ffaa.data.sources.base import Item
from ffaa.data.stream import DEFAULT as VIDEO_LIMITS
from ffaa.data.tracks import Tracker
from ffaa.data.video import frames_at, probe, sample_times
from ffaa.data.work import Outcome, Rejected, Task
from ffaa.errors import FFAAError, InputError
from ffaa.types import Face, Label

MEASURE_SIZE = 224
# DFFD's threshold on its grey difference masks; binary masks pass it too.
CHANGED = 26


@dataclass(frozen=True)
class Job:
    """What all tasks of a build share. data: folder of the collections; out: where crops go."""

    data: Path
    out: Path
    recipe: DataRecipe


@dataclass
class _Found:
    """A face before it is chosen: the frame's place, seconds, track; the photo's or frame's perceptual hash."""

    frame: int
    time: float | None
    track: int
    faces: int
    face: Face
    points: np.ndarray | None
    phash: bytes
    mask: np.ndarray | None = None
    reference: np.ndarray | None = None

    @property
    def changed(self) -> float | None:
        return None if self.mask is None else float((self.mask >= CHANGED).mean())


def extract(task: Task, job: Job) -> Outcome:
    """Look at one item. What cannot be used is in the outcome, with the reason; only a failing disk raises."""
    outcome = Outcome(task.id)
    path = job.data / job.recipe.sources[task.source].root / task.item.path
    try:
        (_video if task.item.is_video else _photo)(task, job, path, outcome)
    except InputError as error:
        outcome.rejected.append(Rejected("unreadable", str(error).removeprefix(f"{path}: ")))
    except (FFAAError, OSError):
        raise
    except Exception as error:  # decoders of broken files raise anything; one file must not end a build
        outcome.rejected.append(Rejected("failed", " ".join(f"{type(error).__name__}: {error}".split())[:300]))
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome.memory = usage * (1 if sys.platform == "darwin" else 1024)
    return outcome


def _photo(task: Task, job: Job, path: Path, outcome: Outcome) -> None:
    photo = load_photo(path)
    pixels, item = photo.pixels, task.item
    found = list(_faces(pixels, job.recipe, 0, None, None))
    if not found and job.recipe.no_face == "whole":
        found = [_Found(0, None, 0, 0, whole_image(pixels, job.recipe.size or MEASURE_SIZE), None, phash(pixels))]
    if not found:
        outcome.rejected.append(Rejected("no face", f"no face of at least {job.recipe.min_face} px was found"))
        return
    root = job.data / job.recipe.sources[task.source].root
    for name in ("mask", "reference"):
        if (related := getattr(item, name)) and (root / related).is_file():
            _attach(found, name, load_photo(root / related).pixels, pixels.shape)
    height, width = pixels.shape[:2]
    size = path.stat().st_size
    common = {
        "photo_sha256": photo.source.sha256, "photo_width": width, "photo_height": height, "photo_bytes": size,
        "jpeg_quality": jpeg_quality(path), "bits_per_pixel": size * 8 / (width * height),
    }  # fmt: skip
    _write(found, common, task, job, outcome)


def _video(task: Task, job: Job, path: Path, outcome: Outcome) -> None:
    recipe, item = job.recipe, task.item
    args = recipe.sources[task.source]
    info = probe(path, VIDEO_LIMITS)
    times = sample_times(path, args.frames or recipe.frames, recipe.sampling, VIDEO_LIMITS)
    if info.broken:
        outcome.rejected.append(Rejected("broken video", f"{info.broken}; the frames before that are used"))
    tracker, found, shape = Tracker(), list[_Found](), (0, 0, 0)
    for frame in frames_at(path, times, VIDEO_LIMITS):
        found += _faces(frame.pixels, recipe, frame.index, frame.time, tracker)
        shape = frame.pixels.shape
    if not found:
        outcome.rejected.append(Rejected("no face", f"no face of at least {recipe.min_face} px in {len(times)} frames"))
        return
    root = job.data / args.root
    for name in ("mask", "reference"):
        if (related := getattr(item, name)) and (root / related).is_file():
            for frame in frames_at(root / related, times, VIDEO_LIMITS):
                _attach([f for f in found if f.frame == frame.index], name, frame.pixels, shape)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    common = {
        "photo_sha256": digest, "photo_width": shape[1], "photo_height": shape[0], "photo_bytes": info.bytes,
        "bits_per_pixel": info.bits_per_pixel,
    }  # fmt: skip
    _write(found, common, task, job, outcome)


def _faces(
    pixels: np.ndarray, recipe: DataRecipe, frame: int, time: float | None, tracker: Tracker | None
) -> Iterator[_Found]:
    """The usable faces of a photo (`tracker` None) or frame, largest first."""
    usable, _ = split_by_size(detector()(pixels), recipe.min_face)
    tracks = range(len(usable)) if tracker is None else tracker.add(frame, usable, pixels)
    signature = phash(pixels) if usable else b""
    for track, detection in zip(tracks, usable, strict=True):
        face = cut(pixels, detection, recipe.size or MEASURE_SIZE, detector().name)
        points = landmarks(pixels, detection.box, once=True) if recipe.pose else None
        yield _Found(frame, time, track, len(usable), face, points, signature)


def _attach(found: list[_Found], name: str, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    """Cut the same region out of a mask (to grey) or reference; one of another size is scaled to the photo's."""
    if pixels.shape[:2] != shape[:2]:
        pixels = cv2.resize(pixels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    for one in found:
        region = one.face.crop.region
        part = resize_square(pixels[region.top : region.bottom, region.left : region.right], one.face.crop.size)
        setattr(one, name, part.max(axis=2) if name == "mask" else part)


def _chosen(found: list[_Found], recipe: DataRecipe, item: Item, outcome: Outcome) -> list[_Found]:
    """Every face, or those of the person who is largest - or, where masks say who was changed, changed most."""
    tracks: dict[int, list[_Found]] = {}
    for one in found:
        tracks.setdefault(one.track, []).append(one)
    if recipe.faces == "largest":

        def rank(track: int) -> tuple[float, float, int]:
            changed = sum(f.changed or 0.0 for f in tracks[track]) if item.label is Label.FAKE else 0.0
            return changed, sum(f.face.box.width * f.face.box.height for f in tracks[track]), -track

        found = tracks[max(tracks, key=rank)]
    kept = []
    for one in found:
        if item.label is Label.FAKE and one.changed == 0:
            outcome.rejected.append(Rejected("unchanged", "the mask has no changed pixel in this face", one.time))
        else:
            kept.append(one)
    return kept


def _write(found: list[_Found], common: dict[str, Any], task: Task, job: Job, outcome: Outcome) -> None:
    recipe, item = job.recipe, task.item
    root = recipe.sources[task.source].root
    photo = below(root, item.path)
    for one in _chosen(found, recipe, item, outcome):
        face, crop = one.face, one.face.crop
        small = resize_square(face.image, MEASURE_SIZE)
        flat: dict[str, Any] = common | {
            "photo": photo, "time": one.time, "track": one.track, "faces": one.faces, "score": face.score,
            "padding": crop.padding, "phash": one.phash.hex(), **asdict(measure_quality(small)),
        }  # fmt: skip
        if not crop.whole_image:
            box = face.box
            flat |= box.model_dump() | {"face_size": float(np.sqrt(box.width * box.height))}
        if one.points is not None:
            flat |= dict(zip(("yaw", "pitch", "roll"), map(float, pose(one.points)), strict=True))
        if recipe.size is None:
            flat |= {
                "path": photo, "sha256": common["photo_sha256"], "width": common["photo_width"],
                "height": common["photo_height"], "length": common["photo_bytes"], "size": 0,
            }  # fmt: skip
            for name in ("mask", "reference"):
                flat[name] = below(root, getattr(item, name)) if getattr(item, name) else ""
        else:
            stem = _stem(photo, one)
            data = _save(job.out / "crops" / stem, face.image)
            flat |= {
                "path": f"crops/{stem}", "sha256": hashlib.sha256(data).hexdigest(), "length": len(data),
                "width": crop.size, "height": crop.size, "size": crop.size,
            }  # fmt: skip
            for name in ("mask", "reference"):
                if (part := getattr(one, name)) is not None:
                    _save(job.out / f"{name}s" / stem, part)
                    flat[name] = f"{name}s/{stem}"
        outcome.records.append(flat)


def below(root: str, path: str) -> str:
    """The path of an item relative to the folder of all collections."""
    return os.path.normpath(Path(root, path)).replace(os.sep, "/")


def _stem(photo: str, one: _Found) -> str:
    """A name of its own for a crop, spread over 256 folders."""
    digest = hashlib.sha256(photo.encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(photo).stem)[:40]
    frame = "" if one.time is None else f"-f{one.frame}"
    return f"{digest[:2]}/{name}-{digest[2:12]}{frame}-t{one.track}.png"


def _save(path: Path, pixels: np.ndarray) -> bytes:
    """PNG of uint8 RGB (h, w, 3) or grey (h, w). A file torn by a kill is written again: its item was not done."""
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", image)
    if not done:
        raise OSError(errno.EIO, "the crop cannot be encoded")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text := data.tobytes())
    return text


def batches(tasks: Iterator[Task], size: int) -> Iterator[list[Task]]:
    """Photos in lists of `size`, a video alone."""
    while batch := list(islice(tasks, 1)):
        while len(batch) < size and not batch[-1].item.is_video and (following := list(islice(tasks, 1))):
            batch += following
        yield batch
