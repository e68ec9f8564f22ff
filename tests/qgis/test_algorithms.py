"""The algorithms through `processing.run`, with the real engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import DATA, PLUGINS, SCENE, Fake
from qgis.core import (
    QgsApplication,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsRasterLayer,
    QgsRasterRange,
    QgsRectangle,
)


@pytest.fixture(autouse=True)
def _registered(provider) -> None:
    """All tests here need the provider."""


def run(name: str, feedback: QgsProcessingFeedback | None = None, **parameters):
    import processing

    return processing.run(f"ltchm:{name}", parameters, feedback=feedback)


def test_compress_info_decompress(small: Path, tmp_path: Path) -> None:
    scene, back = tmp_path / "t.ltchm", tmp_path / "t-back.tif"
    made = run("compress", INPUT=QgsRasterLayer(str(small), "tokyo"), QUALITY=60, MEASURE=True, OUTPUT=str(scene))
    assert made["OUTPUT"] == str(scene)
    assert made["BYTES"] == scene.stat().st_size
    assert made["RATIO"] > 5
    assert made["PSNR"] > 15
    found = run("info", INPUT=str(scene))
    assert (found["WIDTH"], found["HEIGHT"], found["BANDS"], found["DTYPE"]) == (140, 128, 3, "uint16")
    assert found["QUALITY"] == 60
    assert "32654" in found["CRS"] or "zone 54N" in found["CRS"]
    run("decompress", INPUT=str(scene), OUTPUT=str(back))
    source, restored = QgsRasterLayer(str(small)), QgsRasterLayer(str(back))
    assert restored.extent() == source.extent()
    assert restored.crs() == source.crs()
    assert restored.bandCount() == 3


def test_report_as_html(compressed: Path, tmp_path: Path) -> None:
    page = run("info", INPUT=str(compressed), OUTPUT=str(tmp_path / "report.html"))["OUTPUT"]
    assert "farmland.ltchm" in Path(page).read_text()


def test_a_folder_is_chosen_by_the_manifest_in_it(small: Path, tmp_path: Path) -> None:
    scene = tmp_path / "t.zarr"
    subprocess.run(
        [os.environ["LTCHM_PYTHON"], "-m", "ltchm_geo", "compress", str(small), str(scene)],
        check=True,
        capture_output=True,
    )
    assert run("info", INPUT=str(scene / "ltchm-manifest.json"))["WIDTH"] == 140
    parameter = QgsApplication.processingRegistry().algorithmById("ltchm:info").parameterDefinition("INPUT")
    assert "ltchm-manifest.json" in parameter.fileFilter()


def test_decompress_bands_and_extent(compressed: Path, restored: Path, tmp_path: Path) -> None:
    whole = QgsRasterLayer(str(restored))
    size, box = whole.rasterUnitsPerPixelX(), whole.extent()
    x, y = box.xMinimum() + 100 * size, box.yMaximum() - 50 * size
    extent = QgsRectangle(x, y - 20 * size, x + 30 * size, y)
    part = tmp_path / "part.tif"
    run("decompress", INPUT=str(compressed), BANDS="4, 1", EXTENT=extent, OUTPUT=str(part))
    layer = QgsRasterLayer(str(part))
    assert (layer.width(), layer.height(), layer.bandCount()) == (30, 20, 2)
    centre = layer.extent().center()
    for band, original in ((1, 4), (2, 1)):
        assert layer.dataProvider().sample(centre, band) == whole.dataProvider().sample(centre, original)


def test_decompress_an_overview(tmp_path: Path) -> None:
    scene, part = tmp_path / "t.ltchm", tmp_path / "part.tif"
    engine = [os.environ["LTCHM_PYTHON"], "-m", "ltchm_geo", "compress", str(SCENE), str(scene), "--overviews", "2"]
    subprocess.run(engine, check=True, capture_output=True)
    box = QgsRasterLayer(str(SCENE)).extent()
    run("decompress", INPUT=str(scene), LEVEL=1, EXTENT=box, OUTPUT=str(part))
    found, whole = QgsRasterLayer(str(part)), QgsRasterLayer(str(SCENE))
    assert (found.width(), found.height()) == (-(-whole.width() // 2), -(-whole.height() // 2))
    assert found.rasterUnitsPerPixelX() == pytest.approx(2 * whole.rasterUnitsPerPixelX())
    with pytest.raises(QgsProcessingException, match="no overview 2"):
        run("decompress", INPUT=str(scene), LEVEL=2, EXTENT=box, OUTPUT=str(tmp_path / "none.tif"))


def test_an_extent_elsewhere_is_told(compressed: Path, tmp_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match="does not touch"):
        run("decompress", INPUT=str(compressed), EXTENT=QgsRectangle(0, 0, 1, 1), OUTPUT=str(tmp_path / "x.tif"))


def test_wrong_bands_are_told(compressed: Path, tmp_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match="list of band numbers"):
        run("decompress", INPUT=str(compressed), BANDS="red", OUTPUT=str(tmp_path / "x.tif"))


@pytest.mark.parametrize("name", ["info", "decompress"])
def test_a_wrong_file_is_one_message(name: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ltchm"
    wrong.write_text("not a scene")
    output = {"OUTPUT": str(tmp_path / "out.tif")} if name == "decompress" else {}
    with pytest.raises(QgsProcessingException) as caught:
        run(name, INPUT=str(wrong), **output)
    assert "wrong.ltchm" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("out")] == []


def test_no_engine_is_guidance(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTCHM_PYTHON")
    with pytest.raises(QgsProcessingException, match=r"pip install \."):
        run("compress", INPUT=str(small), OUTPUT=str(tmp_path / "t.ltchm"))


def test_a_crash_is_one_message(small: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake("os.kill(os.getpid(), signal.SIGSEGV)"))
    with pytest.raises(QgsProcessingException, match="engine crashed"):
        run("compress", INPUT=str(small), OUTPUT=str(tmp_path / "t.ltchm"))


def test_a_full_disk_leaves_nothing(small: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk], check=False).returncode:
        pytest.skip("may not mount a small disk")
    try:
        with pytest.raises(QgsProcessingException, match="disk full"):
            run("compress", INPUT=str(small), QUALITY=100, MEASURE=False, OUTPUT=str(disk / "t.ltchm"))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    scene, seen = tmp_path / "t.ltchm", []

    class Impatient(QgsProcessingFeedback):
        def isCanceled(self) -> bool:
            seen.extend(tmp_path.glob("t.ltchm.part"))
            return bool(seen)

    assert "OUTPUT" not in run("compress", Impatient(), INPUT=str(SCENE), MEASURE=False, OUTPUT=str(scene))
    assert seen
    assert list(tmp_path.glob("t.ltchm*")) == []


def test_cancelling_while_measuring_keeps_the_scene(small: Path, tmp_path: Path) -> None:
    scene = tmp_path / "t.ltchm"

    class Impatient(QgsProcessingFeedback):
        def isCanceled(self) -> bool:
            return scene.exists()

    found = run("compress", Impatient(), INPUT=str(small), GUARANTEE=2, MEASURE=True, OUTPUT=str(scene))
    assert found["OUTPUT"] == str(scene)
    assert found["BYTES"] == scene.stat().st_size


@pytest.mark.parametrize("bound", [1234.567, 1234567.0, 0.1234567])
def test_a_bound_is_passed_on_as_it_is(bound: float) -> None:
    from ltchm_qgis.algorithms.compress import Guarantee, precision_arguments

    option, text = precision_arguments(Guarantee.MAX_ERROR, 50, bound)
    assert (option, float(text)) == ("--max-error", bound)


def name_nodata(layer: QgsRasterLayer, *ranges: QgsRasterRange, bands: tuple[int, ...] = (1, 2, 3)) -> None:
    for band in bands:
        layer.dataProvider().setUserNoDataValue(band, list(ranges))


def test_nodata_named_in_the_layers_properties_is_passed_on(small: Path, tmp_path: Path) -> None:
    layer = QgsRasterLayer(str(small), "tokyo")
    name_nodata(layer, QgsRasterRange(7, 7))
    run("compress", INPUT=layer, MEASURE=False, OUTPUT=str(tmp_path / "t.ltchm"))
    run("decompress", INPUT=str(tmp_path / "t.ltchm"), OUTPUT=str(tmp_path / "back.tif"))
    restored = QgsRasterLayer(str(tmp_path / "back.tif"))
    provider = restored.dataProvider()
    assert [provider.sourceNoDataValue(band) for band in (1, 2, 3)] == [7, 7, 7]


def test_only_nodata_that_a_scene_can_have_is_passed_on(small: Path, tmp_path: Path) -> None:
    from ltchm_qgis.algorithms.compress import nodata_arguments

    layer = QgsRasterLayer(str(small), "tokyo")
    assert nodata_arguments(layer) == []
    name_nodata(layer, QgsRasterRange(7, 7), bands=(1, 2))
    assert nodata_arguments(layer) == []  # one band has another
    name_nodata(layer, QgsRasterRange(7, 9))
    assert nodata_arguments(layer) == []
    name_nodata(layer, QgsRasterRange(7, 7), QgsRasterRange(9, 9))
    assert nodata_arguments(layer) == []
    name_nodata(layer, QgsRasterRange(0.5, 0.5))
    assert nodata_arguments(layer) == ["--nodata", "0.5"]
    # A copy, as QGIS writes statistics beside what it shows.
    copy = shutil.copy(DATA / "farmland_rgbn_u8_nodata0.tif", tmp_path / "farmland.tif")
    told = QgsRasterLayer(str(copy), "farmland")
    name_nodata(told, QgsRasterRange(7, 7), bands=(1, 2, 3, 4))
    assert nodata_arguments(told) == []
    for band in (1, 2, 3, 4):
        told.dataProvider().setUseSourceNoDataValue(band, False)
    assert nodata_arguments(told) == ["--nodata", "7.0"]


def test_layers_that_are_no_files_are_refused(tmp_path: Path) -> None:
    from ltchm_qgis.algorithms.compress import SourceRefused, source_name

    layer = QgsRasterLayer("type=xyz&url=http://127.0.0.1:9/%7Bz%7D/%7Bx%7D/%7By%7D.png", "map", "wms")
    with pytest.raises(SourceRefused, match="Export it as a GeoTIFF"):
        source_name(layer)


def test_the_quality_starts_where_the_options_say(provider) -> None:
    from ltchm_qgis.settings import Settings

    Settings().quality = 77
    algorithm = provider.algorithm("compress").create()
    assert algorithm.parameterDefinition("QUALITY").defaultValue() == 77


def qgis_process(*command: str, prints: str = "") -> str:
    """What it prints. QGIS itself crashes in some runs, with the output lost: then once more, four times in all.

    `stdbuf` makes it print line by line, as what waits in a buffer is lost in a crash.
    """
    for _ in range(4):
        done = subprocess.run(["stdbuf", "-oL", *command], capture_output=True, text=True, check=False)
        if done.returncode == 0 and prints in done.stdout:
            return done.stdout
        assert done.returncode in (0, -signal.SIGSEGV), done.stderr
    if done.returncode == 0:
        pytest.fail(f"{command} printed {done.stdout!r} and {done.stderr!r}")
    pytest.xfail(f"{command[0]} crashed in each of four runs")


def test_qgis_process(compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed")
    plugins = tmp_path / "profiles" / "default" / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "ltchm_qgis").symlink_to(PLUGINS / "ltchm_qgis")
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path))
    qgis_process(program, "plugins", "enable", "ltchm_qgis")
    answer = qgis_process(program, "--json", "run", "ltchm:info", f"--INPUT={compressed}", prints="{")
    assert json.loads(answer[answer.index("{") :])["results"]["BANDS"] == 4


@pytest.mark.parametrize("choice", [{"GUARANTEE": 2}, {"GUARANTEE": 1, "MAX_ERROR": 2}], ids=["lossless", "bounded"])
def test_a_guarantee_is_kept(small: Path, tmp_path: Path, choice: dict) -> None:
    scene, back = tmp_path / "t.ltchm", tmp_path / "back.tif"
    run("compress", INPUT=str(small), MEASURE=False, OUTPUT=str(scene), **choice)
    run("decompress", INPUT=str(scene), OUTPUT=str(back))
    source, restored = QgsRasterLayer(str(small)), QgsRasterLayer(str(back))
    worst = 0.0
    for band in range(1, source.bandCount() + 1):
        here, there = (
            layer.dataProvider().block(band, source.extent(), source.width(), source.height())
            for layer in (source, restored)
        )
        pixels = [(row, column) for row in range(source.height()) for column in range(source.width())]
        worst = max(worst, *(abs(here.value(*pixel) - there.value(*pixel)) for pixel in pixels))
    assert worst <= choice.get("MAX_ERROR", 0)
    told = QgsProcessingFeedback()
    run("info", told, INPUT=str(scene))
    expected = "No pixel off by more than 2" if "MAX_ERROR" in choice else "Guarantee: Lossless"
    assert expected in told.textLog()
    assert "Quality" not in told.textLog()
