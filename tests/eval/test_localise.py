import numpy as np
import pytest

from ffaa.eval.localise import middle, overlap, score

MASK = np.zeros((8, 8), bool)
MASK[:2, :4] = True  # 8 of 64 pixels


def test_a_perfect_map():
    found = overlap(MASK.astype(np.float32), MASK)
    assert (found.hit, found.iou, found.energy) == (True, 1.0, 1.0)


def test_half_of_it_beside():
    heat = np.zeros((8, 8))
    heat[0, :4], heat[7, :4], heat[7, 0] = 1, 1, 2
    found = overlap(heat, MASK)
    assert not found.hit  # the highest is below
    assert found.energy == pytest.approx(4 / 9)
    # the eight highest: those eight pixels, four of them in the mask
    assert found.iou == pytest.approx(4 / 12)


def test_a_flat_map_finds_nothing():
    found = score(np.zeros((8, 8)), MASK.astype(np.float32))
    assert found.flat
    assert (found.found.hit, found.found.iou, found.found.energy) == (False, 0, 0)


def test_chance_is_the_masks_area():
    """Over many random maps hit and energy come to the mask's share, IoU to what is given."""
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), np.float32)
    mask[:10, :24] = 1
    found = [score(rng.random((40, 40)), mask) for _ in range(400)]
    assert found[0].area == 0.15
    assert np.mean([f.found.hit for f in found]) == pytest.approx(0.15, abs=0.05)
    assert np.mean([f.found.energy for f in found]) == pytest.approx(0.15, abs=0.005)
    assert np.mean([f.found.iou for f in found]) == pytest.approx(found[0].chance_iou, abs=0.005)


def test_the_middle_beats_chance_on_a_central_mask():
    mask = np.zeros((40, 40), np.float32)
    mask[12:28, 12:28] = 1
    found = score(np.ones((40, 40)), mask)
    assert found.middle.hit
    assert found.middle.energy > 2 * found.area
    assert found.middle.iou > 0.6
    centre = middle((40, 40))
    assert centre.max() == centre[19, 19] == centre[20, 20]  # whatever the machine rounds
    assert (centre == centre[::-1, ::-1]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.4])
def test_nothing_to_find(value):
    assert score(np.ones((8, 8)), np.full((8, 8), value, np.float32)) is None
