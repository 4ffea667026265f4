import numpy as np
import pytest
import torch

from ffaa.data.crops import blur_out, plain_face, read_photo
from ffaa.mids.detail import correct_log_odds, fine_detail
from ffaa.mids.fit_detail import blurred_odds, fit_detail, log_odds
from ffaa.mllm.mine import Mined
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.train_tower import load_tower
from ffaa.types import Label
from ffaa.vqa.conversation import read_jsonl


def drawn(more, count=400):
    """Log odds and detail of faces in three versions: without detail they are `more` times too sure a unit."""
    rng = np.random.default_rng(0)
    fake = rng.random(count) < 0.5
    detail = np.stack([rng.normal(mean, 0.2, count) for mean in (-1.5, -2.5, -3.5)])
    true = rng.normal(0, 1.5, (3, count)) + np.where(fake, 1.1, -1.1)  # log odds that are right on the average
    return true * (1 + more * np.maximum(0, np.quantile(detail[0], 0.1) - detail)), detail, fake


def test_what_is_too_sure_without_detail_is_flattened():
    odds, detail, fake = drawn(4.0)
    correction, losses = fit_detail(odds, detail, fake)
    assert correction.below == pytest.approx(np.quantile(detail[0], 0.1), abs=1e-3)
    assert correction.flatten == pytest.approx(4.0, abs=1.0)
    assert losses["log_loss_after"] < 0.6 * losses["log_loss_before"]
    sure = [(np.abs(o[2]) > 2) & ((o[2] > 0) != fake) for o in (odds, correct_log_odds(correction, odds, detail))]
    assert sure[1].mean() < 0.3 * sure[0].mean()


def test_the_towers_that_know_such_faces_are_found():
    """Of three, 1 and 2 know something of them; 0, which is not asked, would be better still."""
    odds, detail, fake = drawn(4.0)
    rng = np.random.default_rng(1)
    right = [rng.normal(0, 1.5, odds.shape) + np.where(fake, 2.2, -2.2) for _ in range(2)]
    told = np.stack([np.where(fake, 9.0, -9.0) + 0 * odds, *right])
    correction, losses = fit_detail(odds, detail, fake, told, [1, 2])
    assert correction.towers == [1, 2]
    assert correction.trust > 0.5
    _, alone = fit_detail(odds, detail, fake)
    assert losses["log_loss_after"] < alone["log_loss_after"] - 0.05
    assert losses["log_loss_before"] == pytest.approx(alone["log_loss_before"])


def test_a_tower_is_found_where_a_little_of_it_makes_things_worse():
    """MIDS is unsure of such faces and the tower says the same, too surely: half of it is worse than none or all."""
    odds, detail, fake = drawn(0.0)
    lacks = detail < np.quantile(detail[0], 0.1)
    half = np.where(lacks, 0.1 * odds, odds)
    told = np.where(lacks, odds, -4 * odds)
    correction, losses = fit_detail(half, detail, fake, told[None], [0])
    assert correction.towers == [0]
    assert correction.flatten > 20
    assert losses["log_loss_after"] < losses["log_loss_before"] - 0.05


def test_towers_that_know_nothing_are_not_asked():
    odds, detail, fake = drawn(4.0)
    wrong = np.where(fake, -5.0, 5.0) + 0 * odds
    correction, _ = fit_detail(odds, detail, fake, wrong[None], [0])
    assert (correction.towers, correction.trust) == ([], 0.0)


def test_what_is_as_sure_as_it_may_be_is_left_alone():
    _, detail, fake = drawn(0.0)
    odds = np.broadcast_to(np.where(fake, 8.0, -8.0), detail.shape)
    correction, losses = fit_detail(odds, detail, fake)
    assert correction is None
    assert losses["log_loss_after"] == pytest.approx(losses["log_loss_before"], abs=1e-3)


def test_log_odds_are_those_of_the_image_whatever_an_answer_says():
    logits = torch.tensor([[1.0, 9.0, 3.0, 9.0], [9.0, 0.0, 9.0, 4.0], [0.0, 0.0, 99.0, 99.0]])
    assert log_odds(logits, [Label.REAL, Label.FAKE, None]) == pytest.approx((2 + 4) / 2)


def test_the_odds_of_faces_that_lost_their_detail(tiny_run, use_tiny_parts):
    stages = tiny_run.stages
    mids, tokens = stages.load_mids(stages.load_mllm())
    mined = list(read_jsonl(tiny_run.folder / "mined-val.jsonl", Mined))[:3]
    rows = {r.sha256: r for r in stages.part("val")}
    images = [plain_face(read_photo(stages._root, rows[m.sha256]), rows[m.sha256], 224).image for m in mined]
    heads = [load_tower(stages.folder / "tower.safetensors")[1]]
    odds, detail, told = blurred_odds(mids, tokens, 2.0, images, mined, 2, 5, heads)
    assert odds.shape == detail.shape == (3, 3)
    assert told.shape == (1, 3, 3)
    assert detail[0].tolist() == [fine_detail(image) for image in images]
    seen = blur_out(images[1], np.random.default_rng((5, 14, 2, 1)))
    assert detail[2, 1] == fine_detail(seen)
    with torch.no_grad():
        hidden = mids.image_encoder(pixel_tensor([seen]), output_hidden_states=True).hidden_states
        assert told[0, 2, 1] == pytest.approx(heads[0].forgery_logit(hidden).item(), abs=1e-4)
    assert (detail[1:] < detail[0]).all()
    again, *_ = blurred_odds(mids, tokens, 1.0, images, mined, 0, 5, heads)
    assert np.allclose(again[0], 2 * odds[0])
    assert not np.allclose(odds[1], odds[0], atol=1e-6)
