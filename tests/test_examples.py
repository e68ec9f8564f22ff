"""The examples run, on small inputs and with the tiny network."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import ltchm_geo
from ltchm_geo.engine import load_engine
from ltchm_geo.nn.inference import Lowered
from ltchm_geo.nn.winograd import WinogradConv

EXAMPLES = Path(__file__).parent.parent / "examples"
DATA = Path(__file__).parent / "data"


def example(name: str) -> ModuleType:
    """Import an example by file name."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str | Path) -> str:
    result = CliRunner().invoke(example(name).main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_readmes_table_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and PSNR of the bundled scene with the weights that come with the sources."""
    monkeypatch.delenv("LTCHM_WEIGHTS", raising=False)
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| [\d.]+ \| \*\*([\d.]+) dB\*\*", readme, re.MULTILINE)
    told = {int(quality): (int(size.replace(",", "")), float(psnr)) for quality, size, psnr in rows}
    assert len(told) == 5
    scene = EXAMPLES / "data/farmland_rgbn.tif"
    found = ltchm_geo.compress_raster(scene, tmp_path / "a.ltchm", quality=50, measure=True)
    error = np.mean([10 ** (-psnr / 10) for psnr in found.psnr or ()])
    assert found.bytes == pytest.approx(told[50][0], rel=0.005)
    assert -10 * np.log10(error) == pytest.approx(told[50][1], abs=0.03)


def test_compress(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("01_compress")
    monkeypatch.setattr(module, "SCENE", DATA / "farmland_rgbn_u8_nodata0.tif")
    module.main()
    printed = capsys.readouterr().out
    assert "PSNR per band" in printed
    assert "identical" in printed


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pictures(tiny: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    scene = DATA / "tokyo_l8_u16.tif"
    assert "bpp" in run("02_pictures", scene, picture, "--window", "0", "0", "64", "96")
    with rasterio.open(picture) as found:
        assert found.shape == (64, 3 * 96 + 2 * 8)
        pixels = found.read()
    with rasterio.open(scene) as source:
        red = source.read(1)[:64, :96]
    # The first panel is the stretched original: same order of brightness.
    assert np.corrcoef(pixels[0, :, :96].ravel(), red.ravel())[0, 1] > 0.98


def test_roundtrip_table(tiny: Path) -> None:
    printed = run("03_roundtrip_table", DATA / "drone_rgba.tif", DATA / "sar_s1_float64_db.tif")
    rows = printed.splitlines()[2:]
    assert len(rows) == 2
    assert all(row.count("identical") == 2 for row in rows), printed


def test_large_scene_is_a_mirrored_tiling(tmp_path: Path) -> None:
    module = example("04_large_scene")
    path = tmp_path / "large.tif"
    module.write_mirrored(module.SCENE, path, 1100)
    with rasterio.open(path) as large, rasterio.open(module.SCENE) as scene:
        pixels, original = large.read(), scene.read([1, 2, 3])
    assert pixels.shape == (3, 1100, 1100)
    height, width = original.shape[1:]
    np.testing.assert_array_equal(pixels[:, :height, :width], original)
    np.testing.assert_array_equal(pixels[:, height, :width], original[:, -1])


def test_large_scene_measures(tiny: Path) -> None:
    printed = run("04_large_scene", "--side", "300")
    assert "compress:" in printed
    assert "decompress:" in printed
    assert "peak memory" in printed


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rate_distortion_table(tiny: Path) -> None:
    printed = run("05_rate_distortion", DATA / "tokyo_l8_u16.tif", "--qualities", "50")
    cells = printed.splitlines()[-1].split("|")
    ours, theirs = int(cells[3]), int(cells[6])
    assert theirs == pytest.approx(ours, rel=0.2)
    assert float(cells[7]) > 20  # the reference is a real codec, whatever the random network does


def test_open_in_place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("06_open_in_place")
    monkeypatch.setattr(module, "SCREEN", (24, 32))
    monkeypatch.setattr(module.ContainerReader, "tile_payload", module.ContainerReader.tile_payload)  # put back after
    source = DATA / "farmland_rgbn_u8_nodata0.tif"
    tiles = []
    for overviews in (False, (2,)):
        path = tmp_path / "a.ltchm"
        ltchm_geo.compress_raster(source, path, tile_size=128, overviews=overviews, overwrite=True)
        steps = module.play(str(path), 0)
        assert [step["step"] for step in steps] == ["open", "whole scene"]
        tiles.append(steps[1]["tiles"])
        assert len(module.play(str(path), 1)) == 1 + 1 + len(module.PANS)
    assert tiles[1] < tiles[0]


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_ndvi(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, out = example("08_ndvi_xarray"), tmp_path / "ndvi.tif"
    scene = DATA / "farmland_rgbn_u8_nodata0.tif"
    monkeypatch.setattr(module, "SCENE", scene)
    result = CliRunner().invoke(module.main, [str(out)], catch_exceptions=False)
    with rasterio.open(scene) as source:
        red, _, _, nir = source.read(masked=True).astype("float64")[[0, 1, 2, 3]]
        expected = ((nir - red) / (nir + red)).mean()
        assert f"mean NDVI of the original: {expected:.4f}" in result.output
        with rasterio.open(out) as found:
            assert found.crs == source.crs
            assert found.shape == (source.height // 4, source.width // 4)
            assert found.transform.a == pytest.approx(4 * source.transform.a)
            assert np.nanmax(np.abs(found.read())) <= 1


def test_cluster_costs(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("09_cluster_costs")
    module.requests("memory:///costs/test.ltchm", 512)
    assert "write 4 GET, 1 PUT; open 1 GET; restore 1 GET; a window of 256 x 256 1 GET" in capsys.readouterr().out


@torch.inference_mode()
def test_int8_encoder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("10_int8_encoder")
    monkeypatch.setattr(module, "SIDE", 128)
    engine = load_engine(device="cpu", precision="float32")
    tiles = np.random.default_rng(1).random((2, 3, 128, 128), np.float32)
    made = dict(module.transforms(engine, 40, tiles[:1]))
    bpp, quality = module.coded(engine, made["float32"], 40, tiles[1:])
    stream = engine.encode(tiles[1:], 40)[0]
    assert bpp == 8 * len(stream) / 128**2
    y, _ = engine.decode_latents([stream], 40, 128)
    restored = np.clip(np.rint(engine.synthesise(y, 40) * 255), 0, 255)
    assert quality == pytest.approx(20 * np.log10(255 / np.sqrt(np.mean((restored - np.rint(tiles[1:] * 255)) ** 2))))

    layers = [layer for layer in made["int8"].modules() if isinstance(layer, module.EightBit)]
    assert len(layers) == sum(isinstance(m, Lowered | WinogradConv) for m in made["bfloat16"].modules()) > 5
    layer = layers[0]
    inputs = torch.linspace(layer.low, layer.low + 255 * layer.step, layer.conv.in_channels * 64)
    inputs = inputs.reshape(1, -1, 8, 8)
    rounded = torch.round(inputs / layer.step) * layer.step
    torch.testing.assert_close(layer(inputs), layer.conv(rounded), atol=2 * layer.step, rtol=1e-3)
    assert all(len(torch.unique(row)) <= 255 for row in layer.conv.weight)
    zeros = torch.zeros(1, layer.conv.in_channels, 3, 3)
    torch.testing.assert_close(layer(zeros)[0, :, 1, 1], layer.conv.bias)


def test_latent_bound() -> None:
    """The bound rises with M, and blocks made of eight patterns need eight numbers."""
    printed = run("11_latent_bound", DATA / "farmland_rgbn_u8_nodata0.tif", "--channels", "8,64")
    low, high = (float(cell) for cell in printed.splitlines()[-1].split("|")[2:4])
    assert 15 < low < high < 60
    rng = np.random.default_rng(0)
    rows = rng.random((500, 8)) @ rng.random((8, 768))
    seven, eight = example("11_latent_bound").bounds(rows, [7, 8])
    assert seven < 60
    assert eight == 120


def test_components(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    source = DATA / "chiapas_l7_8band_i16_nodata.tif"
    printed = run("12_components", source, "--qualities", "10,90", "--picture", picture)
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| chiapas")]
    assert [row[2].strip() for row in rows] == ["10", "90"]
    assert "BD-rate of components against bands" in printed
    with rasterio.open(picture) as dataset:
        assert (dataset.count, dataset.height) == (3, 96)
