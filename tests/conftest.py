"""Fixtures that many tests share: a small random network, installed as the only weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from ltchm_geo.container import ContainerReader
    from ltchm_geo.types import TileIndex

# Tensors are tiny here: many threads would only wait for each other. Must be set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = Path(__file__).parent / "data"

# They need QGIS's own Python: sh tests/qgis/run.sh
collect_ignore = ["qgis"]

# A shell lets background jobs ignore Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with untrained weights of a very narrow network: files made with it are bad pictures, but exact ones."""
    import torch

    from ltchm_geo.nn.config import ModelConfig
    from ltchm_geo.nn.model import LTCHM
    from ltchm_geo.training.export import export_weights

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    model = LTCHM(ModelConfig(channels=32, parameter_width=64)).eval()
    export_weights(
        model,
        torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(2)),
        folder,
        tag="tiny-random",
        status="preview",
        licence="none",
        data="none",
        recipe="random",
        commit="none",
    )
    return folder


@pytest.fixture(scope="session")
def farmland() -> np.ndarray:
    """(256, 256, 3) uint8 of real imagery."""
    import rasterio

    with rasterio.open(Path(__file__).parents[1] / "examples" / "data" / "farmland_rgbn.tif") as dataset:
        return np.moveaxis(dataset.read([1, 2, 3], window=((0, 256), (0, 256))), 0, -1)


@pytest.fixture(scope="session")
def crops(farmland: np.ndarray) -> Tensor:
    """The same as (4, 3, 128, 128) in [0, 1]."""
    import torch

    pixels = torch.from_numpy(farmland.astype(np.float32) / 255).permute(2, 0, 1)
    return torch.stack([pixels[:, y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)])


@pytest.fixture
def tiny(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the tiny random weights the default of this test."""
    monkeypatch.setenv("LTCHM_WEIGHTS", str(tiny_weights))
    return tiny_weights


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, TileIndex]]:
    """Tiles that were read since."""
    from ltchm_geo.container import ContainerReader

    seen: list[tuple[str, TileIndex]] = []
    original = ContainerReader.tile_payload

    def noted(self: ContainerReader, array: str, tile: TileIndex, pyramid: int = 0) -> bytes:
        seen.append((array, tile))
        return original(self, array, tile, pyramid)

    monkeypatch.setattr(ContainerReader, "tile_payload", noted)
    return seen
