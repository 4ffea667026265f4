"""The sentences that the released nano writes (prompts/grounded.yaml), as claims on the 13 measures that it reads.

Goes when nano is trained on the sentences of prompts/sentences.yaml; `Assistant.examine` alone uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ffaa.types import Evidence, EvidenceItem, EvidenceRecord
from ffaa.vqa.grounded import phrases
from ffaa.vqa.sentences import Claim, plain

PREFIX = "nano:"  # its measures are not the items of the same name: other pixels, other cuts


def with_measures(record: EvidenceRecord, evidence: Sequence[Evidence]) -> EvidenceRecord:
    """The record with nano's measures as further items (without a strength: their norms are not known)."""
    items = {PREFIX + e.name: EvidenceItem(**(e.model_dump() | {"name": PREFIX + e.name})) for e in evidence}
    return record.model_copy(update={"items": record.items | items})


@cache
def nano_claims() -> dict[str, Claim]:
    """Beginning of a sentence -> what it states, longest first: whole sentences, and their first clauses."""
    found: dict[str, Claim] = {}
    for name, words in (phrases()["describe"] | phrases()["reason"]).items():
        for word, said in words.items():
            for sentence in said if isinstance(said, list) else [*said["real"], *said["fake"]]:
                for beginning in (sentence, sentence.split(",")[0]):
                    found[plain(beginning)] = Claim(PREFIX + name, word)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
