"""The plugin: menu, toolbar, layer menu, drops, options, and what happens when they are used."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsMapLayerStyle,
    QgsMapLayerType,
    QgsProject,
    QgsRasterLayer,
    QgsReferencedRectangle,
)
from qgis.gui import QgisInterface, QgsCustomDropHandler
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QFileDialog, QMenu, QToolBar

from . import translation
from .algorithms.base import ICON, open_filter
from .engine import EngineError, guidance
from .provider import LtchmProvider
from .serve import is_scene, scene_of, scenes
from .settings import Settings
from .translation import tr

__all__ = ["LtchmPlugin"]

_MENU = "LTCHM"
_SECONDS = 15  # how long a success stays in the message bar
_LONG = 160  # characters that the message bar shows


class _Drops(QgsCustomDropHandler):
    """Opens compressed scenes dropped on the window."""

    def __init__(self, plugin: LtchmPlugin):
        super().__init__()
        self._plugin = plugin

    def handleFileDrop(self, path: str) -> bool:
        """Whether the file was one of ours; if so, QGIS does not try it too."""
        if not is_scene(path):
            return False
        self._plugin.open_scene(path)
        return True


class LtchmPlugin:
    """Made by QGIS; `iface` is None in qgis_process."""

    def __init__(self, iface: QgisInterface | None):
        self.iface = iface
        self.provider: LtchmProvider | None = None
        self._translator = translation.install()
        self._active = True

    # --- QGIS calls these --------------------------------------------------------------------------------------------

    def initProcessing(self) -> None:
        """All that qgis_process needs."""
        provider = LtchmProvider()
        if QgsApplication.processingRegistry().addProvider(provider):  # else it is deleted: there is one already
            self.provider = provider
        scenes().problem.connect(self._warn)
        scenes().install()  # as projects are read there, too

    def initGui(self) -> None:
        """Everything else."""
        from .options_page import OptionsFactory

        self.initProcessing()
        self._options = OptionsFactory()
        self.iface.registerOptionsWidgetFactory(self._options)
        self._drops = _Drops(self)
        self.iface.registerCustomDropHandler(self._drops)
        self._toolbar = self.iface.addToolBar("LTCHM")
        self._toolbar.setObjectName("ltchm_toolbar")
        self._add_action(self._toolbar, "compress", tr("Compress layer..."), self.compress)
        self._add_action(self._toolbar, "open", tr("Open compressed scene..."), self.open)
        self._add_action(self._toolbar, "decompress", tr("Decompress to GeoTIFF..."), self.decompress)
        for action in self._toolbar.actions():
            self.iface.addPluginToRasterMenu(_MENU, action)
        self._layer_menu = QMenu(self._window())  # never shown: QGIS shows its actions in the layers' menus
        self._add_action(self._layer_menu, "compress", tr("Compress layer..."), self.compress)
        self._add_action(self._layer_menu, "decompress", tr("Decompress to GeoTIFF..."), self.decompress)
        self._add_action(self._layer_menu, "ltchm", tr("About the compressed scene"), self.describe)
        for number, action in enumerate(self._layer_menu.actions()):
            every_layer = number == 0  # the others only for compressed scenes
            self.iface.addCustomActionForLayerType(action, _MENU, QgsMapLayerType.RasterLayer, every_layer)
        QgsProject.instance().layersAdded.connect(self._offer_scene_actions)
        self._offer_scene_actions(list(QgsProject.instance().mapLayers().values()))

    def unload(self) -> None:
        """Take everything away again."""
        self._active = False
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
        if self._translator is not None:
            QgsApplication.removeTranslator(self._translator)
        scenes().close()
        scenes().problem.disconnect(self._warn)
        if self.iface is None:
            return
        QgsProject.instance().layersAdded.disconnect(self._offer_scene_actions)
        for action in self._layer_menu.actions():
            self.iface.removeCustomActionForLayerType(action)
        for action in self._toolbar.actions():
            self.iface.removePluginRasterMenu(_MENU, action)
        self._toolbar.deleteLater()
        self._layer_menu.deleteLater()
        self.iface.unregisterCustomDropHandler(self._drops)
        self.iface.unregisterOptionsWidgetFactory(self._options)

    # --- the user calls these ----------------------------------------------------------------------------------------

    def compress(self) -> None:
        """Show the dialog; compress in the background when the user says so."""
        from .dialogs.compress_dialog import CompressDialog
        from .dialogs.guidance import show_guidance

        if not Settings().interpreter:
            show_guidance(self.iface, tr("Compressing needs the LTCHM engine"), guidance())
            return
        layer = self.iface.activeLayer()
        dialog = CompressDialog(layer if isinstance(layer, QgsRasterLayer) else None, self._view(), self._window())
        if dialog.exec():
            self.compress_layer(dialog.layer, dialog.parameters(), dialog.opens)
        dialog.deleteLater()

    def compress_layer(self, layer: QgsRasterLayer, parameters: dict[str, Any], opens: bool) -> None:
        """Compress in a background task, tell the outcome, open the scene styled as the layer."""
        from .tasks import AlgorithmRun

        style = QgsMapLayerStyle()
        style.readFromLayer(layer)  # as it is now: the layer may be gone when the scene is ready
        name, crs = layer.name(), layer.crs()  # a CRS that was chosen in QGIS is not in the file

        def done(results: dict[str, Any] | None, message: str) -> None:
            if not self._active:  # switched off meanwhile
                return
            if results is None:
                if message:
                    self._fail(tr("Compressing {layer} failed").format(layer=name), message)
                else:
                    self._tell(tr("Compressing {layer} was cancelled; nothing was written.").format(layer=name))
                return
            self.iface.messageBar().pushMessage("LTCHM", _outcome(results), Qgis.MessageLevel.Success, _SECONDS)
            if opens:
                self.open_scene(results["OUTPUT"], tr("{layer} (compressed)").format(layer=name), style, crs)

        AlgorithmRun("ltchm:compress", parameters, tr("Compressing {layer}").format(layer=name), done)

    def open(self) -> None:
        """Ask for scenes and open them."""
        settings = Settings()
        paths, _ = QFileDialog.getOpenFileNames(
            self._window(), tr("Open compressed scene"), settings.scene_folder, open_filter()
        )
        for path in map(scene_of, paths):
            settings.scene_folder = os.path.dirname(path)
            self.open_scene(path)

    def open_scene(
        self,
        path: str,
        name: str = "",
        style: QgsMapLayerStyle | None = None,
        crs: QgsCoordinateReferenceSystem | None = None,
    ) -> QgsRasterLayer | None:
        """Add a compressed scene to the project, in a style and CRS; None, with a message, if that fails."""
        try:
            layer = scenes().open(path, name)
        except EngineError as error:
            self._fail(tr("{scene} was not opened").format(scene=os.path.basename(path)), str(error), error)
            return None
        if style is not None and style.isValid():
            style.writeToLayer(layer)
        if crs is not None and crs.isValid() and crs != layer.crs():
            layer.setCrs(crs)
        return QgsProject.instance().addMapLayer(layer)

    def decompress(self) -> None:
        """Show Processing's dialog, with the scene of the active layer if it has one."""
        import processing

        source = self._active_scene()
        processing.execAlgorithmDialog("ltchm:decompress", {"INPUT": source} if source else {})

    def describe(self) -> None:
        """Tell what the scene of the active layer is."""
        from .tasks import EngineTask

        source = self._active_scene()
        if not source:
            self._tell(tr("This layer shows no compressed scene."))
            return
        task = EngineTask(tr("About the compressed scene"), ["info", source], self._described, hidden=True)
        QgsApplication.taskManager().addTask(task)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _described(self, found: dict[str, Any] | None, error: EngineError | None) -> None:
        from .algorithms.info import describe
        from .dialogs.guidance import show_facts

        if not self._active:  # switched off meanwhile
            return
        if found is None:
            self._fail(tr("The scene cannot be described"), str(error), error)
            return
        show_facts(self.iface, Path(found["path"]).name, [(tr("File"), found["path"]), *describe(found)])

    def _tell(self, text: str) -> None:
        self._push("LTCHM", text, Qgis.MessageLevel.Info, _SECONDS)

    def _warn(self, text: str) -> None:
        if self.iface is None:
            QgsApplication.messageLog().logMessage(text, "LTCHM", Qgis.MessageLevel.Warning)
        else:
            self._show("LTCHM", text, Qgis.MessageLevel.Warning)

    def _fail(self, title: str, text: str, error: EngineError | None = None) -> None:
        """One clear message; what else the engine said goes to the log."""
        QgsApplication.messageLog().logMessage(
            f"{title}: {text}\n{error.details if error else ''}".strip(), "LTCHM", Qgis.MessageLevel.Critical
        )
        self._show(title, text, Qgis.MessageLevel.Critical)

    def _show(self, title: str, text: str, level: Qgis.MessageLevel) -> None:
        """In the message bar, or in a window if it is long, as guidance is."""
        if "\n" in text or len(text) > _LONG:
            from .dialogs.guidance import show_guidance

            show_guidance(self.iface, title, text)
        else:
            self._push(title, text, level, 0)

    def _push(self, title: str, text: str, level: Qgis.MessageLevel, seconds: int) -> None:
        """In the message bar, which takes what it shows for HTML."""
        title, text = (html.escape(words, quote=False) for words in (title, text))
        self.iface.messageBar().pushMessage(title, text, level, seconds)

    # --- small things ------------------------------------------------------------------------------------------------

    @staticmethod
    def _add_action(place: QToolBar | QMenu, icon: str, title: str, slot: Any) -> None:
        action = place.addAction(QIcon(str(ICON.with_name(f"{icon}.svg"))), title)
        action.setObjectName(f"ltchm_{icon}")
        action.triggered.connect(lambda _checked=False: slot())

    def _offer_scene_actions(self, layers: list[QgsMapLayer]) -> None:
        for layer in layers:
            if isinstance(layer, QgsRasterLayer) and scenes().scene(layer.source()):
                for action in self._layer_menu.actions()[1:]:
                    self.iface.addCustomActionForLayer(action, layer)

    def _active_scene(self) -> str:
        layer = self.iface.activeLayer()
        return (scenes().scene(layer.source()) or "") if isinstance(layer, QgsRasterLayer) else ""

    def _view(self) -> QgsReferencedRectangle:
        canvas = self.iface.mapCanvas()
        return QgsReferencedRectangle(canvas.extent(), canvas.mapSettings().destinationCrs())

    def _window(self) -> Any:
        return self.iface.mainWindow()


def _outcome(results: dict[str, Any]) -> str:
    """Size, ratio and PSNR of a compressed scene, with a link that opens its folder, as HTML."""
    from .texts import psnr_text, size_text

    path = results["OUTPUT"]
    address, name = (html.escape(text) for text in (QUrl.fromLocalFile(path).toString(), Path(path).name))
    link = f'<a href="{address}">{name}</a>'
    parts = [link, size_text(results["BYTES"]), tr("{ratio} times smaller").format(ratio=f"{results['RATIO']:.1f}")]
    if results.get("PSNR") is not None:
        parts.append(psnr_text([results["PSNR"]]))
    return ", ".join(parts)
