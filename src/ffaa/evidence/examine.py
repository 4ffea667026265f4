"""`examine`: every measure of the room on one face image. No label, and no model but the face mesh."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ffaa import weights
from ffaa.data.faces import face_rect
from ffaa.data.landmarks import landmarks
from ffaa.errors import InputError
from ffaa.evidence import (
    boundary,
    colour,
    cover,
    expression,
    eyes,
    focus,
    frame,
    jpeg,
    light,
    noise,
    parts,
    pose,
    skin,
    spectrum,
)
from ffaa.evidence.look import Look
from ffaa.evidence.norms import LEVELS, QUANTILES
from ffaa.evidence.record import VERSION, Measure, NotMeasurableError
from ffaa.types import Box, EvidenceItem, EvidenceRecord, Face

FAMILIES: dict[str, dict[str, Measure]] = {
    "pose": pose.MEASURES,
    "expression": expression.MEASURES,
    "cover": cover.MEASURES,
    "light": light.MEASURES,
    "frame": frame.MEASURES,
    "focus": focus.MEASURES,
    "noise": noise.MEASURES,
    "colour": colour.MEASURES,
    "boundary": boundary.MEASURES,
    "eyes": eyes.MEASURES,
    "skin": skin.MEASURES,
    "parts": parts.MEASURES,
    "spectrum": spectrum.MEASURES,
    "jpeg": jpeg.MEASURES,
}
MEASURES: dict[str, Measure] = {name: m for family in FAMILIES.values() for name, m in family.items()}
MIN_SIDE = 64
# Below this log2 mean Laplacian of the face its features are smears; the lowest quantile of norms.py lies above it.
BLURRED = 0.45
NEEDS_FEATURES = {name for family in ("expression", "cover", "eyes", "parts") for name in FAMILIES[family]}


def examine(image: np.ndarray, points: np.ndarray | None, scale: float | None = None) -> EvidenceRecord:
    """uint8 RGB (S, S, 3) face crop and its mesh, (468, 3) in crop pixels or None -> all items.

    scale: crop pixels per pixel of the photo, None where unknown; grids of the photo need it. Raises InputError for an
    array that is no square photo of at least 64 px.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"a {image.dtype} array of shape {image.shape} is no face image; give uint8 RGB (S, S, 3)")
    if image.shape[0] != image.shape[1] or image.shape[0] < MIN_SIDE:
        raise InputError(f"a face image of {image.shape[1]} x {image.shape[0]} px; give a square of {MIN_SIDE} or more")
    if points is not None and points.shape != (468, 3):
        raise InputError(f"face points of shape {points.shape}; give (468, 3) in pixels of the face image")
    look = Look(np.ascontiguousarray(image), points, scale)
    items = {name: _item(name, measure, look) for name, measure in MEASURES.items()}
    blur = items["sharpness"].value
    if blur is not None and blur < BLURRED:
        gone = {"value": None, "word": "", "strength": 0.0, "reason": "the face is too blurred"}
        items |= {name: items[name].model_copy(update=gone) for name in NEEDS_FEATURES}
    return EvidenceRecord(items=items, versions={"evidence": VERSION})


def examine_face(face: Face) -> EvidenceRecord:
    """`examine` for a face image as the detectors cut it. Raises WeightsError when the face mesh is not installed."""
    left, top, right, bottom = face_rect(face.crop, face.box)
    points = landmarks(face.image, Box(left=left, top=top, right=right, bottom=bottom))
    return examine(face.image, points, face.crop.size / face.crop.region.width)


def require_mesh() -> None:
    """Raises WeightsError when the face mesh is not installed."""
    weights.part_folder("face-mesh")


def of_values(values: Mapping[str, float]) -> EvidenceRecord:
    """The record that gave these values of `EvidenceRecord.values`; items without one are not measurable."""
    items = {name: _told(name, measure, values.get(name), "not kept") for name, measure in MEASURES.items()}
    return EvidenceRecord(items=items, versions={"evidence": VERSION})


def strength(name: str, value: float) -> float:
    """How unusual a value is among training faces: 0 at their median, 1 beyond the outermost quantiles."""
    return float(abs(2 * np.interp(value, QUANTILES[name], LEVELS, left=0.0, right=1.0) - 1))


def _item(name: str, measure: Measure, look: Look) -> EvidenceItem:
    try:
        value = round(measure.function(look), 4)
    except NotMeasurableError as error:
        return _told(name, measure, None, str(error))
    finite = bool(np.isfinite(value))
    return _told(name, measure, value if finite else None, "the value is not finite on this image")


def _told(name: str, measure: Measure, value: float | None, reason: str) -> EvidenceItem:
    known = {"name": name, "unit": measure.unit, "method": measure.method, "region": measure.region}
    if value is None:
        return EvidenceItem(**known, value=None, reason=reason)
    word = measure.words[int(np.searchsorted(measure.cuts, value))]
    return EvidenceItem(**known, value=value, word=word, strength=round(strength(name, value), 3))
