"""Scenes in object stores: written whole or not at all, read in place, faults explained."""

from __future__ import annotations

import filecmp
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import object_server
import pytest
import rasters
import xarray as xr
from object_server import BUCKET, ENVIRONMENT, ObjectServer

import ltchm_geo
from ltchm_geo import _object_client, _object_sink, _object_store, checked
from ltchm_geo.archive import SceneRecord, compress_many, work
from ltchm_geo.archive.journal import Journal
from ltchm_geo.cli.main import main
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import (
    CorruptContainerError,
    DestinationError,
    DestinationExistsError,
    NotAContainerError,
    ObjectStoreError,
    SourceError,
    UsageError,
    VerificationError,
)
from ltchm_geo.location import ObjectUrl, locate
from ltchm_geo.settings import CompressSettings
from ltchm_geo.types import TileIndex

SMALL: dict[str, Any] = {"tile_size": 128, "shard_tiles": 1, "workers": 1, "overviews": (2,)}


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server.serving() as found:
        yield found


@pytest.fixture
def bucket(server: ObjectServer, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> ObjectServer:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.clear()
    return server


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rasters.write_tif(tmp_path_factory.mktemp("source") / "a.tif", rasters.smooth(3, 150, 200))


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
@pytest.mark.parametrize("root", [f"s3://{BUCKET}/some/where", "memory:///some/where"])
def test_round_trip(root: str, name: str, bucket: ObjectServer, source: Path, tmp_path: Path) -> None:
    url = f"{root}/{name}-{tmp_path.name}{Path(name).suffix}"  # memory:// lasts as long as the process
    local = ltchm_geo.compress_raster(source, tmp_path / name, preview=True, **SMALL)
    result = ltchm_geo.compress_raster(source, url, preview=True, **SMALL)
    assert str(result.path) == url
    assert result.bytes == local.bytes
    assert ltchm_geo.info(url).sizes == ltchm_geo.info(local.path).sizes
    assert ltchm_geo.info(url).form == ("file" if name.endswith(".ltchm") else "folder")
    assert ltchm_geo.verify(url, deep=True).problems == ()
    back = [ltchm_geo.decompress_raster(place, tmp_path / f"{n}.tif").path for n, place in enumerate((local.path, url))]
    assert filecmp.cmp(*back, shallow=False)
    with ltchm_geo.open(url) as scene, ltchm_geo.open(local.path) as expected:
        xr.testing.assert_identical(scene, expected)
        assert scene.encoding["source"] == url
    with ltchm_geo.rasterio_open(url) as dataset:
        np.testing.assert_array_equal(dataset.read(), rasters.pixels_of(back[0]))


def test_the_command_line(bucket: ObjectServer, source: Path, tmp_path: Path, capsys: Any) -> None:
    url = f"s3://{BUCKET}/a.ltchm"
    assert main(["compress", str(source), url, "--tile-size", "128", "-q"]) == 0
    for arguments in (["info", url], ["verify", url], ["preview", url, str(tmp_path / "a.png")]):
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "result"
    assert main(["compress", str(source), url, "-q"]) == 2
    assert "exists" in capsys.readouterr().err


def test_engine_by_name_and_pickled_reader(bucket: ObjectServer, source: Path) -> None:
    url = f"s3://{BUCKET}/a.ltchm"
    ltchm_geo.compress_raster(source, url, **SMALL)
    with xr.open_dataset(url) as scene:
        assert scene.sizes == {"band": 3, "y": 150, "x": 200}
    with ContainerReader(url) as reader:
        maker, arguments = reader.__reduce__()
        with maker(*arguments) as again:
            assert again.meta == reader.meta


def test_zarr_s_own_store_reads_it(bucket: ObjectServer, source: Path, tmp_path: Path) -> None:
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    url = f"s3://{BUCKET}/deep/a.zarr"
    ltchm_geo.compress_raster(source, url, **SMALL)
    store = S3Store.from_url(url, client_options={"allow_http": True})
    array = xr.open_zarr(ObjectStore(store, read_only=True), group="0", consolidated=False, chunks=None)["g0"]
    with ltchm_geo.open(url) as scene:
        np.testing.assert_array_equal(array[:, :150, :200], scene.band_data)


def test_file_urls_are_paths(tiny: Path, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "with space.ltchm"
    assert ltchm_geo.compress_raster(source, path.as_uri(), **SMALL).path == path
    assert ltchm_geo.info(path.as_uri()).path == path


def test_few_requests(bucket: ObjectServer, source: Path) -> None:
    """What docs/scaling.md counts with."""
    url = f"s3://{BUCKET}/a.ltchm"
    ltchm_geo.compress_raster(source, url, **SMALL)
    assert bucket.requests["PUT"] == 1
    bucket.requests.clear()
    with ltchm_geo.open(url) as scene:
        scene.band_data.load()
    assert bucket.requests == {"GET": 1}  # the whole scene is smaller than a block


def test_reads_only_the_blocks_it_needs(bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).bytes(100_000)
    bucket.ask("PUT", f"/{BUCKET}/blob", data)
    monkeypatch.setattr(_object_store, "BLOCK", 1000)
    monkeypatch.setattr(_object_store, "_KEPT_BLOCKS", 5)
    client = _object_client.ObjectClient(ObjectUrl(f"s3://{BUCKET}/blob"))
    found = _object_store.RangedObject(client, "blob", _object_store._Blocks())
    bucket.requests.clear()
    pieces = ((0, 900, 0), (950, 100, 1), (1999, 2, 1), (99_990, 50, 1), (100_000, 5, 0), (5, 0, 0))
    for offset, size, requests in pieces:
        before = bucket.requests["GET"]
        assert found.pread(offset, size) == data[offset : offset + size]
        assert bucket.requests["GET"] - before == requests
    rng = np.random.default_rng(2)
    for _ in range(30):
        offset, size = (int(n) for n in rng.integers(0, [100_000, 9000]))
        assert found.pread(offset, size) == data[offset : offset + size]


def test_replaced_while_it_is_read(bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_object_store, "BLOCK", 1000)
    bucket.ask("PUT", f"/{BUCKET}/blob", b"a" * 5000)
    client = _object_client.ObjectClient(ObjectUrl(f"s3://{BUCKET}/blob"))
    found = _object_store.RangedObject(client, "blob", _object_store._Blocks())
    bucket.ask("PUT", f"/{BUCKET}/blob", b"b" * 5000)
    with pytest.raises(ObjectStoreError, match="replaced while it was read"):
        found.pread(2000, 10)


def test_a_replaced_folder_is_never_half_one_and_half_the_other(bucket: ObjectServer, source: Path) -> None:
    url = f"s3://{BUCKET}/a.zarr"
    ltchm_geo.compress_raster(source, url, **SMALL)
    with ContainerReader(url) as before, ContainerReader(url) as during, ContainerReader(url) as unchanged:
        for reader in (before, during, unchanged):
            reader.tile_payload("g0", TileIndex(0, 0))
        unchanged.tile_payload("g0", TileIndex(0, 1))
        manifest = f"/{BUCKET}/a.zarr/ltchm-manifest.json"
        content = bucket.ask("GET", manifest)
        bucket.ask("DELETE", manifest)
        with pytest.raises(ObjectStoreError, match=r"a\.zarr was replaced while it was open"):
            during.tile_payload("g0", TileIndex(0, 1))
        bucket.ask("PUT", manifest, content)
        ltchm_geo.compress_raster(source, url, overwrite=True, quality=90, **SMALL | {"overviews": False})
        for array, tile, level in (("g0", TileIndex(0, 1), 0), ("g0", TileIndex(0, 0), 1)):  # the latter is gone
            with pytest.raises(ObjectStoreError, match="was replaced while it was read"):
                before.tile_payload(array, tile, level)


def test_comparing(bucket: ObjectServer, source: Path, tmp_path: Path) -> None:
    for name in ("a.ltchm", "a.zarr"):
        local, url = tmp_path / name, f"s3://{BUCKET}/{name}"
        for place in (local, url):
            ltchm_geo.compress_raster(source, place, **SMALL)
        found = ltchm_geo.compare_rasters(local, url)
        assert found.same_pixels
        assert found.same_metadata
    with pytest.raises(SourceError, match=r"other\.zarr"):  # none of ours, and none that GDAL knows
        ltchm_geo.compare_rasters(local, f"s3://{BUCKET}/other.zarr")


# --- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_overwriting(name: str, bucket: ObjectServer, source: Path) -> None:
    url = f"s3://{BUCKET}/{name}"
    first = ltchm_geo.compress_raster(source, url, **SMALL)
    with pytest.raises(DestinationExistsError, match="exists"):
        ltchm_geo.compress_raster(source, url, **SMALL)
    assert ltchm_geo.info(url).bytes == first.bytes
    ltchm_geo.compress_raster(source, url, overwrite=True, **SMALL | {"overviews": False})  # fewer objects
    assert ltchm_geo.verify(url).problems == ()
    assert not any(f"{name}/1/" in key for key in bucket.listed())


def test_who_comes_first_wins(bucket: ObjectServer, source: Path) -> None:
    """Another writer finished while we worked."""
    url = f"s3://{BUCKET}/a.ltchm"

    def progress(done: int, total: int) -> None:
        if done == total:
            bucket.ask("PUT", f"/{BUCKET}/a.ltchm", b"theirs")

    with pytest.raises(DestinationExistsError):
        ltchm_geo.compress_raster(source, url, progress=progress, **SMALL)
    client = _object_client.ObjectClient(ObjectUrl(url))
    with pytest.raises(DestinationExistsError):  # and if they do between our look and our upload
        client.put("a.ltchm", source, replace=False)
    assert bucket.ask("GET", f"/{BUCKET}/a.ltchm") == b"theirs"


def test_other_objects_are_never_replaced(bucket: ObjectServer, source: Path) -> None:
    bucket.ask("PUT", f"/{BUCKET}/a.zarr/holiday.jpg", b"picture")
    with pytest.raises(DestinationExistsError, match="other objects"):
        ltchm_geo.compress_raster(source, f"s3://{BUCKET}/a.zarr", overwrite=True, **SMALL)
    assert bucket.listed() == ["a.zarr/holiday.jpg"]


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_a_failed_run_leaves_nothing(
    name: str, bucket: ObjectServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ltchm_geo.compress_raster(source, f"s3://{BUCKET}/{name}", progress=stop, **SMALL)
    assert bucket.listed() == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fails_to_upload_leaves_nothing(
    bucket: ObjectServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bucket.fail = lambda method, path, query: 403 if method == "PUT" and "/c/" in path else None
    with pytest.raises(DestinationError, match=r"cannot write s3://"):
        ltchm_geo.compress_raster(source, f"s3://{BUCKET}/a.zarr", **SMALL)
    assert bucket.listed() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["PUT", "POST"], ids=["uploading", "uploading and clearing up"])
def test_a_folder_that_fails_to_be_replaced_can_be_replaced_again(
    asked: str, bucket: ObjectServer, source: Path
) -> None:
    """Whatever is left of the old scene and the new one, the next run knows it as theirs."""
    url = f"s3://{BUCKET}/a.zarr"
    ltchm_geo.compress_raster(source, url, **SMALL)
    uploads = 0

    def broken(method: str, path: str, query: str) -> int | None:
        nonlocal uploads
        uploads += method == "PUT" and "/c/" in path
        return 403 if uploads > 2 and method in ("PUT", asked, "DELETE")[: 3 if asked == "POST" else 1] else None

    bucket.fail = broken
    with pytest.raises(DestinationError, match=r"cannot write s3://"):
        ltchm_geo.compress_raster(source, url, overwrite=True, **SMALL)
    bucket.fail = lambda method, path, query: None
    ltchm_geo.compress_raster(source, url, overwrite=True, **SMALL)
    assert ltchm_geo.verify(url).problems == ()


def test_the_manifest_comes_last(bucket: ObjectServer, source: Path) -> None:
    seen: list[str] = []
    bucket.fail = lambda method, path, query: seen.append(path) if method == "PUT" else None
    ltchm_geo.compress_raster(source, f"s3://{BUCKET}/a.zarr", **SMALL)
    assert seen[-1].endswith("ltchm-manifest.json")
    bucket.ask("DELETE", f"/{BUCKET}/a.zarr/ltchm-manifest.json")
    with pytest.raises(ltchm_geo.errors.IncompleteContainerError):
        ltchm_geo.info(f"s3://{BUCKET}/a.zarr")


def test_uploads_in_parts(bucket: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is repeated when it fails for a passing reason; when it fails for good, nothing is left."""
    part = 5 << 20  # S3's least
    monkeypatch.setattr(_object_client, "_PART", part)
    data = np.random.default_rng(1).bytes(2 * part + 1000)
    (tmp_path / "a").write_bytes(data)
    client, failed = _object_client.ObjectClient(ObjectUrl(f"s3://{BUCKET}/a")), []

    def once(method: str, path: str, query: str) -> int | None:
        if "partNumber=2" in query and not failed:
            failed.append(query)
            return 503
        return None

    bucket.fail = once
    client.put("a", tmp_path / "a", replace=False)
    assert failed
    assert bucket.ask("GET", f"/{BUCKET}/a") == data
    bucket.fail = lambda method, path, query: 403 if "partNumber=2" in query else None
    with pytest.raises(ObjectStoreError):
        client.put("b", tmp_path / "a", replace=True)
    assert bucket.listed() == ["a"]
    assert bucket.uploads() == 0


# --- scenes that have to be looked at --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_a_target_is_hit_before_anything_is_stored(name: str, bucket: ObjectServer, source: Path) -> None:
    url = f"s3://{BUCKET}/{name}"
    wanted = ltchm_geo.compress_raster(source, url, quality=60, **SMALL).ratio
    with pytest.raises(DestinationExistsError):
        ltchm_geo.compress_raster(source, url, target_ratio=wanted, **SMALL)
    bucket.requests.clear()
    result = ltchm_geo.compress_raster(source, url, target_ratio=wanted, verify=True, overwrite=True, **SMALL)
    assert (str(result.path), result.bytes) == (url, ltchm_geo.info(url).bytes)
    assert result.ratio == pytest.approx(wanted, rel=0.02)
    assert bucket.requests["PUT"] == len(bucket.listed())  # each object once, however many passes it took


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_a_target_that_cannot_be_hit_leaves_what_was_there(name: str, bucket: ObjectServer, source: Path) -> None:
    url = f"s3://{BUCKET}/{name}"
    with pytest.raises(UsageError, match="cannot be reached"):
        ltchm_geo.compress_raster(source, url, target_bpp=1e-4, **SMALL)
    assert bucket.listed() == []
    first = ltchm_geo.compress_raster(source, url, **SMALL)
    bucket.requests.clear()
    with pytest.raises(UsageError, match="cannot be reached"):
        ltchm_geo.compress_raster(source, url, target_bpp=1e-4, overwrite=True, **SMALL)
    assert (bucket.requests["PUT"], ltchm_geo.info(url).bytes) == (0, first.bytes)


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_what_fails_verification_is_removed(
    name: str, bucket: ObjectServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert bucket.listed()
        raise VerificationError("does not read back")

    monkeypatch.setattr(checked, "verify_scene", fail)
    with pytest.raises(VerificationError):
        ltchm_geo.compress_raster(source, f"s3://{BUCKET}/{name}", verify=True, **SMALL)
    assert bucket.listed() == []


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def archive(request: Any, bucket: ObjectServer, source: Path, tmp_path: Path) -> Callable[..., SceneRecord]:
    """Make an archive of one scene in the store, or go on with it."""

    def make(**options: Any) -> SceneRecord:
        settings = CompressSettings(tile_size=128, shard_tiles=1, workers=1, **options.pop("settings", {}))
        folders, journal = {"folders": request.param}, {"journal": tmp_path / "journal.sqlite"}
        chosen = {**folders, **journal, "retry_wait": 0.0, **options}
        (scene,) = compress_many([source], f"s3://{BUCKET}/archive", settings, **chosen).scenes
        return scene

    return make


def touch(source: Path) -> None:
    """Change it, as far as anybody can tell."""
    os.utime(source, (1, source.stat().st_mtime + 1))


def level_of(scene: SceneRecord) -> int:
    return ltchm_geo.info(f"s3://{BUCKET}/archive/{scene.result}").meta.level


def test_an_archive_replaces_its_own_results(archive: Callable[..., SceneRecord], source: Path) -> None:
    first = archive()
    again = archive(settings={"quality": 20}, restart=True)
    assert (first.state, again.state, again.attempts) == ("done", "done", 2)
    assert level_of(again) == CompressSettings(quality=20).level
    touch(source)
    assert archive(settings={"quality": 20}).attempts == 3


def test_an_archive_leaves_other_objects(archive: Callable[..., SceneRecord], bucket: ObjectServer) -> None:
    theirs = ["archive/a.ltchm", "archive/a.zarr/zarr.json"]
    for key in theirs:
        bucket.ask("PUT", f"/{BUCKET}/{key}", b"precious")
    for _ in range(2):
        assert archive().state == "skipped"
        assert bucket.listed() == theirs
        assert {bucket.ask("GET", f"/{BUCKET}/{key}") for key in theirs} == {b"precious"}


@pytest.mark.parametrize("problem", ["verification", "changed"])
def test_an_archive_removes_what_is_no_good(
    problem: str,
    archive: Callable[..., SceneRecord],
    bucket: ObjectServer,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, seen = work.verify_scene, []

    def verify(*args: Any) -> None:
        seen.append(bucket.listed())
        if problem == "changed":
            touch(source)
        elif len(seen) == 1:
            raise VerificationError("does not read back")
        original(*args)

    monkeypatch.setattr(work, "verify_scene", verify)
    scene = archive(settings={"verify": True}, retries=1)
    assert (scene.state, scene.attempts) == ("failed" if problem == "changed" else "done", 2)
    assert len(seen) == 2
    assert bool(bucket.listed()) == (scene.state == "done")


def test_an_archive_knows_what_a_killed_run_left(
    archive: Callable[..., SceneRecord], bucket: ObjectServer, tmp_path: Path
) -> None:
    """Between the upload and the entry in the journal."""
    done = archive()
    if done.result.endswith(".zarr"):  # in the middle of it
        bucket.ask("DELETE", f"/{BUCKET}/archive/{done.result}/ltchm-manifest.json")
    with Journal(tmp_path / "journal.sqlite", "archive") as book:
        book.put([replace(done, state="running", finished=None)])
    again = archive()
    assert (again.state, again.attempts, again.interruptions) == ("done", 2, 1)


# --- what can be wrong -----------------------------------------------------------------------------------------------


def test_what_is_not_there(bucket: ObjectServer, source: Path) -> None:
    for name in ("none.ltchm", "none.zarr"):
        with pytest.raises(NotAContainerError):
            ltchm_geo.info(f"s3://{BUCKET}/{name}")
    with pytest.raises(ObjectStoreError, match="no such bucket"):
        ltchm_geo.info("s3://nowhere/a.ltchm")
    with pytest.raises(DestinationError, match="no such bucket"):
        ltchm_geo.compress_raster(source, "s3://nowhere/a.ltchm", **SMALL)
    for size in (0, 3, 1000):
        bucket.ask("PUT", f"/{BUCKET}/a.ltchm", b"x" * size)
        with pytest.raises(NotAContainerError):
            ltchm_geo.info(f"s3://{BUCKET}/a.ltchm")


def test_cut_short(bucket: ObjectServer, source: Path, tmp_path: Path) -> None:
    data = ltchm_geo.compress_raster(source, tmp_path / "a.ltchm", **SMALL).path.read_bytes()
    bucket.ask("PUT", f"/{BUCKET}/a.ltchm", data[:-100])
    with pytest.raises(CorruptContainerError, match="cut short"):
        ltchm_geo.info(f"s3://{BUCKET}/a.ltchm")


def test_refusals_and_silence(bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is damage, so nothing may be filled with nodata because of it."""
    monkeypatch.setitem(_object_client._RETRY, "max_retries", 1)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")  # another client than those made before
    bucket.ask("PUT", f"/{BUCKET}/a.ltchm", b"x")
    bucket.fail = lambda method, path, query: 403
    with pytest.raises(ObjectStoreError, match="access was denied"):
        ltchm_geo.info(f"s3://{BUCKET}/a.ltchm")
    bucket.fail = lambda method, path, query: None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ObjectStoreError, match="cannot be reached"):
        ltchm_geo.info(f"s3://{BUCKET}/a.ltchm")


@pytest.mark.parametrize("url", ["ftp://host/a.ltchm", "s3://bucket", "s3:///a.ltchm", "https://host/a.ltchm?token=1"])
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(UsageError):
        locate(url)


def test_http_is_read_only(source: Path) -> None:
    with pytest.raises(UsageError, match="can only be read"):
        _object_sink.check_object_destination(ObjectUrl("https://host/a.ltchm"), False)


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    _object_client._connect.cache_clear()
    with pytest.raises(UsageError, match=r"pip install \"\.\[cloud\]\""):
        ltchm_geo.info("s3://bucket/a.ltchm")


# --- a plain web server ----------------------------------------------------------------------------------------------


class _Ranged(SimpleHTTPRequestHandler):
    """Sends parts of files, as web servers for data do."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", self.date_time_string(os.stat(self.translate_path(self.path)).st_mtime))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments: Any) -> None:
        pass


def test_over_http(tiny: Path, source: Path, tmp_path: Path) -> None:
    path = ltchm_geo.compress_raster(source, tmp_path / "a b.ltchm", **SMALL).path
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranged, directory=str(tmp_path))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_port}/a%20b.ltchm"
        assert ltchm_geo.verify(url, deep=True).problems == ()
        assert ltchm_geo.info(url).meta == ltchm_geo.info(path).meta
        web.shutdown()


@pytest.mark.parametrize(("content", "age"), [(b"b" * 5000, 60), (b"a" * 5001, 0)])
def test_replaced_on_a_server_without_tags(
    content: bytes, age: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time have to do."""
    monkeypatch.setattr(_object_store, "BLOCK", 1000)
    blob = tmp_path / "blob"
    blob.write_bytes(b"a" * 5000)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranged, directory=str(tmp_path))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        client = _object_client.ObjectClient(ObjectUrl(f"http://127.0.0.1:{web.server_port}/blob"))
        found = _object_store.RangedObject(client, "blob", _object_store._Blocks())
        assert found.pread(1000, 10) == b"a" * 10
        modified = blob.stat().st_mtime + age
        blob.write_bytes(content)
        os.utime(blob, (modified, modified))
        with pytest.raises(ObjectStoreError, match="replaced while it was read"):
            found.pread(2000, 10)
        web.shutdown()
