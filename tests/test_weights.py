from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ltchm_geo import weights
from ltchm_geo.errors import InvalidWeightsError, WeightsError, WeightsHashError, WeightsNotFoundError
from ltchm_geo.weights import WeightsEntry

TENSORS = {"b": np.arange(6, dtype=np.int16).reshape(2, 3), "a": np.ones(4, np.float16)}
METADATA = {"ltchm_config": '{"N": 128}', "ltchm_entropy": "[1]"}


def entry_for(data: bytes, **changes) -> WeightsEntry:
    base = {
        "tag": "tiny-v0",
        "file": "tiny-v0.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "N": 128,
        "lambdas": [128, 16384],
        "status": "preview",
        "licence": "CC-BY-4.0",
        "data": "none",
        "recipe": "none",
        "commit": "0000000",
    }
    return WeightsEntry.from_dict({**base, **changes})


def install(folder: Path, files: dict[WeightsEntry, bytes], default: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = [entry.to_dict() for entry in files]
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "default": default, "entries": entries}))
    for entry, data in files.items():
        (folder / entry.file).write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No weights but those a test installs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "xdg"))
    monkeypatch.delenv("LTCHM_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "find_spec", lambda name: None)


@pytest.fixture
def data() -> bytes:
    return save(TENSORS, METADATA)


def test_load_by_every_name(tmp_path, monkeypatch, data):
    entry = entry_for(data)
    folder = install(tmp_path / "w", {entry: data}, default="tiny-v0")
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    first = weights.load()
    for name in ["tiny-v0", entry.sha256, entry.sha256[:8], folder / entry.file, str(folder / entry.file)]:
        assert weights.load(name) is first
    assert first.sha256 == entry.sha256
    assert first.config == {"N": 128}
    assert list(first.tensors) == ["a", "b"]
    for key, tensor in TENSORS.items():
        np.testing.assert_array_equal(first.tensors[key], tensor)
        assert not first.tensors[key].flags.writeable
    assert weights.available() == [(entry, folder / entry.file)]


def test_search_order(tmp_path, monkeypatch, data):
    other = save(TENSORS, {"ltchm_config": "{}"})
    user = install(weights.user_weights_dir(), {entry_for(other): other})
    assert weights.find("tiny-v0")[1].parent == user
    named = install(tmp_path / "named", {entry_for(data): data})
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("LTCHM_WEIGHTS", f"{empty}{weights.os.pathsep}{named}")
    assert weights.find("tiny-v0")[1].parent == named
    assert weights.find(hashlib.sha256(other).hexdigest())[1].parent == user


def test_installed_package(tmp_path, monkeypatch, data):
    folder = install(tmp_path / "ltchm_geo_weights", {entry_for(data): data})
    spec = type("Spec", (), {"submodule_search_locations": [str(folder)]})
    monkeypatch.setattr(weights, "find_spec", lambda name: spec)
    assert weights.find("tiny-v0")[1] == folder / "tiny-v0.safetensors"


def test_file_without_manifest(tmp_path, data):
    path = tmp_path / "mine (1).safetensors"
    path.write_bytes(data)
    loaded = weights.load(path)
    assert loaded.entry.status == "local"
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    assert loaded.path == path


@pytest.mark.parametrize("name", ["nosuch", "f" * 64, "ab", None, "missing.safetensors"])
def test_not_found(name):
    with pytest.raises(WeightsNotFoundError):
        weights.find(name)


def test_not_found_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path / "here"))
    with pytest.raises(WeightsNotFoundError, match=r"'nosuch'.*here.*xdg.*LTCHM_WEIGHTS"):
        weights.find("nosuch")


def test_listed_but_absent_file_is_not_offered(tmp_path, monkeypatch, data):
    folder = install(tmp_path, {entry_for(data): data})
    (folder / "tiny-v0.safetensors").unlink()
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    assert weights.available() == []


def test_wrong_hash(tmp_path, monkeypatch, data):
    entry = entry_for(data)
    folder = install(tmp_path / "w", {entry: data[:-1] + b"?"})
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    with pytest.raises(WeightsHashError, match="fetch it again"):
        weights.load("tiny-v0")


def test_changed_file_is_checked_again(tmp_path, monkeypatch, data):
    folder = install(tmp_path / "w", {entry_for(data): data})
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    weights.load("tiny-v0")
    (folder / "tiny-v0.safetensors").write_bytes(data + b"?")
    with pytest.raises(WeightsHashError):
        weights.load("tiny-v0")


def test_size_cap(tmp_path, monkeypatch, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    monkeypatch.setattr(weights, "MAX_BYTES", len(data) - 1)
    with pytest.raises(InvalidWeightsError, match="larger"):
        weights.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"PK\x03\x04" * 10,
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a":nul}',
        (22).to_bytes(8, "little") + b'{"__metadata__":{"":1}}'[:22],
        (4).to_bytes(8, "little") + b"[[[[",
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9999],"data_offsets":[0,4]}}   ' + bytes(4),
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999]}}  ' + bytes(4),
    ],
)
def test_malformed_file(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidWeightsError, match="safetensors"):
        weights.load(path)


def test_missing_or_bad_document(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(TENSORS, {"ltchm_config": "[1]", "other": "{"}))
    loaded = weights.load(path)
    for key, message in [("ltchm_config", "object"), ("other", "not JSON"), ("none", "no 'none'")]:
        with pytest.raises(InvalidWeightsError, match=message):
            loaded.document(key)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../evil.safetensors"},
        {"file": "/etc/passwd"},
        {"file": "a/b.safetensors"},
        {"file": "model.pt"},
        {"sha256": "ABC"},
        {"sha256": None},
        {"status": "great"},
        {"bytes": -1},
        {"N": True},
        {"lambdas": [1]},
        {"lambdas": [0, 1]},
        {"lambdas": 3},
        {"licence": 3},
        {"surprise": 1},
    ],
)
def test_hostile_manifest_entry(tmp_path, monkeypatch, data, changes):
    folder = install(tmp_path, {entry_for(data): data})
    document = json.loads((folder / "manifest.json").read_text())
    document["entries"][0].update(changes)
    (folder / "manifest.json").write_text(json.dumps(document))
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        weights.find("tiny-v0")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format":2,"default":null,"entries":[]}', "[" * 100_000, '{"format":1,"format":1}', "NaN", "\xff"],
)
def test_hostile_manifest(tmp_path, monkeypatch, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        weights.find()


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def denied(self, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setenv("LTCHM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(WeightsError, match=r"manifest\.json cannot be used.*Permission denied"):
        weights.available()


def test_import_is_light():
    code = "import sys, ltchm_geo.weights; print(*{'torch', 'numba', 'zarr', 'rasterio'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
