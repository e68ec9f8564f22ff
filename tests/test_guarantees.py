"""Scenes that promise something about their pixels, from raster to raster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import ColorInterp
from rasters import CHIAPAS, COAST, CROPS, DRONE, SAR, TOKYO, assert_restored, opened, pixels_of, smooth, write_tif

from ltchm_geo import checked, compress_raster, decompress_raster, guaranteed, info
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.cli.main import cli
from ltchm_geo.engine import load_engine
from ltchm_geo.errors import CorruptContainerError, UnsupportedRasterError, UsageError, VerificationError
from ltchm_geo.georef_rasterio import read_bands
from ltchm_geo.guarantee import Guarantee
from ltchm_geo.overviews import most_frequent
from ltchm_geo.radiometry import BandMapping
from ltchm_geo.scene_meta import SceneMeta
from ltchm_geo.settings import CompressSettings
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import check_latents, decode_tiles
from ltchm_geo.tile_encoder import encode_tiles
from ltchm_geo.tiles import CutTile
from ltchm_geo.types import EXACT_DTYPES


def there_and_back(source: Path, folder: Path, **options: Any) -> Path:
    scene = compress_raster(source, folder / "scene.ltchm", **options).path
    return decompress_raster(scene, folder / "restored.tif").path


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may need a network."""
    monkeypatch.setattr("ltchm_geo.engine.load_engine", lambda *_: pytest.fail("a network was loaded"))


# --- lossless --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("source", CROPS, ids=lambda path: path.stem)
def test_lossless_real_scenes(source: Path, tmp_path: Path) -> None:
    restored = there_and_back(source, tmp_path, lossless=True, tile_size=128, shard_tiles=1)
    assert pixels_of(restored).tobytes() == pixels_of(source).tobytes()
    assert_restored(source, restored)
    found = info(tmp_path / "scene.ltchm")
    assert found.meta.guarantee == Guarantee((0.0,) * len(found.meta.bands))
    assert found.meta.weights is None
    assert found.bytes < source.stat().st_size


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_lossless_any_type(dtype: str, tmp_path: Path) -> None:
    pixels = smooth(2, 150, 90, dtype, 3, 100)
    kind: Any = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    pixels[0, 3, 4:6] = kind.min, kind.max
    if np.dtype(dtype).kind == "f":
        pixels[1, 7, :3] = np.nan, np.inf, -0.0
    source = write_tif(tmp_path / "a.tif", pixels)
    restored = pixels_of(there_and_back(source, tmp_path, lossless=True, verify=True, overviews=(2,)))
    assert restored.tobytes() == pixels.tobytes()


@pytest.mark.usefixtures("no_weights")
def test_lossless_keeps_what_lies_under_a_mask(tmp_path: Path) -> None:
    pixels, valid = smooth(3, 90, 80), np.ones((90, 80), bool)
    valid[:40] = False
    source = write_tif(tmp_path / "a.tif", pixels, mask=valid)
    restored = there_and_back(source, tmp_path, lossless=True, verify=True)
    assert_restored(source, restored)
    assert pixels_of(restored).tobytes() == pixels.tobytes()


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A paletted raster of five classes with names."""
    pixels = np.repeat(np.repeat(np.random.default_rng(3).integers(0, 5, (1, 30, 40)), 9, 1), 7, 2).astype(np.uint8)
    path = write_tif(tmp_path / "classes.tif", pixels, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 2 * value, 9, 255) for value in range(5)})
    names = "".join(f"<Category>class {value}</Category>" for value in range(5))
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    path.with_name("classes.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    return path


@pytest.mark.usefixtures("no_weights")
def test_classes_with_their_colours_and_names(classes: Path, tmp_path: Path) -> None:
    restored = there_and_back(classes, tmp_path, lossless=True, overviews=(2, 4))
    with opened(classes) as before, opened(restored) as after:
        assert after.read().tobytes() == before.read().tobytes()
        assert after.colorinterp == (ColorInterp.palette,)
        assert after.colormap(1) == before.colormap(1)
        assert read_bands(after) == read_bands(before)
        assert read_bands(after)[0].categories == tuple(f"class {value}" for value in range(5))
    overview = decompress_raster(tmp_path / "scene.ltchm", tmp_path / "small.tif", level=2).path
    assert set(np.unique(pixels_of(overview))) <= set(range(5))
    assert info(tmp_path / "scene.ltchm").meta.guarantee == Guarantee((0.0,), classes=True)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("dtype", "band"), [("int16", 1), ("uint8", 2)])
def test_colours_that_no_tiff_holds(dtype: str, band: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Those of the first band come back in a side-car file; of others GDAL would read none."""
    source = write_tif(tmp_path / "a.tif", np.arange(600, dtype=dtype).reshape(1, 20, 30).repeat(band, 0) % 5)
    entries = "".join(f'<Entry c1="{value}" c2="7" c3="9" c4="255"/>' for value in range(5))
    table = f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>"
    document = f'<PAMDataset><PAMRasterBand band="{band}">{table}</PAMRasterBand></PAMDataset>'
    source.with_name("a.tif.aux.xml").write_text(document)
    restored = there_and_back(source, tmp_path, lossless=True)
    with opened(source) as before, opened(restored) as after:
        assert after.colorinterp == before.colorinterp
        assert after.colorinterp[band - 1] == ColorInterp.palette
        assert band > 1 or after.colormap(band) == before.colormap(band)
        np.testing.assert_array_equal(after.read(), before.read())
    assert "ERROR" not in capfd.readouterr().err


def test_classes_that_have_names_alone(classes: Path, tmp_path: Path) -> None:
    """No palette: the names say that a mean of pixels means nothing."""
    source = write_tif(tmp_path / "names.tif", pixels_of(classes))
    shutil.copy(f"{classes}.aux.xml", f"{source}.aux.xml")
    there_and_back(source, tmp_path, lossless=True, overviews=(4,))
    overview = decompress_raster(tmp_path / "scene.ltchm", tmp_path / "small.tif", level=1).path
    found = pixels_of(overview)[0, :4, :4]
    blocks = pixels_of(source)[0, :16, :16].reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(4, 4, 16)
    assert found.tolist() == [[np.bincount(block).argmax() for block in row] for row in blocks]
    assert info(tmp_path / "scene.ltchm").meta.guarantee == Guarantee((0.0,), classes=True)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("options", [{}, {"max_error": 1}, {"target_bpp": 1}])
def test_classes_are_not_coded_otherwise(options: dict[str, Any], classes: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRasterError, match="--lossless"):
        compress_raster(classes, tmp_path / "a.ltchm", **options)
    compress_raster(classes, tmp_path / "a.ltchm", max_error=0)


def test_other_integers_need_a_guarantee(tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(1, 70, 70, "int32", -80_000, 90_000))
    with pytest.raises(UnsupportedRasterError, match="--lossless"):
        compress_raster(source)
    restored = there_and_back(source, tmp_path, max_error=10)
    assert np.abs(pixels_of(restored).astype(float) - pixels_of(source)).max() <= 10


def test_most_frequent() -> None:
    pixels = np.array([[[1, 1, 5, 6], [2, 1, 9, 9]]], np.uint8)
    valid = np.ones(pixels.shape, bool)
    assert most_frequent(pixels, valid, 2, (0,), (0,)).tolist() == [[[1, 9]]]
    valid[0, :, 2:] = False
    assert most_frequent(pixels, valid, 2, (0,), (0,)).tolist() == [[[1, 0]]]
    valid[0, 0, 2] = True
    assert most_frequent(pixels, valid, 4, (0,), (0,)).tolist() == [[[1]]]
    assert most_frequent(pixels[..., :3], valid[..., :3], 2, (0,), (0,)).tolist() == [[[1, 5]]]


def test_lossless_does_not_load_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys; from ltchm_geo import compress_raster, decompress_raster\n"
        f"compress_raster({str(TOKYO)!r}, {str(tmp_path / 'a.ltchm')!r}, lossless=True)\n"
        f"decompress_raster({str(tmp_path / 'a.ltchm')!r}, {str(tmp_path / 'a.tif')!r})\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("source", "bound"),
    [(TOKYO, 1), (TOKYO, 16), (CHIAPAS, 4), (COAST, 4), (DRONE, 2.5), (SAR, 0.5)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_bounds_hold(source: Path, bound: float, tmp_path: Path) -> None:
    exact = compress_raster(source, tmp_path / "exact.ltchm", lossless=True)
    result = compress_raster(source, tmp_path / "scene.ltchm", max_error=bound, measure=True, verify=True)
    assert result.max_error is not None
    assert 0 < max(result.max_error) <= bound
    assert result.bytes < exact.bytes
    assert_restored(source, decompress_raster(result.path, tmp_path / "restored.tif").path)


@pytest.mark.usefixtures("no_weights")
def test_a_bound_for_each_band(tmp_path: Path) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(4, 100, 90, "uint16", 100, 9000))
    result = compress_raster(source, tmp_path / "a.ltchm", max_error=[0, 3, 0, 10], measure=True)
    assert result.max_error == (0, 3, 0, 10)
    with pytest.raises(UsageError, match="2 numbers for 4 bands"):
        compress_raster(source, tmp_path / "b.ltchm", max_error=[1, 2])


@pytest.mark.usefixtures("no_weights")
def test_an_exact_band_leaves_the_others_their_bound(tmp_path: Path) -> None:
    """A tile of floats is exact or within a bound: bands of both kinds are not coded together."""
    noise = np.random.default_rng(2).normal(0, 3, (4, 200, 200))
    source = write_tif(tmp_path / "a.tif", (smooth(4, 200, 200, "float64") + noise).astype("float32"))
    exact, mixed = (
        compress_raster(source, tmp_path / f"{number}.ltchm", max_error=bounds, measure=True)
        for number, bounds in enumerate([0, (0, 0.5, 0.5, 0)])
    )
    assert [group.bands for group in info(mixed.path).meta.groups] == [(0,), (1, 2), (3,)]
    assert mixed.max_error is not None
    assert [0 < error <= 0.5 for error in mixed.max_error] == [False, True, True, False]
    assert mixed.bytes < 0.75 * exact.bytes
    decompress_raster(mixed.path, tmp_path / "b.tif")
    assert np.abs(pixels_of(tmp_path / "b.tif") - pixels_of(source)).max() <= 0.5


def coding(bound: float) -> GroupCoding:
    return GroupCoding(
        np.dtype("uint16"), (BandMapping.between(0, 1000),) * 3, (None,) * 3, (None,) * 3, max_error=(bound,) * 3
    )


@pytest.mark.usefixtures("tiny")
def test_latents_with_a_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken where prediction alone is larger; then the bound holds, and a wrong stream is noticed."""
    pixels = smooth(3, 128, 128, "uint16", 100, 900)
    pixels[:, 100:] = 37
    tile, engine = CutTile(pixels, np.ones(pixels.shape, bool)), load_engine(device="cpu")
    monkeypatch.setattr(
        guaranteed, "_predicted", lambda *_: TilePayload(TileMode.PREDICTED, body=bytes(10 * pixels.nbytes))
    )
    (data,) = encode_tiles([tile], coding(8), engine, 60)
    payload = TilePayload.unpack(data)
    assert (payload.mode, payload.level) == (TileMode.CORRECTED, 60)
    (decoded,) = decode_tiles([data], coding(8), engine, 128)
    assert np.abs(decoded.astype(int) - pixels).max() <= 8
    stream = bytearray(payload.stream)
    stream[20] ^= 1
    wrong = TilePayload(TileMode.CORRECTED, 60, body=payload.corrected_body(bytes(stream), payload.correction)).pack()
    sound, damaged = check_latents([data, wrong], coding(8), engine, 128)
    assert sound is None
    assert damaged is not None


@pytest.mark.parametrize(
    "found", [{"max_error": [1]}, {"max_error": [-1], "classes": False}, {"max_error": [1], "classes": 1}, 7]
)
def test_hostile_guarantees(found: Any, tmp_path: Path) -> None:
    compress_raster(TOKYO, tmp_path / "a.ltchm", lossless=True)
    meta = info(tmp_path / "a.ltchm").meta.to_dict()
    assert SceneMeta.from_dict(meta).guarantee == Guarantee((0.0,) * 3)
    with pytest.raises(CorruptContainerError):
        SceneMeta.from_dict(meta | {"guarantee": found})
    with pytest.raises(CorruptContainerError, match="one number for each band"):
        SceneMeta.from_dict(meta | {"guarantee": {"max_error": [1], "classes": False}})


# --- settings, verification ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50, "lossless": True},
        {"lossless": True, "max_error": 1},
        {"target_bpp": 1, "target_ratio": 5},
        {"max_error": -1},
        {"max_error": ()},
        {"max_error": float("nan")},
        {"max_error": 0, "quality": 30},
        {"max_error": 0.0, "lossless": True},
        {"target_psnr": 0},
        {"target_ratio": float("inf")},
        {"quality": "50"},
        {"lambda_": "high"},
        {"max_error": "1"},
        {"max_error": (1, None, "x")},
        {"overviews": 4},
        {"overviews": (3,)},
        {"overviews": (4, 2)},
        {"overviews": ("a",)},
        {"overviews": (2.7,)},
        {"overviews": True},
        {"overview_quality": [30]},
        {"overview_quality": 30, "overviews": False},
        {"overview_quality": 30, "lossless": True},
        {"overview_quality": 30, "max_error": 1},
        {"seamless": True, "lossless": True},
        {"seamless": True, "max_error": 1},
        {"seamless": "no"},
        {"model": "x", "lossless": True},
        {"model": "x", "max_error": 0},
        {"lossless": 1},
        {"verify": None},
        {"decorrelate": None},
        {"tile_size": 100},
        {"tile_size": 2048},
        {"tile_size": None},
        {"tile_size": 256.0},
        {"shard_tiles": 0},
        {"shard_tiles": 65},
        {"workers": 0},
        {"workers": 100},
        {"workers": True},
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CompressSettings(**options)


def test_settings_take_arrays() -> None:
    settings = CompressSettings(max_error=np.array([1, 2.5]), overviews=np.array([2, 4]))
    assert (settings.max_error, settings.overviews) == ((1, 2.5), (2, 4))
    CompressSettings(lossless=True, seamless=False, overviews=(), tile_size=np.int64(128), preview=np.True_)
    assert CompressSettings(quality=np.int64(30)).to_dict() == CompressSettings(quality=30).to_dict()
    assert type(CompressSettings(quality=np.int64(30)).quality) is int


def test_settings_survive_json() -> None:
    settings = CompressSettings(max_error=[1, 2.5], overviews=(2, 4), verify=True)
    assert CompressSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(UsageError, match="unknown settings: colour"):
        CompressSettings.from_dict({"colour": 1})


@pytest.mark.parametrize("name", ["a.ltchm", "a.zarr"])
def test_what_fails_verification_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tif(tmp_path / "a.tif", smooth(1, 90, 80))
    kept = compress_raster(source, tmp_path / name, lossless=True, verify=True).path
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(checked, "same_bits", lambda one, other: np.zeros(one.shape, bool))
    with pytest.raises(VerificationError, match="band 1, row 0, column 0 decodes to"):
        compress_raster(source, kept, lossless=True, verify=True, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert pixels_of(decompress_raster(kept, tmp_path / "b.tif").path).tobytes() == pixels_of(source).tobytes()
    monkeypatch.undo()
    compress_raster(source, kept, lossless=True, verify=True, overwrite=True)
    assert sorted(tmp_path.glob("*a.*")) == [p for p in before if p.parent == tmp_path]


def test_on_the_command_line(classes: Path, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(cli, ["compress", str(classes), str(tmp_path / "a.ltchm"), "--lossless", "--verify"])
    assert done.exit_code == 0, done.output
    assert "every pixel exact" in run.invoke(cli, ["info", str(tmp_path / "a.ltchm")]).output
    source = write_tif(tmp_path / "b.tif", smooth(2, 90, 80, "float32"))
    assert run.invoke(cli, ["compress", str(source), "--max-error", "0.5,0.25"]).exit_code == 0
    assert "0.5, 0.25 (by band)" in run.invoke(cli, ["info", str(source.with_suffix(".ltchm"))]).output
    for wrong in (["--max-error", "much"], ["--max-error", "1", "--lossless"], ["--target-bpp", "0"]):
        assert run.invoke(cli, ["compress", str(source), str(tmp_path / "c.ltchm"), *wrong]).exit_code == 2
