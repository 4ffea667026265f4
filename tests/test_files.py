import contextlib
import errno
import sys

import pytest
import torch
from safetensors.torch import load_file

from ffaa.files import write, write_state, write_tensors

LIMIT = 1000  # bytes

WRITERS = {
    "bytes": lambda path, size: write(path, b"a" * size),
    "tensors": lambda path, size: write_tensors(path, {"a": torch.ones(size)}),
    "state": lambda path, size: write_state(path, {"a": torch.ones(size)}),
}


@contextlib.contextmanager
def limited():
    """No file grows beyond LIMIT, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_read_back(tmp_path):
    write(tmp_path / "new" / "folder" / "a", b"one")
    write(tmp_path / "new" / "folder" / "a", b"two")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"two"
    write_tensors(tmp_path / "t.safetensors", {"x": torch.arange(3)}, {"about": "it"})
    assert load_file(tmp_path / "t.safetensors")["x"].tolist() == [0, 1, 2]
    assert b'"about":"it"' in (tmp_path / "t.safetensors").read_bytes()
    write_state(tmp_path / "s.pt", {"step": 7, "x": torch.arange(3)})
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    assert (state["step"], state["x"].tolist()) == (7, [0, 1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "s.pt", "t.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_whole_leaves_what_was_there(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with limited(), pytest.raises(OSError, match="file") as raised:
        WRITERS[kind](path, 100_000)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_errors_of_torch_stay_what_they_are(tmp_path):
    with pytest.raises(AttributeError):
        write_state(tmp_path / "s.pt", {"a": lambda: None})
    assert not list(tmp_path.iterdir())
