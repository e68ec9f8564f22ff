"""`ltchm:decompress`."""

from __future__ import annotations

import re
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..extents import bounds_text
from ..texts import size_text
from ..translation import tr
from .base import EngineAlgorithm

__all__ = ["DecompressAlgorithm"]


class DecompressAlgorithm(EngineAlgorithm):
    """Restore a compressed scene as a GeoTIFF."""

    NAME = "decompress"

    def displayName(self) -> str:
        """Title in the toolbox."""
        return tr("Decompress to GeoTIFF")

    def shortHelpString(self) -> str:
        """Help beside the dialog."""
        return tr(
            "Restores a compressed scene, or the part of it inside an extent, as a GeoTIFF with everything the source "
            "had: CRS, transform, band names, nodata, masks, tags.\n\n"
            "Bands are numbers from 1 such as 4,3,2; empty means all. Overview 0 is full resolution; how many smaller "
            'ones there are, "Compressed scene information" tells.'
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add_scene()
        self.addParameter(QgsProcessingParameterString("BANDS", tr("Bands, such as 4,3,2"), optional=True))
        self.addParameter(QgsProcessingParameterExtent("EXTENT", tr("Only this extent"), optional=True))
        self.addParameter(
            QgsProcessingParameterNumber(
                "LEVEL",
                tr("Overview (0: full resolution)"),
                QgsProcessingParameterNumber.Type.Integer,
                0,
                minValue=0,
            )
        )
        self.addParameter(
            QgsProcessingParameterBoolean(
                "ALLOW_DAMAGED", tr("Put nodata in place of damaged tiles instead of stopping"), False
            )
        )
        self.add_device()
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", tr("Restored raster")))
        self.addOutput(QgsProcessingOutputNumber("BYTES", tr("Size in bytes")))
        self.addOutput(QgsProcessingOutputNumber("DAMAGED", tr("Damaged tiles")))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Restore; the results are empty if cancelled."""
        scene = self.scene(parameters, context)
        path = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        level = self.parameterAsInt(parameters, "LEVEL", context)
        arguments = ["decompress", scene, path, "--overwrite", *self.device(parameters, context)]
        arguments += ["--level", str(level)]
        bands = self.parameterAsString(parameters, "BANDS", context).replace(" ", "")
        if bands and not re.fullmatch(r"\d+(,\d+)*", bands):
            raise QgsProcessingException(tr("{bands} is not a list of band numbers such as 4,3,2.").format(bands=bands))
        if bands:
            arguments += ["--bands", bands]
        if self.parameterAsBoolean(parameters, "ALLOW_DAMAGED", context):
            arguments.append("--allow-damaged")
        if parameters.get("EXTENT"):
            bounds = self._bounds(scene, level, parameters, context, feedback)
            if bounds is None:
                return {}
            arguments += ["--bounds", *bounds]
        result = self.run_engine(arguments, feedback, writes=path)
        if result is None:
            return {}
        feedback.pushInfo(f"{result['path']}: {size_text(result['bytes'])}")
        return {"OUTPUT": result["path"], "BYTES": result["bytes"], "DAMAGED": len(result["damaged"])}

    def _bounds(
        self,
        scene: str,
        level: int,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> list[str] | None:
        """The extent in the scene's CRS; None if the user cancelled."""
        found = self.run_engine(["info", scene], feedback)
        if found is None:
            return None
        if level >= len(found["levels"]):
            raise QgsProcessingException(tr("The scene has no overview {level}.").format(level=level))
        if found["levels"][level]["transform"] is None:
            raise QgsProcessingException(tr("The scene has no position on the map: leave the extent empty."))
        crs = QgsCoordinateReferenceSystem.fromWkt(found["georef"]["crs"] or "")
        return bounds_text(self.parameterAsExtent(parameters, "EXTENT", context, crs))
