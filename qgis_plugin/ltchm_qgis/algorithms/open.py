"""`ltchm:open`."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputString,
)

from ..engine import EngineError
from ..serve import scenes
from ..translation import tr
from .base import EngineAlgorithm

__all__ = ["OpenAlgorithm"]


class OpenAlgorithm(EngineAlgorithm):
    """Use a compressed scene as a raster layer without restoring it on disk."""

    NAME = "open"

    def displayName(self) -> str:
        """Title in the toolbox."""
        return tr("Open compressed scene")

    def shortHelpString(self) -> str:
        """Help beside the dialog."""
        return tr(
            "Opens a compressed scene as a raster layer. Pixels are decoded when something reads them, by an engine "
            "that runs until QGIS ends; nothing is written to disk. In a model, the output goes wherever a raster "
            "layer does."
        )

    def flags(self) -> QgsProcessingAlgorithm.Flags:
        """The engine that serves scenes belongs to the main thread."""
        return super().flags() | QgsProcessingAlgorithm.FlagNoThreading

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add_scene()
        self.addOutput(QgsProcessingOutputRasterLayer("OUTPUT", tr("Layer")))
        self.addOutput(QgsProcessingOutputString("URL", tr("Address")))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Serve the scene and load the layer when the algorithm is done."""
        try:
            layer = scenes().open(self.scene(parameters, context))
        except EngineError as error:
            raise QgsProcessingException(str(error)) from error
        source = layer.source()
        context.temporaryLayerStore().addMapLayer(layer)
        details = QgsProcessingContext.LayerDetails(layer.name(), context.project(), "OUTPUT")
        context.addLayerToLoadOnCompletion(layer.id(), details)
        return {"OUTPUT": layer.id(), "URL": source}
