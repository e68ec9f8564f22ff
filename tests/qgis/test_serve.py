"""Scenes as layers: the engine that serves them, projects, crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DATA, Fake, engine_python
from ltchm_qgis import serve
from ltchm_qgis.engine import EngineError, EngineMissing
from qgis.core import QgsLayerDefinition, QgsPointXY, QgsProject, QgsRaster, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication


@pytest.fixture
def scenes(qgis_new_project) -> Iterator[serve.Scenes]:
    """Scenes with the project's hooks, ended after the test."""
    scenes = serve.Scenes()
    scenes.install()
    yield scenes
    QgsProject.instance().clear()
    scenes.close()


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        QCoreApplication.processEvents()
        time.sleep(0.02)


def identify(layer: QgsRasterLayer, point: QgsPointXY) -> dict[int, float]:
    return layer.dataProvider().identify(point, QgsRaster.IdentifyFormat.IdentifyFormatValue).results()


def test_values_are_those_of_decompressing(scenes, compressed: Path, restored: Path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there: an address of this machine needs no proxy
    layer, whole = scenes.open(str(compressed)), QgsRasterLayer(str(restored))
    assert os.environ["no_proxy"] == "intranet,127.0.0.1"
    assert layer.crs() == whole.crs()
    assert layer.extent() == whole.extent()
    assert layer.bandCount() == whole.bandCount()
    box = whole.extent()
    for part in (0.1, 0.37, 0.5, 0.81):
        point = QgsPointXY(box.xMinimum() + part * box.width(), box.yMinimum() + (1 - part**2) * box.height())
        values = identify(whole, point)
        assert set(values) == set(range(1, whole.bandCount() + 1))
        assert identify(layer, point) == values
    assert scenes.source(os.path.relpath(compressed)) == layer.source()  # the same engine
    assert scenes.scene(layer.source()) == str(compressed)
    assert scenes.scene("/vsicurl/http://127.0.0.1:1/x.tif") is None


def test_projects_keep_the_path(scenes, compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = QgsProject.instance()
    scene = tmp_path / "data" / "s.ltchm"
    scene.parent.mkdir()
    scene.write_bytes(compressed.read_bytes())
    project.addMapLayer(scenes.open(str(scene)))
    (server,) = scenes._servers.values()
    assert project.write(str(tmp_path / "map.qgs"))
    text = (tmp_path / "map.qgs").read_text()
    assert "./data/s.ltchm" in text
    assert "127.0.0.1" not in text
    project.clear()
    assert not server.alive  # the engine ends with its last layer
    assert scenes._servers == {}
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("map.qgs", "data"):
        (tmp_path / name).rename(moved / name)
    assert project.read(str(moved / "map.qgs"))
    (layer,) = project.mapLayers().values()
    assert layer.isValid()
    assert scenes.scene(layer.source()) == str(moved / "data" / "s.ltchm")
    project.clear()
    told = []
    scenes.problem.connect(told.append)
    monkeypatch.delenv("LTCHM_PYTHON")
    project.read(str(moved / "map.qgs"))
    assert len(told) == 1
    assert "pip install ." in told[0]


@pytest.mark.parametrize("kind", ["geopackage", "layer file"])
def test_projects_without_a_folder_find_their_scenes(scenes, compressed: Path, tmp_path: Path, kind: str) -> None:
    project, scene = QgsProject.instance(), tmp_path / "data" / "s.ltchm"
    scene.parent.mkdir()
    scene.write_bytes(compressed.read_bytes())
    layer = project.addMapLayer(scenes.open(str(scene)))
    layer.renderer().setRedBand(3)
    if kind == "geopackage":
        address = f"geopackage:{tmp_path / 'projects.gpkg'}?projectName=map"
        assert project.write(address)
        project.clear()
        assert project.read(address)
    else:
        nodes = project.layerTreeRoot().children()
        done, problem = QgsLayerDefinition.exportLayerDefinition(str(tmp_path / "map.qlr"), nodes)
        assert done, problem
        assert "127.0.0.1" not in (tmp_path / "map.qlr").read_text()
        project.clear()
        done, problem = QgsLayerDefinition.loadLayerDefinition(
            str(tmp_path / "map.qlr"), project, project.layerTreeRoot()
        )
        assert done, problem
    (layer,) = project.mapLayers().values()
    assert layer.isValid()
    assert scenes.scene(layer.source()) == str(scene)
    assert layer.renderer().redBand() == 3


def test_a_scene_that_was_replaced_is_shown_as_it_is_now(scenes, compressed: Path, tmp_path: Path) -> None:
    scene = tmp_path / "s.ltchm"
    engine = [engine_python(), "-I", "-m", "ltchm_geo", "compress", str(DATA / "tokyo_l8_u16.tif"), str(scene)]
    subprocess.run([*engine, "--quality", "5"], check=True, capture_output=True)
    first = QgsProject.instance().addMapLayer(scenes.open(str(scene)))
    place = first.extent().center()
    rough, (old,) = identify(first, place), scenes._servers.values()
    subprocess.run([*engine, "--lossless", "--overwrite"], check=True, capture_output=True)
    second = QgsProject.instance().addMapLayer(scenes.open(str(scene)))
    exact = identify(QgsRasterLayer(str(DATA / "tokyo_l8_u16.tif")), place)
    assert rough != exact
    assert identify(second, place) == exact
    assert first.source() == second.source()
    assert identify(first, place) == exact
    assert not old.alive


def test_a_crashed_engine_is_started_again_once(scenes, compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    scenes.problem.connect(told.append)
    layer = QgsProject.instance().addMapLayer(scenes.open(str(compressed)))
    before = layer.source()
    monkeypatch.setattr(serve, "_YOUNG", 0.0)
    os.kill(scenes._servers[str(compressed)].process.pid, signal.SIGKILL)
    wait(lambda: len(told) == 1)
    assert "crashed and was started again" in told[0]
    assert layer.source() != before
    assert layer.isValid()
    assert identify(layer, layer.extent().center())
    monkeypatch.setattr(serve, "_YOUNG", 1000.0)
    os.kill(scenes._servers[str(compressed)].process.pid, signal.SIGSEGV)
    wait(lambda: len(told) == 2)
    assert "Remove the layer and open it again" in told[1]
    again = QgsProject.instance().addMapLayer(scenes.open(str(compressed)))  # before removing it
    assert layer.source() == again.source()
    assert identify(layer, layer.extent().center())


def test_a_wrong_file_is_one_message(scenes, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ltchm"
    wrong.write_text("not a scene")
    with pytest.raises(EngineError, match=r"wrong\.ltchm"):
        scenes.open(str(wrong))


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", EngineError, "crashed"),
        ("print('hello')", EngineMissing, "does not answer"),
        ("time.sleep(60)", EngineError, "did not start in time"),
        (
            "print(json.dumps({'event': 'serving', 'protocol': 99}), flush=True); sys.stdin.read()",
            EngineError,
            "protocol 99",
        ),
    ],
)
def test_engines_that_do_not_serve(scenes, compressed, fake: Fake, monkeypatch, code, kind, message) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake(code))
    if "did not start" in message:
        monkeypatch.setattr(serve, "_START_SECONDS", 1.0)
    with pytest.raises(kind, match=message):
        scenes.open(str(compressed))


def test_an_engine_that_serves_no_raster_ends(scenes, compressed, fake: Fake, tmp_path: Path, monkeypatch) -> None:
    pid = tmp_path / "pid"
    event = {"event": "serving", "protocol": 1, "scenes": [{"url": "http://127.0.0.1:1/x.tif"}]}
    code = (
        f"open({str(pid)!r}, 'w').write(str(os.getpid())); print(json.dumps({event!r}), flush=True); sys.stdin.read()"
    )
    monkeypatch.setenv("LTCHM_PYTHON", fake(code))
    with pytest.raises(EngineError, match="cannot read"):
        scenes.open(str(compressed))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not scenes.serves(str(compressed))


def test_a_layer_tells_which_scene_it_shows(scenes, compressed: Path, tmp_path: Path) -> None:
    project, scene = QgsProject.instance(), tmp_path / "here" / "s.ltchm"
    scene.parent.mkdir()
    scene.write_bytes(compressed.read_bytes())
    layer = project.addMapLayer(scenes.open(str(scene)))
    assert str(scene) in layer.htmlMetadata()
    assert project.write(str(scene.with_name("map.qgs")))
    project.clear()
    scene.parent.rename(tmp_path / "there")
    assert project.read(str(tmp_path / "there" / "map.qgs"))
    (layer,) = project.mapLayers().values()
    assert layer.metadata().identifier() == str(tmp_path / "there" / "s.ltchm")


def test_qgis_process_reads_projects_with_scenes(qgis_processing, scenes, compressed: Path, tmp_path: Path) -> None:
    from ltchm_qgis import classFactory

    project = QgsProject.instance()
    project.addMapLayer(scenes.open(str(compressed)))
    assert project.write(str(tmp_path / "map.qgs"))
    project.clear()
    scenes.close()
    plugin = classFactory(None)
    try:
        plugin.initProcessing()
        serve.scenes().install()  # once more does nothing
        assert project.read(str(tmp_path / "map.qgs"))
        (layer,) = project.mapLayers().values()
        assert layer.isValid()
        project.clear()
    finally:
        plugin.unload()
    project.read(str(tmp_path / "map.qgs"))
    assert [layer.isValid() for layer in project.mapLayers().values()] == [False]  # no hook is left


def test_open_algorithm(provider, compressed: Path) -> None:
    import processing

    found = processing.run("ltchm:open", {"INPUT": str(compressed)})
    assert found["URL"].startswith("/vsicurl/http://127.0.0.1:")
    assert QgsRasterLayer(found["URL"]).bandCount() == 4
    serve.scenes().close()
