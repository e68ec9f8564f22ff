"""Rectangles on the map, as the engine takes them: of a layer, the part that the map shows."""

from __future__ import annotations

from qgis.core import (
    QgsCoordinateTransform,
    QgsCsException,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)

__all__ = ["bounds_text", "visible_bounds"]


def visible_bounds(layer: QgsRasterLayer, view: QgsReferencedRectangle | None) -> list[str]:
    """The part in view, in the layer's coordinates, as (x min, y min, x max, y max) in words; all of it if none is.

    Which pixels these are is left to the engine: of a raster that is not north up, QGIS shows a warped copy whose rows
    and columns are not the file's.
    """
    return bounds_text(_visible(layer, view) or layer.extent())


def bounds_text(box: QgsRectangle) -> list[str]:
    """A rectangle as the engine's option --bounds takes it."""
    return [repr(number) for number in (box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum())]


def _visible(layer: QgsRasterLayer, view: QgsReferencedRectangle | None) -> QgsRectangle | None:
    """The part of the layer in view, in its CRS; None if there is none."""
    if view is None or view.isEmpty():
        return None
    box = QgsRectangle(view)
    if view.crs().isValid() and layer.crs().isValid() and view.crs() != layer.crs():
        try:
            box = QgsCoordinateTransform(view.crs(), layer.crs(), QgsProject.instance()).transformBoundingBox(box)
        except QgsCsException:
            return None
    box = box.intersect(layer.extent())
    return None if box.isEmpty() else box
