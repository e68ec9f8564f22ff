"""`ltchm:compress`."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsRasterLayer,
)

from ..serve import scenes
from ..settings import Settings
from ..texts import figure, mean, psnr_text, size_text
from ..translation import tr
from .base import EngineAlgorithm, scene_filter

__all__ = [
    "CompressAlgorithm",
    "Guarantee",
    "SourceRefused",
    "guarantee_texts",
    "nodata_arguments",
    "precision_arguments",
    "source_name",
    "user_nodata",
]


class Guarantee(IntEnum):
    """What the user wants to be sure of; the values are those of the parameter GUARANTEE."""

    QUALITY = 0
    MAX_ERROR = 1
    LOSSLESS = 2


def guarantee_texts() -> list[str]:
    """A name for each `Guarantee`."""
    return [tr("Approximate, by quality"), tr("No pixel off by more than"), tr("Lossless")]


def precision_arguments(guarantee: Guarantee, quality: int, max_error: float) -> list[str]:
    """The engine's options for what the user wants."""
    if guarantee == Guarantee.LOSSLESS:
        return ["--lossless"]
    if guarantee == Guarantee.MAX_ERROR:
        return ["--max-error", repr(float(max_error))]  # rounded, it might promise less
    return ["--quality", str(quality)]


def user_nodata(layer: QgsRasterLayer) -> float | None:
    """The value that the user named under Layer Properties > Transparency, where it is one alone for all bands.

    None where the raster has a nodata value of its own which is in use, for a scene has no more than one.
    """
    provider = layer.dataProvider()
    bands = range(1, provider.bandCount() + 1)
    if any(provider.sourceHasNoDataValue(band) and provider.useSourceNoDataValue(band) for band in bands):
        return None
    alpha = Qgis.RasterColorInterpretation.AlphaBand
    named = [
        [(one.min(), one.max()) for one in provider.userNoDataValues(band)]
        for band in bands
        if provider.colorInterpretation(band) != alpha
    ]
    alike = named and len(named[0]) == 1 and all(one == named[0] for one in named)
    low, high = named[0][0] if alike else (0.0, 1.0)
    return low if low == high else None


def nodata_arguments(layer: QgsRasterLayer) -> list[str]:
    """The engine's option for what the user named as nodata."""
    nodata = user_nodata(layer)
    return [] if nodata is None else ["--nodata", repr(float(nodata))]


class SourceRefused(ValueError):
    """A layer that cannot be compressed; the message says why and what to do."""


def source_name(layer: QgsRasterLayer) -> str:
    """What the engine's GDAL opens to read the layer.

    Raises
    ------
    SourceRefused
    """
    if not layer.isValid():
        raise SourceRefused(tr("{layer} is not available: its source cannot be opened.").format(layer=layer.name()))
    if scenes().scene(layer.source()) is not None:
        raise SourceRefused(
            tr("{layer} is a compressed scene already; compressing it again would only lose quality.").format(
                layer=layer.name()
            )
        )
    if layer.providerType() != "gdal":
        raise SourceRefused(
            tr("{layer} does not come from a file ({provider}). Export it as a GeoTIFF first.").format(
                layer=layer.name(), provider=layer.providerType()
            )
        )
    return layer.source().split("|")[0]


class CompressAlgorithm(EngineAlgorithm):
    """Compress a raster layer into one file."""

    NAME = "compress"

    def displayName(self) -> str:
        """Title in the toolbox."""
        return tr("Compress raster")

    def shortHelpString(self) -> str:
        """Help beside the dialog."""
        return tr(
            "Compresses a raster with a learned codec. CRS, transform, band names, nodata, masks and tags are kept "
            "exactly, pixel values approximately: the higher the quality (1 to 100), the closer and the larger. "
            "8 and 16 bit integers and floats, any number of bands.\n\n"
            "Where approximately will not do, let no pixel be off by more than a largest error, in the unit of the "
            "data, or choose lossless: both make larger files. Class maps and flags need lossless.\n\n"
            "A nodata value that you named in the layer's properties, under Transparency, is taken for the whole scene "
            "if the raster has none of its own.\n\n"
            "Measuring decodes the result and reports the PSNR; it takes about as long as decompressing.\n\n"
            "The outputs BYTES, RATIO, BPP (bits per pixel, all bands) and PSNR (mean over bands, in dB) are numbers "
            "for models."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", tr("Raster layer")))
        self.addParameter(
            QgsProcessingParameterNumber(
                "QUALITY",
                tr("Quality (1 to 100)"),
                QgsProcessingParameterNumber.Type.Integer,
                Settings().quality,
                minValue=1,
                maxValue=100,
            )
        )
        self.addParameter(
            QgsProcessingParameterEnum(
                "GUARANTEE", tr("Guarantee"), guarantee_texts(), defaultValue=int(Guarantee.QUALITY)
            )
        )
        max_error = QgsProcessingParameterNumber(
            "MAX_ERROR",
            tr("Largest error, if that is guaranteed"),
            QgsProcessingParameterNumber.Type.Double,
            1.0,
            minValue=0.0,
        )
        max_error.setMetadata({"widget_wrapper": {"decimals": 9}})
        self.addParameter(max_error)
        self.addParameter(QgsProcessingParameterBoolean("MEASURE", tr("Measure what was lost"), True))
        self.add_device()
        self.addParameter(QgsProcessingParameterFileDestination("OUTPUT", tr("Compressed scene"), scene_filter()))
        self.addOutput(QgsProcessingOutputNumber("BYTES", tr("Size in bytes")))
        self.addOutput(QgsProcessingOutputNumber("RATIO", tr("Compression ratio")))
        self.addOutput(QgsProcessingOutputNumber("BPP", tr("Bits per pixel")))
        self.addOutput(QgsProcessingOutputNumber("PSNR", tr("Mean PSNR in dB")))

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Look the layer up, which only the main thread may do."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        try:
            self._source, self._nodata = source_name(layer), nodata_arguments(layer)
        except SourceRefused as refused:
            raise QgsProcessingException(str(refused)) from refused
        path = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if os.name == "nt" and scenes().serves(path):  # Windows replaces no file that is open: it would fail at the end
            raise QgsProcessingException(
                tr("{scene} is shown by a layer. Remove the layer, or choose another name.").format(scene=path)
            )
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Compress; the results are empty if cancelled."""
        path = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        arguments = ["compress", self._source, path, "--overwrite", *self._nodata]
        arguments += precision_arguments(
            Guarantee(self.parameterAsEnum(parameters, "GUARANTEE", context)),
            self.parameterAsInt(parameters, "QUALITY", context),
            self.parameterAsDouble(parameters, "MAX_ERROR", context),
        )
        arguments += self.device(parameters, context)
        if self.parameterAsBoolean(parameters, "MEASURE", context):
            arguments.append("--measure")
        result = self.run_engine(arguments, feedback, writes=path)
        if result is None:
            return {}
        return self._outputs(result, feedback)

    @staticmethod
    def _outputs(result: dict[str, Any], feedback: QgsProcessingFeedback) -> dict[str, Any]:
        summary = tr("{size}, {ratio} times smaller than its pixels, {bpp} bits per pixel").format(
            size=size_text(result["bytes"]), ratio=f"{result['ratio']:.1f}", bpp=f"{result['bpp']:.3f}"
        )
        feedback.pushInfo(summary)
        for band, (psnr, worst) in enumerate(zip(result["psnr"] or [], result["max_error"] or []), start=1):
            feedback.pushInfo(
                tr("band {band}: {psnr}, largest error {error}").format(
                    band=band, psnr=psnr_text([psnr]), error=f"{figure(worst):.6g}"
                )
            )
        outputs = {"OUTPUT": result["path"], **{key.upper(): result[key] for key in ("bytes", "ratio", "bpp")}}
        psnr = mean(result["psnr"])
        return outputs if psnr is None else {**outputs, "PSNR": psnr}
