"""What the algorithms share: the engine, the icon, the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from .. import engine
from ..serve import scene_of
from ..settings import Settings
from ..translation import tr

__all__ = ["ICON", "EngineAlgorithm", "open_filter", "scene_filter"]

ICON = Path(__file__).parent.parent / "icons" / "ltchm.svg"


def scene_filter() -> str:
    """File filter of compressed scenes to be written."""
    return tr("Compressed scenes (*.ltchm)") + ";;" + tr("All files (*)")


def open_filter() -> str:
    """File filter of compressed scenes to be read: files, and the manifests of folders."""
    return tr("Compressed scenes (*.ltchm ltchm-manifest.json)") + ";;" + tr("All files (*)")


class EngineAlgorithm(QgsProcessingAlgorithm):
    """An algorithm done by the engine. Subclasses set NAME and fill in the rest."""

    NAME = ""

    def name(self) -> str:
        """Identifier after the provider's."""
        return self.NAME

    def createInstance(self) -> EngineAlgorithm:
        """A fresh one for each run, as Processing wants it."""
        return type(self)()

    def icon(self) -> QIcon:
        """Shown in the toolbox."""
        return QIcon(str(ICON))

    def add_scene(self) -> None:
        """Add the parameter INPUT: a compressed scene."""
        self.addParameter(
            QgsProcessingParameterFile("INPUT", tr("Compressed scene"), fileFilter=open_filter()),
        )

    def scene(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """Path of the scene that INPUT is."""
        return scene_of(self.parameterAsFile(parameters, "INPUT", context))

    def add_device(self) -> None:
        """Add the advanced parameter DEVICE."""
        device = QgsProcessingParameterString(
            "DEVICE", tr("Device (auto, cpu, cuda, cuda:1); as in the options if empty"), optional=True
        )
        device.setFlags(device.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(device)

    def device(self, parameters: dict[str, Any], context: QgsProcessingContext) -> list[str]:
        """The engine's option for the chosen device."""
        return ["--device", self.parameterAsString(parameters, "DEVICE", context).strip() or Settings().device]

    def run_engine(
        self, arguments: list[str], feedback: QgsProcessingFeedback, writes: str | None = None
    ) -> dict[str, Any] | None:
        """Run the engine; None if the user cancelled. Its errors become Processing's, in one message."""
        feedback.pushDebugInfo("ltchm " + " ".join(arguments))
        try:
            return engine.run(
                arguments,
                interpreter=Settings().interpreter,
                cancelled=feedback.isCanceled,
                progress=lambda done, total: feedback.setProgress(100 * done / max(total, 1)),
                warning=feedback.pushWarning,
                writes=writes,
            )
        except engine.EngineCancelled:
            return None
        except engine.EngineError as error:
            if error.details:
                feedback.pushDebugInfo(error.details)
            raise QgsProcessingException(str(error)) from error
