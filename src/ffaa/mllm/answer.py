"""The only parser and formatter of the five-line answer (FFA-CoT).

Strict first (exactly the five lines `format_answer` writes), then flexible (what language models make of it),
then an `UnparsedAnswer` that is counted. A determination is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ffaa.errors import UsageError
from ffaa.types import Answer, ForgeryType, Label, Role, UnparsedAnswer

KEYS: dict[str, str] = {
    "description": "Image description:",
    "reasoning": "Forgery reasoning:",
    "result": "Analysis result:",
    "probability": "Probability:",
    "forgery_type": "Forgery type:",
}
TEXT_SECTIONS = ("description", "reasoning")

_STRICT = re.compile(
    r"Image description: (?P<description>[^\n]*\S[^\n]*)\n"
    r"Forgery reasoning: (?P<reasoning>[^\n]*\S[^\n]*)\n"
    r"Analysis result: (?P<result>real|fake)\n"
    r"Probability: (?P<probability>0\.[0-9][0-9]|1\.00)\n"
    r"Forgery type: (?P<forgery_type>Real|Identity exchange|Facial attribute manipulation|Entire face synthesis)"
)

_DECORATION = r"[ \t>#*_`~\-•(\[\"']*(?:\d+[.)][ \t]*)?[*_`]*"
_CLOSE = r"[*_`\"']*[ \t]*"
_COLON = r"(?:[:：=]|[ \t]-[ \t])"
# A key opens a section at the start of a line (colon optional where what follows fits) or, with its colon, anywhere.
_SECTION = re.compile(
    rf"(?:(?:^|\n){_DECORATION}(?:"
    rf"(?P<l_description>image description)\b{_CLOSE}{_COLON}?"
    rf"|(?P<l_reasoning>forgery reasoning)\b{_CLOSE}{_COLON}?"
    rf"|(?P<l_result>(?:analysis |final )?result)\b{_CLOSE}(?:{_COLON}|(?=(?:is )?[*_`\"']*(?:real|fake)\b)|(?=\n))"
    rf"|(?P<l_probability>probability)\b{_CLOSE}(?:{_COLON}|(?=(?:is )?[*_`]*[\d.])|(?=\n))"
    rf"|(?P<l_forgery_type>forgery type)\b{_CLOSE}"
    rf"(?:{_COLON}|(?=(?:is )?[*_`]*(?:real|identity|facial|entire)\b)|(?=\n)))"
    rf"|(?<=[\s*_`])(?:(?P<i_description>image description)|(?P<i_reasoning>forgery reasoning)"
    rf"|(?P<i_result>analysis result)|(?P<i_probability>probability)|(?P<i_forgery_type>forgery type)){_CLOSE}[:：])",
    re.IGNORECASE,
)
_RESULT = re.compile(r"\b(real|fake)\b", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:not|never|neither|nor|no|cannot|un\w*able|unclear|unsure|uncertain)\b|n['’]t\b", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.,])(-?(?:\d+(?:[.,]\d+)?|\.\d+))\s*(%|per ?cent\b)?", re.IGNORECASE)
_TYPES: dict[ForgeryType, re.Pattern[str]] = {
    ForgeryType.REAL: re.compile(r"\breal\b", re.IGNORECASE),
    ForgeryType.IDENTITY_EXCHANGE: re.compile(r"\bidentity[\s_-]+exchange\b", re.IGNORECASE),
    ForgeryType.FACIAL_ATTRIBUTE_MANIPULATION: re.compile(r"\battributes?[\s_-]+manipulation\b", re.IGNORECASE),
    ForgeryType.ENTIRE_FACE_SYNTHESIS: re.compile(r"\b(?:entire|whole)[\s_-]+face[\s_-]+synthesis\b", re.IGNORECASE),
}

# What counts as a clear claim. A sentence that weighs two sides ("authentic at first glance, but ...") does not.
_FORGERY = (
    r"(?:manipulat\w+|forger(?:y|ies)|forging|tampering|editing|alterations?|(?:face )?swapp\w+|synthesis|"
    r"(?:digital|ai)[\s-](?:\w+ )?(?:generation|alteration|editing|manipulation))"
)
_FORGED = (
    r"(?:manipulated|forged|faked?|tampered|falsified|doctored|deepfaked?|synthetic|synthesi[sz]ed|face-swapped|"
    r"(?:ai|computer|artificially|digitally)[\s-](?:generated|manipulated|altered|created|synthesi[sz]ed))"
)
_SIGNS = r"(?:signs?|evidence|traces?|indications?|indicators?|hints?|marks?|proof|artifacts?|artefacts?)"
_WHOLE = r"(?:face|image|photo|photograph|picture|portrait|person|it|this)"
_BE = r"(?:is|was|appears?(?: to be)?|seems?(?: to be)?|looks?(?: to be)?)"
_ADVERB = r"(?:(?!hardly|scarcely|barely|superficially|only|seemingly)\w+ly )?"

_AUTHENTIC_CLAIMS = re.compile(
    # A place after "signs of manipulation" ("... around the mouth") makes it a local remark, not the conclusion.
    rf"\b(?:no|without|lacks?|lacking|absence of|free (?:of|from)|(?:not|n['’]t) (?:\w+ ){{0,2}}?(?:any|a))\s+"
    rf"(?:\w+\s+){{0,3}}?(?:{_SIGNS}|(?:{_SIGNS}\s+or\s+{_SIGNS}))\s+of\s+(?:\w+\s+){{0,3}}?{_FORGERY}\b"
    rf"(?!\s+(?:in|around|on|at|near|along|of|to)\s+the\s+(?!{_WHOLE}\b))"
    rf"|(?<!not )(?<!n't )(?<!n’t )\b{_BE}\s+{_ADVERB}(?:authentic|genuine|unaltered|unmanipulated)\b"
    rf"|\b{_WHOLE}\s+{_BE}\s+{_ADVERB}(?:a\s+)?real\b"
    rf"|\b{_WHOLE}\s+(?:is|was|has)\s+not\s+(?:been\s+)?{_ADVERB}(?:a\s+)?{_FORGED}\b",
    re.IGNORECASE,
)
_FORGED_CLAIMS = re.compile(
    rf"\b(?:clearly|obviously|evidently|definitely|certainly|undoubtedly|plainly|unmistakably)\s+"
    rf"(?:been\s+|a\s+)?{_ADVERB}{_FORGED}\b"
    rf"|\b{_WHOLE}\s+(?:{_BE}|has been)\s+{_ADVERB}(?:an?\s+)?{_FORGED}\b"
    rf"|\b{_SIGNS}\s+of\s+(?:\w+\s+){{0,3}}?{_FORGERY}\b",
    re.IGNORECASE,
)
_CONCESSION = re.compile(
    r"\b(?:although|though|while|whereas|but|however|yet|despite|at first|initially|otherwise|if|unless|would|might|"
    r"could|may)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nor|neither|without|lacks?|lacking|absence|absent|free|cannot|hardly|scarcely|rather than|"
    r"unlikely|rules? out|instead of|mistaken)\b|n['’]t\b",
    re.IGNORECASE,
)


def format_answer(
    description: str,
    reasoning: str,
    result: Label,
    probability: float,
    forgery_type: ForgeryType,
    texts_kept: Collection[str] = TEXT_SECTIONS,
) -> str:
    """The five lines, no trailing newline. White space inside the two texts is collapsed so that each stays one line.

    probability: in [0, 1], written with two decimals. texts_kept: of 'description' and 'reasoning'; the others' lines
    are left out (Fig. 3). Raises UsageError for an empty text that is kept or a probability outside.
    """
    given = {"description": _one_line(description), "reasoning": _one_line(reasoning)}
    texts = {name: text for name, text in given.items() if name in texts_kept}
    for name, text in texts.items():
        if not text:
            raise UsageError(f"an answer needs a non-empty {name}; give at least one word")
    if not 0 <= probability <= 1:
        raise UsageError(f"probability {probability} is outside 0..1; give a fraction, not a percentage")
    values = {
        **texts,
        "result": Label(result).value,
        "probability": f"{probability:.2f}",
        "forgery_type": ForgeryType(forgery_type).value,
    }
    return "\n".join(f"{key} {values[name]}" for name, key in KEYS.items() if name in values)


def masked_text(answer: Answer) -> str:
    """What MIDS sees: the first two lines only; result, probability and type are masked."""
    return f"{KEYS['description']} {answer.description}\n{KEYS['reasoning']} {answer.reasoning}"


def parse_strict(raw: str) -> dict[str, str] | None:
    """The five values as written (names of `KEYS`), or None unless `raw`, stripped, is exactly the five lines."""
    match = _STRICT.fullmatch(raw.strip())
    return {name: _one_line(value) for name, value in match.groupdict().items()} if match else None


def parse_answer(
    raw: str, role: Role, prompt: str, required_texts: Collection[str] = TEXT_SECTIONS
) -> Answer | UnparsedAnswer:
    """Read an answer of the MLLM.

    required_texts: which of 'description' and 'reasoning' must be there (Fig. 3's R, DR and FR models write fewer);
    an absent one that is not required becomes ''. A probability or type that is missing, repeated with another value
    or unreadable becomes None; only the result decides whether the answer counts. A sentence that a text repeats word
    for word is kept once, where it first stands; `raw` holds what was written. Never raises on any text.
    """
    values: Mapping[str, str | None]
    notes: list[str] = []
    strict = parse_strict(raw)
    if strict is not None:
        values = strict
    else:
        flexible = _parse_flexible(raw, required_texts, notes)
        if isinstance(flexible, str):
            return UnparsedAnswer(role=role, prompt=prompt, raw=raw, reason=flexible)
        values = flexible
    result = Label(str(values["result"]))
    probability = values["probability"]
    forgery_type = ForgeryType(values["forgery_type"]) if values["forgery_type"] else None
    reasoning = _told_once(values["reasoning"] or "")
    return Answer(
        role=role,
        prompt=prompt,
        raw=raw,
        description=_told_once(values["description"] or ""),
        reasoning=reasoning,
        result=result,
        probability=float(probability) if probability is not None else None,
        forgery_type=forgery_type,
        flags=_contradictions(result, forgery_type, reasoning) + notes,
    )


_PLAIN = {
    Label.REAL: re.compile(r"\b(?:real|authentic|genuine)\b", re.IGNORECASE),
    Label.FAKE: re.compile(
        r"\b(?:fake|forged|forgery|deepfake|manipulated|synthetic|(?:ai|computer|digitally)[- ]generated)\b",
        re.IGNORECASE,
    ),
}
_FIRST_WORD = re.compile(rf"{_DECORATION}(real|fake)\b(?!\s*(?:or|and|/|-looking))", re.IGNORECASE)


def parse_plain(raw: str) -> Label | str:
    """The determination of an answer without the five lines, or the reason why there is none. Never guessed.

    Its first word where that is 'real' or 'fake'; else what the first sentence that says one of them says, if it says
    one alone and neither denies nor doubts it. For models other than ours, see `ffaa.eval.asked`.
    """
    if first := _FIRST_WORD.match(raw.strip()):
        return Label(first[1].lower())
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", raw):
        said = [label for label, words in _PLAIN.items() if words.search(sentence)]
        if said and (len(said) > 1 or _NEGATED.search(sentence) or _CONCESSION.search(sentence)):
            return f"unclear: {_one_line(sentence)[:80]!r}"
        if said:
            return said[0]
    return "no word of real or fake"


def _parse_flexible(raw: str, required_texts: Collection[str], notes: list[str]) -> dict[str, str | None] | str:
    """The values by name, or the reason why there are none. Appends to `notes` what was given but not usable."""
    sections = _sections(raw)
    if not sections:
        return "none of the five keys was found"
    results: set[str] = set()
    for text in sections.get("result", []):
        line = _first_line(text)
        found = {word.lower() for word in _RESULT.findall(line)}
        if found and _NEGATED.search(line):
            return f"the result is negated or unsure: {line[:80]!r}"
        results |= found
    if len(results) > 1:
        return "two different results"
    if not results:
        return "no result (real or fake)"
    values: dict[str, str | None] = {"result": results.pop()}
    for name in TEXT_SECTIONS:
        texts = [text for text in map(_plain_text, sections.get(name, [])) if text]
        if not texts and name in required_texts:
            return f"no text after '{KEYS[name]}'"
        values[name] = texts[0] if texts else None
    for name, read in (("probability", _read_probability), ("forgery_type", _read_type)):
        lines = [_first_line(text) for text in sections.get(name, [])]
        readings = {reading for line in lines for reading in read(line)}
        values[name] = readings.pop() if len(readings) == 1 else None
        if lines and values[name] is None:
            notes.append(f"the stated {name.replace('_', ' ')} cannot be read: {'; '.join(lines)[:80]!r}")
    return values


def _sections(raw: str) -> dict[str, list[str]]:
    """Name -> the texts found after that key, in order."""
    found: dict[str, list[str]] = {}
    matches = list(_SECTION.finditer(raw))
    ends = [match.start() for match in matches[1:]] + [len(raw)]
    for match, end in zip(matches, ends, strict=False):
        name = str(match.lastgroup)[2:]
        found.setdefault(name, []).append(raw[match.end() : end])
    return found


def _read_probability(line: str) -> set[str]:
    values = {float(number.replace(",", ".")) / (100 if percent else 1) for number, percent in _NUMBER.findall(line)}
    return {repr(value) for value in values} if all(0 <= value <= 1 for value in values) else set()


def _read_type(line: str) -> set[str]:
    return {forgery_type.value for forgery_type, pattern in _TYPES.items() if pattern.search(line)}


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if re.search(r"\w", line)), "")


def _plain_text(text: str) -> str:
    """One line without the Markdown fence or emphasis that surrounded the section."""
    return _one_line(re.sub(r"```\w*|</?s>|<\|[^|>]*\|>", " ", text)).strip("*_`#- ")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _told_once(text: str) -> str:
    """Without the sentences that stand in it already: small language models fall into loops."""
    return " ".join(dict.fromkeys(re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)))


def _contradictions(result: Label, forgery_type: ForgeryType | None, reasoning: str) -> list[str]:
    """What in the answer speaks against its own result, in words; empty when nothing does."""
    flags = []
    if forgery_type is not None and (forgery_type is ForgeryType.REAL) != (result is Label.REAL):
        flags.append(f"forgery type '{forgery_type.value}' contradicts the result '{result.value}'")
    phrase = _claim_against(result, reasoning)
    if phrase:
        flags.append(f"reasoning contradicts the result '{result.value}': \"{phrase}\"")
    return flags


def _claim_against(result: Label, reasoning: str) -> str:
    for sentence in re.split(r"(?<=[.!?;])\s+", reasoning):
        if _CONCESSION.search(sentence):
            continue
        if result is Label.FAKE:
            match = _AUTHENTIC_CLAIMS.search(sentence)
        else:
            match = None if _NEGATION.search(sentence) else _FORGED_CLAIMS.search(sentence)
        if match:
            return " ".join(match.group().split())
    return ""
