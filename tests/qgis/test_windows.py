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
from ltchm_qgis.dialogs.preview_widget import PreviewWidget
from ltchm_qgis.extents import visible_bounds
from ltchm_qgis.options_page import OptionsPage, describe_engine
from ltchm_qgis.previews import PreviewCache
from ltchm_qgis.settings import Settings, suggested_interpreter
from ltchm_qgis.tasks import AlgorithmRun, EngineTask
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QCoreApplication, QEvent, QPoint, QPointF, Qt
from qgis.PyQt.QtGui import QColor, QMouseEvent, QPainter, QPixmap, QWheelEvent
from qgis.PyQt.QtWidgets import QDialog, QFileDialog, QLabel, QMessageBox


def wait(condition: Callable[[], object], seconds: float = 300) -> None:
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
    assert settings.cache_folder == tmp_path / "ltchm-previews"  # one of our own: things are removed there
    assert (settings.cache_megabytes, settings.decoded_megabytes) == (7, 99)
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
    assert "pip install ." in OptionsPage().answer.text()


def test_test_engine_with_another_protocol(fake: Fake) -> None:
    page = OptionsPage()
    page.interpreter.setFilePath(fake("print(json.dumps({'event': 'result', 'version': '9', 'protocol': 2}))"))
    page.run_test()
    wait(page.test.isEnabled)
    assert "Update this plugin" in page.answer.text()


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ([], "none"),
        (["preview"], "w0"),
        (["archived", "archived", "preview"], "w2 (and 2 older for old scenes)"),
    ],
)
def test_only_weights_for_new_scenes_are_named(statuses: list[str], told: str) -> None:
    weights = [{"tag": f"w{number}", "status": status} for number, status in enumerate(statuses)]
    answer = {"version": "9", "protocol": 1, "python": "3", "device": "cpu", "device_name": "x", "weights": weights}
    assert describe_engine(answer).endswith(f"Weights: {told}")


# --- the dialog -------------------------------------------------------------------------------------------------------

ANSWERS = """
images = {name: sys.argv[0] for name in ("original", "restored", "difference")}
sizes = {"bytes": 1, "bytes_low": 1, "bytes_high": 1, "ratio": 2.0, "psnr": [30.0], "amplification": 8}
print(json.dumps({"event": "result", "version": version, "weights": [], "images": images, **sizes}))
"""  # what an engine says to all questions of the dialog


def test_preview_and_its_cache(open_dialog: Open, layer: QgsRasterLayer, tmp_path: Path) -> None:
    Settings().chosen_cache_folder = str(tmp_path / "cache")
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(dialog.summary.text()))
    assert dialog.destination.filePath() == str(Path(layer.source()).with_suffix(".ltchm"))
    dialog.quality.setValue(30)
    wait(lambda: seen)
    assert "times smaller" in seen[0]
    assert "PSNR" in seen[0]
    assert "the source file has 93.1 kB" in seen[0]
    assert [title for title, _ in dialog.preview._pictures] == ["Original", "Restored", "Difference, 8 times"]
    assert all(picture.width() == 140 for _, picture in dialog.preview._pictures)
    (place,) = (tmp_path / "cache" / "ltchm-previews").iterdir()
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


@pytest.mark.parametrize(
    ("values", "bound", "text"),
    [("0.0 0.1 0.2 0.4", 4e-4, "0.0004"), ("0.0 10.0 2500.0 4000.0", 4.0, "4"), ("7.5 7.5 7.5 7.5", 1e-3, "0.001")],
)
def test_a_bound_fits_the_data(open_dialog: Open, qgis_new_project, tmp_path: Path, values, bound, text) -> None:
    path = tmp_path / "floats.asc"
    path.write_text(f"ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n{values}\n")
    dialog = open_dialog(QgsProject.instance().addMapLayer(QgsRasterLayer(str(path), "floats")))
    assert (dialog.max_error.value(), dialog.max_error.text()) == (bound, text)


def test_small_bounds_can_be_typed(open_dialog: Open, layer: QgsRasterLayer) -> None:
    box = open_dialog(layer).max_error
    assert box.text() == "1"  # integers
    box.setEnabled(True)
    for typed, bound in (("0.0004", 4e-4), ("12.5", 12.5), ("0.000000001", 1e-9)):
        box.lineEdit().setText(typed)
        box.interpretText()
        assert (box.value(), box.text()) == (bound, typed)
    box.setValue(0)  # would be lossless, which has a name of its own
    assert box.value() == 1e-9


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


def test_an_engine_with_another_protocol_makes_no_preview(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake("print(json.dumps({'event': 'result', 'protocol': 99}))"))
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(True))
    wait(lambda: seen)
    assert "protocol 99" in dialog.preview._message


@pytest.mark.parametrize("asks", ["who it is", "what it gives"])
def test_what_was_asked_before_a_change_is_not_heard(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    monkeypatch.setattr(EngineTask, "cancel", lambda _task: None)  # as in older QGIS once a task has ended
    Settings().chosen_cache_folder = str(tmp_path)
    monkeypatch.setenv("LTCHM_PYTHON", fake(f"version = '1'{ANSWERS}"))
    dialog, seen = open_dialog(layer), []
    dialog.estimated.connect(lambda: seen.append(True))
    dialog._timer.setInterval(3_600_000)
    dialog._timer.stop()
    dialog._engine = "" if asks == "who it is" else "known"
    before = dialog._engine
    dialog._estimate()
    while dialog._task._result is None:  # no events: the engine has ended, and nobody was told
        time.sleep(0.02)
    dialog.quality.setValue(dialog.quality.value() + 1)
    for _ in range(20):
        QCoreApplication.processEvents()
        time.sleep(0.01)
    assert (seen, dialog._engine, dialog._task) == ([], before, None)
    assert dialog._timer.isActive()


def test_a_task_that_somebody_else_cancels_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTCHM_PYTHON", fake("time.sleep(600)"))
    heard: list[tuple[object, object]] = []
    task = EngineTask("x", ["about"], lambda *outcome: heard.append(outcome))
    QgsApplication.taskManager().addTask(task)
    task.cancel()
    wait(lambda: heard)
    ((result, error),) = heard
    assert result is None
    assert "was stopped" in str(error)


def test_a_preview_that_cannot_be_kept_is_shown(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings().chosen_cache_folder = str(tmp_path / "cache")
    remove = f"import shutil; shutil.rmtree({str(tmp_path / 'cache')!r}, ignore_errors=True)\n"
    monkeypatch.setenv("LTCHM_PYTHON", fake(f"{remove}version = '1'{ANSWERS}"))
    logged, seen = [], []
    log = QgsApplication.messageLog()
    log.messageReceived[str, str, Qgis.MessageLevel].connect(lambda text, _tag, _level: logged.append(text))
    dialog = open_dialog(layer)
    dialog.estimated.connect(lambda: seen.append(dialog.summary.text()))
    wait(lambda: seen)
    assert "times smaller" in seen[0]
    assert [text for text in logged if "Previews cannot be stored" in text]


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


# --- the pictures -----------------------------------------------------------------------------------------------------


COLOURS = [QColor("red"), QColor("lime"), QColor("blue")]


@pytest.fixture
def pictures(qgis_app, tmp_path: Path) -> PreviewWidget:
    """Three of 100 x 100 pixels: black on the left, a colour on the right."""
    widget, paths = PreviewWidget(), []
    for colour in COLOURS:
        picture = QPixmap(100, 100)
        picture.fill(colour)
        painter = QPainter(picture)
        painter.fillRect(0, 0, 50, 100, QColor("black"))
        painter.end()
        paths.append(str(tmp_path / f"{colour.name()[1:]}.png"))
        assert picture.save(paths[-1])
    widget.resize(3 * 200 + 2 * 6, 200 + 22)  # with the gaps and the titles, each at its double size
    widget.show_pictures([(path, path) for path in paths])
    return widget


def shown(widget: PreviewWidget, x: int, column: int) -> QColor:
    """In the middle row, so far from the column's left edge."""
    return widget.grab().toImage().pixelColor(column * 206 + x, 122)


def turn(widget: PreviewWidget, by: QPoint, x: int = 100) -> None:
    place = QPointF(x, 122)
    buttons, keys = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
    QCoreApplication.sendEvent(
        widget, QWheelEvent(place, place, QPoint(), by, buttons, keys, Qt.ScrollPhase.NoScrollPhase, False)
    )


def drag(widget: PreviewWidget, by: int, button: Qt.MouseButton) -> None:
    here, there = QPointF(100, 122), QPointF(100 + by, 122)
    for kind, place in (
        (QEvent.Type.MouseButtonPress, here),
        (QEvent.Type.MouseMove, there),
        (QEvent.Type.MouseButtonRelease, there),
    ):
        event = QMouseEvent(kind, place, place, place, button, button, Qt.KeyboardModifier.NoModifier)
        QCoreApplication.sendEvent(widget, event)


def test_pictures_lie_side_by_side(pictures: PreviewWidget) -> None:
    for column, colour in enumerate(COLOURS):
        assert shown(pictures, 50, column) == QColor("black")
        assert shown(pictures, 150, column) == colour


def test_the_wheel_zooms_within_limits(pictures: PreviewWidget) -> None:
    turn(pictures, QPoint(0, -120))
    assert pictures._zoom == 1
    turn(pictures, QPoint(0, 120))
    assert pictures._zoom == 1.25
    for sideways in (QPoint(120, 0), QPoint(-120, 0), QPoint(0, 0)):
        turn(pictures, sideways)
    assert pictures._zoom == 1.25
    turn(pictures, QPoint(0, 60))  # half a click, as touchpads send
    assert pictures._zoom == pytest.approx(1.25**1.5)
    for _ in range(50):
        turn(pictures, QPoint(0, 120))
    assert pictures._zoom == 16
    for _ in range(50):
        turn(pictures, QPoint(0, -120))
    assert pictures._zoom == 1
    assert shown(pictures, 2, 2) == QColor("black")


def test_the_wheel_zooms_about_the_cursor(pictures: PreviewWidget) -> None:
    edge = 2 * 206 + 100  # where the last picture's colours meet
    for _ in range(4):
        turn(pictures, QPoint(0, 120), edge + 40)
    assert shown(pictures, 130, 2) == COLOURS[2]
    assert shown(pictures, 50, 2) == COLOURS[2]  # the meeting has gone to the left, out of sight
    turn(pictures, QPoint(0, -480), edge + 40)
    assert shown(pictures, 90, 2) == QColor("black")


def test_dragging_ends_at_the_edge(pictures: PreviewWidget) -> None:
    for _ in range(5):
        turn(pictures, QPoint(0, 120))
    before = pictures.grab().toImage()
    drag(pictures, 10_000, Qt.MouseButton.RightButton)
    assert pictures.grab().toImage() == before
    for by, colours in ((10_000, [QColor("black")] * 3), (-20_000, COLOURS)):
        drag(pictures, by, Qt.MouseButton.LeftButton)
        for column, colour in enumerate(colours):
            assert [shown(pictures, x, column) for x in (1, 100, 198)] == [colour] * 3


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
        cache.make(place)
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
        cache.make(place)
    os.utime(cancelled, (1, 1))
    (finished / "original.png").touch()
    cache.keep(finished, {"images": {"original": str(finished / "original.png")}})
    assert [place.exists() for place in (cancelled, at_work, finished)] == [False, True, True]
    (finished / "result.json").write_text("{}")
    assert cache.find(finished) is None


def test_folders_of_others_stay(tmp_path: Path) -> None:
    cache, others = PreviewCache(tmp_path, 0), [tmp_path / ("x" * 32), tmp_path / ("0123456789abcdef" * 2)]
    for folder in others:
        folder.mkdir()
        (folder / "thesis.txt").write_bytes(bytes(2_000_000))
        os.utime(folder, (1, 1))
    ours, kept = cache.place("x.tif", 1), cache.place("x.tif", 2)
    for place in (ours, kept):
        cache.make(place)
    os.utime(ours, (1, 1))
    cache.keep(kept, {"images": {}})
    assert [folder.exists() for folder in (*others, ours, kept)] == [True, True, False, True]


def test_an_updated_engine_makes_new_previews(
    open_dialog: Open, layer: QgsRasterLayer, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings().chosen_cache_folder = str(tmp_path / "cache")
    asked, version = tmp_path / "asked", tmp_path / "version"
    monkeypatch.setenv(
        "LTCHM_PYTHON",
        fake(f"open({str(asked)!r}, 'a').write(sys.argv[7] + ' ')\nversion = open({str(version)!r}).read()\n{ANSWERS}"),
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


def test_the_open_dialog_begins_where_the_last_scene_was(
    plugin, compressed: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, begun = tmp_path / "scenes" / "t.zarr", []
    scene.mkdir(parents=True)
    (scene / "ltchm-manifest.json").touch()
    opened: list[str] = []
    monkeypatch.setattr(plugin, "open_scene", opened.append)
    chosen = [[str(compressed)], [str(scene / "ltchm-manifest.json")], []]

    def choose(_parent, _title: str, folder: str, _filter: str) -> tuple[list[str], str]:
        begun.append(folder)
        return chosen[len(begun) - 1], ""

    monkeypatch.setattr(QFileDialog, "getOpenFileNames", choose)
    for _ in chosen:
        plugin.open()
    assert opened == [str(compressed), str(scene)]
    assert begun == ["", str(compressed.parent), str(scene.parent)]


def test_what_a_scene_is_shows_as_a_table(plugin, qgis_iface) -> None:
    found = {
        **{"path": "/data/a<b>&c.ltchm", "shape": [10, 20], "bands": [1, 2], "dtype": "uint8", "georef": {"crs": None}},
        **{"bytes": 100, "ratio": 4.0, "bpp": 2.0, "guarantee": None, "quality": 30},
        **{"weights": None, "weights_tag": "w1", "software": "ltchm 1"},
    }
    plugin._described(found, None)
    box = qgis_iface.mainWindow().findChild(QDialog, "ltchm_facts")
    title, facts = (label.text() for label in box.findChildren(QLabel)[:2])
    assert "a&lt;b&gt;&amp;c.ltchm" in title
    assert "a&lt;b&gt;&amp;c.ltchm</td>" in facts
    assert "<th align='left'>Quality</th><td>30</td>" in facts
    box.close()


def test_names_are_no_markup(plugin, qgis_iface, tmp_path: Path) -> None:
    wrong = tmp_path / "<i>&.ltchm"
    wrong.write_text("x")
    plugin.open_scene(str(wrong))
    assert any("&lt;i&gt;&amp;.ltchm" in text for text in messages(qgis_iface))
    assert not any("<i>" in text for text in messages(qgis_iface))


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
