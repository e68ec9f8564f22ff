"""`ltchm:info`."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFileDestination,
)

from ..texts import figure, size_text, table
from ..translation import tr
from .base import EngineAlgorithm

__all__ = ["InfoAlgorithm", "describe"]


def describe(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What `ltchm info` says, as labelled lines."""
    height, width = found["shape"]
    crs = QgsCoordinateReferenceSystem.fromWkt(found["georef"]["crs"] or "")
    return [
        (
            tr("Raster"),
            tr("{width} x {height} pixels, {bands} bands, {dtype}").format(
                width=width, height=height, bands=len(found["bands"]), dtype=found["dtype"]
            ),
        ),
        (
            tr("Size"),
            tr("{size}, {ratio} times smaller than its pixels").format(
                size=size_text(found["bytes"]), ratio=f"{found['ratio']:.1f}"
            ),
        ),
        (tr("Rate"), tr("{bpp} bits per pixel").format(bpp=f"{found['bpp']:.3f}")),
        _precision(found),
        (tr("CRS"), crs.userFriendlyIdentifier() if crs.isValid() else tr("none")),
        (tr("Weights"), found["weights_tag"] or found["weights"] or tr("none")),
        (tr("Made by"), found["software"]),
    ]


def _precision(found: dict[str, Any]) -> tuple[str, str]:
    """What the scene promises, or its quality where it promises nothing."""
    promised = found["guarantee"]
    if promised is None:
        return tr("Quality"), str(found["quality"])
    bounds = [figure(bound) for bound in promised["max_error"]]
    if not any(bounds):
        return tr("Guarantee"), tr("Lossless")
    different = sorted(set(bounds)) if len(set(bounds)) == 1 else bounds
    return tr("Guarantee"), tr("No pixel off by more than") + " " + ", ".join(f"{bound:.9g}" for bound in different)


class InfoAlgorithm(EngineAlgorithm):
    """Describe a compressed scene."""

    NAME = "info"

    def displayName(self) -> str:
        """Title in the toolbox."""
        return tr("Compressed scene information")

    def shortHelpString(self) -> str:
        """Help beside the dialog."""
        return tr("Tells size, bands, CRS, quality and weights of a compressed scene. Decodes no pixel.")

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add_scene()
        self.addParameter(
            QgsProcessingParameterFileDestination(
                "OUTPUT", tr("Report"), tr("HTML files (*.html)"), optional=True, createByDefault=False
            )
        )
        for name, label in (
            ("WIDTH", tr("Width in pixels")),
            ("HEIGHT", tr("Height in pixels")),
            ("BANDS", tr("Number of bands")),
            ("BYTES", tr("Size in bytes")),
            ("RATIO", tr("Compression ratio")),
            ("BPP", tr("Bits per pixel")),
            ("QUALITY", tr("Quality")),
        ):
            self.addOutput(QgsProcessingOutputNumber(name, label))
        for name, label in (("DTYPE", tr("Data type")), ("CRS", tr("CRS")), ("WEIGHTS", tr("Weights"))):
            self.addOutput(QgsProcessingOutputString(name, label))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Ask the engine; the results are empty if cancelled."""
        found = self.run_engine(["info", self.scene(parameters, context)], feedback)
        if found is None:
            return {}
        lines = describe(found)
        for label, value in lines:
            feedback.pushInfo(f"{label}: {value}")
        height, width = found["shape"]
        outputs = {
            "WIDTH": width,
            "HEIGHT": height,
            "BANDS": len(found["bands"]),
            "BYTES": found["bytes"],
            "RATIO": found["ratio"],
            "BPP": found["bpp"],
            "QUALITY": found["quality"],
            "DTYPE": found["dtype"],
            "CRS": found["georef"]["crs"] or "",
            "WEIGHTS": found["weights_tag"] or "",
        }
        report = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if report:
            Path(report).write_text(_page(Path(found["path"]).name, lines), encoding="utf-8")
            outputs["OUTPUT"] = report
        return outputs


def _page(title: str, lines: list[tuple[str, str]]) -> str:
    title = html.escape(title)
    return f"<meta charset='utf-8'><title>{title}</title><h2>{title}</h2>{table(lines)}"
