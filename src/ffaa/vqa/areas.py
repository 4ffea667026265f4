"""Areas of the face by the words that name them: what a text speaks of, what was changed, what people point at."""

from __future__ import annotations

import re
from collections.abc import Iterable

import cv2
import numpy as np

from ffaa.data.landmarks import PARTS, face_size, region_mask
from ffaa.types import Label
from ffaa.vqa.claims import MASK_SHARE, NEGATION
from ffaa.vqa.ddvqa import HumanRecord
from ffaa.vqa.words import sentences

# The two eyes and the two brows are one area each: texts seldom tell whose left they mean.
AREAS: dict[str, str] = {
    "eyes": r"eyes?|iris(?:es)?|pupils?|eyelids?|eyelash(?:es)?|gaze",
    "brows": r"eyebrows?|brows?",
    "nose": r"nose|nostrils?",
    "mouth": r"mouth|lips?|teeth|tooth",
    "skin": r"skin|cheeks?|forehead|chin|complexion|pores?|wrinkles?",
}
_NAMED = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in AREAS.items()}
# A pasted eye or mouth reaches beyond the outline of the mesh: share of the face's size that is added all around.
AROUND = 1 / 12
_PEOPLE = {"eyes": "eyes", "eyebrows": "brows", "nose": "nose", "mouth": "mouth", "skin": "skin"}


def named_areas(text: str) -> set[str]:
    """The areas that a text names, without those of sentences with a negation ("no seam around the mouth")."""
    said = [sentence for sentence in sentences(text) if not NEGATION.search(sentence)]
    return {name for name, words in _NAMED.items() if any(words.search(sentence) for sentence in said)}


def area_of(region: str) -> set[str]:
    """The areas of a manifest's region: 'left_eye' -> eyes; one that is none of ours, such as 'face_oval': all."""
    plain = region.replace("_", " ")
    return {name for name, words in _NAMED.items() if words.search(plain)} or set(AREAS)


def changed_areas(regions: Iterable[str], mask: np.ndarray | None, points: np.ndarray | None) -> set[str] | None:
    """The areas that were changed: by the manifest's regions, else by the mask; None where neither tells.

    mask: float (H, W) in [0, 1] over the face image. points: its mesh, (468, 3), None where no face was seen.
    """
    if given := set().union(*map(area_of, regions)):
        return given
    if mask is None or points is None:
        return None
    parts = {name: region_mask(points, name, mask.shape) for name in (*PARTS, "skin")}
    shares = {name: float((part * (mask > 0.5)).sum() / max(part.sum(), 1)) for name, part in parts.items()}
    return set().union(*(area_of(name) for name, share in shares.items() if share > MASK_SHARE))


def regions_mask(regions: Iterable[str], points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Where a manifest's regions lie: their outlines on the mesh, enlarged by `AROUND`; float32 (H, W), 0 or 1.

    points: (468, 3) in pixels of the image, whose shape is (H, W). None where no region is named, where they are the
    whole face, and where one eye or brow is named without the other: collections differ in whose left they mean.
    """
    names = {region.replace(" ", "_") for region in regions}
    sided = any(len(names & set(pair)) == 1 for pair in (PARTS[:2], PARTS[2:4]))
    changed: set[str] = set().union(*map(area_of, names))
    if not changed or changed == set(AREAS) or sided:
        return None
    mask: np.ndarray = np.zeros(shape[:2], np.float32)
    for part in PARTS:
        if area_of(part) <= changed:
            mask = np.maximum(mask, region_mask(points, part, shape))
    reach = round(AROUND * face_size(points))
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    return np.maximum(mask, region_mask(points, "skin", shape)) if "skin" in changed else mask


def doubted_areas(record: HumanRecord) -> set[str]:
    """The areas that most of the people asked about them call fake."""
    found = set()
    for region, area in _PEOPLE.items():
        votes = [said.says for said in record.said.get(region, ()) if said.says is not None]
        if 2 * votes.count(Label.FAKE) > len(votes):
            found.add(area)
    return found
