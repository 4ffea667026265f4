import cv2
import numpy as np
import pytest
import torch

from ffaa.mids.detail import correct_log_odds, correct_logits, fine_detail, lack, mids_share
from ffaa.weights import DetailCorrection

CORRECTION = DetailCorrection(below=-2.0, flatten=0.5)


@pytest.fixture(scope="module")
def face(hopper):
    return cv2.resize(hopper[100:400, 120:420], (224, 224), interpolation=cv2.INTER_AREA)


def test_detail_falls_with_blur_and_with_enlargement(face):
    blurred = [fine_detail(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (0.6, 1.0, 1.6)]
    assert fine_detail(face) > blurred[0] + 0.3 > blurred[1] + 0.6 > blurred[2] + 0.9
    few = cv2.resize(
        cv2.resize(face, (67, 67), interpolation=cv2.INTER_AREA), (224, 224), interpolation=cv2.INTER_CUBIC
    )
    assert fine_detail(few) < fine_detail(face) - 1


def test_detail_is_not_contrast_and_not_size(face):
    dim = np.clip(face.astype(float) * 0.5 + 40, 0, 255).astype(np.uint8)
    assert fine_detail(dim) == pytest.approx(fine_detail(face), abs=0.1)
    assert abs(fine_detail(np.full((224, 224, 3), 90, np.uint8))) < 0.1
    large = cv2.resize(face, (448, 448), interpolation=cv2.INTER_CUBIC)
    assert fine_detail(large) == pytest.approx(fine_detail(cv2.GaussianBlur(face, (0, 0), 0.4)), abs=0.6)


def test_a_face_with_detail_is_left_alone():
    odds = np.array([-3.0, 0.2, 5.0])
    assert np.array_equal(correct_log_odds(CORRECTION, odds, [-2.0, -1.0, 0.5]), odds)
    logits = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(correct_logits(CORRECTION, logits, -1.9), logits)


def test_what_lacks_it_is_judged_less_and_less_surely():
    assert lack(CORRECTION, [-1.0, -2.5, -4.0]).tolist() == [0.0, 0.5, 2.0]
    assert correct_log_odds(CORRECTION, 6.0, -4.0) == pytest.approx(6 / (1 + 0.5 * 2))
    assert correct_log_odds(CORRECTION, -6.0, -2.5) == pytest.approx(-6 / (1 + 0.5 * 0.5))


def test_towers_that_know_such_faces_take_over():
    asked = CORRECTION.model_copy(update={"towers": [2], "trust": 0.8})
    share = 1 / (1 + 0.5 * 2)
    assert mids_share(asked, [-1.0, -4.0]).tolist() == [1.0, share]
    found = correct_log_odds(asked, [5.0, 5.0], [-1.0, -4.0], [-3.0, -3.0])
    assert found.tolist() == pytest.approx([5.0, 5 * share - 3 * 0.8 * (1 - share)])


@pytest.mark.parametrize("told", [0.0, -2.5])
def test_every_answers_log_odds_are_corrected_alike(told):
    correction = CORRECTION.model_copy(update={"towers": [0], "trust": 1.2})
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = correct_logits(correction, logits, -3.3, told).softmax(-1)
    for says in (0, 1):
        before = logits[:, 2 + says] - logits[:, says]
        after = torch.log(found[:, 2 + says] / found[:, says])
        assert np.allclose(after, correct_log_odds(correction, before.numpy(), -3.3, told))
