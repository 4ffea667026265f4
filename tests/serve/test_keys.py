import hashlib
import os
import stat

import pytest

from ffaa.errors import UsageError
from ffaa.serve.keys import Keys, new_key


def test_a_key_is_kept_as_its_hash_only(tmp_path):
    path = tmp_path / "keys"
    first, second = new_key(path), new_key(path)
    assert first != second
    assert len(first) > 40
    text = path.read_text()
    assert first not in text
    assert text.split() == [hashlib.sha256(key.encode()).hexdigest() for key in (first, second)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = Keys(path)
    assert keys.owner(first) != keys.owner(second)
    assert keys.owner(first) is not None
    for wrong in ("", "x", first[:-1], first + "x", first.upper(), text.split()[0], "\ud800"):
        assert keys.owner(wrong) is None


def test_keys_are_compared_in_constant_time(tmp_path, monkeypatch):
    path = tmp_path / "keys"
    made = [new_key(path) for _ in range(3)]
    seen = []
    import hmac

    real = hmac.compare_digest
    monkeypatch.setattr("ffaa.serve.keys.hmac.compare_digest", lambda a, b: seen.append(b) or real(a, b))
    for key in (made[0], made[2], "unknown"):
        seen.clear()
        Keys(path).owner(key)
        assert len(seen) == 3  # all of them, wherever the right one stands


def test_keys_come_and_go_while_the_server_runs(tmp_path):
    path = tmp_path / "keys"
    first = new_key(path)
    keys = Keys(path)
    second = new_key(path)
    assert keys.owner(second)
    path.write_text(f"# only one left\n{hashlib.sha256(second.encode()).hexdigest()}  # ann\n\n")
    os.utime(path, ns=(1, 1))
    assert keys.owner(first) is None
    assert keys.owner(second)
    path.unlink()
    assert keys.owner(second) is None


def test_files_that_hold_no_keys(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Keys(tmp_path / "none")
    path = tmp_path / "keys"
    path.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no key"):
        Keys(path)
    path.write_text("secret\n")
    with pytest.raises(UsageError, match="line 1 is no sha256"):
        Keys(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="no text"):
        Keys(path)
    with pytest.raises(UsageError, match="cannot be written"):
        new_key(tmp_path / "no" / "folder")
