import json
from hashlib import sha256

import pytest

from ffaa import weights


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    (path / "mids.safetensors").write_bytes(b"mids")
    config = weights.ModelConfig(
        name="mine",
        template="v1",
        image_size=224,
        constrained=True,
        text_encoder=weights.PartRef(part="minilm-l6"),
        files={"mids.safetensors": sha256(b"mids").hexdigest()},
        licence="Apache-2.0",
    )
    (path / "model.json").write_text(config.model_dump_json())
    return path


def test_list_import_verify(run, folder):
    assert run("weights", "import", folder, "--name", "own").code == 0
    out = run("weights", "list").out
    assert all(name in out for name in ("nano", "ffaa-mistral-7b", "own", "minilm-l6", "efficientnet-lite0"))
    assert run("weights", "verify", "own").out == "own: ok\n"
    assert "own: ok" in run("weights", "verify").out


def test_damage_is_named(run, folder):
    (folder / "mids.safetensors").write_bytes(b"other")
    result = run("weights", "verify", folder)
    assert result.code == 1
    assert "DAMAGED" in result.out
    assert sha256(b"mids").hexdigest() in result.err
    assert sha256(b"other").hexdigest() in result.err
    (folder / "model.json").write_text(json.dumps({}))
    assert run("weights", "verify", folder).code == 1


def test_pull_of_an_unknown_name(run):
    result = run("weights", "pull", "unknown")
    assert result.code == 2
    assert "known: nano" in result.err
