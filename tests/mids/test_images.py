import numpy as np
import pytest
import torch

from ffaa.errors import InputError
from ffaa.mids import images as module
from ffaa.mids.augment import augment
from ffaa.mids.images import CropImages, Crops, Stored
from ffaa.mids.model import MIDS, MIDSConfig
from ffaa.mllm.tower import pixel_tensor

ROWS = [10, 11, 12, 13]


@pytest.fixture
def make_mids(make_encoders):
    def make(unfreeze):
        torch.manual_seed(3)
        return MIDS(*make_encoders(), MIDSConfig(dim=32, image_dim=48, unfreeze=unfreeze)).eval()

    return make


@pytest.fixture
def crops(tiny_crops):
    """Six faces at 32 px; .read: how often each was asked for."""
    read = []

    def image(row):
        read.append(row)
        return np.ascontiguousarray(tiny_crops[row - 10][::7, ::7])

    found = Crops(image, lambda crop: pixel_tensor([crop]))
    object.__setattr__(found, "read", read)
    return found


def test_stored_features_are_put_in_the_order_of_mids():
    features = np.arange(3 * 2 * 2 * 1, dtype=np.float16).reshape(3, 2, 2, 1)
    last, previous = Stored(features)([2, 0])
    assert last.flatten().tolist() == [10, 11, 2, 3]
    assert previous.flatten().tolist() == [8, 9, 0, 1]
    assert last.dtype == torch.float32


@pytest.mark.parametrize("unfreeze", [0, 2, "all"])
@pytest.mark.parametrize("variants", [None, 2, 0])
def test_what_is_kept_gives_the_logits_of_the_plain_way(make_mids, crops, batch, unfreeze, variants):
    mids, (ids, mask, _) = make_mids(unfreeze), batch
    images = CropImages(mids, crops, ROWS, variants, seed=7)
    for epoch in (0, 1, 2):
        variant = None if variants is None else epoch % variants if variants else epoch
        pixels = torch.cat([crops.pixels(row, 7, variant) for row in (12, 10, 13)])
        with torch.no_grad():
            plain = mids(ids, mask, pixels)
            text = mids.encode_text(ids.flatten(0, 1), mask.flatten(0, 1))
            kept = mids.classify(text, mask.flatten(0, 1), mids.project(images([12, 10, 13], epoch)))
        torch.testing.assert_close(kept.view(3, 2, 4), plain, atol=2e-3, rtol=0)  # half precision


@pytest.mark.parametrize(("unfreeze", "variants", "reads"), [(0, None, 4), (2, 3, 12), (0, 0, 0), ("all", 2, 0)])
def test_crops_are_read_once_where_something_can_be_kept(make_mids, crops, unfreeze, variants, reads):
    images = CropImages(make_mids(unfreeze), crops, ROWS, variants)
    filled = len(crops.read)
    assert filled == reads + (reads > 0)  # one more to learn the shape
    images([10, 12], 0)
    images([10, 12], 1)
    assert len(crops.read) - filled == (0 if reads else 4)


def test_epochs_see_other_copies(make_mids, crops):
    images = CropImages(make_mids(0), crops, ROWS, 2, seed=1)
    first, second, third = (images(ROWS, epoch)[0] for epoch in range(3))
    assert not torch.allclose(first, second, atol=1e-3)
    assert torch.equal(first, third)
    fresh = CropImages(make_mids(0), crops, ROWS, 0, seed=1)
    assert not torch.allclose(fresh(ROWS, 2)[0], fresh(ROWS, 0)[0], atol=1e-3)


def test_trained_blocks_run_on_what_is_kept(make_mids, crops):
    mids = make_mids(1)
    images = CropImages(mids, crops, ROWS)
    before = images(ROWS)[0]
    before.square().sum().backward()
    moved = [name for name, p in mids.image_encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved
    assert all("layers.2." in name for name in moved)
    with torch.no_grad():
        for name, p in mids.image_encoder.named_parameters():
            if name in moved:
                p.add_(0.05)
        assert not torch.allclose(images(ROWS)[0], before, atol=1e-3)


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_with_what_it_kept(make_mids, crops, tmp_path, monkeypatch):
    mids, file = make_mids(0), tmp_path / "cache" / "images.npy"
    whole = CropImages(mids, crops, ROWS, 2, seed=1, batch=3)
    calls, real = [], module.write

    def dying(path, data):
        real(path, data)
        calls.append(1)
        if len(calls) == 2:
            raise KilledError

    monkeypatch.setattr(module, "write", dying)
    with pytest.raises(KilledError):
        CropImages(mids, crops, ROWS, 2, 1, file, "photos", batch=3)
    crops.read.clear()
    again = CropImages(mids, crops, ROWS, 2, 1, file, "photos", batch=3)
    assert len(crops.read) == 1 + 2  # of eight, six were there
    assert np.array_equal(again.kept, whole.kept)
    crops.read.clear()
    CropImages(mids, crops, ROWS, 2, 1, file, "photos")
    assert len(crops.read) == 1
    with pytest.raises(InputError, match="other settings or photos"):
        CropImages(mids, crops, ROWS, 2, 1, file, "other photos")
    with pytest.raises(InputError, match="other settings or photos"):
        CropImages(make_mids(1), crops, ROWS, 2, 1, file, "photos")


def test_augmentation_follows_from_seed_row_and_variant(tiny_crops):
    image = tiny_crops[0]
    copies = [augment(image, 1, row, variant) for row in range(3) for variant in range(3)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in copies)
    augment(tiny_crops[1], 9, 9, 9)  # whatever came between
    assert np.array_equal(augment(image, 1, 2, 1), copies[7])
    assert sum(not np.array_equal(a, b) for i, a in enumerate(copies) for b in copies[:i]) > 30  # of 36 pairs
    assert not np.array_equal(augment(image, 2, 2, 1), copies[7])


def test_augmentation_is_as_often_and_as_strong_as_the_papers(tiny_crops):
    image = tiny_crops[0][::2, ::2]
    changed = [augment(image, 0, row, 0) for row in range(400)]
    same = np.mean([np.array_equal(c, image) for c in changed])
    assert same == pytest.approx(0.5 * 0.8**3 * 0.3, abs=0.045)  # each is applied or not on its own
    # the photo is still the photo
    assert max(np.abs(c.astype(int) - image).mean() for c in changed) < 40
