import pytest

from ffaa.errors import InputError
from ffaa.vqa.cache import Cache, content_key


def test_replies_and_batches_survive_closing(tmp_path):
    path = tmp_path / "new" / "cache.sqlite"
    with Cache(path) as cache:
        assert cache.get("a") is None
        cache.put("a", "one")
        cache.put("a", "two")
        cache.open_batch("c", ["k", "j"], 10, 20)
    with Cache(path) as cache:
        assert cache.get("a") == "two"
        noted = cache.batch_of("k")
        assert (noted.batch, noted.keys, noted.tokens_in, noted.tokens_out) == (None, ("j", "k"), 10, 20)
        cache.name_batch("c", "b1")
        assert cache.batch_of("j").batch == "b1"
        cache.close_batch("c", {"k": "reply"})
        assert (cache.get("k"), cache.batch_of("k"), cache.batch_of("j")) == ("reply", None, None)


def test_one_run_at_a_time_and_no_other_file(tmp_path):
    path = tmp_path / "cache.sqlite"
    with Cache(path), pytest.raises(InputError, match="another run is using this cache"):
        Cache(path)
    Cache(path).__exit__(None, None, None)
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"\xff\xd8" * 4096)
    with pytest.raises(InputError, match="not a cache of replies"):
        Cache(other)


def test_the_key_depends_on_content_not_on_order():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
