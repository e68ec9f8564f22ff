"""LTCHM for QGIS: compress rasters with a learned codec, and use the compressed scenes as layers."""

from __future__ import annotations


def classFactory(iface):
    """Entry point of QGIS plugins."""
    from .plugin import LtchmPlugin

    return LtchmPlugin(iface)
