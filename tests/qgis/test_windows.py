"""The dialog, the options page, the plugin's menu; nothing of it needs a screen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Fake
from ltchm_qgis import serve
from ltchm_qgis.dialogs.compress_dialog import CompressDialog
from ltchm_qgis.extents import visible_bounds
from ltchm_qgis.options_page import OptionsPage, describe_engine
from ltchm_qgis.previews import PreviewCache
from ltchm_qgis.settings import Settings, suggested_interpreter
from ltchm_qgis.tasks import AlgorithmRun
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtWidgets import QDialog, QMessageBox


def wait(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        QCoreApplication.processEvents()
        time.sleep(0.02)


@pytest.fixture
def layer(qgis_new_project, small: Path) -> QgsRasterLayer:
    return QgsProject.instance().addMapLayer(QgsRasterLayer(str(small), "tokyo"))


Open = Callable[..., CompressDialog]


@pytest.fixture
def open_dialog() -> Iterator[Open]:
    """Make dialogs that are gone after the test, and their engines with them."""
    opened: list[CompressDialog] = []

    def make(layer: QgsRasterLayer | None = None) -> CompressDialog:
        opened.append(CompressDialog(layer))
        return opened[-1]

    yield make
    for dialog in opened:
        dialog.reject()
        sip.delete(dialog)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_where_the_interpreter_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    monkeypatch.delenv("LTCHM_PYTHON")
    assert settings.interpreter == ""
    suggested_interpreter().parent.mkdir(parents=True)
    suggested_interpreter().touch()
    assert settings.interpreter == str(suggested_interpreter())
    monkeypatch.setenv("LTCHM_PYTHON", "/from/variable")
    assert settings.interpreter == "/from/variable"
    settings.chosen_interpreter = " /from/settings "
    assert settings.interpreter == "/from/settings"


def test_nonsense_in_the_settings_is_the_default() -> None:
    from qgis.core import QgsSettings

    QgsSettings().setValue("ltchm/quality", "high")
    assert Settings().quality == 50
    Settings().quality = 300
    assert Settings().quality == 100


def test_previews_lie_among_the_users_own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert Settings().cache_folder.is_relative_to(tmp_path / "caches")


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_are_kept(tmp_path: Path) -> None:
    page = OptionsPage()
    page.interpreter.setFilePath("/some/python")
    page.device.setCurrentText("cuda:1")
    page.quality.setValue(33)
    page.cache_folder.setFilePath(str(tmp_path))
    page.cache_megabytes.setValue(7)
    page.decoded_megabytes.setValue(99)
    page.apply()
    settings = Settings()
    assert (settings.interpreter, settings.device, settings.quality) == ("/some/python", "cuda:1", 33)
    assert (settings.cache_folder, settings.cache_megabytes, settings.decoded_megabytes) == (tmp_path, 7, 99)
    assert OptionsPage().device.currentText() == "cuda:1"


def test_test_engine_says_who_it_is() -> None:
    page = OptionsPage()
    page.run_test()
    assert not page.test.isEnabled()
    wait(page.test.isEnabled)
    assert "works" in page.answer.text()
    assert "protocol 1" in page.answer.text()


def test_test_engine_with_a_crash(fake: Fake) -> None:
    page = OptionsPage()
    page.interpreter.setFilePath(fake("os.kill(os.getpid(), signal.SIGSEGV)"))
    page.run_test()
    wait(page.test.isEnabled)
    assert "crashed" in page.answer.text()


def test_test_engine_knows_the_home_folder(fake: Fake, tmp_path: Path) -> None:
    fake("print(json.dumps({'event': 'error', 'type': 'X', 'message': 'found me'}))")
    page = OptionsPage()
    page.interpreter.setFilePath("~/fake-python")  # the tests' home
    page.run_test()
    wait(page.test.isEnabled)
    assert page.answer.text() == "found me"


def test_options_without_engine_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTCHM_PYTHON")
    assert "pip install ltchm-geo" in OptionsPage().answer.text()


@pytest.mark.parametrize(("protocol", "advice"), [(0, "Update the engine"), (2, "Update this plugin")])
def test_another_protocol_is_told(protocol: int, advice: str) -> None:
    answer = {
        "version": "9",
        "protocol": protocol,
        "python": "3",
        "device": "cpu",
        "device_name": "x",
        "weights": [],
    }
    assert advice in describe_engine(answer)


# --- the dialog -------------------------------------------------------------------------------------------------------


def test_preview_and_its_cache(open_dialog: Open, layer: QgsRasterLayer, tmp_path: Path) -> None:
    Settings().chosen_cache_folder = str(tmp_path / "cache")
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(dialog.summary.text()))
    assert dialog.destination.filePath() == str(Path(layer.source()).with_suffix(".ltchm"))
    dialog.quality.setValue(30)
    wait(lambda: seen)
    assert "times smaller" in seen[0]
    assert "PSNR" in seen[0]
    assert [title for title, _ in dialog.preview._pictures] == ["Original", "Restored", "Difference, 8 times"]
    assert all(picture.width() == 140 for _, picture in dialog.preview._pictures)
    assert dialog.preview.grab().toImage().pixelColor(dialog.preview.width() // 6, 120).isValid()
    (place,) = (tmp_path / "cache").iterdir()
    assert {file.name for file in place.iterdir()} >= {"original.png", "restored.png", "difference.png"}
    again = open_dialog(layer)
    again.quality.setValue(30)
    again._timer.stop()
    again._engine = dialog._engine
    again._estimate()  # from the cache: at once
    assert again.summary.text() == seen[0]
    assert again.parameters() == {
        "INPUT": layer.id(),
        "QUALITY": 30,
        "GUARANTEE": 0,
        "MAX_ERROR": 1.0,
        "MEASURE": True,
        "OUTPUT": str(Path(layer.source()).with_suffix(".ltchm")),
    }


def test_a_guarantee_takes_the_place_of_the_quality(open_dialog: Open, layer: QgsRasterLayer) -> None:
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(dialog.summary.text()))
    assert dialog.quality.isEnabled()
    assert not dialog.max_error.isEnabled()
    dialog.guarantees.setCurrentIndex(1)
    dialog.max_error.setValue(4)
    assert dialog.max_error.isEnabled()
    assert not dialog.quality.isEnabled()
    wait(lambda: seen)
    assert "times smaller" in seen[-1]
    assert {"GUARANTEE": 1, "MAX_ERROR": 4.0}.items() <= dialog.parameters().items()


def test_a_dialog_that_closes_stops_its_engine(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, tmp_path: Path, monkeypatch
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("LTCHM_PYTHON", fake(f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"))
    dialog = open_dialog(layer)
    wait(lambda: pid.exists() and pid.read_text())
    dialog.reject()

    def gone() -> bool:
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    wait(gone)


def test_a_dialog_without_engine_says_why(
    open_dialog: Open, layer: QgsRasterLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", "/nowhere/python")
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(True))
    wait(lambda: seen)
    assert "/nowhere/python cannot be started" in dialog.preview._message


def test_a_dialog_without_layers(open_dialog: Open, qgis_new_project) -> None:
    dialog = open_dialog()
    assert not dialog._go.isEnabled()
    assert "no raster layer" in dialog.preview._message


def test_compressed_layers_are_refused(open_dialog: Open, qgis_new_project, compressed: Path) -> None:
    layer = QgsProject.instance().addMapLayer(serve.scenes().open(str(compressed)))
    try:
        dialog = open_dialog(layer)
        assert not dialog._go.isEnabled()
        assert "compressed scene already" in dialog.preview._message
    finally:
        serve.scenes().close()


def test_layers_that_are_gone_are_refused(open_dialog: Open, layer: QgsRasterLayer, tmp_path: Path) -> None:
    gone = QgsProject.instance().addMapLayer(QgsRasterLayer(str(tmp_path / "gone.tif"), "gone", "gdal"))
    assert not gone.isValid()
    dialog = open_dialog(gone)
    assert not dialog._go.isEnabled()
    assert "gone is not available" in dialog.preview._message


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_a_scene_is_not_replaced_unasked(open_dialog: Open, layer: QgsRasterLayer, answer: str, monkeypatch) -> None:
    asked = []

    def question(_parent, _title: str, text: str) -> QMessageBox.StandardButton:
        asked.append(text)
        return getattr(QMessageBox.StandardButton, answer)

    monkeypatch.setattr(QMessageBox, "question", question)
    dialog = open_dialog(layer)
    dialog.accept()
    assert asked == []  # nothing is there yet
    assert dialog.result() == QDialog.DialogCode.Accepted
    dialog = open_dialog(layer)
    path = Path(dialog.destination.filePath())
    path.write_text("an older one")
    dialog.accept()
    assert len(asked) == 1
    assert str(path) in asked[0]
    assert (dialog.result() == QDialog.DialogCode.Accepted) == (answer == "Yes")


# --- what is previewed ------------------------------------------------------------------------------------------------


def numbers(bounds: list[str]) -> list[float]:
    return [float(text) for text in bounds]


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (None, (0.0, 0.0, 1.0, 1.0)),
        ((0.0, 0.5, 0.5, 1.0), (0.0, 0.5, 0.5, 1.0)),
        ((0.9, 0.0, 1.5, 0.1), (0.9, 0.0, 1.0, 0.1)),  # what lies in the layer
        ((5.0, 5.0, 6.0, 6.0), (0.0, 0.0, 1.0, 1.0)),  # elsewhere: all of it
    ],
)
def test_what_of_a_layer_the_map_shows(layer: QgsRasterLayer, view, shown) -> None:
    box = layer.extent()

    def place(part: tuple[float, ...]) -> list[float]:
        x0, y0, x1, y1 = part
        left, low, width, height = box.xMinimum(), box.yMinimum(), box.width(), box.height()
        return [left + x0 * width, low + y0 * height, left + x1 * width, low + y1 * height]

    if view is not None:
        view = QgsReferencedRectangle(QgsRectangle(*place(view)), layer.crs())
    assert numbers(visible_bounds(layer, view)) == pytest.approx(place(shown))


def test_what_a_map_in_another_crs_shows(layer: QgsRasterLayer) -> None:
    globe = QgsReferencedRectangle(QgsRectangle(-180, -90, 180, 90), QgsCoordinateReferenceSystem("EPSG:4326"))
    assert numbers(visible_bounds(layer, globe)) == pytest.approx(numbers(visible_bounds(layer, None)))


def test_old_previews_make_room(tmp_path: Path) -> None:
    cache, places = PreviewCache(tmp_path, 1), []
    for number in range(3):
        place = cache.place("x.tif", number)
        place.mkdir()
        (place / "original.png").write_bytes(bytes(450_000))
        os.utime(place, (number, number))
        cache.keep(place, {"images": {"original": str(place / "original.png")}})
        os.utime(place, (number, number))
        places.append(place)
    assert [place.exists() for place in places] == [False, True, True]
    assert cache.find(places[2]) is not None
    assert cache.find(places[0]) is None


def test_previews_that_were_never_finished_go(tmp_path: Path) -> None:
    cache = PreviewCache(tmp_path, 1)
    cancelled, at_work, finished = (cache.place("x.tif", number) for number in range(3))
    for place in (cancelled, at_work, finished):
        place.mkdir()
    os.utime(cancelled, (1, 1))
    (finished / "original.png").touch()
    cache.keep(finished, {"images": {"original": str(finished / "original.png")}})
    assert [place.exists() for place in (cancelled, at_work, finished)] == [False, True, True]
    (finished / "result.json").write_text("{}")
    assert cache.find(finished) is None


def test_an_updated_engine_makes_new_previews(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings().chosen_cache_folder = str(tmp_path / "cache")
    asked, version = tmp_path / "asked", tmp_path / "version"
    monkeypatch.setenv(
        "LTCHM_PYTHON",
        fake(
            f"open({str(asked)!r}, 'a').write(sys.argv[7] + ' ')\n"
            f"version = open({str(version)!r}).read()\n"
            "images = {'original': sys.argv[0], 'restored': sys.argv[0], 'difference': sys.argv[0]}\n"
            "sizes = {'bytes': 1, 'bytes_low': 1, 'bytes_high': 1, 'ratio': 2.0, 'psnr': [30.0], 'amplification': 8}\n"
            "print(json.dumps({'event': 'result', 'version': version, 'weights': [], 'images': images, **sizes}))"
        ),
    )
    for number in ("1", "1", "2"):
        version.write_text(number)
        dialog, seen = open_dialog(layer), []
        dialog.estimated.connect(lambda seen=seen: seen.append(1))
        wait(lambda seen=seen: seen)
    assert asked.read_text().split() == ["about", "estimate", "about", "about", "estimate"]


# --- the plugin -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(qgis_iface, qgis_processing, qgis_new_project, monkeypatch: pytest.MonkeyPatch):
    """The plugin in pytest-qgis's stand-in for the desktop, with the calls that this one lacks."""
    from ltchm_qgis import classFactory

    nothing = lambda *_arguments: None  # noqa: E731
    for name in (
        "registerOptionsWidgetFactory",
        "unregisterOptionsWidgetFactory",
        "registerCustomDropHandler",
        "unregisterCustomDropHandler",
        "addCustomActionForLayerType",
        "addCustomActionForLayer",
        "removeCustomActionForLayerType",
        "addPluginToRasterMenu",
        "removePluginRasterMenu",
    ):
        monkeypatch.setattr(qgis_iface, name, nothing, raising=False)
    plugin = classFactory(qgis_iface)
    plugin.initGui()
    yield plugin
    QgsProject.instance().clear()
    plugin.unload()


def messages(iface) -> list[str]:
    return [text for texts in iface.messageBar().messages.values() for text in texts]


def test_compress_and_open_with_style(plugin, qgis_iface, layer: QgsRasterLayer, tmp_path: Path) -> None:
    layer.renderer().setRedBand(3)
    layer.setCustomProperty("mine", "kept")
    target = tmp_path / "t.ltchm"
    parameters = {"INPUT": layer.id(), "QUALITY": 10, "MEASURE": True, "OUTPUT": str(target)}
    plugin.compress_layer(layer, parameters, opens=True)
    wait(lambda: len(QgsProject.instance().mapLayers()) == 2)
    opened = next(x for x in QgsProject.instance().mapLayers().values() if x is not layer)
    assert serve.scenes().scene(opened.source()) == str(target)
    assert opened.customProperty("mine") == "kept"
    assert opened.renderer().redBand() == 3
    assert opened.name() == "tokyo (compressed)"
    assert any("t.ltchm" in text and "PSNR" in text and "file://" in text for text in messages(qgis_iface))


def test_a_crs_chosen_in_qgis_is_kept(plugin, layer: QgsRasterLayer, tmp_path: Path) -> None:
    chosen = QgsCoordinateReferenceSystem("EPSG:3857")
    assert layer.crs() != chosen
    layer.setCrs(chosen)
    parameters = {"INPUT": layer.id(), "GUARANTEE": 2, "MEASURE": False, "OUTPUT": str(tmp_path / "t.ltchm")}
    plugin.compress_layer(layer, parameters, opens=True)
    wait(lambda: len(QgsProject.instance().mapLayers()) == 2)
    opened = next(x for x in QgsProject.instance().mapLayers().values() if x is not layer)
    assert opened.crs() == chosen


def test_a_plugin_switched_off_and_on_has_its_scenes_again(plugin, compressed: Path, tmp_path: Path) -> None:
    layer = plugin.open_scene(str(compressed))
    layer.renderer().setRedBand(3)
    plugin.unload()
    assert layer.source() == str(compressed)
    assert QgsProject.instance().write(str(tmp_path / "off.qgs"))
    assert "127.0.0.1" not in (tmp_path / "off.qgs").read_text()
    plugin.initGui()
    assert layer.isValid()
    assert serve.scenes().scene(layer.source()) == str(compressed)
    assert layer.renderer().redBand() == 3


def test_dropping_files(plugin, compressed: Path, small: Path) -> None:
    assert not plugin._drops.handleFileDrop(str(small))
    assert plugin._drops.handleFileDrop(str(compressed))
    (layer,) = QgsProject.instance().mapLayers().values()
    assert serve.scenes().scene(layer.source()) == str(compressed)


def test_a_wrong_file_dropped_is_a_message(plugin, qgis_iface, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ltchm"
    wrong.write_text("x")
    assert plugin._drops.handleFileDrop(str(wrong))  # QGIS must not try it as well and say something else
    assert any("wrong.ltchm" in text for text in messages(qgis_iface))


def test_a_failed_task_is_one_message(plugin, qgis_iface, layer, tmp_path: Path, fake: Fake, monkeypatch) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake("os.kill(os.getpid(), signal.SIGKILL)"))
    target = tmp_path / "t.ltchm"
    before = len(messages(qgis_iface))
    plugin.compress_layer(layer, {"INPUT": layer.id(), "OUTPUT": str(target)}, opens=True)
    wait(lambda: len(messages(qgis_iface)) > before)
    assert [text for text in messages(qgis_iface)[before:] if "was killed" in text]
    assert list(tmp_path.glob("t.ltchm*")) == []


def test_a_cancelled_task_leaves_nothing(plugin, layer, tmp_path: Path, fake: Fake, monkeypatch) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake("time.sleep(60)"))
    outcome = []
    run = AlgorithmRun(
        "ltchm:compress",
        {"INPUT": layer.id(), "OUTPUT": str(tmp_path / "t.ltchm")},
        "x",
        lambda results, message: outcome.append((results, message)),
    )
    end = time.monotonic() + 0.5
    wait(lambda: time.monotonic() > end)
    run.cancel()
    wait(lambda: outcome)
    assert outcome == [(None, "")]
    assert list(tmp_path.glob("t.ltchm*")) == []
