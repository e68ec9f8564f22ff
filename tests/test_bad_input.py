"""Whatever goes wrong: the right exception, one line that says what to do, inputs untouched, nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
from decodable import write_decodable
from rasters import CHIAPAS, TOKYO, smooth, write_tif

import ltchm_geo
from ltchm_geo import compress_raster, decompress_raster
from ltchm_geo._store import member_method
from ltchm_geo.bitstream import FORMAT_VERSION, TileMode, TilePayload
from ltchm_geo.errors import (
    AlreadyCompressedError,
    ContainerError,
    CorruptContainerError,
    DestinationError,
    DestinationExistsError,
    DeviceError,
    LtchmError,
    NotAContainerError,
    SourceError,
    SourceReadError,
    UnsupportedRasterError,
    UnsupportedVersionError,
    WeightsHashError,
    WeightsNotFoundError,
)
from ltchm_geo.types import TileIndex


@contextmanager
def refused(error: type[LtchmError], words: str | None, folder: Path) -> Iterator[None]:
    """The error, on one line with these words in it, and `folder` as it was."""
    before = contents(folder)
    with pytest.raises(error, match=words) as found:
        yield
    assert type(found.value) is error
    assert "\n" not in str(found.value)
    assert found.value.exit_code in (1, 2)
    assert contents(folder) == before


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# --- sources ---------------------------------------------------------------------------------------------------------


def make_source(kind: str, path: Path) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a picture\n" * 99)
    elif kind == "cut header":
        path.write_bytes(TOKYO.read_bytes()[:100])
    elif kind == "folder":
        path.mkdir()
    elif kind == "classes":
        write_tif(path, smooth(1, 9, 9), photometric="PALETTE")
    elif kind == "complex":
        write_tif(path, smooth(1, 9, 9).astype(np.complex64))
    elif kind == "32 bits":
        write_tif(path, smooth(1, 9, 9).astype(np.uint32))
    elif kind == "absurd":
        source = f"<SimpleSource><SourceFilename>{TOKYO}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        band = f'<VRTRasterBand dataType="UInt16" band="1">{source}</VRTRasterBand>'
        path.write_text(f'<VRTDataset rasterXSize="2000000000" rasterYSize="2000000000">{band}</VRTDataset>')


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("missing", SourceError, "does not exist"),
        ("empty", SourceError, "is empty"),
        ("text", SourceError, "not a raster"),
        ("cut header", SourceError, "damaged"),
        ("folder", SourceError, "is a folder"),
        ("absurd", UnsupportedRasterError, "header is damaged"),
        ("classes", UnsupportedRasterError, "-expand rgb"),
        ("complex", UnsupportedRasterError, "complex"),
        ("32 bits", UnsupportedRasterError, "uint32"),
    ],
)
def test_unsuitable_sources(kind: str, error: type[LtchmError], words: str, tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.tif"
    make_source(kind, source)
    with refused(error, words, tmp_path):
        compress_raster(source, tmp_path / "a.ltchm")
    with refused(error, r"source\.tif", tmp_path):
        compress_raster(str(source), tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_truncated_source(name: str, tiny: Path, tmp_path: Path) -> None:
    whole = write_tif(tmp_path / "whole.tif", smooth(3, 600, 300), blockysize=16)
    source = tmp_path / "source.tif"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with refused(SourceReadError, "rows .* damaged or incomplete", tmp_path):
        compress_raster(source, tmp_path / name, tile_size=128, shard_tiles=1)


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr", "renamed.tif"])
def test_already_compressed(name: str, tiny: Path, tmp_path: Path) -> None:
    scene = scenes.write(tmp_path / name)
    with refused(AlreadyCompressedError, "already", tmp_path):
        compress_raster(scene, tmp_path / "b.ltchm")


# --- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_unusable_destinations(name: str, tiny: Path, tmp_path: Path) -> None:
    with refused(DestinationError, "folder .* does not exist", tmp_path):
        compress_raster(TOKYO, tmp_path / "no" / name)
    (tmp_path / "file").touch()
    with refused(DestinationError, "does not exist", tmp_path):
        compress_raster(TOKYO, tmp_path / "file" / name)
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing" / name).write_bytes(b"precious")
    with refused(DestinationExistsError, "another name", tmp_path):
        compress_raster(TOKYO, tmp_path / "existing" / name)
    with refused(DestinationError, "cannot write", tmp_path):
        compress_raster(TOKYO, tmp_path / ("x" * 300 + name))


def test_source_is_destination(tiny: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(TOKYO, tmp_path / "a.tif"))
    with refused(DestinationError, "source itself", tmp_path):
        compress_raster(source, source, overwrite=True)
    scene = write_decodable(tmp_path / "a.ltchm")
    with refused(DestinationError, "scene itself", tmp_path):
        decompress_raster(scene, scene, overwrite=True)
    folder = write_decodable(tmp_path / "a.zarr")
    with refused(DestinationError, "scene itself", tmp_path):
        decompress_raster(folder, folder, overwrite=True)
    with refused(DestinationError, "cannot write", tmp_path):
        decompress_raster(scene, tmp_path / ("x" * 300 + ".tif"))


@pytest.fixture
def small_disk() -> Iterator[Any]:
    """Files cannot grow beyond a limit: what a full disk does, without one."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
@pytest.mark.parametrize("limit", [1, 3000, 6000])
def test_disk_full_while_compressing(name: str, limit: int, small_disk: Any, tiny: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 256, 384)).astype(np.uint16)
    source = write_tif(tmp_path / "source.tif", pixels)
    shard = {"tile_size": 256} if name == "a.zarr" else {"tile_size": 128, "shard_tiles": 1}
    with refused(DestinationError, "cannot write", tmp_path):
        small_disk(limit if name == "a.ltchm" or limit < 3000 else 1000)
        compress_raster(source, tmp_path / name, **shard)


@pytest.mark.parametrize("limit", [1, 3000])
def test_disk_full_while_decompressing(limit: int, small_disk: Any, tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    with refused(DestinationError, "cannot be written", tmp_path):
        small_disk(limit)
        decompress_raster(scene)


# --- weights and devices ---------------------------------------------------------------------------------------------


def test_missing_weights(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(WeightsNotFoundError, "LTCHM_WEIGHTS", tmp_path):
        compress_raster(TOKYO, tmp_path / "a.ltchm", model="no-such-model")
    with refused(WeightsNotFoundError, None, tmp_path):
        compress_raster(TOKYO, tmp_path / "a.ltchm", model=str(tmp_path / "none.safetensors"))


def test_damaged_weights(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "weights"))
    (file,) = folder.glob("*.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["entries"][0]["sha256"], manifest["entries"][0]["tag"] = "ef" * 32, "damaged"
    (folder / "manifest.json").write_text(json.dumps({**manifest, "default": "damaged"}))
    monkeypatch.setenv("LTCHM_WEIGHTS", str(folder))
    with refused(WeightsHashError, None, tmp_path):
        compress_raster(TOKYO, tmp_path / "a.ltchm", model="damaged")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with refused(WeightsHashError, None, tmp_path):
        compress_raster(TOKYO, tmp_path / "a.ltchm")


@pytest.mark.parametrize("device", ["tpu-9", "cuda:99", "mps", "meta"])
def test_missing_device(device: str, tiny: Path, tmp_path: Path) -> None:
    with refused(DeviceError, "device", tmp_path):
        compress_raster(TOKYO, tmp_path / "a.ltchm", device=device)


# --- scenes ----------------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Any) -> None:
    """Store the members of a scene anew, after `change` had its way with them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data, member_method(name))


def describe(members: dict[str, bytes], **changes: Any) -> None:
    document = json.loads(members["zarr.json"])
    document["attributes"]["ltchm"] |= changes
    members["zarr.json"] = json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda m: describe(m, format=99), UnsupportedVersionError, "update"),
        (lambda m: describe(m, shape=[2**31, 2**31]), CorruptContainerError, None),
        (lambda m: describe(m, shape=[2**30, 2**14]), ContainerError, None),
        (lambda m: describe(m, tile=2**20), CorruptContainerError, None),
        (lambda m: m.pop("0/g0/c/0/0/0"), CorruptContainerError, None),
        (lambda m: m.update({"../evil": b"x"}), CorruptContainerError, "name"),
        (lambda m: m.update({"/evil": b"x"}), CorruptContainerError, "name"),
        (lambda m: m.update({"zarr.json": b"[" * 10**5}), CorruptContainerError, None),
        (lambda m: m.update({"zarr.json": b"{}"}), CorruptContainerError, None),
        (lambda m: m.clear(), NotAContainerError, None),
    ],
    ids=["newer", "huge", "shards", "tiles", "no shard", "up", "absolute", "deep", "no meta", "nil"],
)
def test_hostile_scenes(change: Any, error: type[ContainerError], words: str | None, tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    rewrite(scene, change)
    before = contents(tmp_path)
    for look in (decompress_raster, ltchm_geo.open, ltchm_geo.info, ltchm_geo.verify):
        with pytest.raises(error, match=words) as found:
            look(scene)
        assert "\n" not in str(found.value)
        assert "a.ltchm" in str(found.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.touch(), lambda p: p.write_bytes(b"nothing" * 99)])
def test_no_scenes(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.ltchm"
    make(path)
    with refused(NotAContainerError, r"a\.ltchm", tmp_path):
        decompress_raster(path)


def test_cut_scene(tmp_path: Path) -> None:
    path = write_decodable(tmp_path / "a.ltchm")
    data = path.read_bytes()
    for size in (10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ContainerError, match=r"a\.ltchm"):
            decompress_raster(path)


def test_a_tile_of_a_newer_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = bytes([FORMAT_VERSION + 1]) + TilePayload(TileMode.EMPTY).pack()[1:]
    monkeypatch.setattr("decodable.BROKEN", newer)
    path = write_decodable(tmp_path / "a.ltchm", broken=("g1", TileIndex(0, 0)))
    for allow in (False, True):
        with refused(UnsupportedVersionError, "update", tmp_path):
            decompress_raster(path, allow_damaged=allow)


def test_a_tile_size_the_network_does_not_know(tiny: Path, tmp_path: Path) -> None:
    """Found in a file, it is a damaged tile; asked for, a mistake that is told before anything is written."""
    with pytest.raises(LtchmError, match="multiple of 128"):
        compress_raster(CHIAPAS, tmp_path / "a.ltchm", tile_size=192)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_read_only_folder(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        (folder / "probe").touch()
    except PermissionError:
        with refused(DestinationError, None, tmp_path):
            compress_raster(TOKYO, folder / "a.ltchm")
    else:
        pytest.skip("root may write anywhere")
    finally:
        folder.chmod(0o700)
