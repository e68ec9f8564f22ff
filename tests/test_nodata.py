"""Nodata that the user names: rasters whose files do not say which value their empty pixels hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rasters import COAST, masks_of, opened, pixels_of, smooth, write_tif

from ltchm_geo import compress_raster, decompress_raster, estimate_raster, info
from ltchm_geo.archive import compress_many
from ltchm_geo.cli.main import main
from ltchm_geo.errors import UnsupportedRasterError, UsageError
from ltchm_geo.raster import open_source
from ltchm_geo.settings import CompressSettings

pytestmark = pytest.mark.usefixtures("tiny")

COLOURS = ("red", "green", "blue", "alpha")


def collared(dtype: str = "uint8", hole: float = 0) -> np.ndarray:
    """(3, 200, 300) with a slanted border of `hole`."""
    y, x = np.mgrid[:200, :300]
    return np.where(x + y < 160, np.array(hole, dtype), smooth(3, 200, 300, dtype, low=5))


def there_and_back(source: Path, **options: Any) -> Path:
    scene = compress_raster(source, source.with_suffix(".ltchm"), overwrite=True, **options).path
    return decompress_raster(scene, source.with_name("restored.tif"), overwrite=True).path


@pytest.mark.parametrize("aim", [{}, {"max_error": 2}, {"lossless": True}], ids=["lossy", "bounded", "lossless"])
@pytest.mark.parametrize(("dtype", "hole"), [("uint8", 0), ("int16", -999), ("float32", -9999.5)])
def test_holes_come_back_exactly_and_are_declared(dtype: str, hole: float, aim: dict[str, Any], tmp_path: Path) -> None:
    pixels = collared(dtype, hole)
    restored = there_and_back(write_tif(tmp_path / "a.tif", pixels), nodata=hole, **aim)
    with opened(restored) as dataset:
        assert dataset.nodatavals == (hole,) * 3
    assert ((pixels_of(restored) == hole) == (pixels == hole)).all()
    assert (masks_of(restored) == (pixels != hole)).all()


def test_a_scene_is_as_if_the_raster_had_said_so_itself(tmp_path: Path) -> None:
    for name, profile in (("silent", {}), ("telling", {"nodata": 0})):
        (tmp_path / name).mkdir()
        write_tif(tmp_path / name / "a.tif", collared(), **profile)
    named = compress_raster(tmp_path / "silent" / "a.tif", nodata=0, measure=True)
    told = compress_raster(tmp_path / "telling" / "a.tif", measure=True)
    # Not the files' sizes: their descriptions say how large the source was.
    assert info(named.path).sizes["g0"] == info(told.path).sizes["g0"]
    assert (named.psnr, named.max_error) == (told.psnr, told.max_error)
    assert estimate_raster(tmp_path / "silent" / "a.tif", nodata=0).bytes == (
        estimate_raster(tmp_path / "telling" / "a.tif").bytes
    )


def test_named_holes_cost_less(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", collared())
    named, unnamed = (
        compress_raster(path, nodata=nodata, model="ltchm-64-preview9", overwrite=True).bytes for nodata in (0, None)
    )
    assert named < 0.9 * unnamed


def test_it_comes_before_what_the_raster_says(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", collared(hole=7), nodata=200)
    restored = there_and_back(path, nodata=7)
    assert ((pixels_of(restored) == 7) == (collared(hole=7) == 7)).all()


def test_bands_that_differ_agree(tmp_path: Path) -> None:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>{n}</NoDataValue></VRTRasterBand>' for n in (1, 2)
    )
    path = tmp_path / "a.vrt"
    path.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{bands}</VRTDataset>')
    with pytest.raises(UnsupportedRasterError, match="say with --nodata"), open_source(path):
        pass
    with open_source(path, nodata=0) as source:
        assert [band.nodata for band in source.bands] == [0, 0]


def test_alpha_has_none(tmp_path: Path) -> None:
    pixels = np.concatenate([collared(), np.full((1, 200, 300), 255, np.uint8)])
    path = write_tif(tmp_path / "a.tif", pixels, COLOURS)
    with open_source(path, nodata=0) as source:
        assert [band.nodata for band in source.bands] == [0, 0, 0, None]
    assert ((pixels_of(there_and_back(path, nodata=0)) == 0) == (pixels == 0)).all()


@pytest.mark.parametrize("value", [-1, 256, 0.5])
def test_what_no_pixel_can_be_is_refused(value: float, tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", collared())
    with pytest.raises(UsageError, match=r"no pixel of .*a\.tif, which is uint8, can be the nodata value"):
        compress_raster(path, nodata=value)


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "finite number"), ("0", "nodata must be a number")])
def test_what_is_no_number_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompressSettings(nodata=value)


def test_arrays_say_it_themselves(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="_FillValue"):
        compress_raster(xr.DataArray(collared(), dims=("band", "y", "x")), tmp_path / "a.ltchm", nodata=0)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tif(tmp_path / "a.tif", collared(hole=3))
    assert main(["compress", str(path), "--nodata", "3", "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a.ltchm"), "--json"]) == 0
    assert [band["nodata"] for band in json.loads(capsys.readouterr().out)["bands"]] == [3, 3, 3]
    assert main(["estimate", str(path), "--nodata", "3", "-q"]) == 0


def test_in_archives(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_tif(tmp_path / "images" / "a.tif", collared())
    settings = CompressSettings(nodata=0, verify=True, measure=True)
    assert compress_many([tmp_path / "images"], tmp_path / "out", settings).ok
    with opened(decompress_raster(tmp_path / "out" / "a.ltchm", tmp_path / "back.tif").path) as dataset:
        assert dataset.nodatavals == (0, 0, 0)
    assert compress_many([tmp_path / "images"], tmp_path / "out", settings).counts == {"done": 1}


def test_real_imagery_whose_declaration_was_lost(tmp_path: Path) -> None:
    with opened(COAST) as dataset:
        path = write_tif(tmp_path / "a.tif", dataset.read())
    restored = there_and_back(path, nodata=0)
    assert (masks_of(restored) == masks_of(COAST)).all()
