"""Runs inside a real QGIS (see desktop.sh): uses the plugin as a person would and keeps pictures of it.

Every step is a generator: `yield condition` goes on once the condition holds. What it finds goes to report.txt, and any
error ends QGIS.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from pathlib import Path

from qgis.core import QgsApplication, QgsProject, QgsRasterLayer, QgsRectangle
from qgis.gui import QgsMapToolIdentify
from qgis.PyQt.QtCore import QPoint, Qt, QTimer
from qgis.PyQt.QtGui import QPainter, QPixmap
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QDialog, QMenu, QToolBar, QToolButton, QWidget
from qgis.utils import iface, plugins

ROOT, OUT, WORK = (Path(os.environ[name]) for name in ("DRIVE_ROOT", "DRIVE_OUT", "DRIVE_WORK"))
LIMIT = 300.0  # seconds for one condition


def report(text: str) -> None:
    with open(OUT / "report.txt", "a", encoding="utf-8") as file:
        file.write(text + "\n")


def picture(name: str) -> None:
    """All windows as they lie on the screen."""
    window = iface.mainWindow()
    shot = QPixmap(window.grab())
    painter = QPainter(shot)
    for widget in QApplication.topLevelWidgets():
        if widget is not window and widget.isVisible() and widget.width() > 40 and widget.height() > 15:
            painter.drawPixmap(widget.pos() - window.pos(), widget.grab())
            painter.setPen(Qt.GlobalColor.darkGray)
            painter.drawRect(widget.frameGeometry().translated(-window.pos()))
    painter.end()
    shot.save(str(OUT / f"{name}.png"))


def after(seconds: float):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def dialog(kind: str) -> QWidget | None:
    return next((w for w in QApplication.topLevelWidgets() if type(w).__name__ == kind and w.isVisible()), None)


def steps():
    plugin = plugins["ltchm_qgis"]
    window, canvas = iface.mainWindow(), iface.mapCanvas()
    iface.messageBar().clearWidgets()
    for extra in [*window.findChildren(QToolBar), window.findChild(QWidget, "Browser")]:
        if extra.objectName() not in ("mFileToolBar", "mMapNavToolBar", "mAttributesToolBar", "ltchm_toolbar"):
            extra.hide()
    window.resize(1100, 760)
    window.move(0, 0)
    source = Path(shutil.copy(ROOT / "examples" / "data" / "farmland_rgbn.tif", WORK / "farmland.tif"))
    layer = iface.addRasterLayer(str(source), "farmland")
    yield lambda: layer.isValid() and not canvas.isDrawing()
    canvas.setExtent(layer.extent())
    canvas.refresh()
    yield after(2)
    report(f"QGIS layer {layer.width()} x {layer.height()}")

    # the menu
    raster = iface.rasterMenu()
    raster.popup(window.menuBar().mapToGlobal(window.menuBar().actionGeometry(raster.menuAction()).bottomLeft()))
    yield after(0.5)
    submenu = next(action.menu() for action in raster.actions() if action.text() == "LTCHM")
    raster.setActiveAction(submenu.menuAction())
    geometry = raster.actionGeometry(submenu.menuAction())
    submenu.popup(raster.mapToGlobal(geometry.topRight()))
    yield after(0.7)
    picture("menu")
    submenu.hide()
    raster.hide()
    yield after(0.3)

    # the menu of a layer
    view = iface.layerTreeView()
    view.setCurrentLayer(layer)
    menu = view.menuProvider().createContextMenu()
    menu.popup(view.mapToGlobal(QPoint(60, 30)))
    yield after(0.5)
    ours = next(a.menu() for a in menu.actions() if a.menu() and a.text() == "LTCHM")
    report("layer menu: " + ", ".join(action.text() for action in ours.actions()))
    ours.popup(menu.mapToGlobal(menu.actionGeometry(ours.menuAction()).topRight()))
    yield after(0.5)
    picture("layer-menu")
    ours.hide()
    menu.hide()

    # the dialog, with a preview of what the map shows
    centre = layer.extent().center()
    half = 150 * layer.rasterUnitsPerPixelX()
    canvas.setExtent(QgsRectangle(centre.x() - half, centre.y() - half, centre.x() + half, centre.y() + half))
    yield after(1)
    QTimer.singleShot(0, plugin.compress)
    yield lambda: dialog("CompressDialog") is not None
    box = dialog("CompressDialog")
    box.resize(900, 560)
    box.move(120, 110)
    shown = []
    box.estimated.connect(lambda: shown.append(time.monotonic()))
    began = time.monotonic()
    yield lambda: shown
    report(f"preview after {shown[0] - began:.1f} s: {box.summary.text()}")
    yield after(0.5)
    picture("dialog")
    box.quality.setValue(20)
    shown.clear()
    yield lambda: shown
    report(f"at quality 20: {box.summary.text()}")
    box.quality.setValue(50)
    shown.clear()
    began = time.monotonic()
    yield lambda: shown
    report(f"seen before: {shown[0] - began:.1f} s")
    target = WORK / "farmland.ltchm"
    assert box.destination.filePath() == str(target), box.destination.filePath()

    # the running task, and what is said at its end
    box.accept()
    manager = QgsApplication.taskManager()
    yield lambda: manager.count() > 0
    yield after(0.5)
    button = next(
        x for x in window.findChildren(QToolButton) if x.metaObject().className().startswith("QgsTaskManager")
    )
    button.click()
    yield after(1)
    picture("task")
    button.click()
    yield lambda: len(QgsProject.instance().mapLayers()) == 2
    yield after(1)
    iface.messageBar().popWidget()  # QGIS tells that a task has ended while its window was not active
    report(f"message: {iface.messageBar().currentItem().text() if iface.messageBar().currentItem() else '-'}")
    picture("done")

    # the opened scene: identify it
    scene = next(x for x in QgsProject.instance().mapLayers().values() if x.source().startswith("/vsicurl/"))
    iface.setActiveLayer(scene)
    iface.actionIdentify().trigger()
    yield after(0.5)
    spot = canvas.viewport().rect().center() + QPoint(40, -60)
    QTest.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, spot)
    yield after(2)
    results = next(w for w in QApplication.allWidgets() if w.objectName() == "IdentifyResultsDock")
    window.resizeDocks([results], [330], Qt.Orientation.Horizontal)
    yield after(2)
    picture("identify")
    import processing

    restored = QgsRasterLayer(
        processing.run("ltchm:decompress", {"INPUT": str(target), "OUTPUT": str(WORK / "restored.tif")})["OUTPUT"]
    )
    QgsProject.instance().addMapLayer(restored, False)
    for point in (spot, spot + QPoint(-111, 37), spot + QPoint(57, 93)):
        values = [_identify(x, point) for x in (scene, restored, layer)]
        report(f"identify at {point.x()}, {point.y()}: scene {values[0]}, decompressed {values[1]}, source {values[2]}")
        assert len(values[0]) == 4
        assert values[0] == values[1]

    # options
    QTimer.singleShot(0, lambda: iface.showOptionsDialog(window, "LTCHM"))
    yield lambda: [w for w in QApplication.allWidgets() if type(w).__name__ == "OptionsPage" and w.isVisible()]
    yield after(1)
    page = next(w for w in QApplication.allWidgets() if type(w).__name__ == "OptionsPage")
    page.window().resize(900, 600)
    page.window().move(100, 80)
    page.run_test()
    yield page.test.isEnabled
    yield after(0.5)
    report("engine: " + page.answer.text().replace("\n", "; "))
    picture("options")
    page.window().reject()
    yield after(0.5)

    # a drop, a wrong file, no engine
    wrong = WORK / "wrong.ltchm"
    wrong.write_text("not a scene")
    plugin._drops.handleFileDrop(str(wrong))
    yield after(0.5)
    report(f"wrong file: {iface.messageBar().currentItem().text()}")
    picture("wrong-file")
    iface.messageBar().clearWidgets()
    os.environ["LTCHM_PYTHON"], before = "", os.environ["LTCHM_PYTHON"]
    os.environ["HOME"], home = str(WORK), os.environ.get("HOME", "")
    plugin._drops.handleFileDrop(str(shutil.copy(target, WORK / "again.ltchm")))
    yield after(1)
    picture("no-engine")
    window.findChild(QDialog, "ltchm_guidance").close()
    os.environ["LTCHM_PYTHON"], os.environ["HOME"] = before, home


def _identify(layer: QgsRasterLayer, spot: QPoint) -> list[str]:
    """What the identify tool says about a place on the screen, band by band."""
    tool = QgsMapToolIdentify(iface.mapCanvas())
    found = tool.identify(spot.x(), spot.y(), [layer], QgsMapToolIdentify.IdentifyMode.LayerSelection)
    return [value for result in found for value in result.mAttributes.values()]


class Driver:
    """Goes on with the steps whenever their conditions hold."""

    def __init__(self):
        self._steps, self._condition, self._since = steps(), lambda: True, time.monotonic()
        self._timer = QTimer(interval=50)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        try:
            if not self._condition():
                if time.monotonic() - self._since > LIMIT:
                    raise TimeoutError("a condition did not come true")
                return
            self._timer.stop()
            self._condition, self._since = next(self._steps), time.monotonic()
            self._timer.start()
        except StopIteration:
            self._end("done")
        except Exception:
            picture("error")
            self._end(traceback.format_exc())

    def _end(self, text: str) -> None:
        self._timer.stop()
        report(text)
        QgsProject.instance().clear()
        QgsProject.instance().setDirty(False)
        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, (QDialog, QMenu)):
                widget.close()
        QTimer.singleShot(500, QgsApplication.quit)


driver = Driver()
