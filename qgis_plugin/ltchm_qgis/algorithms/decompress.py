"""`ltchm:decompress`."""

from __future__ import annotations

import math
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
    QgsRectangle,
)

from ..texts import size_text
from ..translation import tr
from .base import EngineAlgorithm

__all__ = ["DecompressAlgorithm", "pixel_window"]


def pixel_window(extent: QgsRectangle, transform: list[float], shape: list[int]) -> tuple[int, int, int, int] | None:
    """Pixels that an extent in the raster's CRS touches, as (row, column, height, width); None if there are none.

    Parameters
    ----------
    extent : in the raster's CRS
    transform : affine (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f
    shape : (height, width)
    """
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    if determinant == 0:
        return None
    corners = [
        (x - c, y - f) for x in (extent.xMinimum(), extent.xMaximum()) for y in (extent.yMinimum(), extent.yMaximum())
    ]
    height, width = shape
    # A side that lies on the border between two pixels must not take the neighbour because of rounding.
    columns = [round((e * x - b * y) / determinant, 6) for x, y in corners]
    rows = [round((a * y - d * x) / determinant, 6) for x, y in corners]
    left, right = max(0, math.floor(min(columns))), min(width, math.ceil(max(columns)))
    top, bottom = max(0, math.floor(min(rows))), min(height, math.ceil(max(rows)))
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


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
        scene = self.parameterAsFile(parameters, "INPUT", context)
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
            window = self._window(scene, level, parameters, context, feedback)
            if window is None:
                return {}
            arguments += ["--window", *map(str, window)]
        result = self.run_engine(arguments, feedback, writes=path)
        if result is None:
            return {}
        feedback.pushInfo(f"{result['path']}: {size_text(result['bytes'])}")
        return {"OUTPUT": result["path"], "BYTES": result["bytes"], "DAMAGED": len(result["damaged"])}

    def _window(
        self,
        scene: str,
        level: int,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> tuple[int, int, int, int] | None:
        """The extent in pixels of an overview; None if the user cancelled."""
        found = self.run_engine(["info", scene], feedback)
        if found is None:
            return None
        if level >= len(found["levels"]):
            raise QgsProcessingException(tr("The scene has no overview {level}.").format(level=level))
        grid = found["levels"][level]
        if grid["transform"] is None:
            raise QgsProcessingException(tr("The scene has no position on the map: leave the extent empty."))
        crs = QgsCoordinateReferenceSystem.fromWkt(found["georef"]["crs"] or "")
        extent = self.parameterAsExtent(parameters, "EXTENT", context, crs)
        window = pixel_window(extent, grid["transform"], grid["shape"])
        if window is None:
            raise QgsProcessingException(tr("The scene does not touch this extent."))
        return window
