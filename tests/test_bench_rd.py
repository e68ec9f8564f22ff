from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image as Picture

import ltchm_geo.benchmark.codecs as codecs_module
from ltchm_geo.benchmark.codecs import NAMES, Codec, code, codec
from ltchm_geo.benchmark.dataset import Image, open_dataset, pixel_hash
from ltchm_geo.benchmark.rd import CannotRunError, distortion, measure_codec
from ltchm_geo.benchmark.results import RdPoint, RdResult, load_results, summarise
from ltchm_geo.benchmark.yuv import rgb_to_yuv420, yuv420_to_rgb
from ltchm_geo.cli.main import main
from ltchm_geo.errors import SourceError, UsageError
from ltchm_geo.metrics import psnr

DATA = Path(__file__).parent / "data"
FARMLAND = Path(__file__).parents[1] / "examples" / "data" / "farmland_rgbn.tif"
CONVENTIONAL = [name for name in NAMES if name != "ltchm"]
EIGHT_BITS = np.dtype(np.uint8)


def crop(side: int = 96, bands: tuple[int, ...] = (1, 2, 3), path: Path = FARMLAND) -> np.ndarray[Any, Any]:
    return Image("crop", path, bands, (64, 64, side, side)).load()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray[Any, Any]:
    return crop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two pictures, 96 and 64 pixels wide."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, side in (("a", 96), ("b", 64)):
        Picture.fromarray(crop(side).transpose(1, 2, 0)).save(folder / f"{name}.png")
    return folder


class Rounding:
    """A codec without an encoder: keeps the upper bits."""

    name, label, excess = "rounding", "Rounding", 10

    def __init__(self) -> None:
        self.encoded = 0

    def missing(self) -> str | None:
        return None

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        return None

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        return ("32", "8")

    def encode(self, pixels: np.ndarray[Any, Any], setting: str) -> tuple[bytes, ...]:
        self.encoded += 1
        return tuple((band // int(setting) * int(setting)).tobytes() for band in pixels)

    def decode(self, files: tuple[bytes, ...], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Any:
        return np.stack([np.frombuffer(file, dtype).reshape(shape[1:]) for file in files])

    def about(self) -> dict[str, Any]:
        return {"command": "none", "versions": {"rounding": "1"}}


# --- codecs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVENTIONAL)
def test_more_bytes_give_a_better_picture(name: str, rgb: np.ndarray[Any, Any]) -> None:
    one = codec(name)
    assert one.missing() is None
    settings = one.settings(EIGHT_BITS)
    few = (settings[0], settings[len(settings) // 2], settings[-1])
    found = sorted((coded.bytes, psnr(rgb, coded.pixels, 255.0)) for coded in (code(one, rgb, s) for s in few))
    if name == "cog-zstd":
        assert all(quality == math.inf for _, quality in found)
        return
    sizes, qualities = zip(*found, strict=True)
    assert len(set(sizes)) == 3
    assert list(qualities) == sorted(qualities)
    assert 18 < qualities[0] < qualities[-1] < 55
    assert qualities[-1] > 34


@pytest.mark.parametrize("name", ["openjpeg53", "openjpeg97", "jxl", "cog-lerc", "cog-zstd"])
@pytest.mark.parametrize("source", ["tokyo_l8_u16.tif", "mountains_s2_12band_i16.tif"])
def test_sixteen_bits_and_many_bands(name: str, source: str) -> None:
    with rasterio.open(DATA / source) as dataset:
        pixels = dataset.read(window=((0, 48), (0, 40)))
    one = codec(name)
    assert one.refuses(pixels.dtype, len(pixels)) is None
    coded = code(one, pixels, one.settings(pixels.dtype)[0])
    assert coded.pixels.dtype == pixels.dtype
    assert psnr(pixels, coded.pixels) > 24
    if name == "cog-lerc":
        assert np.abs(coded.pixels.astype(int) - pixels).max() <= int(one.settings(pixels.dtype)[0])


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "jxl", "hevc", "vvc", "cog-jpeg"])
def test_one_band(name: str, rgb: np.ndarray[Any, Any]) -> None:
    one = codec(name)
    assert one.refuses(EIGHT_BITS, 1) is None
    best = one.settings(EIGHT_BITS)[0 if name in ("jxl", "hevc", "vvc") else -1]
    assert psnr(rgb[:1], code(one, rgb[:1], best).pixels, 255.0) > 33


@pytest.mark.parametrize("name", ["hevc", "vvc", "avif"])
def test_odd_sides_come_back(name: str, rgb: np.ndarray[Any, Any]) -> None:
    odd = np.ascontiguousarray(rgb[:, :67, :73])
    assert psnr(odd, code(codec(name), odd, codec(name).settings(EIGHT_BITS)[2]).pixels, 255.0) > 25


@pytest.mark.parametrize(
    ("name", "dtype", "bands"),
    [("jpeg", "uint16", 3), ("webp", "int16", 1), ("hevc", "uint16", 3), ("vvc", "uint8", 4), ("cog-webp", "uint8", 1)],
)
def test_what_a_format_cannot_hold_is_refused(name: str, dtype: str, bands: int) -> None:
    assert codec(name).refuses(np.dtype(dtype), bands)


def test_openjpeg_gives_the_size_asked_for(rgb: np.ndarray[Any, Any]) -> None:
    (file,) = codec("openjpeg53").encode(rgb, "12")
    assert len(file) == pytest.approx(rgb.size / 12, rel=0.05)
    (file,) = codec("openjpeg97").encode(rgb, "12")
    assert len(file) == pytest.approx(rgb.size / 12, rel=0.05)


def test_our_own_files(tiny: Path, rgb: np.ndarray[Any, Any]) -> None:
    one = codec("ltchm")
    assert (one.name, one.about()["model"]["tag"]) == ("tiny-random", "tiny-random")
    (file,) = one.encode(rgb, "50")
    coded = code(one, rgb, "50")
    assert coded.bytes == len(file)  # the same file again
    assert psnr(rgb, coded.pixels, 255.0) > 5  # an untrained network


def test_bytes_are_those_of_the_files_less_the_excess(rgb: np.ndarray[Any, Any]) -> None:
    coded = code(Rounding(), rgb, "8")
    assert coded.bytes == rgb.size - 3 * 10
    hevc = codec("hevc")
    assert code(hevc, rgb, "40").bytes == len(hevc.encode(rgb, "40")[0]) - 65


def test_chroma_subsampling_is_no_limit(rgb: np.ndarray[Any, Any]) -> None:
    odd = rgb[:, :95, :93]
    for bits in (8, 10):
        assert psnr(odd, yuv420_to_rgb(rgb_to_yuv420(odd, bits), bits, odd.shape[1:]), 255.0) > 42
    grey = np.broadcast_to(rgb[:1], rgb.shape)
    assert np.array_equal(yuv420_to_rgb(rgb_to_yuv420(grey, 10), 10, grey.shape[1:]), grey)
    corners = np.array([[[0, 255], [255, 0]]] * 3, np.uint8).repeat(16, 1).repeat(16, 2)
    corners[1] = 255 - corners[1]  # saturated colours in blocks wider than the filter
    inner = yuv420_to_rgb(rgb_to_yuv420(corners, 8), 8, corners.shape[1:])[:, 6:10, 6:10]
    assert np.abs(inner.astype(int) - corners[:, 6:10, 6:10]).max() <= 2


def test_an_unknown_codec_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="openjpeg53, openjpeg97"):
        codec("gif")


def test_a_missing_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(codecs_module, "find_spec", lambda name: None)
    for name in ("jpeg", "jxl", "vvc"):
        assert 'pip install ".[bench]" in a checkout' in (codec(name).missing() or "")
    monkeypatch.undo()
    assert "needs a GDAL" in (replace(codec("cog-zstd"), options={"COMPRESS": "NONESUCH"}).missing() or "")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "echo")  # a program that knows no encoder
    assert "needs an FFmpeg with libvvenc" in (codec("vvc").missing() or "")
    monkeypatch.setattr(codecs_module, "find_spec", lambda name: None)
    with pytest.raises(CannotRunError, match=r"^vvc needs imageio-ffmpeg"):
        measure_codec(codec("vvc"), open_dataset(folder), tmp_path)


# --- data sets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bundled", "eval-rgb", "eval-rgb-tiles", "eval-wide"])
def test_descriptions_are_well_formed(name: str) -> None:
    found = open_dataset(name)
    assert found.name == name
    assert len(found.images) == {"bundled": 4, "eval-rgb": 8, "eval-rgb-tiles": 32, "eval-wide": 4}[name]
    assert len({image.name for image in found.images}) == len(found.images)


def test_bundled_pixels_are_those_of_eval_rgb() -> None:
    hashes = {image.name: image.sha256 for image in open_dataset("eval-rgb").images}
    for image in open_dataset("bundled").images:
        assert image.sha256 == hashes[image.name]
        assert image.load().shape[0] == 3


def describe(path: Path, **changes: Any) -> Path:
    image = {"name": "a", "file": "a.png", "bands": [1, 2, 3], "window": [8, 0, 64, 80]} | changes
    image.setdefault("sha256", pixel_hash(Image("a", path / "a.png", (1, 2, 3), (8, 0, 64, 80)).load()))
    entry = "\n".join(f"{key} = {json.dumps(value)}" for key, value in image.items())
    (path / "set.toml").write_text(f'name = "set"\ntitle = "one"\n[[image]]\n{entry}\n')
    return path / "set.toml"


def test_windows_tiles_and_hashes(folder: Path) -> None:
    whole = crop(96)
    (image,) = open_dataset(describe(folder)).images
    assert np.array_equal(image.load(), whole[:, 8:72, :80])
    described = describe(folder, tiles=[[0, 0], [32, 48]])
    described.write_text(described.read_text().replace('title = "one"', 'title = "one"\ntile = 32'))
    first, second = open_dataset(described).images
    assert (first.name, second.name) == ("a@0,0", "a@32,48")
    assert np.array_equal(second.load(), whole[:, 40:72, 48:80])
    described.write_text(described.read_text().replace("[32, 48]", "[33, 48]"))
    with pytest.raises(UsageError, match="33, 48 does not lie inside a"):
        open_dataset(described)


def test_other_pixels_are_refused(folder: Path) -> None:
    (image,) = open_dataset(describe(folder, sha256="0" * 64)).images
    with pytest.raises(SourceError, match="other pixels than the data set's a"):
        image.load()


def test_a_missing_file_says_where_to_put_it(folder: Path, tmp_path: Path) -> None:
    (image,) = open_dataset(describe(folder), data=tmp_path).images
    with pytest.raises(SourceError, match="--data names the folder"):
        image.load()


@pytest.mark.parametrize("name", ["nothing", "missing.toml"])
def test_an_unknown_data_set(name: str) -> None:
    with pytest.raises(UsageError):
        open_dataset(name)


def test_unknown_keys_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown keys colour"):
        open_dataset(describe(folder, colour="blue"))


def test_a_folder_is_a_data_set(folder: Path) -> None:
    found = open_dataset(folder)
    assert [image.name for image in found.images] == ["a", "b"]
    assert found.images[1].load().shape == (3, 64, 64)


# --- measuring -------------------------------------------------------------------------------------------------------


def test_measured_points_are_right_and_kept(folder: Path, tmp_path: Path) -> None:
    one, calls = Rounding(), []
    dataset = open_dataset(folder)
    result = measure_codec(one, dataset, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)
    assert [(point.image, point.setting) for point in result.points] == [
        ("a", "32"),
        ("a", "8"),
        ("b", "32"),
        ("b", "8"),
    ]
    point, pixels = result.points[1], dataset.images[0].load()
    assert point.bytes == pixels.size - 30
    assert point.bpp == 8 * point.bytes / 96**2
    assert point.max_error == 7
    assert point.psnr == pytest.approx(psnr(pixels, pixels // 8 * 8, 255.0), abs=1e-5)
    assert (point.ms_ssim, point.lpips, point.vifp) == (None, None, None)  # too small for MS-SSIM
    assert result.about["versions"]["rounding"] == "1"
    assert result.about["hardware"]["cpu"]

    assert one.encoded == 4
    assert measure_codec(one, dataset, tmp_path) == result
    assert one.encoded == 4
    measure_codec(one, dataset, tmp_path, overwrite=True, jobs=2)
    assert one.encoded == 8
    assert [found.codec for found in load_results(tmp_path)] == ["rounding"]


def test_an_interrupted_run_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Rounding()
    monkeypatch.setattr(one, "decode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        measure_codec(one, open_dataset(folder), tmp_path / "out")
    assert not list(tmp_path.rglob("*.json*"))


def test_images_a_codec_refuses_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rasterio.open(folder / "c.tif", "w", "GTiff", 40, 40, 1, dtype="uint16", crs="EPSG:3857",
                       transform=rasterio.Affine.translation(1, 2)) as target:  # fmt: skip
        target.write(np.arange(1600, dtype=np.uint16).reshape(1, 40, 40))
    result = measure_codec(codec("jpeg"), open_dataset(folder), tmp_path)
    assert result.images == ("a", "b")
    assert "uint16" in result.about["refused"]["c"]


def test_metrics_go_by_the_data() -> None:
    pixels = crop(176)
    worse = np.clip(pixels.astype(int) + 3, 0, 255).astype(np.uint8)
    found = distortion(pixels, worse)
    assert all(value is not None for value in found.values())
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / 9), abs=0.05)
    wide = distortion(pixels.astype(np.uint16) * 10, worse.astype(np.uint16) * 10)
    assert wide["lpips"] is None
    assert wide["vifp"] is None
    spread = 10 * (int(pixels.max()) - int(pixels.min()))
    assert wide["psnr"] == pytest.approx(10 * math.log10(spread**2 / 900), abs=0.05)


def test_unknown_metrics_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown metrics sharpness"):
        measure_codec(Rounding(), open_dataset(folder), tmp_path, metrics=["sharpness"])


# --- results ---------------------------------------------------------------------------------------------------------


def result(name: str, factor: float, images: tuple[str, ...] = ("a", "b"), shift: float = 0.0) -> RdResult:
    """Curves in which each doubling of the rate gives 3 dB, `factor` times the rate of those with factor 1."""
    points = [
        RdPoint(
            image=image,
            setting=str(step),
            bytes=int(1000 * factor * 2**step),
            bpp=factor * 2.0**step * (2 if image == "b" else 1) / 10,
            psnr=25 + 3 * step + shift,
            ms_ssim=1 - 0.1 / 2**step,
            lpips=None,
            vifp=None,
            max_error=4.0,
            encode_s=0.5,
            decode_s=0.25,
        )
        for image in images
        for step in range(5)
    ]
    return RdResult(name, name.upper(), "set", tuple(points), {"date": "2025-01-01"})


def test_summary_of_a_hand_made_example() -> None:
    anchor, better = result("anchor", 1.0), result("better", 0.75)
    zero, row = summarise([anchor, better], "anchor")
    assert (zero.bd_rate, zero.bd_rate_per_image, zero.bd_psnr) == pytest.approx((0, 0, 0), abs=1e-9)
    assert (row.codec, row.anchor, row.images) == ("better", "anchor", 2)
    assert row.bd_rate == pytest.approx(-25)
    assert row.bd_rate_per_image == pytest.approx(-25)
    assert row.bd_rate_ms_ssim == pytest.approx(-25)
    assert row.bd_psnr == pytest.approx(3 * math.log2(4 / 3))
    pixels = sum(point.bytes * 8 / point.bpp for point in better.points) / 1e6
    assert row.encode_mpx_s == pytest.approx(pixels / 5)
    assert row.decode_mpx_s == pytest.approx(pixels / 2.5)


def test_averaged_and_per_image_are_different_things() -> None:
    """Half the rate on one image, the same on the other: -50 and 0 per image; the averaged curve weighs by rate."""
    anchor = result("anchor", 1.0)
    halves = result("test", 0.5, ("b",)).points
    mixed = replace(anchor, codec="test", points=anchor.points[:5] + halves)
    row = summarise([anchor, mixed], "anchor")[1]
    assert row.bd_rate_per_image == pytest.approx(-25)
    assert row.bd_rate == pytest.approx(100 * ((0.1 + 0.1) / (0.1 + 0.2) - 1))


def test_only_shared_images_are_compared() -> None:
    row = summarise([result("anchor", 1.0), result("test", 0.5, ("b", "c"))], "anchor")[1]
    assert row.images == 1
    assert row.bd_rate == pytest.approx(-50)


def test_lossless_points_and_distant_curves() -> None:
    anchor = result("anchor", 1.0)
    lossless = replace(anchor, codec="lossless", points=tuple(replace(p, psnr=math.inf) for p in anchor.points))
    assert lossless.curve("a") == []
    assert lossless.averaged() == []
    row = summarise([anchor, lossless], "anchor")[1]
    assert math.isnan(row.bd_rate)
    assert math.isnan(row.bd_rate_per_image)
    assert row.images == 0
    assert math.isnan(summarise([anchor, result("far", 1.0, shift=40)], "anchor")[1].bd_rate)
    assert summarise([anchor], "other") == []


def test_settings_that_cost_more_and_give_less_do_not_count() -> None:
    anchor, test = result("anchor", 1.0), result("test", 0.75)
    worse = tuple(replace(p, setting="9", bpp=p.bpp * 1.5, psnr=p.psnr - 1) for p in test.points if p.setting == "4")
    row = summarise([anchor, replace(test, points=test.points + worse)], "anchor")[1]
    assert (row.bd_rate, row.bd_rate_per_image) == pytest.approx((-25, -25))


def test_results_survive_the_file(tmp_path: Path) -> None:
    before = result("one", 1.0)
    before = replace(before, points=(replace(before.points[0], psnr=math.inf, ms_ssim=None), *before.points[1:]))
    path = before.save(tmp_path)
    assert path == tmp_path / "set" / "one.json"
    assert RdResult.load(path) == before
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]
    path.write_text(path.read_text().replace('"bpp"', '"bits"'))
    with pytest.raises(UsageError, match="is not a rate-distortion result"):
        load_results(tmp_path)


# --- command ---------------------------------------------------------------------------------------------------------


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["bench", "rd", "--dataset", str(folder), "--out", str(out)]
    assert main([*arguments, "--codec", "openjpeg53", "--codec", "openjpeg97"]) == 0
    shown = capsys.readouterr().out
    assert "Against openjpeg53" in shown
    assert "Against openjpeg97" in shown
    stamp = (out / "pictures" / "openjpeg53.json").stat().st_mtime_ns
    assert main([*arguments, "--codec", "openjpeg53", "--json"]) == 0
    assert (out / "pictures" / "openjpeg53.json").stat().st_mtime_ns == stamp
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert outcome["event"] == "result"
    rates = {(row["codec"], row["anchor"]): row["bd_rate_per_image"] for row in outcome["rows"]}
    assert rates["openjpeg97", "openjpeg53"] < 0 < rates["openjpeg53", "openjpeg97"]


def test_command_goes_on_without_a_codec(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs_module, "find_spec", lambda name: None if name == "imageio_ffmpeg" else "there")
    arguments = ["bench", "rd", "--dataset", str(folder), "--out", str(tmp_path)]
    assert main([*arguments, "--codec", "vvc", "--codec", "jpeg"]) == 0
    assert "skipped vvc needs imageio-ffmpeg" in capsys.readouterr().err
    assert main([*arguments, "--codec", "vvc"]) == 2
    assert "needs imageio-ffmpeg" in capsys.readouterr().err


def test_help_fits_and_names_every_codec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "rd", "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    listed = " ".join(shown.split("Codecs:")[1].split()).rstrip(".").split(", ")
    assert tuple(listed) == NAMES


def test_a_codec_is_what_the_protocol_says() -> None:
    one: Codec = Rounding()
    assert one.settings(EIGHT_BITS)
