import json

import numpy as np
import pytest
import torch

from ffaa.data.crops import train_sample
from ffaa.data.landmarks import landmarks
from ffaa.errors import InputError
from ffaa.evidence.examine import examine
from ffaa.mllm import features
from ffaa.mllm.tower import pixel_tensor
from ffaa.mllm.tower_heads import TYPES, TowerHeads
from ffaa.types import Box, ForgeryType, Label
from ffaa.vqa.sentences import read_words
from ffaa.vqa.trace import tower_words


@pytest.fixture(scope="module")
def rows(tiny_rows):
    return tiny_rows[:5]


@pytest.fixture(scope="module")
def heads():
    torch.manual_seed(1)
    return TowerHeads(32).eval()


@pytest.fixture(scope="module")
def compute(tiny_tower, heads, tiny_manifest, rows):
    def run(folder, **changes):
        settings = {"variants": range(2), "blend": 0.5, "seed": 3, "batch": 4, "workers": 0} | changes
        return features.compute(folder, "tune", tiny_tower, heads, tiny_manifest, rows, **settings)

    return run


@pytest.fixture(scope="module")
def whole(compute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    array, found = compute(folder)
    return folder, np.array(array), found


def test_rows_belong_to_the_array(whole, rows, tiny_manifest, tiny_tower, heads):
    _, array, found = whole
    assert array.shape == (10, 2, 50, 32)
    assert array.dtype == np.float16
    assert [(f.variant, f.image) for f in found] == [(v, r.path) for v in range(2) for r in rows]
    for place in (1, 7):
        f, row = found[place], rows[place % 5]
        sample = train_sample(tiny_manifest, row, 224, np.random.default_rng((3, 2, f.variant, place % 5)), 0.5)
        with torch.no_grad():
            hidden = tiny_tower(pixel_tensor([sample.image])).hidden_states
        assert np.allclose(array[place], torch.stack(hidden, 1)[0].numpy(), atol=5e-3)
        assert f.tower_score == pytest.approx(torch.sigmoid(heads.forgery_logit(hidden)).item(), abs=1e-4)
        assert (f.label, f.forgery_type, f.sha256) == (sample.label, sample.forgery_type, row.sha256)
        assert (f.method, f.regions) == ("", ())  # nothing that cannot be seen
        assert f.tower_type is TYPES[int(heads.kind(hidden[1][:, 0]).argmax())]
        left, top, right, bottom = sample.rect
        points = landmarks(sample.image, Box(left=left, top=top, right=right, bottom=bottom))
        record = examine(sample.image, points)
        assert f.values == record.values
        assert f.words == read_words(record) | tower_words(f.tower_score, f.tower_type)


def test_crops_without_fine_detail(compute, whole, rows, tmp_path):
    """All of them, where the share is 1; the self-blended ones are the same."""
    _, sharp, plain = whole
    array, found = compute(tmp_path, blurred=1.0)
    assert not any(np.array_equal(one, other) for one, other in zip(array, sharp, strict=True))
    assert [f.label for f in found] == [f.label for f in plain]


def test_variants_differ_and_a_blended_real_photo_is_fake(whole, rows):
    _, array, found = whole
    assert not np.array_equal(array[0], array[5])
    turned = [f for f, row in zip(found, [*rows, *rows], strict=True) if f.label is not row.label]
    assert turned
    assert all(f.label is Label.FAKE for f in turned)
    assert all(f.forgery_type is ForgeryType.IDENTITY_EXCHANGE for f in turned)


def test_load_gives_what_was_stored(whole):
    folder, array, found = whole
    loaded, again = features.load(folder, "tune")
    assert np.array_equal(loaded, array)
    assert again == found


def check_same(folder, whole):
    loaded, found = features.load(folder, "tune")
    assert np.array_equal(loaded, whole[1])
    assert found == whole[2]
    assert (folder / "tune.jsonl").read_bytes() == (whole[0] / "tune.jsonl").read_bytes()


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_the_same(compute, whole, tmp_path, monkeypatch):
    calls, real = [], features.train_sample

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise KilledError
        return real(*args, **kwargs)

    monkeypatch.setattr(features, "train_sample", dying)
    with pytest.raises(KilledError):
        compute(tmp_path)
    assert len((tmp_path / "tune.jsonl").read_text().splitlines()) == 4
    calls[:] = [0] * 10
    compute(tmp_path)
    assert len(calls) == 10 + 6  # the first batch was not made again
    check_same(tmp_path, whole)


@pytest.mark.parametrize("left", [1, 4, 6])
def test_a_torn_line_or_a_half_batch_is_made_again(compute, whole, tmp_path, left):
    folder, array, _ = whole
    lines = (folder / "tune.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "tune.jsonl").write_bytes(b"".join(lines[:left]) + lines[left][:100])
    broken = array.copy()
    broken[left // 4 * 4 :] = 0
    np.save(tmp_path / "tune.npy", broken)
    compute(tmp_path)
    check_same(tmp_path, whole)


def test_a_finished_run_doubles_nothing(compute, whole, tmp_path):
    compute(tmp_path)
    compute(tmp_path)
    check_same(tmp_path, whole)


def test_rows_without_an_array_are_made_again(compute, whole, tmp_path):
    (tmp_path / "tune.jsonl").write_text("".join((whole[0] / "tune.jsonl").read_text().splitlines(keepends=True)[:4]))
    compute(tmp_path)
    check_same(tmp_path, whole)


def test_an_array_of_other_settings_is_refused(compute, tmp_path):
    compute(tmp_path, variants=range(1))
    with pytest.raises(InputError, match="other settings"):
        compute(tmp_path)


def test_a_line_that_does_not_fit_is_named(tmp_path, whole):
    first = json.loads((whole[0] / "tune.jsonl").read_text().splitlines()[0])
    np.save(tmp_path / "x.npy", np.zeros(1))
    (tmp_path / "x.jsonl").write_text(json.dumps(first) + "\n" + json.dumps({**first, "label": "maybe"}) + "\n")
    with pytest.raises(InputError, match=r"x\.jsonl:2: not a FeatureRow"):
        features.load(tmp_path, "x")
