"""Training imagery: packs, crops, shares per source, augmentation."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from ltchm_geo.errors import UsageError
from ltchm_geo.training import data
from ltchm_geo.training.augment import augment
from ltchm_geo.training.data import Pool, Sampler, load_pools
from ltchm_geo.training.planes import as_planes

CPU = torch.device("cpu")
NORTH_UP = rasterio.Affine(10, 0, 500000, 0, -10, 4000000)


def coordinates(height, width, bands, number, dtype=np.uint8):
    """An image whose every value tells where it is: row in band 0, column in band 1, image number in the rest."""
    image = np.full((height, width, bands), number, dtype)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1:2] = np.arange(width)[None, :, None] if bands > 1 else 0
    return image


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def add_image(tar, name, image, kind):
    buffer = io.BytesIO()
    if kind == "JXL":
        import pillow_jxl  # noqa: F401  (registers the format)

        Image.fromarray(image).save(buffer, "JXL", lossless=True)
    else:
        Image.fromarray(image).save(buffer, kind)
    add_bytes(tar, name, buffer.getvalue())


def add_bytes(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


# --- crops ------------------------------------------------------------------------------------------------------------


def test_crops_are_windows_of_the_right_image():
    pool = Pool.build([("a", coordinates(40, 50, 3, 7)), ("b", coordinates(33, 32, 3, 9))], CPU)
    images = torch.tensor([0, 1] * 20)
    crops = (pool.crops(images, 32, seeded()) * 255).round()
    assert crops.shape == (40, 3, 32, 32)
    starts = set()
    for number, crop in zip(images.tolist(), crops, strict=True):
        y0, x0 = crop[0, 0, 0], crop[1, 0, 0]
        assert (crop[0] == y0 + torch.arange(32)[:, None]).all()
        assert (crop[1] == x0 + torch.arange(32)).all()
        assert (crop[2] == (7, 9)[number]).all()
        starts.add((number, int(y0), int(x0)))
    assert {y for number, y, _ in starts if number == 1} == {0, 1}  # both possible rows come up, none beyond
    assert max(x for number, _, x in starts if number == 0) <= 50 - 32
    assert len(starts) > 15


def test_narrow_images_are_mirrored_at_their_far_edge():
    pool = Pool.build([("a", coordinates(20, 30, 3, 7))], CPU)
    crop = (pool.crops(torch.zeros(1, dtype=torch.long), 32, seeded())[0] * 255).round()
    rows, columns = [*range(20), *range(18, 6, -1)], [*range(30), 28, 27]
    assert crop[0, :, 0].tolist() == rows
    assert crop[1, 0].tolist() == columns
    assert (crop[2] == 7).all()


def test_sixteen_bits_are_kept_in_a_type_that_every_device_indexes():
    image = np.arange(2**16, dtype=np.uint16).reshape(256, 256, 1)
    pool = Pool.build([("radar", image)], CPU)
    assert pool.pixels.dtype == torch.int16
    crop = pool.crops(torch.zeros(1, dtype=torch.long), 256, seeded())[0]
    assert torch.equal(crop[0], torch.from_numpy(image[..., 0].astype(np.float32)) / 65535)


def test_many_bands_give_random_triplets():
    image = np.broadcast_to(np.arange(5, dtype=np.uint16) * 1000, (32, 32, 5)).copy()
    pool = Pool.build([("s2", image)], CPU)
    crops = (pool.crops(torch.zeros(40, dtype=torch.long), 16, seeded()) * 65535 / 1000).round()
    triplets = {tuple(crop[:, 0, 0].tolist()) for crop in crops}
    assert (crops == crops[:, :, :1, :1]).all()
    assert all(len(set(triplet)) == 3 for triplet in triplets)
    assert {band for triplet in triplets for band in triplet} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("bands", "channels"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2])])
def test_few_bands_are_repeated(bands, channels):
    image = np.broadcast_to(np.arange(bands, dtype=np.uint8) * 10, (16, 16, bands)).copy()
    crop = Pool.build([("sar", image)], CPU).crops(torch.zeros(1, dtype=torch.long), 16, seeded())[0]
    assert (crop * 25.5).round().amax((1, 2)).tolist() == channels
    assert (crop * 25.5).round().amin((1, 2)).tolist() == channels


# --- shares -----------------------------------------------------------------------------------------------------------


def flat_image(value, bands=3):
    return np.full((16, 16, bands), value, np.uint8)


def drawn_shares(sampler, draws=4000):
    values = (sampler.draw(draws, 1, seeded(3))[:, 0, 0, 0] * 255).round().long()
    return (torch.bincount(values, minlength=256) / draws).tolist()


def test_shares_are_per_source_not_per_image():
    many = [("many", flat_image(10))] * 50
    pools = [Pool.build([*many, ("few", flat_image(20)), ("rest", flat_image(30))], CPU)]
    pools.append(Pool.build([("other", flat_image(40, bands=4))], CPU))
    shares = drawn_shares(Sampler(pools, {"many": 0.4, "few": 0.2}))
    assert [shares[v] for v in (10, 20, 30, 40)] == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)
    even = drawn_shares(Sampler(pools, {}))
    assert [even[v] for v in (10, 20, 30, 40)] == pytest.approx([0.25] * 4, abs=0.03)


def test_a_source_in_two_pools_is_one_source():
    pools = [Pool.build([("a", flat_image(10)), ("b", flat_image(20))], CPU)]
    pools.append(Pool.build([("a", flat_image(30, bands=4))], CPU))
    shares = drawn_shares(Sampler(pools, {"b": 0.5}))
    assert [shares[v] for v in (10, 20, 30)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_weights_for_absent_sources_are_refused():
    with pytest.raises(UsageError, match=r"no data for the sources .*typo.*there are .*a"):
        Sampler([Pool.build([("a", flat_image(1))], CPU)], {"typo": 0.5})


# --- reading ----------------------------------------------------------------------------------------------------------


def test_packs_and_rasters_are_read_into_pools_by_kind(tmp_path):
    rng = np.random.default_rng(0)
    rgb = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(3)]
    with tarfile.open(tmp_path / "pack.tar", "w") as tar:
        add_image(tar, "farms/one.png", rgb[0], "PNG")
        add_image(tar, "./farms/two.jxl", rgb[1], "JXL")
        add_image(tar, "towns/three.png", rgb[2], "PNG")
    eight = rng.integers(100, 3000, (8, 18, 20)).astype(np.int16)
    eight[0, 0, 0] = 0
    with rasterio.open(
        tmp_path / "landsat.tif", "w", driver="GTiff", height=18, width=20, count=8, dtype="int16", transform=NORTH_UP
    ) as dst:
        dst.write(eight)
    pools = load_pools([tmp_path / "pack.tar", tmp_path / "landsat.tif"], CPU, threads=2)
    by_bands = {pool.bands: pool for pool in pools}
    assert set(by_bands) == {3, 8}
    small, wide = by_bands[3], by_bands[8]
    assert small.names == ["farms", "towns"]
    assert small.sources.tolist() == [0, 0, 1]
    assert (small.pixels.numpy() == np.concatenate([i.reshape(-1) for i in rgb])).all()
    assert wide.names == ["landsat"]
    assert wide.peak == 65535
    stretched = wide.pixels.numpy().view(np.uint16).reshape(18, 20, 8)
    assert stretched[0, 0, 0] == 0
    assert (stretched.max((0, 1)) == 65535).all()
    assert np.corrcoef(stretched[..., 3].ravel(), eight[3].ravel())[0, 1] > 0.999
    assert Sampler(pools, {"farms": 0.5}).draw(6, 16, seeded()).shape == (6, 3, 16, 16)


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -32768), ("uint16", 65535), ("float32", -9999)])
def test_holes_do_not_count_and_become_dark(dtype, nodata, tmp_path):
    values = np.linspace(100, 3000, 30 * 30).reshape(1, 30, 30).astype(dtype)
    values[0, 5:10, :20] = nodata
    size = {"height": 30, "width": 30, "count": 1, "transform": NORTH_UP}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", dtype=dtype, nodata=nodata, **size) as dst:
        dst.write(values)
    (pool,) = load_pools([tmp_path / "a.tif"], CPU)
    stretched = pool.pixels.numpy().view(np.uint16).reshape(30, 30)
    assert (stretched[5:10, :20] == 0).all()
    assert stretched[0, 0] == 0
    assert stretched[29, 29] == 65535
    assert stretched[15, 0] == pytest.approx(65535 / 2, abs=100)


def test_empty_and_constant_float_bands_do_no_harm(tmp_path):
    values = np.stack([np.full((16, 16), np.nan), np.full((16, 16), 5.0), np.linspace(-1, 1, 256).reshape(16, 16)])
    values[2, 3, 3] = np.inf
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", height=16, width=16, count=3, dtype="float64", transform=NORTH_UP
    ) as dst:
        dst.write(values)
    (pool,) = load_pools([tmp_path / "dem.tif"], CPU)
    stretched = pool.pixels.numpy().view(np.uint16).reshape(16, 16, 3)
    assert (stretched[..., :2] == 0).all()
    assert stretched[0, 0, 2] == 0
    assert stretched[3, 3, 2] == stretched[15, 15, 2] == 65535


def test_unreadable_data_is_named(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"not a tar file at all")
    with pytest.raises(UsageError, match=r"cannot read the training pack .*bad\.tar"):
        load_pools([tmp_path / "bad.tar"], CPU)
    (tmp_path / "bad.tif").write_bytes(b"nor a raster")
    with pytest.raises(UsageError, match=r"cannot read the training raster .*bad\.tif"):
        load_pools([tmp_path / "bad.tif"], CPU)
    with tarfile.open(tmp_path / "half.tar", "w") as tar:
        add_bytes(tar, "farms/readme.txt", b"no image")
    with pytest.raises(UsageError, match=r"cannot read the image farms/readme\.txt in the training pack"):
        load_pools([tmp_path / "half.tar"], CPU)
    with pytest.raises(UsageError, match="no training images"):
        load_pools([], CPU)


def test_packs_need_their_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install \"\.\[train\]\""):
        load_pools([tmp_path / "pack.tar"], CPU)


def test_crops_come_in_the_order_in_which_they_were_drawn():
    """Not pool by pool: within a batch qualities rise, and would with the pools."""
    pools = [
        Pool.build([(name, np.full((128, 128, 3), value, dtype))], CPU)
        for name, value, dtype in (("wide", 65535, np.uint16), ("narrow", 0, np.uint8))
    ]
    drawn = Sampler(pools, {}).draw(400, 8, seeded(3))[:, 0, 0, 0]
    places = torch.nonzero(drawn == 1)[:, 0].float()
    assert 150 < len(places) < 250
    assert 170 < float(places.mean()) < 230


def test_the_wanted_share_of_crops_is_halved():
    """Columns rise by one from pixel to pixel, and by two where every other one is left out or two are averaged."""
    pools = [Pool.build([("large", coordinates(90, 90, 3, 7)), ("small", coordinates(30, 30, 3, 9))], CPU)]
    drawn = (Sampler(pools, {}, halved=0.4).draw(3000, 32, seeded(4)) * 255).double()
    large = (drawn[:, 2] - 7).abs().flatten(1).amax(1) < 1e-3
    rise = drawn[:, 1, 0, 1] - drawn[:, 1, 0, 0]
    halved = (rise - 2).abs() < 1e-3
    assert 0.3 < halved[large].double().mean() < 0.5
    assert not halved[~large].any()  # too small for twice the size
    averaged = (drawn[:, 0, 0, 0] % 1 - 0.5).abs() < 1e-3  # the mean of an even and an odd row
    assert 0.6 < averaged[halved].double().mean() < 0.8
    assert not averaged[~halved].any()
    whole = (drawn[halved][:, :2] - drawn[halved][:, :2, :1, :1]).round()
    assert (whole[:, 0] == 2 * torch.arange(32)[:, None]).all()
    assert (whole[:, 1] == 2 * torch.arange(32)).all()


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_augment_is_deterministic_per_generator_and_stays_in_range():
    x = torch.rand(64, 3, 16, 16, generator=seeded(1))
    before = x.clone()
    first, again, other = (augment(x, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(x, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == x.shape
    assert first.dtype == torch.float32
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_augment_keeps_extreme_images_finite(value):
    out = augment(torch.full((256, 3, 8, 8), value), seeded())
    assert torch.isfinite(out).all()
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_some_images_are_stretched_to_black_and_white():
    x = 0.3 + 0.2 * torch.rand(600, 3, 16, 16, generator=seeded(1))
    out = augment(x, seeded(2))
    white, black = ((out == v).flatten(1).double().mean(1) for v in (1.0, 0.0))
    stretched = (white > 0.005) & (white < 0.4)
    assert 0.08 < stretched.double().mean() < 0.2
    assert (black[stretched] < 0.2).all()
    assert out[stretched].flatten(1).std(1).min() > 0.15  # 0.06 before


def test_augment_turns_each_image_by_itself():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).expand(400, 3, 8, 8) / 64
    corners = augment(x, seeded(2))[:, :, [0, 0, 7, 7], [0, 7, 0, 7]].mean(1)
    brightest = torch.bincount(corners.argmax(1), minlength=4)
    assert (brightest > 50).all()  # of 400, each corner in a quarter or so


# --- planes of components ---------------------------------------------------------------------------------------------


def alike(x):
    """Which of the images (B, 3, h, w) have three equal channels."""
    return (x[:, :1] == x).flatten(1).all(1)


def test_planes_change_the_wanted_share_of_crops_and_leave_the_others():
    x = torch.rand(400, 3, 8, 8, generator=seeded(1))
    before = x.clone()
    out = as_planes(x, 0.25, seeded(2))
    assert torch.equal(x, before)
    assert torch.equal(out, as_planes(x, 0.25, seeded(2)))
    assert torch.equal(as_planes(x, 0.0, seeded(2)), x)
    changed = (out != x).flatten(1).any(1)
    assert 70 < int(changed.sum()) < 130


def test_planes_are_single_ones_in_all_channels_or_what_is_left_of_three_bands():
    grey = torch.rand(400, 1, 16, 16, generator=seeded(1))
    x = 0.5 + 0.4 * (grey - 0.5) + 0.1 * torch.rand(400, 3, 16, 16, generator=seeded(2))
    out = as_planes(x, 1.0, seeded(3))
    single = alike(out)
    assert 250 < int(single.sum()) < 350  # three quarters
    contrast = out.std((2, 3))
    assert float(contrast[single].max()) > 2 * float(x.std((2, 3)).max())  # a strongest component of many bands
    assert float(contrast[~single].median()) < float(x.std((2, 3)).median())
    assert float((out[~single].mean((2, 3)) - 0.5).abs().max()) < 1e-4


def test_planes_of_flat_crops_are_finite():
    for value in (0.0, 1.0):
        assert torch.isfinite(as_planes(torch.full((256, 3, 8, 8), value), 1.0, seeded())).all()
