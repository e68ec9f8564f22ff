"""From what the map shows to pixels of a layer."""

from __future__ import annotations

from qgis.core import (
    QgsCoordinateTransform,
    QgsCsException,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)

__all__ = ["preview_window"]


def preview_window(layer: QgsRasterLayer, view: QgsReferencedRectangle | None, side: int) -> tuple[int, int, int, int]:
    """Pixels to preview as (row, column, height, width): the middle of the view, at most `side` pixels square.

    Parameters
    ----------
    layer : with extent, width and height
    view : what the map shows; the middle of the layer is taken if None, or if it shows nothing of it
    side : largest height and width
    """
    extent = layer.extent()
    box = _visible(layer, view) or extent
    pixel_x, pixel_y = extent.width() / layer.width(), extent.height() / layer.height()
    left, right = (box.xMinimum() - extent.xMinimum()) / pixel_x, (box.xMaximum() - extent.xMinimum()) / pixel_x
    top, bottom = (extent.yMaximum() - box.yMaximum()) / pixel_y, (extent.yMaximum() - box.yMinimum()) / pixel_y
    column, width = _span(left, right, layer.width(), side)
    row, height = _span(top, bottom, layer.height(), side)
    return row, column, height, width


def _span(low: float, high: float, size: int, side: int) -> tuple[int, int]:
    """First pixel and count: the span's middle, never empty, inside 0 to size."""
    count = max(min(side, size, 64), min(side, size, round(high - low)))
    first = round((low + high - count) / 2)
    return max(0, min(first, size - count)), count


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
