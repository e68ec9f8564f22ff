from __future__ import annotations

import shutil
import threading
import time
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasters import (
    CHIAPAS,
    COAST,
    CROPS,
    DRONE,
    FARMLAND,
    SAR,
    TOKYO,
    assert_restored,
    masks_of,
    pixels_of,
    same,
    smooth,
    write_tif,
)

from ltchm_geo import checked, compress, compress_raster, decompress_raster, engine, raster, shard_coder
from ltchm_geo.cli.main import main
from ltchm_geo.container import ContainerReader
from ltchm_geo.errors import DestinationError, DestinationExistsError, UsageError
from ltchm_geo.settings import level_of
from ltchm_geo.tiles import MARGIN

NAN = float("nan")
pytestmark = pytest.mark.usefixtures("tiny")


def there_and_back(source: Path, folder: Path, **options: Any) -> Path:
    scene = compress_raster(source, folder / "scene.ltchm", **options).path
    return decompress_raster(scene, folder / "restored.tif").path


# --- what must survive -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_real_scenes(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    assert_restored(source, there_and_back(source, tmp_path))
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["restored.tif", "scene.ltchm"]


@pytest.mark.parametrize("source", [DRONE, COAST, CHIAPAS], ids=lambda path: path.stem)
def test_tiles_and_shards_do_not_show(source: Path, tmp_path: Path) -> None:
    """Many small shards with cut tiles at the edges; folder and file hold the same."""
    small = {"tile_size": 128, "shard_tiles": 1, "seamless": True}
    restored = there_and_back(source, tmp_path, **small)
    assert_restored(source, restored)
    folder = compress_raster(source, tmp_path / "scene.zarr", **small)
    assert folder.path.is_dir()
    assert folder.bytes == sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file())
    assert same(decompress_raster(folder.path, tmp_path / "again.tif").path, restored)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (300, 1), (128, 256), (129, 255)])
@pytest.mark.parametrize("bands", [1, 2, 5])
def test_any_size(height: int, width: int, bands: int, tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(bands, height, width, "uint16", 100, 4000))
    assert_restored(source, there_and_back(source, tmp_path, tile_size=128, shard_tiles=2))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_raster(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Size, type, nodata and holes at random: everything but valid pixels' values comes back."""
    folder = tmp_path_factory.mktemp("any")
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    height, width, bands = (data.draw(st.integers(1, limit)) for limit in (200, 200, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = smooth(bands, height, width, dtype) + rng.integers(0, 9, (bands, height, width)).astype(dtype)
    nodata = data.draw(st.sampled_from([None, 0, 100, *([NAN, -9999.5, 1e-3] if "float" in dtype else [])]))
    holes = rng.random(pixels.shape) < data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    if nodata is not None:
        pixels[holes] = nodata
    source = write_tif(folder / "a.tif", pixels, nodata=nodata)
    shard = data.draw(st.sampled_from([1, 8]))
    assert_restored(source, there_and_back(source, folder, tile_size=128, shard_tiles=shard))


@pytest.mark.parametrize("nodata", [None, NAN, -9999.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan(dtype: str, nodata: float | None, tmp_path: Path) -> None:
    pixels = smooth(3, 150, 140, dtype, -0.2, 0.9)
    pixels[:, 20:60, 30:50], pixels[1, 100:120] = NAN, NAN
    if nodata == -9999:
        pixels[:, :10] = nodata
    source = write_tif(tmp_path / "a.tif", pixels, nodata=nodata)
    restored = there_and_back(source, tmp_path)
    assert_restored(source, restored)
    np.testing.assert_array_equal(np.isnan(pixels_of(restored)), np.isnan(pixels))
    np.testing.assert_array_equal(pixels_of(restored) == -9999, pixels == -9999)


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_nan_beside_a_mask_is_a_value(kind: str, tmp_path: Path) -> None:
    pixels, valid = smooth(4, 90, 80, "float32", 1, 2), np.ones((90, 80), bool)
    pixels[3], valid[:20] = 1, False
    pixels[:, ~valid] = 0
    pixels[:3, 40:50, 10:20] = NAN
    if kind == "alpha":
        source = write_tif(tmp_path / "a.tif", pixels, ["red", "green", "blue", "alpha"])
    else:
        source = write_tif(tmp_path / "a.tif", pixels[:3], mask=valid)
    restored = there_and_back(source, tmp_path)
    assert_restored(source, restored)
    np.testing.assert_array_equal(np.isnan(pixels_of(restored)), np.isnan(pixels_of(source)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_alpha_is_exact(dtype: str, tmp_path: Path) -> None:
    pixels = smooth(4, 150, 140, dtype)
    pixels[3] = np.minimum(np.arange(150 * 140).reshape(150, 140) % 510, 254)
    source = write_tif(tmp_path / "a.tif", pixels, ["red", "green", "blue", "alpha"])
    restored = there_and_back(source, tmp_path, tile_size=128, shard_tiles=1)
    assert_restored(source, restored)
    np.testing.assert_array_equal(pixels_of(restored)[3], pixels[3])


@pytest.mark.parametrize("nodata", [None, 0])
def test_mask_band(nodata: int | None, tmp_path: Path) -> None:
    valid = np.random.default_rng(0).random((150, 140)) > 0.4
    pixels = smooth(2, 150, 140, "int16", -500, 800)
    source = write_tif(tmp_path / "a.tif", pixels, mask=valid, nodata=nodata)
    restored = there_and_back(source, tmp_path, tile_size=128, shard_tiles=1)
    assert_restored(source, restored)
    np.testing.assert_array_equal(masks_of(restored)[0], valid)


def test_all_masked(tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", np.full((3, 70, 300), -1, np.int16), nodata=-1)
    result = compress_raster(source, tile_size=128, shard_tiles=1, measure=True)
    assert result.tiles["empty"] == 3 == sum(result.tiles.values())
    assert all(np.isnan(result.psnr or ()))
    assert same(decompress_raster(result.path, tmp_path / "b.tif").path, source)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float64"])
def test_outliers_are_exact(dtype: str, tmp_path: Path) -> None:
    pixels = smooth(3, 200, 200, dtype, 100, 900)
    odd = {(0, 3, 5): 32767, (1, 199, 199): 30000, (2, 77, 80): 31000 if dtype == "uint16" else -32768}
    for at, value in odd.items():
        pixels[at] = value
    restored = pixels_of(there_and_back(write_tif(tmp_path / "a.tif", pixels), tmp_path))
    for at, value in odd.items():
        assert restored[at] == value
    assert restored.max() == 32767
    assert np.sort(restored.ravel())[-4] <= 1200


# --- sources and destinations ----------------------------------------------------------------------------------------


def test_default_destination(tmp_path: Path) -> None:
    source = Path(shutil.copy(TOKYO, tmp_path / "tokyo.tif"))
    assert compress_raster(source).path == tmp_path / "tokyo.ltchm"
    with pytest.raises(DestinationExistsError, match="exists"):
        compress_raster(str(source))
    assert compress_raster(source, overwrite=True, quality=1).level == 0
    with pytest.raises(DestinationError, match="source itself"):
        compress_raster(source, tmp_path / "." / "tokyo.tif", overwrite=True)
    assert source.read_bytes() == TOKYO.read_bytes()


def test_a_folder_as_destination(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert compress_raster(TOKYO, tmp_path / "out").path == tmp_path / "out" / "tokyo_l8_u16.ltchm"
    with pytest.raises(DestinationExistsError, match=r"out/tokyo_l8_u16\.ltchm exists"):
        compress_raster(TOKYO, tmp_path / "out")


@pytest.mark.parametrize("name", ["other.tif", "other.PNG", "other.jp2", "other.vrt"])
def test_scenes_are_not_called_rasters(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"somebody's picture")
    with pytest.raises(UsageError, match=r"another kind of file: call it other\.ltchm"):
        compress_raster(TOKYO, tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() == b"somebody's picture"


def test_what_is_no_raster() -> None:
    with pytest.raises(UsageError, match=r"^ndarray is no raster: .*DataArray"):
        compress_raster(np.zeros((3, 64, 64), np.uint8), "a.ltchm")


def test_open_dataset(tmp_path: Path) -> None:
    with rasterio.open(TOKYO) as dataset:
        first = compress_raster(dataset, tmp_path / "a.ltchm", tile_size=128, shard_tiles=1, workers=2)
        assert not dataset.closed
    second = compress_raster(TOKYO, tmp_path / "b.ltchm", tile_size=128, shard_tiles=1)
    assert same(*(decompress_raster(r.path, r.path.with_suffix(".tif")).path for r in (first, second)))


def test_virtual_files(tmp_path: Path) -> None:
    direct = there_and_back(FARMLAND, tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(FARMLAND, "in/farm.tif")
    names = [f"/vsizip/{tmp_path}/a.zip/in/farm.tif", f"zip://{tmp_path}/a.zip!in/farm.tif"]
    with MemoryFile(FARMLAND.read_bytes()) as memory, memory.open() as dataset:
        for source in (*names, memory.name, dataset):
            with pytest.raises(UsageError, match="where to write"):
                compress_raster(source)
            scene = compress_raster(source, tmp_path / "v.ltchm", overwrite=True).path
            assert same(decompress_raster(scene, tmp_path / "v.tif", overwrite=True).path, direct)


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
def test_an_existing_scene_is_replaced_only_when_the_new_one_is_complete(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compress_raster(TOKYO, tmp_path / name, quality=10).path
    with monkeypatch.context() as patch:
        patch.setattr(engine, "load_engine", lambda *_: pytest.fail("told too late"))
        with pytest.raises(DestinationExistsError):
            compress_raster(TOKYO, path)

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for overwrite in (False, True):
        with pytest.raises((DestinationExistsError, KeyboardInterrupt)):
            compress_raster(TOKYO, path, overwrite=overwrite, progress=cancel)
        with ContainerReader(path) as reader:
            assert reader.meta.level == level_of(10, None)
        assert [p.name for p in tmp_path.iterdir()] == [name]


# --- options and result ----------------------------------------------------------------------------------------------


def test_levels() -> None:
    assert [level_of(q, None) for q in (None, 1, 50, 100)] == [55, 0, 55, 112]
    assert [level_of(None, x) for x in (128, 129, 256.0, 16384)] == [0, 0, 16, 112]
    assert len({level_of(q, None) for q in range(1, 101)}) == 100
    for bad in ((0, None), (101, None), (None, 127.9), (None, 2e4), (50, 512.0), (None, NAN), (NAN, None)):
        with pytest.raises(UsageError):
            level_of(*bad)


@pytest.mark.parametrize(
    "options",
    [{"tile_size": 100}, {"tile_size": 0}, {"tile_size": 64}, {"shard_tiles": 0}, {"workers": 0}, {"quality": 0}],
    ids=str,
)
def test_bad_options(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        compress_raster(TOKYO, tmp_path / "a.ltchm", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [DRONE, COAST, SAR, CHIAPAS], ids=lambda path: path.stem)
def test_measured_quality(source: Path, tmp_path: Path) -> None:
    result = compress_raster(source, tmp_path / "a.ltchm", tile_size=128, shard_tiles=1, measure=True)
    with rasterio.open(source) as dataset:
        original, valid = dataset.read(), dataset.read_masks() != 0
    restored = pixels_of(decompress_raster(result.path, tmp_path / "a.tif").path)
    bands = range(3) if source == DRONE else range(len(original))
    assert result.psnr is not None
    assert result.max_error is not None
    assert len(result.psnr) == len(result.max_error) == len(bands)
    for band in bands:
        before, after = (a[band][valid[band]].astype(np.float64) for a in (original, restored))
        peak = 255 if original.dtype == np.uint8 else np.ptp(before)
        mse = np.mean((before - after) ** 2)
        assert result.psnr[band] == pytest.approx(10 * np.log10(peak**2 / mse) if mse else np.inf)
        assert result.max_error[band] == np.abs(before - after).max()


def test_nan_values_do_not_spoil_the_measure(tmp_path: Path) -> None:
    pixels = smooth(1, 90, 90, "float32", 0, 1)
    pixels[0, 5, 5], pixels[0, 6, 6], pixels[0, 0] = NAN, np.inf, -9999
    source = write_tif(tmp_path / "a.tif", pixels, nodata=-9999)
    result = compress_raster(source, measure=True)
    assert result.psnr is not None
    assert np.isfinite(result.psnr[0])
    assert np.isfinite(result.max_error or NAN).all()


def test_result(tmp_path: Path) -> None:
    result = compress_raster(COAST, tmp_path / "a.ltchm", tile_size=128, lambda_=512)
    assert result.bytes == result.path.stat().st_size
    assert result.source_bytes == COAST.stat().st_size
    assert result.raw_bytes == 260 * 300 * 3
    assert result.bpp == pytest.approx(8 * result.bytes / (260 * 300))
    assert result.ratio == pytest.approx(result.raw_bytes / result.bytes)
    assert (result.level, sum(result.tiles.values()), result.psnr) == (32, 9, None)
    assert {"network", "read", "tiles", "write"} <= result.stages.keys()
    assert (result.to_dict()["path"], result.to_dict()["lambda"]) == (str(result.path), 512)


def test_seconds_count_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, options in ((compress, {"measure": True}), (checked, {"verify": True})):
        steps = iter((10.0, 12.0, 17.0))
        with monkeypatch.context() as patched:
            patched.setattr(module, "time", SimpleNamespace(perf_counter=lambda steps=steps: next(steps)))
            expected = 7 if module is compress else 2  # of a scene that is checked, nobody looks in between
            assert compress_raster(TOKYO, tmp_path / "a.ltchm", overwrite=True, **options).seconds == expected


def near_infrared(path: Path, **profile: Any) -> Path:
    """Four bands of a picture, which GDAL calls red, green, blue and alpha unless told otherwise."""
    pixels = smooth(4, 300, 300)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    options = {"driver": "GTiff", "count": 4, "height": 300, "width": 300, "dtype": "uint8", "transform": place}
    with rasterio.open(path, "w", **options, **profile) as dataset:
        dataset.write(pixels)
    return path


def test_a_picture_that_is_called_alpha_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = near_infrared(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match=r"band 4 is marked as alpha.* gdal_translate -colorinterp_4 undefined"):
        assert compress_raster(source).alpha == 4
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["compress", str(source), "--overwrite"]) == 0
    shown = capsys.readouterr()
    assert "alpha  band 4, stored exactly" in shown.out
    assert "ltchm: warning: " in shown.err
    assert "near infrared?" in shown.err
    compress_raster(source, lossless=True, overwrite=True)  # where it makes no difference
    for cured in (near_infrared(tmp_path / "b.tif", photometric="MINISBLACK"), recoloured(source)):
        assert compress_raster(cured, overwrite=True).alpha is None


def recoloured(path: Path) -> Path:
    """As gdal_translate -colorinterp_4 undefined does."""
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], ColorInterp.undefined]
    return path


def test_weights_by_path(tiny: Path, tmp_path: Path) -> None:
    (file,) = tiny.glob("*.safetensors")
    named = compress_raster(TOKYO, tmp_path / "a.ltchm", model=str(file), measure=True)
    assert named.psnr is not None


# --- work in pieces --------------------------------------------------------------------------------------------------


def test_workers_do_not_change_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = shard_coder.ShardCoder.code

    def slowly(self: Any, shard: Any, *rest: Any) -> Any:
        time.sleep(0.3 if shard == (0, 0) else 0)  # so that others are done before the first
        return code(self, shard, *rest)

    monkeypatch.setattr(shard_coder.ShardCoder, "code", slowly)
    paths = [tmp_path / f"{workers}.ltchm" for workers in (1, 3)]
    for path in paths:
        compress_raster(COAST, path, tile_size=128, shard_tiles=1, overviews=(2,), workers=int(path.stem))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = compress_raster(
        FARMLAND, tmp_path / "a.ltchm", tile_size=128, shard_tiles=1, progress=lambda *step: seen.append(step)
    )
    total = sum(result.tiles.values())
    assert (seen[0], seen[-1]) == ((0, total), (total, total))
    assert all(a < b and n == total for (a, n), (b, _) in pairwise(seen))


@pytest.mark.parametrize("name", ["scene.ltchm", "scene.zarr"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_cancelling_leaves_nothing(name: str, error: type[BaseException], tmp_path: Path) -> None:
    calls: list[int] = []

    def cancel(done: int, total: int) -> None:
        calls.append(done)
        if done >= 3:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        compress_raster(COAST, tmp_path / name, tile_size=128, shard_tiles=1, workers=2, progress=cancel)
    time.sleep(0.2)  # a shard still in work must not bring anything back
    assert not list(tmp_path.iterdir())
    assert len(calls) <= 5


def test_memory_is_bounded_by_shards_in_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many shards there are, no more are held than there are workers, and none is larger than asked for."""
    source = write_tif(tmp_path / "a.tif", smooth(1, 128, 128 * 12))
    lock, held, most, reads = threading.Lock(), 0, 0, []
    store, read = shard_coder.ShardCoder.code, raster._RasterSource.read

    def counted(self: Any, *arguments: Any) -> Any:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        try:
            return store(self, *arguments)
        finally:
            with lock:
                held -= 1

    def noted(self: Any, box: Any, bands: Any) -> Any:
        reads.append(box.height * box.width)
        return read(self, box, bands)

    monkeypatch.setattr(shard_coder.ShardCoder, "code", counted)
    monkeypatch.setattr(raster._RasterSource, "read", noted)
    compress_raster(source, tile_size=128, shard_tiles=1, workers=3, overviews=(2, 4))  # which read no pixel again
    assert 1 <= most <= 3
    assert len(reads) == 12
    assert max(reads) == 128 * (128 + 2 * MARGIN)


def test_nodata_that_no_pixel_can_hold_beside_alpha(tiny: Path, tmp_path: Path) -> None:
    pixels, names = smooth(4, 128, 128), ("red", "green", "blue", "alpha")
    pixels[3] = 255
    pixels[3, :40] = 0
    write_tif(tmp_path / "a.tif", pixels, names)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>-9999</NoDataValue>'
        f"<ColorInterp>{name.title()}</ColorInterp><SimpleSource>"
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{n}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for n, name in enumerate(names, start=1)
    )
    virtual = tmp_path / "a.vrt"
    virtual.write_text(f'<VRTDataset rasterXSize="128" rasterYSize="128">{bands}</VRTDataset>')
    compress_raster(virtual, tmp_path / "a.ltchm")
    restored = pixels_of(decompress_raster(tmp_path / "a.ltchm", tmp_path / "b.tif").path)
    np.testing.assert_array_equal(restored[3], pixels[3])
    assert (restored[0, :40] == pixels[0, 0, 0]).all()  # what lay under the hole first
