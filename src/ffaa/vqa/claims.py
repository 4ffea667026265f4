"""What a teacher's sentences claim: which way they lean, and regions, methods and types that the manifest denies.

Rules on phrases. They judge text that may be left out of training at little cost, so they decide sooner than the
flags of a model's answer do, and look at a reasoning as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ffaa.data.landmarks import PARTS, landmarks, region_mask
from ffaa.types import Box, ForgeryType, Label
from ffaa.vqa.row import VqaRow
from ffaa.vqa.words import sentences

_FAKE = (
    r"(?:fak(?:e|ed|ery)|forg(?:ed|ery|eries)|manipulat(?:ed|ions?)|tamper(?:ed|ing)|alter(?:ed|ations?)|doctored|"
    r"deep-?fake[ds]?|synthe(?:tic|sis|si[sz]ed)|generated|edit(?:ed|ing)|swapp(?:ed|ing)|face[- ]swaps?|exchanged)"
)
_REAL = (
    r"(?:real|authentic(?:ity)?|genuine(?:ness)?|unaltered|unedited|untouched|unmanipulated|"
    r"camera (?:picture|photo|image|capture)|natural photo)"
)
_THING = r"(?:face|image|photo(?:graph)?|picture|portrait|person|it|this)"
_BE = r"(?:is|was|are|looks?|appears?|seems?|has been)"
_POINTS = (
    r"(?:point(?:s|ing)?|lean(?:s|ing)?|speaks?|argues?|favou?rs?|suggests?|indicates?|confirms?|supports?|fits?|"
    r"consistent with|evidence|signs?|traces?|taken as|judged|on the side of|conclu\w+|betrays?|proves?)"
)
_BETWEEN = r"(?:\s+(?!real\b|fake\b|not\b|no\b)[\w'’-]+){0,5}?\s+"
STANCE_WORDS = re.compile(rf"\b(?:{_FAKE}|{_REAL})\b", re.IGNORECASE)
_STANCES = {
    side: re.compile(
        rf"\b{_THING}\s+{_BE}(?:\s+(?!not\b)\w+){{0,3}}?\s+{word}\b|\b{_POINTS}{_BETWEEN}{word}\b", re.IGNORECASE
    )
    for side, word in ((Label.FAKE, _FAKE), (Label.REAL, _REAL))
}
NEGATION = re.compile(
    r"\b(?:no|not|never|none|nor|neither|without|lacks?|lacking|absence|absent|free (?:of|from)|cannot|hardly|nothing|"
    r"rather than|rules? out|instead of|against)\b|n['’]t\b",
    re.IGNORECASE,
)
_UNPROVEN = re.compile(
    r"\b(?:(?:do(?:es)?|did|can) ?(?:not|n['’]t)|cannot|hardly|barely|little|few|not much) (?:\w+ ){0,6}?"
    r"(?:prove|carry|settle|decide|support|back|show|confirm|establish)",
    re.IGNORECASE,
)
# A sentence that weighs two sides, or says what might be, takes none.
_WEIGHING = re.compile(
    r"\b(?:although|though|while|whereas|but|however|yet|despite|at first|if|unless|would|might|could|may)\b", re.I
)


def stance(reasoning: str) -> tuple[Label | None, str]:
    """(what the reasoning speaks for, the phrase); (None, '') where it takes no side or both as often.

    The side that more sentences take; with as many on both, the last one's. "Not a forgery" speaks for a real photo;
    "does not show a forgery" for nothing.
    """
    taken: list[tuple[Label, str]] = []
    for sentence in sentences(reasoning):
        if _WEIGHING.search(sentence):
            continue
        for side, pattern in _STANCES.items():
            for match in pattern.finditer(sentence):
                clause = re.split(r"[,;:]", sentence[: match.end()])[-1]
                if _UNPROVEN.search(clause):
                    continue
                taken.append((side.opposite if NEGATION.search(clause) else side, " ".join(match.group().split())))
    if not taken:
        return None, ""
    fake = sum(side is Label.FAKE for side, _ in taken)
    side = taken[-1][0] if 2 * fake == len(taken) else Label.FAKE if 2 * fake > len(taken) else Label.REAL
    return side, next(phrase for of, phrase in reversed(taken) if of is side)


# "It looks like a generated image" tells what something resembles, not what it is.
_SIMILE = re.compile(r"\b(?:like|as if|as though|resembl\w+|similar to|reminds?)\b", re.IGNORECASE)
_REGION_WORDS = {
    "eye": ("left_eye", "right_eye"),
    "eyebrow": ("left_brow", "right_brow"),
    "brow": ("left_brow", "right_brow"),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "lip": ("mouth",),
}
_REGION = re.compile(rf"\b(?:(left|right)\s+)?({'|'.join(_REGION_WORDS)})s?\b", re.IGNORECASE)
_CHANGE = re.compile(
    rf"\b(?:{_FAKE}|chang(?:ed|e)|replac(?:ed|ement)|blend(?:ed|ing)|inpaint\w+|artifacts?|artefacts?|seams?|pasted)\b",
    re.IGNORECASE,
)
_TYPE_CLAIMS = {
    ForgeryType.IDENTITY_EXCHANGE: re.compile(
        r"\bface[- ]swap\w*|\bswapped face|\bidentity (?:exchange|swap)|\banother person['’]s face|\bexchanged face",
        re.I,
    ),
    ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION: re.compile(
        r"\battributes? (?:manipulat|edit)\w+|\bexpression (?:transfer|manipulat|edit)\w*|\bre-?enact\w+", re.I
    ),
    ForgeryType.ENTIRE_FACE_SYNTHESIS: re.compile(
        r"\b(?:entire|whole)[- ]face synthesis|\b(?:entirely|wholly|fully|completely) (?:synthe\w+|generated)"
        r"|\b(?:gan|diffusion|ai|computer)[- ]generated",
        re.I,
    ),
}
# Names by which texts call the methods of the collections and generators in common use.
_METHODS = re.compile(
    r"\b(?:deepfakes|face-?swap|face ?2 ?face|neural ?textures|face-?shifter|style-?gan ?\d?|pro-?gan|pg-?gan|"
    r"star-?gan|cycle-?gan|sim-?swap|face-?app|stable diffusion|mid-?journey|dall-?e|flux|gan-?diff-?face|sdxl|roop)\b",
    re.IGNORECASE,
)


def denied(sentence: str, row: VqaRow, changed: frozenset[str] | None) -> str:
    """What of a sentence the manifest denies, in words; '' for nothing. changed: names of the changed parts, of
    `landmarks.PARTS`; None: not known. A sentence with a negation, a weighing word or a simile claims nothing.
    """
    if any(pattern.search(sentence) for pattern in (NEGATION, _WEIGHING, _SIMILE)):
        return ""
    for kind, pattern in _TYPE_CLAIMS.items():
        if kind is not row.forgery_type and (found := pattern.search(sentence)):
            return f"{found.group()!r}, but the face is: {row.forgery_type.value}"
    method, named = _plain(row.method), _METHODS.search(sentence)
    if named and (row.label is Label.REAL or method) and not _same(_plain(named.group()), method):
        return f"names {named.group()!r}, but the method is {row.method or 'none'!r}"
    if changed is not None and changed <= {*PARTS} and row.label is Label.FAKE and _CHANGE.search(sentence):
        for side, word in _REGION.findall(sentence):
            parts = [p for p in _REGION_WORDS[word.lower()] if not side or not p.startswith(_OTHER[side.lower()])]
            if not changed.intersection(parts):
                return f"names the {word.lower()}, but changed is only: {', '.join(sorted(changed))}"
    return ""


_OTHER = {"left": "right_", "right": "left_"}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _same(named: str, method: str) -> bool:
    return bool(method) and (named in method or method in named)


MASK_SHARE = 0.05  # of a part's pixels; less is the rim of a change beside it


def mask_regions(root: Path) -> Callable[[VqaRow], frozenset[str] | None]:
    """A reader of the changed parts from a row's mask below `root` (the manifest's folder), for `Filter`.

    It gives the manifest's own regions where there are some, and None (not known) where there is no mask, the photo is
    not a file of its own, or no face is found. The whole image counts as the face's box.
    """

    def changed(row: VqaRow) -> frozenset[str] | None:
        if row.regions:
            return frozenset(row.regions)
        if not row.mask or not (root / row.mask).is_file() or not (root / row.image).is_file():
            return None
        mask = cv2.imread(str(root / row.mask), cv2.IMREAD_GRAYSCALE)
        photo = cv2.imread(str(root / row.image), cv2.IMREAD_COLOR)
        if mask is None or photo is None or mask.shape != photo.shape[:2]:
            return None
        box = Box(left=0, top=0, right=photo.shape[1], bottom=photo.shape[0])
        points = landmarks(np.ascontiguousarray(photo[:, :, ::-1]), box)
        if points is None:
            return None
        parts = {name: region_mask(points, name, mask.shape) for name in PARTS}
        return frozenset(n for n, part in parts.items() if ((mask > 127) * part).sum() > MASK_SHARE * part.sum())

    return changed
