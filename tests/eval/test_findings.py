import numpy as np
import pytest

from ffaa.eval.bootstrap import weights
from ffaa.eval.findings import findings

# 200 photos, half of them fakes; every second one is a finding, and of these every tenth wrong.
NUMBER = np.arange(200)
FAKE = NUMBER < 100
SAID = NUMBER % 2 == 0
RIGHT = NUMBER % 20 != 0


def figures(said=SAID, right=RIGHT, fake=FAKE):
    return findings(said, right, fake, weights(fake.tolist(), NUMBER[: len(fake)].tolist(), 200))


def test_who_is_wronged_is_a_share_of_all_real_photos_and_of_all_fakes():
    found = figures()
    assert (found.count, found.share.value, found.acc.value) == (100, 0.5, 0.9)
    assert (found.accused, found.missed) == (0.05, 0.05)
    assert figures(right=RIGHT | FAKE).missed == 0  # what is wrong now are real photos alone
    assert figures(right=RIGHT | FAKE).accused == 0.05


def test_a_wrong_verdict_that_is_no_finding_wrongs_nobody():
    found = figures(right=SAID)
    assert (found.acc.value, found.accused, found.missed) == (1, 0, 0)


def test_intervals_are_of_the_findings_alone():
    found = figures()
    assert 0.8 < found.acc.low < 0.9 < found.acc.high < 0.97
    assert found.share.low < 0.5 < found.share.high


def test_what_is_not_there_has_no_figure():
    none = figures(said=np.zeros(200, bool))
    assert (none.count, none.share.value, none.acc.value, none.accused) == (0, 0, None, 0)
    real = figures(SAID[100:], RIGHT[100:], FAKE[100:])
    assert (real.missed, real.accused) == (None, pytest.approx(0.05))
