"""What flows through ffaa: `Face` -> `Answer` -> `Verdict`, and `Analysis`, the verdicts of one photo.

Imports nothing of ours. Pixel coordinates are in the photo after its EXIF orientation was applied,
origin top left, right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np

SCHEMA_VERSION = "1.3"


class Label(StrEnum):
    """A determination r(y)."""

    REAL = "real"
    FAKE = "fake"

    @property
    def opposite(self) -> Label:
        return Label.FAKE if self is Label.REAL else Label.REAL


class ForgeryType(StrEnum):
    """The paper's three forgery types, and Real. The values are the words of the answer's last line."""

    REAL = "Real"
    IDENTITY_EXCHANGE = "Identity exchange"
    FACIAL_ATTRIBUTE_MANIPULATION = "Facial attribute manipulation"
    ENTIRE_FACE_SYNTHESIS = "Entire face synthesis"


class Role(StrEnum):
    """Which of the three answers: anchor (no hypothesis), positive (hypothesis = the anchor's
    determination), negative (the opposite hypothesis)."""

    ANCHOR = "anchor"
    POSITIVE = "positive"
    NEGATIVE = "negative"


class Difficulty(StrEnum):
    """Easy: the three determinations agree. Hard: they do not. No threshold."""

    EASY = "easy"
    HARD = "hard"


class Support(StrEnum):
    """Does a sentence agree with what was measured? Not measurable: it speaks of nothing that was."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_MEASURABLE = "not measurable"


class CredentialStatus(StrEnum):
    """What became of reading a file's content credentials (C2PA)."""

    ABSENT = "absent"
    VALID = "valid"
    INVALID = "invalid"
    UNREADABLE = "unreadable"
    NOT_CHECKED = "not_checked"


class Record(BaseModel):
    """Base of the records that are serialised: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(Record):
    """A rectangle in photo pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


class Crop(Record):
    """How a face image was cut: `region` of the photo, resized to `size` x `size` pixels."""

    region: Box
    padding: int = Field(ge=0, description="pixels added on every side of the detector's box")
    size: int = Field(gt=0, description="side of the square face image, pixels")
    whole_image: bool = Field(default=False, description="the photo was taken as a crop already; no detector ran")


@dataclass(frozen=True)
class Face:
    """One face image, ready for the models.

    image: uint8 RGB, (size, size, 3). box: the detector's box (the whole photo for --whole-image).
    detector: name of the detector; score: its confidence (not a probability; 0 where it gives none).
    """

    image: np.ndarray
    box: Box
    crop: Crop
    detector: str = ""
    score: float = 0.0


@dataclass(frozen=True)
class Placed:
    """A face and where it is from.

    index, count: which of how many usable faces of `source`, 0 is the largest. detect: seconds spent on finding it.
    """

    face: Face
    source: Source
    index: int
    count: int
    detect: float = 0.0


class Answer(Record):
    """One answer of the MLLM, parsed. `probability` is what the text states, in [0, 1]."""

    role: Role
    prompt: str
    raw: str
    description: str
    reasoning: str
    result: Label
    probability: float | None = Field(ge=0, le=1)
    forgery_type: ForgeryType | None
    flags: list[str] = Field(default_factory=list, description="contradictions found inside the answer, in words")


class UnparsedAnswer(Record):
    """An answer whose text could not be read. It is counted, never guessed."""

    role: Role
    prompt: str
    raw: str
    reason: str


class Timings(Record):
    """Seconds per stage for this face; a stage that ran for a whole batch is divided by the batch's faces."""

    detect: float = 0.0
    encode: float = 0.0
    generate: float = 0.0
    decide: float = 0.0
    examine: float = Field(0.0, description="measuring and judging for `evidence`")
    heatmap: float = 0.0


class CredentialAction(Record):
    """One thing that the credentials say was done, e.g. 'c2pa.created'."""

    action: str
    when: str = Field("", description="as stated by the signer")
    software: str = ""
    source_type: str = Field("", description="end of the IPTC digital source type, e.g. 'trainedAlgorithmicMedia'")
    description: str = ""


class Ingredient(Record):
    """A file that went into this one, as the credentials say."""

    title: str
    relationship: str
    has_credentials: bool = False
    problems: list[str] = Field(default_factory=list, description="what its own credentials failed when taken in")
    source_types: list[str] = Field(default_factory=list, description="its digital source types, see CredentialAction")


class Credentials(Record):
    """The content credentials (C2PA) of a file: what somebody signed about it. All texts are the signer's own.

    valid: the signature fits the file. That does not say who signed (`trusted`), nor that what was signed is true.
    invalid: they do not fit it (`problems`). absent: none are in the file, as in most files.
    """

    status: CredentialStatus
    reason: str = Field("", description="why it is unreadable or was not checked")
    trusted: bool | None = Field(None, description="is the signer on the trust list; None: no list was given")
    signer: str = Field("", description="name in the signer's certificate; anybody can make one with any name")
    organisation: str = ""
    signed_at: str = Field("", description="of the time stamp; '' where there is none")
    generator: str = Field("", description="the software that wrote the credentials")
    actions: list[CredentialAction] = Field(default_factory=list)
    ingredients: list[Ingredient] = Field(default_factory=list)
    left_out: int = Field(0, ge=0, description="actions and ingredients beyond what is listed here")
    problems: list[str] = Field(default_factory=list, description="'code: explanation' of each failed check")
    reader: str = Field("", description="what read them, with its version")

    @property
    def source_types(self) -> list[str]:
        """The digital source types that this file's own actions state."""
        return list(dict.fromkeys(action.source_type for action in self.actions if action.source_type))


class Source(Record):
    """The file a result belongs to."""

    path: str = Field(description="as given; '<array>' for pixels handed over in memory")
    sha256: str | None = Field(default=None, description="of the file's bytes")
    width: int = Field(description="pixels, after EXIF orientation")
    height: int
    notes: list[str] = Field(default_factory=list, description="what was unusual, e.g. 'animated: first frame used'")
    credentials: Credentials | None = Field(None, description="content credentials; only with `--credentials`")


class Verdict(Record):
    """The outcome for one face.

    probabilities[i][c]: MIDS softmax of answer i over the four classes of Eq. 3 (0 real image, answer real;
    1 real image, answer fake; 2 fake image, answer real; 3 fake image, answer fake).
    match_scores[i]: Eq. 1. forgery_score: match score if the chosen answer says fake, else 1 - match score.
    An answer that could not be parsed has no match score (None) and is never chosen.
    """

    kind: Literal["verdict"] = "verdict"
    schema_version: str = SCHEMA_VERSION
    source: Source
    face_index: int = Field(ge=0, description="0 is the largest face")
    face_count: int = Field(ge=1)
    box: Box
    crop: Crop
    detector: str
    label: Label
    forgery_type: ForgeryType | None = Field(description="None when a fake answer names no readable type")
    match_score: float = Field(ge=0, le=1)
    forgery_score: float = Field(ge=0, le=1)
    difficulty: Difficulty
    lacks_detail: bool = Field(
        default=False, description="out of focus or enlarged: the scores are corrected for that, and are no finding"
    )
    description: str
    reasoning: str
    answers: list[Annotated[Answer | UnparsedAnswer, Field()]] = Field(min_length=3, max_length=3)
    probabilities: list[list[float] | None] = Field(min_length=3, max_length=3)
    match_scores: list[float | None] = Field(min_length=3, max_length=3)
    chosen_index: int = Field(ge=0, le=2)
    evidence: list[Evidence] = Field(default_factory=list, description="what was measured on the face, without a model")
    examined: EvidenceRecord | None = Field(default=None, description="all that was measured; only with `evidence`")
    sentences: list[JudgedSentence] = Field(
        default_factory=list, description="the chosen answer against `examined`; only with `evidence`"
    )
    cautions: list[str] = Field(default_factory=list, description="reasons to read this verdict with care")
    model: str
    weights: dict[str, str] = Field(description="weight file name -> sha256")
    versions: dict[str, str]
    seed: int
    timings: Timings
    heatmap: str | None = Field(default=None, description="path of the heatmap PNG, when one was written")


class Evidence(Record):
    """One measured quantity of a face image."""

    name: str
    value: float
    unit: str
    region: str
    method: str
    word: str = Field(description="the measured value in words, as the answers may use it")


class EvidenceItem(Record):
    """One measured quantity. value: in `unit`, None where it cannot be measured on this image (`reason` says why).

    word: the value in words ('' without a value). strength: how unusual it is among training faces, 0 (the median) to
    1 (beyond 99.5 % of them); 0 without a value.
    """

    name: str
    value: float | None
    unit: str
    method: str
    region: str
    word: str = ""
    strength: float = Field(0.0, ge=0, le=1)
    reason: str = ""


class EvidenceRecord(Record):
    """All items of one face image by name, and the versions of what measured them."""

    items: dict[str, EvidenceItem]
    versions: dict[str, str]

    def word(self, name: str) -> str:
        """The word of an item; '' where it was not measurable or is unknown."""
        return self.items[name].word if name in self.items else ""

    @property
    def values(self) -> dict[str, float]:
        """name -> value of all items that could be measured."""
        return {name: item.value for name, item in self.items.items() if item.value is not None}

    @property
    def words(self) -> dict[str, str]:
        """name -> word of all items that could be measured."""
        return {name: item.word for name, item in self.items.items() if item.word}


class JudgedSentence(Record):
    """A sentence of the chosen answer, held against what was measured."""

    part: Literal["description", "reasoning"]
    text: str
    support: Support
    items: list[str] = Field(default_factory=list, description="the measured items it speaks of")
    measured: dict[str, str] = Field(default_factory=dict, description="contradicted item -> the word measured")


class NoFace(Record):
    """A readable photo in which no usable face was found: a result, not an error."""

    kind: Literal["no_face"] = "no_face"
    schema_version: str = SCHEMA_VERSION
    source: Source
    message: str


class Failure(Record):
    """A file that could not be analysed."""

    kind: Literal["error"] = "error"
    schema_version: str = SCHEMA_VERSION
    path: str
    message: str


Verdict.model_rebuild()


@dataclass(frozen=True)
class Analysis:
    """All verdicts of one photo, largest face first. Iterates over them; empty when no face was found."""

    source: Source
    verdicts: list[Verdict]
    message: str = ""
    faces: list[Face] = field(default_factory=list, repr=False)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, index: int) -> Verdict:
        return self.verdicts[index]
