import numpy as np
import pytest
import torch
from tests.mids.test_train import mids, mined, text_folder, tokens, toy  # noqa: F401

from ffaa.mids.texts import TextFeatures
from ffaa.types import Label


@pytest.fixture
def records():
    odd = mined(40, Label.REAL, (Label.REAL, None, Label.FAKE))
    long = mined(41, Label.REAL, (Label.FAKE, Label.REAL, Label.FAKE))
    long.answers[1] = long.answers[1].model_copy(update={"description": "A very long answer. " * 3})
    return [*toy(8, 1)[1], odd, long]


def test_features_are_those_of_the_encoder(mids, tokens, records):  # noqa: F811
    texts = TextFeatures(mids, tokens, records, batch=2)
    part = [records[9], records[3], records[8]]
    features, mask = texts(part)
    ids, plain_mask = tokens([a for m in part for a in m.answers])
    assert torch.equal(mask, plain_mask)
    plain = mids.encode_text(ids, plain_mask)
    torch.testing.assert_close(features[mask.bool()], plain[mask.bool()], atol=2e-3, rtol=1e-3)
    assert (features[~mask.bool()] == 0).all()


def test_the_encoder_runs_once(mids, tokens, records, monkeypatch):  # noqa: F811
    rows, real = [], mids.encode_text
    monkeypatch.setattr(mids, "encode_text", lambda ids, mask: rows.append(len(ids)) or real(ids, mask))
    texts = TextFeatures(mids, tokens, records)
    for _ in range(3):
        texts(records[:4])
    assert sum(rows) == 3 * len(records)
    rows.clear()
    alone = TextFeatures(mids, tokens, records, one_answer=True)
    assert sum(rows) == len(records)
    one, three = alone(records[:2])[0][0], texts(records[:2])[0][0]
    # half precision, and other batches may round otherwise
    torch.testing.assert_close(one, three[: len(one)], atol=2e-3, rtol=2e-3)


def test_on_disk_as_in_memory(mids, tokens, records, tmp_path):  # noqa: F811
    folder = tmp_path / "new"
    disk, memory = TextFeatures(mids, tokens, records, folder=folder), TextFeatures(mids, tokens, records)
    for one, other in zip(disk(records), memory(records), strict=True):
        assert torch.equal(one, other)
    (file,) = folder.iterdir()
    assert np.load(file).dtype == np.float16


def test_kept_features_are_taken_for_the_same_answers_and_encoder_alone(
    mids, tokens, records, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    first, rows, real = TextFeatures(mids, tokens, records, folder=tmp_path), [], mids.encode_text
    monkeypatch.setattr(mids, "encode_text", lambda ids, mask: rows.append(len(ids)) or real(ids, mask))
    again = TextFeatures(mids, tokens, records, folder=tmp_path)
    assert not rows
    assert torch.equal(again(records)[0], first(records)[0])
    TextFeatures(mids, tokens, records[:5], folder=tmp_path)
    assert sum(rows) == 15
    next(mids.text_encoder.parameters()).data += 1
    other = TextFeatures(mids, tokens, records, folder=tmp_path)
    assert sum(rows) == 15 + 3 * len(records)
    assert not torch.equal(other(records)[0], first(records)[0])


def test_a_killed_computation_is_not_taken(mids, tokens, records, tmp_path, monkeypatch):  # noqa: F811
    whole, real, calls = TextFeatures(mids, tokens, records), mids.encode_text, []

    def dying(ids, mask):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(ids, mask)

    with monkeypatch.context() as patch:
        patch.setattr(mids, "encode_text", dying)
        with pytest.raises(KeyboardInterrupt):
            TextFeatures(mids, tokens, records, folder=tmp_path, batch=2)
    again = TextFeatures(mids, tokens, records, folder=tmp_path, batch=2)
    torch.testing.assert_close(again(records)[0], whole(records)[0], atol=2e-3, rtol=1e-3)
    assert [f.suffix for f in tmp_path.iterdir()] == [".npy"]
