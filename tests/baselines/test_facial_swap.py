import cv2
import numpy as np
import pytest
import torch

from ffaa.baselines import facial_swap as module
from ffaa.baselines.anchors import mask_box
from ffaa.baselines.facial_swap import busiest_window, dissimilarity, facial_swap, swap_row
from ffaa.data.manifest import Row
from ffaa.errors import InputError
from ffaa.types import ForgeryType, Label

SIDE = 112


@pytest.fixture(scope="module")
def pair():
    """A photo-like image, the same with a changed mouth, and the face's mask."""
    rng = np.random.default_rng(0)
    real = cv2.resize(rng.integers(60, 190, (9, 9, 3)).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    fake = real.copy()
    fake[66:92, 36:80] = cv2.resize(rng.integers(0, 255, (12, 12, 3)).astype(np.uint8), (44, 26))
    face = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(face, (SIDE // 2, SIDE // 2), (SIDE // 3, SIDE // 2 - 6), 0, 0, 360, 1.0, -1)
    return fake, real, face


def _drawn(pair, wanted, tries=200):
    for seed in range(tries):
        swap = facial_swap(*pair, np.random.default_rng(seed))
        if swap is not None and wanted(swap):
            return swap
    raise AssertionError("never drawn")


def test_dissimilarity_is_zero_for_equal_and_large_for_changed_pixels(pair):
    fake, real, _ = pair
    assert np.allclose(dissimilarity(real, real), 0)
    change = dissimilarity(fake, real)
    assert change[70:88, 42:74].mean() > 0.2
    assert change[:50].max() < 1e-9


def test_busiest_window():
    change = np.zeros((100, 100))
    change[62:80, 40:60] = 1
    assert busiest_window(change, 20, 40) == (20, 60, 60, 80)
    assert busiest_window(change, 300, 300) == (0, 0, 100, 100)


def test_partial_swap_changes_its_window_only_and_the_box_says_where(pair):
    _, real, _ = pair
    swap = _drawn(pair, lambda s: s.window is not None and s.window[2] - s.window[0] < SIDE)
    left, top, right, bottom = swap.window
    outside = np.ones((SIDE, SIDE), bool)
    outside[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] = False
    assert np.array_equal(swap.image[outside], real[outside])
    assert (swap.image != real).any()
    box = mask_box(torch.from_numpy(swap.mask)) * SIDE
    torch.testing.assert_close(box, torch.tensor(swap.window, dtype=torch.float32), atol=0.5, rtol=0)


def test_global_swap_stays_inside_the_face(pair):
    fake, real, face = pair
    swap = _drawn(pair, lambda s: s.window is None and not np.array_equal(s.image, fake))
    far = cv2.dilate(face, np.ones((21, 21))) == 0
    assert np.array_equal(swap.image[far], real[far])
    assert swap.mask.max() == 1
    assert swap.mask[0, 0] == 0


def test_kinds_are_drawn_as_published(pair):
    swaps = [facial_swap(*pair, np.random.default_rng(seed)) for seed in range(300)]
    partial = sum(s is None or s.window is not None for s in swaps)
    kept = sum(s is not None and s.image is pair[0] for s in swaps)
    assert 40 < partial < 80  # 1 in 5
    assert 40 < kept < 85  # 1 in 5: a quarter of the rest


def test_same_seed_same_swap(pair):
    first, second = (facial_swap(*pair, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.image, second.image)


def test_unseen_changes_give_no_partial_swap(pair):
    _, real, face = pair
    swaps = [facial_swap(real, real, face, np.random.default_rng(seed)) for seed in range(60)]
    assert any(s is None for s in swaps)
    assert all(s is None or s.window is None for s in swaps)


def test_sizes_must_agree(pair):
    fake, real, face = pair
    with pytest.raises(InputError, match="of one size"):
        facial_swap(fake[:-2], real, face, np.random.default_rng(0))


def _row(folder, fake, real):
    for name, image in (("fake.png", fake), ("real.png", real)):
        cv2.imwrite(str(folder / name), image[..., ::-1])
    kind = ForgeryType.IDENTITY_EXCHANGE
    size = {"width": SIDE, "height": SIDE}
    return Row(path="fake.png", label=Label.FAKE, forgery_type=kind, reference="real.png", **size)


def test_swap_of_a_manifest_row(pair, tmp_path, monkeypatch):
    fake, real, face = pair
    row = _row(tmp_path, fake, real)
    outline = np.stack(np.nonzero(face)[::-1], 1).astype(np.float32)
    monkeypatch.setattr(module, "landmarks", lambda photo, box: np.pad(outline, ((0, 0), (0, 1))))
    swaps = [swap_row(tmp_path, row, SIDE, np.random.default_rng(seed)) for seed in range(12)]
    assert all(s is None or s.image.shape == (SIDE, SIDE, 3) for s in swaps)
    assert any(s is not None and not np.array_equal(s.image, fake) for s in swaps)
    monkeypatch.setattr(module, "landmarks", lambda photo, box: None)
    assert swap_row(tmp_path, row, SIDE, np.random.default_rng(0)) is None
    assert swap_row(tmp_path, row.model_copy(update={"reference": ""}), SIDE, np.random.default_rng(0)) is None


def test_original_of_another_size_is_an_error(pair, tmp_path):
    fake, real, _ = pair
    with pytest.raises(InputError, match=r"real.png: of another size"):
        swap_row(tmp_path, _row(tmp_path, fake, real[:50]), SIDE, np.random.default_rng(0))
