from __future__ import annotations

import hashlib
import json
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from scenes import ALPHA, MASK, META, SHAPE, SHARDS, payload, put_all, put_plane, write

from ltchm_geo import _store
from ltchm_geo._json import dumps
from ltchm_geo._store import member_method
from ltchm_geo.container import MANIFEST_KEY, BandGroup, ContainerReader, ContainerWriter, Overview, SceneMeta
from ltchm_geo.errors import (
    ContainerError,
    CorruptContainerError,
    CorruptTileError,
    IncompleteContainerError,
    NotAContainerError,
    UnsupportedVersionError,
    UsageError,
)
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.radiometry import BandMapping
from ltchm_geo.shards import pack_shard
from ltchm_geo.types import PixelBox, Shape2d, TileIndex


@pytest.fixture(params=["scene.ltchm", "scene.zarr"])
def scene(request, tmp_path) -> Path:
    return write(tmp_path / request.param)


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "scene.ltchm")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, content: dict[str, bytes], honest: bool = True) -> Path:
    """Write `content` as a scene file; if there is a manifest, an honest one has it fit."""
    if honest and MANIFEST_KEY in content:
        document = json.loads(content[MANIFEST_KEY])
        for part in ("shards", "files"):
            for key in document[part]:
                data = content.get(key, b"")
                document[part][key] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        content = {**content, MANIFEST_KEY: dumps(document)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data, member_method(name))
    return path


def with_documents(path: Path) -> Path:
    """The single file with documents of its arrays and a manifest, as earlier versions wrote it."""
    content = members(path)
    content |= {key: dumps({"zarr_format": 3, "of": key}) for key in ("0/zarr.json", "0/g0/zarr.json")}
    files = {key for key in content if key.endswith(".json")}
    listed = {"shards": dict.fromkeys(content.keys() - files), "files": dict.fromkeys(files)}
    return pack(path, {**content, MANIFEST_KEY: dumps({"format": 2, "complete": True, **listed})})


@pytest.fixture
def earlier(file) -> Path:
    return with_documents(file)


def pack_document(path: Path, content: dict[str, bytes], key: str, stored: bytes, size: int, crc: int) -> Path:
    """Write `content` with the deflated bytes, size and CRC-32 of one document replaced by the given ones."""
    pack(path, {**content, key: stored}, honest=False)
    with zipfile.ZipFile(path) as archive:
        parts, entries, at = [], [], 0
        for info in archive.infolist():
            data, method = archive.read(info), info.compress_type
            numbers = (zlib.crc32(data), len(data), len(data))
            if info.filename == key:
                numbers = (crc, len(stored), size)
            elif method == zipfile.ZIP_DEFLATED:
                data = deflate(data)
                numbers = (numbers[0], len(data), numbers[2])
            name = info.filename.encode()
            common = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, *numbers, len(name), 0)
            parts.append(b"PK\x03\x04" + common + name + data)
            entries.append(b"PK\x01\x02\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, at) + name)
            at += len(parts[-1])
    directory = b"".join(entries)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(entries), len(entries), len(directory), at, 0)
    path.write_bytes(b"".join(parts) + directory + end)
    return path


def deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(9, wbits=-15)
    return stream.compress(data) + stream.flush()


def edit_json(path: Path, key: str, edit: Callable[[dict], object]) -> Path:
    content = members(path)
    document = json.loads(content[key])
    edit(document if key == MANIFEST_KEY else document["attributes"]["ltchm"])
    return pack(path, {**content, key: json.dumps(document).encode()}, honest=key != MANIFEST_KEY)


# --- what goes in comes out ------------------------------------------------------------------------------------------


def test_round_trip(scene):
    with ContainerReader(scene) as reader:
        assert reader.meta == META
        assert reader.grid == META.grid
        for shard in SHARDS:
            for group in ("g0", "g1"):
                expected = {tile: payload(group, tile) for tile in META.grid.tiles_in_shard(shard)}
                assert reader.shard_payloads(group, shard) == expected
        whole = PixelBox(0, 0, *SHAPE)
        np.testing.assert_array_equal(reader.plane("alpha", whole), ALPHA)
        np.testing.assert_array_equal(reader.plane("mask", whole), MASK)
        assert reader.plane("mask", whole).dtype == bool
        assert reader.verify() == []
    assert sorted(p.name for p in scene.parent.iterdir()) == [scene.name]


@given(st.data())
def test_plane_windows(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "windows.ltchm"
    if not path.exists():
        write(path)
    y0, x0 = data.draw(st.integers(0, SHAPE.y - 1)), data.draw(st.integers(0, SHAPE.x - 1))
    box = PixelBox(y0, x0, data.draw(st.integers(1, SHAPE.y - y0)), data.draw(st.integers(1, SHAPE.x - x0)))
    with ContainerReader(path) as reader:
        np.testing.assert_array_equal(reader.plane("alpha", box), ALPHA[box.slices])


def test_sizes_add_up(scene):
    with ContainerReader(scene) as reader:
        sizes = reader.sizes()
    on_disk = sum(p.stat().st_size for p in [scene, *scene.rglob("*")] if p.is_file())
    assert sizes["total"] == on_disk == sum(size for name, size in sizes.items() if name != "total")
    assert set(sizes) == {"g0", "g1", "alpha", "mask", "metadata", "container", "total"}


def test_same_bytes_every_time(tmp_path):
    assert write(tmp_path / "a.ltchm").read_bytes() == write(tmp_path / "b.ltchm").read_bytes()


def test_file_is_an_ordinary_zip(file):
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "zarr.json"
        assert MANIFEST_KEY not in archive.namelist()
        for info in archive.infolist():
            is_json = info.filename.endswith(".json")
            assert info.compress_type == (zipfile.ZIP_DEFLATED if is_json else zipfile.ZIP_STORED)
            assert info.extra == b""


def test_folder_and_file_hold_the_same_but_for_zarr(tmp_path):
    file, folder = members(write(tmp_path / "a.ltchm")), write(tmp_path / "a.zarr")
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    more = {key for key in found.keys() - file.keys() if not key.startswith(("0/x/", "0/y/", "0/spatial_ref/"))}
    assert more == {MANIFEST_KEY, "0/zarr.json", *(f"0/{array}/zarr.json" for array in META.arrays)}
    assert file.items() <= found.items()


def test_files_of_earlier_versions(earlier):
    with ContainerReader(earlier) as reader:
        assert reader.verify() == []
        assert reader.tile_payload("g0", TileIndex(0, 0)) == payload("g0", TileIndex(0, 0))


def test_overhead_of_a_small_scene(tmp_path):
    infos = tuple(BandInfo("uint16", colorinterp=name) for name in ("red", "green", "blue"))
    georef = Georef(rasterio.CRS.from_epsg(32654).to_wkt(version="WKT2_2019"), (30.0, 0.0, 4e5, 0.0, -30.0, 4e6))
    mapping = tuple(BandMapping(5123.0 + i, 1 / 20123, 5123.0 + i, 25246.0 + i) for i in range(3))
    groups = (BandGroup("g0", (0, 1, 2), mapping, (None,) * 3),)
    meta = SceneMeta(Shape2d(700, 900), "uint16", infos, georef, groups, "ab3d" * 16, "tiny", shard=4)
    chunks = {slot: bytes(1000) for slot in range(12)}
    with ContainerWriter(tmp_path / "a.ltchm", meta) as writer:
        writer.put_shard("g0", TileIndex(0, 0), chunks)
        writer.finish()
    assert (tmp_path / "a.ltchm").stat().st_size - 12 * 1000 < 1500


def test_a_scene_repacked_by_other_tools_still_reads(file):
    content = members(file)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in sorted(content.items()):
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.extra = struct.pack("<HH4s", 0x7777, 4, b"abcd")
            archive.writestr(info, data, member_method(name), compresslevel=1)
    with ContainerReader(file) as reader:
        assert reader.verify() == []


def test_a_tile_costs_one_read(file, monkeypatch):
    reads = []
    original = _store.LocalFile.pread

    def noted(self, offset, size):
        reads.append(size)
        return original(self, offset, size)

    with ContainerReader(file) as reader:
        reader.tile_payload("g0", TileIndex(0, 0))
        monkeypatch.setattr(_store.LocalFile, "pread", noted)
        assert reader.tile_payload("g0", TileIndex(0, 1)) == payload("g0", TileIndex(0, 1))
    assert len(reads) == 1


def test_threads(scene):
    with ContainerReader(scene) as reader, ThreadPoolExecutor(8) as pool:
        tiles = [TileIndex(iy, ix) for iy in range(3) for ix in range(4)] * 20
        found = list(pool.map(lambda tile: reader.tile_payload("g0", tile), tiles))
    assert found == [payload("g0", tile) for tile in tiles]


def test_threads_write(tmp_path):
    path = tmp_path / "scene.ltchm"
    with ContainerWriter(path, META) as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda shard: put_all(writer, [shard]), SHARDS))
        writer.finish()
    with ContainerReader(path) as reader:
        assert reader.verify() == []


def test_reader_travels_between_processes(scene):
    with ContainerReader(scene) as reader, pickle.loads(pickle.dumps(reader)) as copy:
        assert copy.meta == reader.meta


def test_import_and_open_are_light(file):
    code = (
        "import sys; from ltchm_geo.container import ContainerReader; ContainerReader(sys.argv[1]).close();"
        "print(*{'torch', 'numba', 'zarr', 'rasterio'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, file]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""


# --- damage is found, named, and confined ----------------------------------------------------------------------------


def overwrite_in(scene: Path, old: bytes, new: bytes) -> None:
    """Replace bytes wherever they lie in the scene, unnoticed by any file system."""
    hits = 0
    for path in [scene, *scene.rglob("*")]:
        if path.is_file() and old in (data := path.read_bytes()):
            path.write_bytes(data.replace(old, new))
            hits += 1
    assert hits == 1


def test_damaged_tile_is_confined(scene):
    bad = TileIndex(1, 2)
    overwrite_in(scene, b"g0 1 2", b"g0 1 9")
    with ContainerReader(scene) as reader:
        found = reader.shard_payloads("g0", TileIndex(0, 1))
        error = found.pop(bad)
        assert isinstance(error, CorruptTileError)
        assert (error.array, error.tile) == ("g0", (1, 2))
        assert scene.name in str(error)
        assert found == {t: payload("g0", t) for t in META.grid.tiles_in_shard(TileIndex(0, 1)) if t != bad}
        with pytest.raises(CorruptTileError, match=r"tile \(1, 2\) of g0"):
            reader.tile_payload("g0", bad)
        assert [(p.key, p.array, p.tile) for p in reader.verify()] == [("0/g0/c/0/0/1", "g0", bad)]


def test_damaged_shard_index(scene):
    key = "0/g1/c/0/1/0"
    data = members(scene)[key] if scene.is_file() else (scene / key).read_bytes()
    overwrite_in(scene, data, data[:-12] + bytes(12))
    with ContainerReader(scene) as reader:
        found = reader.shard_payloads("g1", TileIndex(1, 0))
        assert all(isinstance(error, CorruptTileError) and "index" in str(error) for error in found.values())
        (problem,) = reader.verify()  # not one for each tile
        assert (problem.key, problem.tile, problem.lost) == (key, None, 2)
        assert "index" in problem.message
        assert reader.tile_payload("g0", TileIndex(2, 0)) == payload("g0", TileIndex(2, 0))


def test_damage_outside_tiles_is_found(tmp_path):
    scene = write(tmp_path / "scene.zarr")
    overwrite_in(scene, b"projection_x_coordinate", b"projection_x_c00rdinate")
    with ContainerReader(scene) as reader:
        assert [p.key for p in reader.verify()] == ["0/x/zarr.json"]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("key", ["zarr.json", "0/g0/zarr.json", MANIFEST_KEY])
def test_any_changed_bit_of_a_document_is_found(file, earlier, key):
    if earlier:
        with_documents(file)
    if key not in members(file):
        return
    data, stored = file.read_bytes(), deflate(members(file)[key])
    at = data.index(stored)
    for position in range(0, len(stored), 11):
        file.write_bytes(data[: at + position] + bytes([data[at + position] ^ 4]) + data[at + position + 1 :])
        if key == "0/g0/zarr.json":
            with ContainerReader(file) as reader:
                assert [p.key for p in reader.verify()] == [key]
        else:
            with pytest.raises(CorruptContainerError, match=key):
                ContainerReader(file)


@pytest.mark.parametrize("earlier", [False, True])
def test_damage_between_tiles_is_found(file, earlier):
    """Where no tile and no index lies, there are still the checksums of whole shards."""
    key, tile = "0/g0/c/0/0/1", TileIndex(0, 2)
    content = members(file)
    content[key] = b"unused" + content[key]
    index = bytearray(content[key][-68:-4])
    for slot in range(4):
        (offset,) = struct.unpack_from("<Q", index, 16 * slot)
        if offset < 2**63:
            struct.pack_into("<Q", index, 16 * slot, offset + 6)
    content[key] = content[key][:-68] + bytes(index) + struct.pack("<I", google_crc32c.value(bytes(index)))
    pack(file, content)
    if earlier:
        with_documents(file)
    with ContainerReader(file) as reader:
        assert reader.verify() == []
    overwrite_in(file, b"unused", b"abused")
    with ContainerReader(file) as reader:
        (problem,) = reader.verify()
        assert (problem.key, problem.tile) == (key, None)
        assert problem.message == (
            "its SHA-256 is not what its manifest says"
            if earlier
            else "its CRC-32 is not what the file's directory says"
        )
        assert reader.tile_payload("g0", tile) == payload("g0", tile)


def test_missing_and_short_files_in_a_folder(tmp_path):
    scene = write(tmp_path / "scene.zarr")
    (scene / "0/g0/c/0/0/0").unlink()
    short = scene / "0/g0/c/0/0/1"
    short.write_bytes(short.read_bytes()[:-1])
    with ContainerReader(scene) as reader:
        for tile in [TileIndex(0, 0), TileIndex(0, 2)]:
            with pytest.raises(CorruptTileError, match="of g0"):
                reader.tile_payload("g0", tile)
        assert reader.tile_payload("g0", TileIndex(2, 2)) == payload("g0", TileIndex(2, 2))
        assert {p.key for p in reader.verify()} == {"0/g0/c/0/0/0", "0/g0/c/0/0/1"}


def test_empty_slot_is_a_missing_tile(file):
    content = members(file)
    content["0/g0/c/0/0/0"] = pack_shard({0: payload("g0", TileIndex(0, 0))}, 4)
    with ContainerReader(pack(file, content)) as reader:
        with pytest.raises(CorruptTileError, match="missing"):
            reader.tile_payload("g0", TileIndex(0, 1))
        assert [p.tile for p in reader.verify()] == [(0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("stored", [b"", b"junk", bytes(100), "bomb", "short", "trailing"])
def test_hostile_plane(file, stored):
    import gzip

    made = {"bomb": bytes(1 << 26), "short": bytes(10), "trailing": bytes(64 * 64)}
    data = gzip.compress(made[stored]) + b"x" * (stored == "trailing") if isinstance(stored, str) else stored
    content = {**members(file), "0/mask/c/0/0": pack_shard(dict.fromkeys(range(4), data), 4)}
    with (
        ContainerReader(pack(file, content)) as reader,
        pytest.raises(CorruptTileError, match=r"\(0, 0\) of mask"),
    ):
        reader.plane("mask", PixelBox(0, 0, 10, 10))


@pytest.mark.parametrize("size", [0, 67])
def test_a_shard_too_small_for_its_index(scene, size):
    """Or a scene of any size could be claimed in a few bytes."""
    key = "0/g0/c/0/0/1"
    if scene.is_file():
        pack(scene, {**members(scene), key: bytes(size)})
    else:
        document = json.loads((scene / MANIFEST_KEY).read_bytes())
        document["shards"][key]["bytes"] = size
        (scene / MANIFEST_KEY).write_bytes(dumps(document))
    with pytest.raises(CorruptContainerError, match=f"{key} has {size} bytes, too few"):
        ContainerReader(scene)


def test_asking_for_what_is_not_there(file):
    with ContainerReader(file) as reader:
        with pytest.raises(UsageError, match="g7"):
            reader.tile_payload("g7", TileIndex(0, 0))
        with pytest.raises(UsageError, match="plane"):
            reader.plane("g0", PixelBox(0, 0, 1, 1))
        with pytest.raises(UsageError, match="inside"):
            reader.plane("mask", PixelBox(0, 0, 151, 1))
        with pytest.raises(IndexError):
            reader.tile_payload("g0", TileIndex(3, 0))


# --- hostile files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"II*\0", b"PK\x05\x06" + bytes(18), b"\x89PNG\r\n\x1a\n" * 20])
def test_not_a_container(tmp_path, content):
    path = tmp_path / "scene.ltchm"
    path.write_bytes(content)
    with pytest.raises(NotAContainerError, match=r"scene\.ltchm"):
        ContainerReader(path)


def test_other_zips_and_folders_are_not_containers(tmp_path):
    with pytest.raises(NotAContainerError):
        ContainerReader(pack(tmp_path / "a.zip", {"a.txt": b"x"}, honest=False))
    with pytest.raises(NotAContainerError):
        ContainerReader(pack(tmp_path / "b.zip", {"zarr.json": b'{"attributes":{}}'}, honest=False))
    with pytest.raises(NotAContainerError):
        ContainerReader(tmp_path)
    with pytest.raises(NotAContainerError, match="no such"):
        ContainerReader(tmp_path / "missing")


@pytest.mark.parametrize("keep", [10, 100, 2000, -1, -22, -1000])
def test_truncated(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptContainerError, match="cut short"):
        ContainerReader(file)


def test_every_truncation_and_many_flips_are_survived(file):
    data = file.read_bytes()
    with ContainerReader(file) as reader:
        meta, payloads = reader.meta, reader.shard_payloads("g0", TileIndex(0, 0))
    random = np.random.default_rng(1)
    for at in random.integers(0, len(data), 300):
        flipped = bytearray(data)
        flipped[at] ^= 1 << random.integers(8)
        for hostile in (data[:at], bytes(flipped)):
            file.write_bytes(hostile)
            try:
                with ContainerReader(file) as reader:
                    reader.verify()
                    found = reader.shard_payloads("g0", TileIndex(0, 0))
            except ContainerError:
                continue
            # A flip where nothing is said, such as the time of a member, or in a tile, which is then missing.
            assert reader.meta == meta
            assert all(isinstance(p, CorruptTileError) or p == payloads[index] for index, p in found.items())
            assert found.keys() == payloads.keys()


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "0/../../evil", "a\\b", "C:evil", ".hidden", "0//x", "x/", "é", "a" * 300, "a" * 99 + "!"],
)
def test_unsafe_member_names(file, name):
    with pytest.raises(CorruptContainerError, match="unsafe"):
        ContainerReader(pack(file, {**members(file), name: b"x"}, honest=False))


def test_duplicate_member(file):
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("zarr.json", b"{}")
    with pytest.raises(CorruptContainerError, match="two members"):
        ContainerReader(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("key", ["zarr.json", "0/g0/zarr.json", "0/g0/c/0/0/0", MANIFEST_KEY])
def test_each_member_has_its_method(earlier, key, method):
    if method == member_method(key):
        return
    content = members(earlier)
    with zipfile.ZipFile(earlier, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data, method if name == key else member_method(name))
    with pytest.raises(CorruptContainerError, match=f"{key} uses ZIP method {method}"):
        ContainerReader(earlier)


def test_local_header_with_another_method(file):
    data = bytearray(file.read_bytes())
    data[8] = 0  # of the first member, zarr.json
    file.write_bytes(data)
    with pytest.raises(CorruptContainerError, match=r"header of zarr\.json"):
        ContainerReader(file)


def test_encrypted_member(file):
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(CorruptContainerError, match="encrypted"):
        ContainerReader(file)


@pytest.mark.parametrize("key", ["zarr.json", MANIFEST_KEY])
@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (lambda data: (deflate(data), len(data), zlib.crc32(data)), None),
        (lambda data: (deflate(data), len(data) - 1, zlib.crc32(data)), "more than"),
        (lambda data: (deflate(data), len(data) + 1, zlib.crc32(data)), "does not hold"),
        (lambda data: (deflate(data), 0, zlib.crc32(data)), "more than"),
        (lambda data: (deflate(data), len(data), zlib.crc32(data) ^ 1), "checksum"),
        (lambda data: (deflate(data) + b"x", len(data), zlib.crc32(data)), "something follows"),
        (lambda data: (deflate(data) + deflate(b""), len(data), zlib.crc32(data)), "something follows"),
        (lambda data: (deflate(data)[:-1], len(data), zlib.crc32(data)), "cut short"),
        (lambda data: (b"", len(data), zlib.crc32(data)), "cut short"),
        (lambda data: (zlib.compress(data), len(data), zlib.crc32(data)), "damaged"),
        (lambda data: (deflate(bytes(1 << 24)), len(data), zlib.crc32(data)), "more than"),
        (lambda data: (deflate(data), 2**27, zlib.crc32(data)), "allowed"),
    ],
)
def test_hostile_document(file, key, hostile, message):
    content = members(with_documents(file) if key == MANIFEST_KEY else file)
    pack_document(file, content, key, *hostile(content[key]))
    if message is None:
        ContainerReader(file).close()
        return
    with pytest.raises(CorruptContainerError, match=f"{key}.*{message}"):
        ContainerReader(file)


def test_document_that_takes_more_in_the_file_than_inflated(file, monkeypatch):
    monkeypatch.setattr(_store, "_MAX_DOCUMENT", 1 << 16)
    pack_document(file, members(file), "zarr.json", bytes(1 << 17), 1000, 0)
    with pytest.raises(CorruptContainerError, match="allowed"):
        ContainerReader(file)


def test_a_bomb_takes_no_memory(file):
    content = members(file)
    pack_document(file, content, "zarr.json", deflate(bytes(1 << 24)), 1000, 0)
    tracemalloc.start()
    with pytest.raises(CorruptContainerError, match="more than"):
        ContainerReader(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 21


def test_extra_and_missing_members(file):
    content = members(file)
    without = {name: data for name, data in content.items() if name != "0/g0/c/0/0/0"}
    for hostile in ({**content, "extra": b"x"}, {**content, MANIFEST_KEY + ".json": b"{}"}, without):
        with pytest.raises(CorruptContainerError, match="directory does not list exactly the shards"):
            ContainerReader(pack(file, hostile))


def test_extra_and_missing_members_of_earlier_versions(earlier):
    content = members(earlier)
    with pytest.raises(CorruptContainerError, match="members"):
        ContainerReader(pack(earlier, {**content, "extra": b"x"}))
    without = {name: data for name, data in content.items() if name != "0/g0/c/0/0/0"}
    with pytest.raises(CorruptContainerError, match="members"):
        ContainerReader(pack(earlier, without))


def test_directory_entry_that_claims_more_than_the_file_has(file):
    data = bytearray(file.read_bytes())
    at = data.rindex(b"0/mask/c/1/1") - 46
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    file.write_bytes(data)
    with pytest.raises(CorruptContainerError, match="outside"):
        ContainerReader(file)


def test_overlapping_members(file):
    data = bytearray(file.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    file.write_bytes(data)
    with pytest.raises(CorruptContainerError, match="overlaps"):
        ContainerReader(file)


def test_huge_directory(file, monkeypatch):
    monkeypatch.setattr(_store, "_MAX_DIRECTORY", 100)
    with pytest.raises(CorruptContainerError, match="directory"):
        ContainerReader(file)


@pytest.mark.parametrize("key", ["zarr.json", "0/zarr.json"])
def test_huge_json(earlier, key):
    large = members(earlier)[key] + b" " * (1 << 24)
    with pytest.raises(CorruptContainerError, match=f"{key} has .* allowed"):
        ContainerReader(pack(earlier, {**members(earlier), key: large}))


@pytest.mark.parametrize(
    "text", [b"[" * 200_000, b"{}", b'{"a":1,"a":2}', b"\xff", b"null", b'{"format":' + b"9" * 9999 + b"}"]
)
@pytest.mark.parametrize("key", ["zarr.json", MANIFEST_KEY])
def test_hostile_json(file, key, text):
    with pytest.raises(CorruptContainerError):
        ContainerReader(pack(file, {**members(file), key: text}, honest=False))


def test_newer_versions(file):
    with pytest.raises(UnsupportedVersionError, match=r"scene\.ltchm.*update"):
        ContainerReader(edit_json(file, "zarr.json", lambda scene: scene.update(format=5, unknown=2)))


def test_newer_manifest(earlier):
    with pytest.raises(UnsupportedVersionError, match="update"):
        ContainerReader(edit_json(earlier, MANIFEST_KEY, lambda manifest: manifest.update(format=7)))


@pytest.mark.parametrize("shape", [[10**9, 10**9], [2**20, 10**6], [151, 2200]])
def test_huge_declared_shape(file, shape):
    with pytest.raises(CorruptContainerError):
        ContainerReader(edit_json(file, "zarr.json", lambda scene: scene.update(shape=shape)))


def test_levels_that_are_not_there(file):
    overview = {"factor": 2, "level": 0}
    with pytest.raises(CorruptContainerError, match="exactly the shards"):
        ContainerReader(edit_json(file, "zarr.json", lambda scene: scene.update(overviews=[overview])))


def test_a_shard_of_a_level_is_missing(tmp_path):
    meta = replace(META, overviews=(Overview(2, 0),))
    with ContainerWriter(tmp_path / "a.ltchm", meta) as writer:
        put_all(writer)
        with pytest.raises(UsageError, match="4 of 20 shards"):
            writer.finish()
    assert not list(tmp_path.iterdir())


def test_levels_keep_to_themselves(tmp_path):
    """The same place in two levels is two tiles; each level has its own grid."""
    meta = replace(META, overviews=(Overview(2, 0),))
    grid, first = meta.pyramid_grid(1), TileIndex(0, 0)
    with ContainerWriter(tmp_path / "a.ltchm", meta) as writer:
        put_all(writer)
        for group in ("g0", "g1"):
            chunks = {grid.slot(tile): payload("overview", tile) for tile in grid.tiles_in_shard(first)}
            writer.put_shard(group, first, chunks, 1)
        put_plane(writer, "mask", first, MASK[::2, ::2], 1)
        put_plane(writer, "alpha", first, ALPHA[::2, ::2], 1)
        with pytest.raises(IndexError):
            writer.put_shard("g0", TileIndex(0, 1), chunks, 1)
        writer.finish()
    with ContainerReader(tmp_path / "a.ltchm") as reader:
        assert reader.grids == (META.grid, grid)
        assert reader.tile_payload("g0", TileIndex(1, 1)) == payload("g0", TileIndex(1, 1))
        assert reader.tile_payload("g0", TileIndex(1, 1), 1) == payload("overview", TileIndex(1, 1))
        whole = PixelBox(0, 0, 75, 110)
        np.testing.assert_array_equal(reader.plane("alpha", whole, 1), ALPHA[::2, ::2])
        np.testing.assert_array_equal(reader.plane("mask", whole, 1), MASK[::2, ::2])
        with pytest.raises(UsageError, match="not inside"):
            reader.plane("mask", PixelBox(0, 0, 76, 1), 1)
        assert reader.verify() == []
        assert reader.pyramid_size(1) == reader.sizes()["overviews"]


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda m: m.update(complete=False), IncompleteContainerError),
        (lambda m: m.update(complete=1), IncompleteContainerError),
        (lambda m: m.update(more=1), CorruptContainerError),
        (lambda m: m.update(shards=[]), CorruptContainerError),
        (lambda m: m["shards"].popitem(), CorruptContainerError),
        (lambda m: m["files"].pop("zarr.json"), CorruptContainerError),
        (lambda m: m["files"].update({"../../etc/passwd": m["files"]["zarr.json"]}), CorruptContainerError),
        (lambda m: m["files"]["zarr.json"].update(sha256="0" * 64), CorruptContainerError),
        (lambda m: m["shards"]["0/g0/c/0/0/0"].update(bytes=5), CorruptContainerError),
        (lambda m: m["shards"]["0/g0/c/0/0/0"].update(bytes=2**60), CorruptContainerError),
        (lambda m: m["shards"]["0/g0/c/0/0/0"].update(sha256=5), CorruptContainerError),
    ],
)
def test_hostile_manifest(earlier, edit, error):
    with pytest.raises(error, match=r"scene\.ltchm"):
        ContainerReader(edit_json(earlier, MANIFEST_KEY, edit))
