"""`footprint`: where a compressed scene has data, as a GeoJSON polygon. No network runs: holes are stored exactly."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .container import ContainerReader, SceneMeta
from .errors import UsageError
from .overviews import average_mask
from .pyramid import MAX_STEP, reduced
from .types import PixelBox, Shape2d

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["footprint"]

_DEFAULT_PARTS = 1000  # of the longer side, for the default precision
_MAX_PIXELS = 1 << 28  # of the mask that is traced
_EDGE_PARTS = 32  # a straight edge as long as the scene gets this many pieces before it is bent by another projection


def footprint(
    src: str | os.PathLike[str], *, precision: float | None = None, crs: str | None = "EPSG:4326"
) -> dict[str, Any]:
    """The area of a compressed scene where any band but alpha holds data.

    Parameters
    ----------
    src : path of a ``.ltchm`` file or a ``.zarr`` folder
    precision : float, optional
        How far, in pixels of the scene, the outline may be from the exact one; holes and islands of less than its
        square are left out. Default: a thousandth of the longer side, at least 1.
    crs : str, optional
        Coordinate system of the result, as rasterio knows them. None leaves the scene's own coordinates, which are
        columns and rows in pixels where it has no transform.

    Returns
    -------
    GeoJSON Feature, its geometry a Polygon or MultiPolygon whose outer rings run counterclockwise, or None if no pixel
    holds data. In longitude and latitude an area across the antimeridian is cut there. In other coordinates than the
    default the member ``crs`` names them (as GeoJSON did until RFC 7946) if they have a code.

    Raises
    ------
    ContainerError
    UsageError
        The scene has no coordinate system or no sound transform and `crs` asks for one; or `precision` is too small.
    """
    with ContainerReader(src) as reader:
        meta = reader.meta
        if precision is None:
            precision = max(1.0, max(meta.shape) / _DEFAULT_PARTS)
        if not 0 < precision < math.inf:
            raise UsageError(f"precision must be a positive number of pixels, not {precision}")
        if crs is not None and (meta.georef.crs is None or meta.georef.transform is None):
            raise UsageError(
                f"{reader.path} has no {'transform' if meta.georef.crs else 'coordinate system'}: "
                "ask for its own coordinates (crs=None, --crs own)"
            )
        valid, factor = _coarse_mask(reader, precision)
    outline = _trace(valid, factor, meta.shape, precision)
    geometry = None if outline.is_empty else _located(outline, meta, precision, crs)
    properties = {"scene": os.path.basename(os.fspath(src)), "precision": precision}
    feature: dict[str, Any] = {"type": "Feature", "properties": properties, "geometry": geometry}
    return feature | _crs_member(crs or meta.georef.crs)


def _coarse_mask(reader: ContainerReader, precision: float) -> tuple[NDArray[np.bool_], int]:
    """Which blocks of factor x factor pixels hold data, and that factor, the largest that the precision allows."""
    from .scene_decoder import SceneDecoder

    meta, decoder = reader.meta, SceneDecoder(reader)
    level = max(level for level in meta.pyramid if meta.pyramid_factor(level) <= max(1, precision / 2))
    step = 1
    while step < MAX_STEP and 2 * step * meta.pyramid_factor(level) <= precision / 2:
        step *= 2
    grid = meta.pyramid_grid(level).for_reading
    shape = reduced(grid.scene, step)
    if shape.y * shape.x > _MAX_PIXELS:
        raise UsageError(
            f"precision {precision:g} is too fine for a scene of this size: ask for {2 * precision:g} or more"
        )
    valid = np.empty(shape, bool)
    for shard in grid.shard_indices:
        box = grid.shard_box(shard)
        part = reduced(Shape2d(box.height, box.width), step)
        target = PixelBox(box.y0 // step, box.x0 // step, *part).slices
        valid[target] = average_mask(decoder.read_valid(box, level), step)
    return valid, step * meta.pyramid_factor(level)


def _trace(valid: NDArray[np.bool_], factor: int, scene: Shape2d, precision: float) -> BaseGeometry:
    """Polygons around the valid blocks, in pixels of the scene (column, row)."""
    import shapely
    from rasterio import Affine
    from rasterio.features import shapes

    traced = shapes(valid.astype(np.uint8), mask=valid, connectivity=4, transform=Affine.scale(factor))
    polygons = [shapely.geometry.shape(geometry) for geometry, _ in traced]
    smallest = precision**2
    kept = [_without_small_holes(polygon, smallest) for polygon in polygons if polygon.area >= smallest]
    inside = shapely.box(0, 0, scene.x, scene.y)  # blocks of the last row and column reach beyond
    outline = shapely.intersection(shapely.MultiPolygon(kept or polygons), inside)
    return outline.simplify(precision / 2)


def _without_small_holes(polygon: Any, smallest: float) -> Any:
    import shapely

    holes = [ring for ring in polygon.interiors if shapely.Polygon(ring).area >= smallest]
    return shapely.Polygon(polygon.exterior, holes)


def _located(outline: BaseGeometry, meta: SceneMeta, precision: float, crs: str | None) -> dict[str, Any]:
    """GeoJSON geometry of an outline in pixels."""
    import shapely
    from shapely.affinity import affine_transform

    if meta.georef.transform is not None:
        a, b, c, d, e, f = meta.georef.transform
        outline = affine_transform(outline, (a, b, d, e, c, f))
    if crs is not None:
        if not outline.area:
            raise UsageError("the scene's transform gives its pixels no area on the map: ask for --crs own (crs=None)")
        outline = _reprojected(outline, meta, precision, crs)
    polygons = [shapely.geometry.polygon.orient(part) for part in _areas(outline)]
    whole = shapely.MultiPolygon(polygons) if len(polygons) > 1 else polygons[0]
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(whole))
    return geometry


def _areas(found: BaseGeometry) -> list[Any]:
    """The polygons in it: boxes that only touch an area meet it in lines, and making it valid may leave some."""
    parts = getattr(found, "geoms", None)
    if parts is not None:
        return [area for part in parts for area in _areas(part)]
    return [found] if found.geom_type == "Polygon" and not found.is_empty else []


def _reprojected(outline: BaseGeometry, meta: SceneMeta, precision: float, crs: str) -> BaseGeometry:
    import shapely
    from rasterio._err import CPLE_BaseError  # rasterio lets these of GDAL's errors through
    from rasterio.crs import CRS
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform_geom

    west, south, east, north = outline.bounds
    pieces = shapely.segmentize(outline, max(east - west, north - south) / _EDGE_PARTS)
    try:
        found = transform_geom(meta.georef.crs, crs, shapely.geometry.mapping(pieces))
    except (CRSError, RasterioError) as error:
        raise UsageError(f"the outline cannot be put into {crs}: {error}") from error
    except CPLE_BaseError as error:  # its text is the whole coordinate system
        raise UsageError(
            f"nothing leads from the scene's coordinate system to {crs}: ask for its own coordinates "
            "(crs=None, --crs own)"
        ) from error
    bent = shapely.make_valid(shapely.geometry.shape(found))
    west, south, east, north = bent.bounds
    pixel = min((east - west) / meta.shape.x, (north - south) / meta.shape.y)
    bent = bent.simplify(pixel * precision / 8)
    return _cut_at_antimeridian(bent) if CRS.from_user_input(crs).is_geographic else bent


def _cut_at_antimeridian(outline: BaseGeometry) -> BaseGeometry:
    """With longitudes from -180 to 180. GDAL cuts what it reprojects, but leaves longitudes of 190 that are there."""
    import shapely
    from shapely.affinity import translate

    if outline.bounds[0] >= -180 and outline.bounds[2] <= 180:
        return outline
    turns = ((outline.intersection(shapely.box(start, -90, start + 360, 90)), start) for start in (-540, -180, 180))
    return shapely.union_all([translate(area, -180 - start) for part, start in turns for area in _areas(part)])


def _crs_member(name: str | None) -> dict[str, Any]:
    from rasterio.crs import CRS

    authority = CRS.from_user_input(name).to_authority() if name else None
    if authority is None or authority == ("EPSG", "4326"):
        return {}
    urn = f"urn:ogc:def:crs:{authority[0]}::{authority[1]}"
    return {"crs": {"type": "name", "properties": {"name": urn}}}
