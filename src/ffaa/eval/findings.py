"""What ffaa says as a finding, not as uncertain (`ffaa.wording.is_finding`): how much, and how often wrong."""

from __future__ import annotations

from ffaa.eval.bootstrap import Bools, Estimate, Weights, estimate, means
from ffaa.types import Record


class Findings(Record):
    """Of some photos. share: of all of them. acc: of the findings. accused: share of the real photos that a finding
    calls fake; missed: of the fakes that one calls real; None where there are no such photos."""

    count: int
    share: Estimate
    acc: Estimate
    accused: float | None
    missed: float | None


def findings(said: Bools, right: Bools, fake: Bools, drawn: Weights) -> Findings:
    """Figures of N photos. said: which got a finding. right: whether the determination is true. drawn: resamples."""

    def wrong(of: Bools) -> float | None:
        return float((said & ~right)[of].mean()) if of.any() else None

    return Findings(
        count=int(said.sum()),
        share=estimate(float(said.mean()), means(said, drawn)),
        acc=estimate(float(right[said].mean()) if said.any() else None, means(right[said], drawn[:, said])),
        accused=wrong(~fake),
        missed=wrong(fake),
    )
