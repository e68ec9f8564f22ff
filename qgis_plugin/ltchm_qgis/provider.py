"""The Processing provider `ltchm`."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.base import ICON
from .algorithms.compress import CompressAlgorithm
from .algorithms.decompress import DecompressAlgorithm
from .algorithms.info import InfoAlgorithm
from .algorithms.open import OpenAlgorithm

__all__ = ["LtchmProvider"]


class LtchmProvider(QgsProcessingProvider):
    """The algorithms, for toolbox, batch, models and qgis_process."""

    def id(self) -> str:
        """Prefix of the algorithms' identifiers."""
        return "ltchm"

    def name(self) -> str:
        """Title in the toolbox."""
        return "LTCHM"

    def icon(self) -> QIcon:
        """Shown in the toolbox."""
        return QIcon(str(ICON))

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """What rasters are restored as."""
        return ["tif", "tiff"]

    def loadAlgorithms(self) -> None:
        """Register them all."""
        for algorithm in (CompressAlgorithm, DecompressAlgorithm, InfoAlgorithm, OpenAlgorithm):
            self.addAlgorithm(algorithm())
