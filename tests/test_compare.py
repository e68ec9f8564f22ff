from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from decodable import DECODABLE, pixels, write_decodable
from rasterio.control import GroundControlPoint
from scenes import MASK

from ltchm_geo import compare
from ltchm_geo.compare import Comparison, compare_rasters
from ltchm_geo.errors import SourceError
from ltchm_geo.georef import BandInfo, Georef
from ltchm_geo.georef_rasterio import quiet_open
from ltchm_geo.geotiff import create_geotiff
from ltchm_geo.metadata_compare import metadata_differences
from ltchm_geo.metrics import psnr, spectral_angle
from ltchm_geo.types import PixelBox, Shape2d

DATA = Path(__file__).parent / "data"
PIXELS = (np.arange(3 * 40 * 50) * 7 % 200 + 20).astype(np.uint8).reshape(3, 40, 50)
BASE: dict[str, Any] = {
    "driver": "GTiff",
    "crs": "EPSG:32633",
    "transform": Affine(10, 0, 5e5, 0, -10, 4e6),
    "photometric": "RGB",
}


def make(path: Path, pixels: np.ndarray = PIXELS, **profile: Any) -> Path:
    count, height, width = pixels.shape
    described = {**BASE, "count": count, "height": height, "width": width, "dtype": pixels.dtype.name, **profile}
    with quiet_open(path, "w", **described) as dataset:
        dataset.write(pixels)
    return path


def changed_fields(found: Comparison) -> list[str]:
    return [difference.field for difference in found.metadata]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.tif")), ids=lambda path: path.stem)
def test_a_scene_equals_itself(path: Path) -> None:
    found = compare_rasters(path, path)
    assert found.same_size
    assert found.same_metadata
    assert found.same_validity
    assert found.same_pixels
    assert found.psnr == math.inf


def test_errors_are_those_of_the_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, PIXELS.shape)
    noise[1] = 0
    test = (PIXELS + noise).astype(np.uint8)
    found = compare_rasters(make(tmp_path / "a.tif"), make(tmp_path / "b.tif", test))
    assert [band.name for band in found.bands] == ["red", "green", "blue"]
    assert found.bands[0].mse == pytest.approx((noise[0] ** 2).mean())
    assert found.bands[0].mean_error == pytest.approx(noise[0].mean())
    assert (found.bands[0].max_error, found.bands[1].max_error) == (3, 0)
    assert found.bands[1].psnr == math.inf
    assert found.psnr == pytest.approx(psnr(PIXELS, test, 255))
    assert found.same_validity
    assert found.same_metadata
    assert not found.same_pixels
    assert "161" in found.notes[0]


def test_only_pixels_valid_in_both_count(tmp_path: Path) -> None:
    reference, test = PIXELS.astype(np.int16) * 10, PIXELS.astype(np.int16) * 10 + 4
    reference[:, 0, :5] = -9999
    test[:, 0, :3] = -9999
    paths = [make(tmp_path / f"{i}.tif", p, nodata=-9999) for i, p in enumerate((reference, test))]
    found = compare_rasters(*paths)
    assert found.validity_changed == 2
    assert not found.same_validity
    assert found.bands[0].count == 40 * 50 - 5
    assert found.bands[0].max_error == 4
    assert found.bands[0].peak == np.ptp(reference[0][reference[0] != -9999])
    assert found.bands[0].psnr == pytest.approx(20 * math.log10(found.bands[0].peak / 4))


def test_nan_marks_holes(tmp_path: Path) -> None:
    reference = PIXELS.astype(np.float32)
    reference[0, 5, 5] = math.nan
    test = reference + np.float32(0.5)
    test[2, 6, 6] = math.nan
    paths = [make(tmp_path / f"{i}.tif", p) for i, p in enumerate((reference, test))]
    found = compare_rasters(*paths)
    assert found.validity_changed == 1
    assert found.bands[0].max_error == found.bands[2].max_error == 0.5


def test_alpha_marks_holes_and_is_compared_whole(tmp_path: Path) -> None:
    reference = np.concatenate([PIXELS, np.full((1, 40, 50), 255, np.uint8)])
    reference[3, :4] = 0
    test = reference.copy()
    test[0, :4] += 30  # under the mask: nobody sees it
    test[3, 0, 0] = 1
    paths = [make(tmp_path / f"{i}.tif", p, alpha="YES") for i, p in enumerate((reference, test))]
    found = compare_rasters(*paths)
    assert found.validity_changed == 1
    assert found.bands[0].max_error == 0
    assert (found.bands[3].name, found.bands[3].count, found.bands[3].max_error) == ("alpha", 2000, 1)
    assert found.psnr == math.inf


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"crs": "EPSG:32634"}, "CRS"),
        ({"crs": None}, "CRS"),
        ({"transform": Affine(10, 0, 5e5 + 1e-6, 0, -10, 4e6)}, "transform"),
        ({"nodata": 0}, "band 1 nodata"),
        ({"photometric": "MINISBLACK"}, "band 2 colour"),
    ],
)
def test_profile_differences(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    found = compare_rasters(make(tmp_path / "a.tif"), make(tmp_path / "b.tif", **change))
    assert field in changed_fields(found)
    assert not found.same_metadata
    assert found.same_pixels


def test_differences_of_what_is_set_afterwards(tmp_path: Path) -> None:
    ours, theirs = make(tmp_path / "a.tif"), make(tmp_path / "b.tif")
    with rasterio.open(theirs, "r+") as dataset:
        dataset.update_tags(SENSOR="eye")
        dataset.update_tags(2, ns="calibration", gain="1.5")
        dataset.set_band_description(1, "rot")
        dataset.set_band_unit(3, "K")
        dataset.scales = (1, 0.1, 1)
        dataset.offsets = (0, 0, -273.15)
    found = compare_rasters(ours, theirs)
    assert {(d.field, d.reference, d.test) for d in found.metadata} == {
        ("tag SENSOR", None, "eye"),
        ("band 2 tag calibration:gain", None, "1.5"),
        ("band 1 description", None, "rot"),
        ("band 3 unit", None, "K"),
        ("band 2 scale", "1.0", "0.1"),
        ("band 3 offset", "0.0", "-273.15"),
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"nodata": 2**62 + 1}, "band 1 nodata"),
        ({"colors": ((1, 2, 3, 255),)}, "band 1 palette"),
        ({"categories": ("sea", "land")}, "band 1 categories"),
    ],
)
def test_what_integers_stand_for(change: dict[str, Any], field: str) -> None:
    def raster(band: BandInfo) -> Any:
        return SimpleNamespace(
            shape=Shape2d(2, 3), dtype=np.dtype("int64"), bands=(band,), georef=Georef(), mask_kind="none"
        )

    band = BandInfo("int64", nodata=2**62, colors=((1, 2, 3, 254),), categories=("sea",))
    assert metadata_differences(raster(band), raster(band)) == ()
    found = metadata_differences(raster(band), raster(replace(band, **change)))
    assert [difference.field for difference in found] == [field]


def test_whole_numbers_beyond_53_bits(tmp_path: Path) -> None:
    reference = PIXELS[:1].astype(np.int64) + 2**53
    test = reference + (np.arange(50) == 7)
    paths = [make(tmp_path / f"{i}.tif", p, photometric="MINISBLACK") for i, p in enumerate((reference, test))]
    found = compare_rasters(*paths)
    assert not found.same_pixels
    assert found.bands[0].max_error == 1
    assert found.psnr is not None
    assert math.isfinite(found.psnr)


def test_file_urls(tmp_path: Path) -> None:
    scene, raster = write_decodable(tmp_path / "a b.ltchm"), make(tmp_path / "c.tif")
    assert compare_rasters(scene, scene.as_uri()).same_pixels
    assert compare_rasters(write_decodable(tmp_path / "a.zarr").as_uri(), scene).same_pixels
    assert compare_rasters(raster.as_uri(), raster).same_pixels


def test_control_points_are_told_by_place_not_name(tmp_path: Path) -> None:
    def with_points(path: Path, x: float, name: str) -> Path:
        make(path, transform=None, crs=None)
        points = [GroundControlPoint(row=r, col=c, x=x + c, y=5 - r, z=0, id=f"{name}{r}") for r, c in ((0, 0), (9, 3))]
        with quiet_open(path, "r+") as dataset:
            dataset.gcps = (points, "EPSG:4326")
        return path

    reference = with_points(tmp_path / "a.tif", 7.0, "a")
    assert compare_rasters(reference, with_points(tmp_path / "b.tif", 7.0, "b")).same_metadata
    assert changed_fields(compare_rasters(reference, with_points(tmp_path / "c.tif", 7.5, "a"))) == ["control points"]


def test_sizes_that_differ_are_told_and_pixels_left(tmp_path: Path) -> None:
    smaller = make(tmp_path / "b.tif", PIXELS[:, :30])
    found = compare_rasters(make(tmp_path / "a.tif"), smaller)
    assert (found.same_size, found.same_validity, found.same_pixels, found.bands) == (False, False, False, ())
    assert changed_fields(found) == ["size"]
    single = compare_rasters(tmp_path / "a.tif", make(tmp_path / "c.tif", PIXELS[:1], photometric="MINISBLACK"))
    assert "bands" in changed_fields(single)
    assert not any("band 2" in field for field in changed_fields(single))


def test_other_data_types_are_compared_by_value(tmp_path: Path) -> None:
    found = compare_rasters(make(tmp_path / "a.tif"), make(tmp_path / "b.tif", PIXELS.astype(np.float32) + 0.25))
    assert found.bands[0].max_error == 0.25
    assert "data type" in changed_fields(found)


def test_windows_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    reference = rng.integers(0, 4000, (3, 1100, 1600), np.uint16)
    reference[:, 500, 500] = 0
    test = reference + rng.integers(0, 9, reference.shape, np.uint16)
    test[:, 500, 500] = 0
    paths = [
        make(tmp_path / f"{i}.tif", p, nodata=0, photometric="MINISBLACK") for i, p in enumerate((reference, test))
    ]
    seen: list[tuple[int, int]] = []
    whole = compare_rasters(*paths, progress=lambda done, total: seen.append((done, total)))
    monkeypatch.setattr(compare, "_WINDOW_BYTES", 1)
    parts = compare_rasters(*paths)
    assert seen[-1] == (8, 8)  # 2 x 2 blocks, looked at twice
    assert [b.to_dict() for b in parts.bands] == [pytest.approx(b.to_dict()) for b in whole.bands]
    assert parts.validity_changed == whole.validity_changed
    valid = (reference != 0) & (test != 0)
    assert whole.bands[1].mse == pytest.approx(((test.astype(int) - reference)[1][valid[1]] ** 2).mean())


def test_ms_ssim_of_each_band(tmp_path: Path) -> None:
    reference = np.tile(PIXELS, (1, 5, 4))
    test = reference.copy()
    test[2] //= 2
    found = compare_rasters(make(tmp_path / "a.tif", reference), make(tmp_path / "b.tif", test))
    values = [band.ms_ssim for band in found.bands]
    assert values[0] == values[1] == pytest.approx(1)
    assert values[2] is not None
    assert values[2] < 0.9
    assert found.ms_ssim == pytest.approx(sum(v for v in values if v is not None) / 3)
    assert found.ms_ssim_db == pytest.approx(-10 * math.log10(1 - found.ms_ssim))
    assert found.notes == ()
    reference[1, ::8, ::8] = 0
    holes = compare_rasters(make(tmp_path / "a.tif", reference, nodata=0), make(tmp_path / "b.tif", test, nodata=0))
    assert [band.ms_ssim is None for band in holes.bands] == [False, True, False]
    assert holes.notes == ("no MS-SSIM of band 2: every block has holes",)


def test_the_spectral_angle_is_that_of_all_bands_but_alpha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.concatenate([PIXELS, np.full((1, 40, 50), 255, np.uint8)])
    test = reference.copy()
    test[0] += 30
    test[3, :4] = 0  # holes: their spectra do not count
    paths = [make(tmp_path / f"{i}.tif", p, alpha="YES") for i, p in enumerate((reference, test))]
    expected = pytest.approx(spectral_angle(reference[:3, 4:], test[:3, 4:]))
    assert compare_rasters(*paths).spectral_angle == expected
    monkeypatch.setattr(compare, "_WINDOW_BYTES", 1)  # band by band
    assert compare_rasters(*paths).spectral_angle == expected


def test_one_band_has_no_spectral_angle(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tif", PIXELS[:1], photometric="MINISBLACK")
    found = compare_rasters(path, path)
    assert (found.spectral_angle, found.ms_ssim_db) == (None, None)


def test_what_is_no_raster_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.tif"):
        compare_rasters(make(tmp_path / "a.tif"), tmp_path / "missing.tif")


def test_to_dict_is_json_ready(tmp_path: Path) -> None:
    found = compare_rasters(make(tmp_path / "a.tif"), tmp_path / "a.tif").to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["psnr"] == found["bands"][0]["psnr"] == "Infinity"


def test_a_compressed_scene_is_compared_as_what_it_decodes_to(tmp_path: Path) -> None:
    scene = write_decodable(tmp_path / "a.ltchm")
    assert compare_rasters(scene, scene).same_pixels
    assert compare_rasters(scene, scene).same_metadata
    restored = pixels()
    assert MASK[70, 20]
    restored[1, 70, 20] += 9
    raster = tmp_path / "a.tif"
    with create_geotiff(raster, DECODABLE.shape, DECODABLE.bands, DECODABLE.georef) as writer:
        whole = PixelBox(0, 0, *DECODABLE.shape)
        writer.write(restored, whole, range(len(restored)))
        writer.write_mask(MASK, whole)
    found = compare_rasters(raster, scene)
    assert found.same_metadata
    assert found.same_validity
    assert [band.max_error for band in found.bands] == [0, 9, 0, 0, 0]
