from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import sewar

from ltchm_geo.metrics import vifp

SCENE = Path(__file__).parents[1] / "examples" / "data" / "farmland_rgbn.tif"


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    with rasterio.open(SCENE) as dataset:
        pixels: np.ndarray = dataset.read((1, 2, 3), window=((300, 395), (300, 410)))
    return pixels


def degraded(pixels: np.ndarray, kind: str) -> np.ndarray:
    values = pixels.astype(np.float64)
    if kind == "noise":
        values += np.random.default_rng(5).normal(0, 8, pixels.shape)
    elif kind == "blur":
        values = (values + np.roll(values, 1, 1) + np.roll(values, 1, 2) + np.roll(values, (1, 1), (1, 2))) / 4
    elif kind == "contrast":
        values = 128 + 1.3 * (values - 128)
    elif kind == "negative":
        values = 255 - values
    elif kind == "flat patch":
        values[:, 20:70, 30:80] = 90
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "blur", "contrast", "negative", "flat patch"])
def test_equal_to_sewar(scene: np.ndarray, kind: str) -> None:
    test = degraded(scene, kind)
    for reference, other in ((scene, test), (test, scene)):
        expected = sewar.vifp(np.moveaxis(reference, 0, -1), np.moveaxis(other, 0, -1))
        assert vifp(reference, other) == pytest.approx(float(expected), rel=1e-9)


def test_one_for_equal_images_and_scale_free(scene: np.ndarray) -> None:
    noisy = degraded(scene, "noise")
    assert vifp(scene, scene) == pytest.approx(1)
    wide = (scene.astype(np.uint16) * 257, noisy.astype(np.uint16) * 257)
    assert vifp(*wide, peak=65535) == pytest.approx(vifp(scene, noisy))
    assert vifp(scene[0], noisy[0]) == vifp(scene[:1], noisy[:1])


def test_without_contrast_there_is_no_information(scene: np.ndarray) -> None:
    flat = np.full_like(scene, 7)
    assert math.isnan(vifp(flat, scene))
    assert vifp(scene, flat) == pytest.approx(0, abs=1e-9)


def test_bad_shapes(scene: np.ndarray) -> None:
    with pytest.raises(ValueError, match="41 x 41"):
        vifp(scene[:, :40], scene[:, :40])
    with pytest.raises(ValueError, match="the test"):
        vifp(scene, scene[:2])
    assert math.isfinite(vifp(scene[:, :41, :41], degraded(scene, "noise")[:, :41, :41]))
