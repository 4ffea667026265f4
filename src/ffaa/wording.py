"""How a verdict is worded, in one place for terminal, report and page: never surer than the numbers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffaa.types import (
    Answer,
    CredentialAction,
    CredentialStatus,
    Difficulty,
    ForgeryType,
    Label,
    Support,
    UnparsedAnswer,
    Verdict,
)

if TYPE_CHECKING:
    from ffaa.types import Credentials, EvidenceItem, EvidenceRecord, JudgedSentence
    from ffaa.types_clip import ClipVerdict, PersonVerdict

WEAK = 0.9  # below this match score an answer is not said as a finding (docs/bench.md says why)
LACKING = 0.25  # share of a person's frames; where more of them lack fine detail, the verdict is not said as a finding
UNUSUAL = 5  # measured items that are listed
NOT_A_FINDING = "one reading among others, not a finding"
NEVER_PROOF = "A model's opinion to check, never proof."

# The IPTC digital source types that speak of generative AI.
GENERATED = {
    "trainedAlgorithmicMedia": "made by generative AI",
    "trainedAlgorithmicData": "made by generative AI",
    "compositeWithTrainedAlgorithmicMedia": "edited with generative AI, or put together with parts made by it",
    "compositeSynthetic": "put together of parts of which at least one is synthetic",
}
_SOURCES = {
    "algorithmicMedia": "made by software, not by generative AI",
    "compositeCapture": "put together of several captures",
    "computationalCapture": "captured by a camera that computes",
    "digitalArt": "drawn digitally",
    "digitalCapture": "captured by a digital camera",
    "digitalCreation": "created digitally",
    "humanEdits": "edited by a person",
    "screenCapture": "a screenshot",
}
RELATIONSHIPS = {"parentOf": "the earlier version", "componentOf": "a part", "inputTo": "an input"}


def is_uncertain(verdict: Verdict) -> bool:
    """Whether a verdict is no finding."""
    return not is_finding(verdict.difficulty, verdict.match_score, verdict.lacks_detail)


def is_finding(difficulty: Difficulty, match_score: float, lacks_detail: bool) -> bool:
    """No hard case, no chosen answer that matches the image badly, no face without fine detail."""
    return difficulty is Difficulty.EASY and match_score >= WEAK and not lacks_detail


def headline(verdict: Verdict) -> str:
    """The verdict in a few words."""
    fake = verdict.label is Label.FAKE
    kind = "" if verdict.forgery_type in (None, ForgeryType.REAL) else verdict.forgery_type.value.lower()
    if is_uncertain(verdict):
        return f"leans {verdict.label.value}, uncertain" + (f" (if forged: perhaps {kind})" if fake and kind else "")
    return f"FAKE - {kind or 'type not stated'}" if fake else "REAL - no sign of forgery was found"


def explain(verdict: Verdict) -> str:
    """What the headline means and what it does not, in one or two sentences."""
    if is_uncertain(verdict):
        hard, weak = verdict.difficulty is Difficulty.HARD, verdict.match_score < WEAK
        why = ["the three answers disagree"] * hard + ["the chosen answer fits the face weakly"] * weak
        why += ["the face lacks fine detail"] * verdict.lacks_detail
        return f"Undecided: {' and '.join(why)}. Which way it leans is no ground to act on."
    if verdict.label is Label.FAKE:
        return "All three answers call the face forged. That is the model's opinion: check it by other means."
    return "The model found nothing that it knows. Absence of traces is not authenticity."


def strength(verdict: Verdict) -> str:
    """The match score in a word."""
    return "weak" if verdict.match_score < WEAK else "strong"


def agreement(verdict: Verdict) -> str:
    """What the difficulty means."""
    return "all three answers agree" if verdict.difficulty is Difficulty.EASY else "the three answers disagree"


def reasoning(verdict: Verdict) -> str:
    """The chosen answer's reasoning; of an uncertain verdict it is said that it is no finding."""
    return (f"[{NOT_A_FINDING}] " if is_uncertain(verdict) else "") + verdict.reasoning


def why_chosen(verdict: Verdict) -> str:
    """Why one of the three answers was chosen."""
    role = verdict.answers[verdict.chosen_index].role.value
    others = [s for i, s in enumerate(verdict.match_scores) if i != verdict.chosen_index and s is not None]
    if not others:
        return f"The {role} answer is the only one that could be read."
    beaten = " and ".join(f"{score:.2f}" for score in others)
    return f"The {role} answer has the highest match score: {verdict.match_score:.2f}, against {beaten}."


def stated(answer: Answer | UnparsedAnswer) -> str:
    """What an answer determines."""
    if isinstance(answer, UnparsedAnswer):
        return "not readable"
    kind = f", {answer.forgery_type.value.lower()}" if answer.forgery_type else ""
    sure = "" if answer.probability is None else f", states probability {answer.probability:.2f}"
    return f"{answer.result.value}{kind}{sure}"


def most_unusual(record: EvidenceRecord) -> list[EvidenceItem]:
    """The measured items with the greatest strength, strongest first."""
    measured = [item for item in record.items.values() if item.value is not None and item.strength > 0]
    return sorted(measured, key=lambda item: (-item.strength, item.name))[:UNUSUAL]


def item_name(name: str) -> str:
    """The name of a measured item in words."""
    return name.split(":")[-1].replace("_", " ")


def item_value(item: EvidenceItem) -> str:
    """What was measured, with unit and region."""
    return f"{item.word}, {item.value:.3g} {item.unit} ({item.region})"


def mark(sentence: JudgedSentence) -> str:
    """Whether a sentence is borne out, in words; capitals where it is not."""
    return sentence.support.value.upper() if sentence.support is Support.CONTRADICTED else sentence.support.value


def person_is_uncertain(person: PersonVerdict) -> bool:
    """A hard case, a mean score not near 0 or 1, or a face that lacks fine detail in too many frames."""
    return person.difficulty is Difficulty.HARD or person.match_score < WEAK or person.share_lacking > LACKING


def person_headline(person: PersonVerdict) -> str:
    """The verdict on one person of a video in a few words."""
    fake, count = person.label is Label.FAKE, len(person.frames)
    kind = "" if person.forgery_type in (None, ForgeryType.REAL) else person.forgery_type.value.lower()
    if person.agreement < 0.5:
        other = person.label.opposite.value
        return f"undecided: most frames say {other}, their scores lean to {person.label.value}"
    if person_is_uncertain(person):
        return f"leans {person.label.value}, uncertain" + (f" (if forged: perhaps {kind})" if fake and kind else "")
    where = f"in {round(person.agreement * count)} of {count} frames"
    return f"FAKE {where} - {kind or 'type not stated'}" if fake else f"REAL - no sign of forgery was found {where}"


def person_explain(person: PersonVerdict) -> str:
    """What that headline means and what it does not."""
    if person_is_uncertain(person):
        hard, weak = person.difficulty is Difficulty.HARD, person.match_score < WEAK
        why = ["its frames are too few, hard cases, or do not agree"] * hard + [
            "the mean score is not near 0 or 1"
        ] * weak
        why += ["the face lacks fine detail in too many frames"] * (person.share_lacking > LACKING)
        return f"Undecided: {' and '.join(why)}. Which way it leans is no ground to act on."
    if person.label is Label.FAKE:
        return (
            "Most of the frames that were looked at call the face forged. Frames of one video are much alike: that is "
            "one opinion of the model, not many. Check it by other means."
        )
    return "The model found nothing that it knows in these frames. Absence of traces is not authenticity."


def person_score(person: PersonVerdict) -> str:
    """The forgery score, with how strong it is where a word for that may be said."""
    # a strong mean of hard or differing frames is no strong finding
    strong = "weak, " if person.match_score < WEAK else "" if person_is_uncertain(person) else "strong, "
    return f"{person.forgery_score:.2f} ({strong}mean over the frames; 0 real, 1 fake)"


def person_seen(person: PersonVerdict, looked: int) -> str:
    """Where in the video, and how large. looked: how many frames were looked at."""
    frames = person.frames
    widths = [frame.box.width for frame in frames]
    when = _range(f"{frames[0].time:.2f} s", f"{frames[-1].time:.2f} s")
    return f"in {len(frames)} of {looked} frames, {when}, face {_range(str(min(widths)), str(max(widths)))} px wide"


def person_spread(person: PersonVerdict) -> str:
    """How far the frames' scores lie apart, and how many say what; '' of a single frame."""
    scores, count = [frame.forgery_score for frame in person.frames], len(person.frames)
    if count < 2:
        return ""
    spread = _range(f"{min(scores):.2f}", f"{max(scores):.2f}")
    middle = _range(*(f"{one:.2f}" for one in person.quartiles))
    fake, hard = round(person.share_fake * count), round(person.share_hard * count)
    return f"{spread}, half of them {middle}; {fake} of {count} say fake, {hard} of {count} are hard"


def person_agreement(person: PersonVerdict) -> str:
    """What the difficulty means."""
    return "the frames agree" if person.difficulty is Difficulty.EASY else "see the cautions"


def clip_facts(clip: ClipVerdict) -> list[str]:
    """What the video is, how much of it was looked at, and how people were told apart."""
    source = clip.source
    lines = [
        f"video, {source.seconds:.1f} s, {source.width} x {source.height} px, {source.fps:.4g} frames a second, "
        f"{source.codec}",
        f"{source.frames_read} of {source.frames} frames were looked at",
    ]
    if len(clip.people) > 1:
        lines.append(f"{len(clip.people)} people, told apart by place and looks; no face is recognised")
    return lines


def frame_headline(person: PersonVerdict, verdict: Verdict) -> str:
    """What one frame of a video says; never surer than the verdict on its person, which is what counts."""
    if is_uncertain(verdict):
        return headline(verdict)
    fake, kind = verdict.label is Label.FAKE, verdict.forgery_type
    said = f"this frame says {verdict.label.value}" + (f", {kind.value.lower()}" if fake and kind else "")
    return said + ("; the person stays uncertain" if person_is_uncertain(person) else "")


def frame_explain(person: PersonVerdict, verdict: Verdict) -> str:
    """What that means and what it does not."""
    if person_is_uncertain(person) and not is_uncertain(verdict):
        return "The verdict on the person is uncertain, so what one frame says is no ground to act on."
    return explain(verdict)


def frame_strength(person: PersonVerdict, verdict: Verdict) -> str:
    """The frame's match score in a word; '' where the person is uncertain and the word would say too much."""
    return "" if person_is_uncertain(person) and verdict.match_score >= WEAK else strength(verdict)


def frame_reasoning(person: PersonVerdict, verdict: Verdict) -> str:
    """As `reasoning`, and marked too where the person is uncertain."""
    return (f"[{NOT_A_FINDING}] " if person_is_uncertain(person) or is_uncertain(verdict) else "") + verdict.reasoning


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def credentials(found: Credentials) -> list[str]:
    """The content credentials in a few sentences."""
    signer = credentials_signer(found)
    lines = [credentials_generated(found), credentials_headline(found), f"Signer: {signer}." if signer else ""]
    return [line for line in lines if line]


def credentials_headline(found: Credentials) -> str:
    """What became of the content credentials, in a sentence or two; never for or against the file by itself."""
    if found.status is CredentialStatus.ABSENT:
        return "None in this file. Most files carry none; that says nothing for or against it."
    if found.status is CredentialStatus.NOT_CHECKED:
        return f"Not checked: {found.reason}."
    if found.status is CredentialStatus.UNREADABLE:
        return f"Unreadable: {found.reason}. That says nothing for or against the file."
    if found.status is CredentialStatus.VALID:
        return "Present, and the signature fits: what it covers of this file was not changed since it was signed."
    if any(problem.split(":")[0].endswith(("Hash.mismatch", "hash.mismatch")) for problem in found.problems):
        why = "the file was changed after it was signed"
    elif any("mismatch" in problem.split(":")[0] for problem in found.problems):
        why = "the credentials themselves were changed or damaged"
    else:
        why = "they fail the checks listed here"
    return f"Present, but INVALID: {why}. What they state is not borne out. Ordinary software causes this too."


def credentials_signer(found: Credentials) -> str:
    """Who signed, as surely as it is known; '' where nobody did."""
    name = ", ".join(filter(None, (found.signer, found.organisation)))
    if found.status not in (CredentialStatus.VALID, CredentialStatus.INVALID):
        return ""
    if found.trusted:
        return f"{name or 'nameless'} (on the trust list that was given)"
    where = "not on the trust list that was given" if found.trusted is False else "no trust list was given"
    return f"states the name {name or '(none)'}; not confirmed: {where}, and anybody can sign under any name"


def credentials_generated(found: Credentials) -> str:
    """What the credentials say of generative AI, with how far that holds; '' where they say nothing of it."""
    own = [GENERATED[kind] for kind in found.source_types if kind in GENERATED]
    parts = [GENERATED[kind] for one in found.ingredients for kind in one.source_types if kind in GENERATED]
    said = [f"this file was {what}" for what in dict.fromkeys(own)]
    said += [f"an earlier version or a part of it was {what}" for what in dict.fromkeys(parts)]
    if not said:
        return ""
    holds = ""
    if found.status is not CredentialStatus.VALID:
        holds = " The credentials are invalid, so this is not borne out."
    elif not found.trusted:
        holds = " Who says so is not confirmed."
    return f"The credentials say: {'; '.join(said)}.{holds}"


def credentials_action(action: CredentialAction) -> str:
    """One action in a line."""
    what = action.action.removeprefix("c2pa.").replace("_", " ").replace(".", " ")
    source = GENERATED.get(action.source_type) or _SOURCES.get(action.source_type) or action.source_type
    parts = [source, f"with {action.software}" if action.software else "", action.when, action.description]
    told = "; ".join(part for part in parts if part)
    return f"{what}: {told}" if told else what


def printable(text: str) -> str:
    """`text` on one line, without control characters: what a model writes must not steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
