"""What memory it takes: bounds that hold whatever a file claims, and clear words where there is too little."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rasters import smooth, write_tif
from scenes import META

from ltchm_geo._json import dumps
from ltchm_geo.bitstream import TileMode, TilePayload
from ltchm_geo.container import MANIFEST_KEY, BandGroup, ContainerWriter, SceneMeta
from ltchm_geo.georef import BandInfo
from ltchm_geo.manifest import Manifest, Record
from ltchm_geo.radiometry import UINT8_MAPPING
from ltchm_geo.types import Shape2d, TileIndex

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

#: Runs a statement and prints by how many MiB it raised the most memory ever held; with a limit in MiB, no more than
#: that much address space may be added to what is there when everything is loaded.
CHILD = """
import resource, sys
import ltchm_geo, ltchm_geo.compress, ltchm_geo.decompress, ltchm_geo.inspection, ltchm_geo.outline, ltchm_geo.quicklook
from ltchm_geo.cli.main import main

def held(name):
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith(name))

statement, limit = sys.argv[1], int(sys.argv[2])
before = held("VmRSS")
if limit:
    space = (held("VmSize") + limit) << 20
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
exec(statement)
print(held("VmHWM") - before)
"""


def run(statement: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, statement, str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def mebibytes(statement: str) -> int:
    done = run(statement)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 100 kB in one shard of 8192 x 8192 x 3 float64 pixels: 1.5 GiB where that is decoded at once."""
    meta: SceneMeta = replace(
        META,
        shape=Shape2d(8192, 8192),
        dtype="float64",
        bands=tuple(BandInfo("float64") for _ in range(3)),
        groups=(BandGroup("g0", (0, 1, 2), (UINT8_MAPPING,) * 3, (None,) * 3),),
        **{"weights": None, "weights_tag": None, "level": 0, "alpha": None, "mask": False},
        tile=256,
        shard=32,
    )
    path = tmp_path_factory.mktemp("bomb") / "scene.ltchm"
    tile = TilePayload(TileMode.CONSTANT, body=bytes(24)).pack()
    with ContainerWriter(path, meta) as writer:
        writer.put_shard("g0", TileIndex(0, 0), dict.fromkeys(range(1024), tile))
        writer.finish()
    assert path.stat().st_size < 100_000
    return path


def test_a_shard_larger_than_memory(one_shard: Path) -> None:
    name = str(one_shard)
    statements = [
        f"ltchm_geo.verify({name!r}, deep=True)",
        f"ltchm_geo.preview({name!r}, 64)",
        f"ltchm_geo.footprint({name!r}, crs=None)",
        f"ltchm_geo.decompress_raster({name!r}, {name + '.tif'!r}, bands=[1], workers=1, overwrite=True)",
    ]
    assert mebibytes("; ".join(statements)) < 700


def test_a_claim_of_two_thousand_million_columns(tmp_path: Path) -> None:
    """Opening it and reading a pixel take what they take of any scene."""
    meta = replace(
        META,
        shape=Shape2d(4, 2**31 - 1),
        **{"weights": None, "weights_tag": None, "level": 0, "alpha": None, "mask": False},
        bands=META.bands[:1],
        groups=(BandGroup("g0", (0,), (UINT8_MAPPING,), (None,)),),
        tile=1024,
        shard=64,
    )
    root = dumps({"attributes": {"ltchm": meta.to_dict()}})
    shards = dict.fromkeys(meta.shard_keys(0), Record(2**20, "0" * 64))
    (tmp_path / "zarr.json").write_bytes(root)
    (tmp_path / MANIFEST_KEY).write_bytes(Manifest(shards, {"zarr.json": Record.of(root)}).pack())
    statement = f"""
import numpy as np, xarray as xr
with ltchm_geo.open({str(tmp_path)!r}) as scene:
    assert set(scene.coords) >= {{"band", "spatial_ref"}} and "x" not in scene.coords
with xr.open_dataset({str(tmp_path)!r}, engine="ltchm") as scene:
    for chosen in (5, -1, [7, -9], slice(9, None, 2**27)):
        try:
            scene.band_data.isel(band=0, x=chosen).load()
        except ltchm_geo.errors.CorruptTileError:
            continue
        raise AssertionError(chosen)
"""
    assert mebibytes(statement) < 300


def test_strides_and_points_hold_one_shard(one_shard: Path) -> None:
    """Not the 512 MiB of a band between the first and the last of them."""
    with xr.open_dataset(one_shard) as dataset:
        band = dataset.band_data.isel(band=0)
        points = xr.DataArray(np.arange(100, 8192, 256), dims="p")
        tracemalloc.start()
        try:
            for part in (band[::200, ::200], band.isel(y=points, x=points.rename(p="q"))):
                tracemalloc.reset_peak()
                assert not part.values.any()
                assert tracemalloc.get_traced_memory()[1] < 300 << 20  # a shard of 2048 x 2048 x 3 is 96 MiB
        finally:
            tracemalloc.stop()


def test_too_little_memory_is_told(one_shard: Path) -> None:
    arguments = ["decompress", str(one_shard), str(one_shard.with_name("a.tif"))]
    done = run(f"sys.exit(main({arguments!r}))", limit=60)
    assert done.returncode == 1, done.stderr
    assert "not enough memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in one_shard.parent.iterdir() if p.suffix == ".part" or p.name.startswith("a.")] == []


def test_a_large_source_takes_no_more_than_a_few_shards(tmp_path: Path, tiny: Path) -> None:
    """16,384 x 16,384 pixels, of which most are one colour: what is not the network's."""
    write_tif(tmp_path / "a.tif", smooth(1, 300, 300))
    source = tmp_path / "a.vrt"
    inside = f"<SourceFilename>{tmp_path / 'a.tif'}</SourceFilename><SourceBand>1</SourceBand>"
    place = '<DstRect xOff="5000" yOff="9000" xSize="300" ySize="300"/>'
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{inside}{place}</SimpleSource></VRTRasterBand>'
    source.write_text(f'<VRTDataset rasterXSize="16384" rasterYSize="16384">{band}</VRTDataset>')
    statement = (
        f"ltchm_geo.compress_raster({str(source)!r}, {str(tmp_path / 'a.ltchm')!r}, overviews=False, preview=False)"
    )
    assert mebibytes("import os; os.environ['GDAL_CACHEMAX'] = '64'; " + statement) < 900
