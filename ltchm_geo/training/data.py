"""Training imagery, decoded once into device memory; crops are cut there.

A pool holds images of one bit depth as one flat tensor, so that a batch of random crops is a single gather.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ltchm_geo.errors import UsageError, installing

Image = np.ndarray  # (H, W, bands) uint8 or uint16


@dataclass
class Pool:
    """Images of one bit depth and band count in one flat tensor.

    Attributes
    ----------
    pixels : (n,) uint8, or int16 with the bits of uint16
        All images, each (H, W, bands) in C order, one behind the other. CUDA cannot index uint16.
    offsets, heights, widths : (images,) int64
        Where each starts, and its size.
    sources : (images,) int64
        Index into `names`.
    """

    pixels: Tensor
    offsets: Tensor
    heights: Tensor
    widths: Tensor
    sources: Tensor
    names: list[str]
    bands: int
    peak: float

    @classmethod
    def build(cls, images: Sequence[tuple[str, Image]], device: torch.device) -> Pool:
        """Concatenate `images`, given as (source name, pixels)."""
        first = images[0][1]
        names = sorted({name for name, _ in images})
        shapes = torch.tensor([[i.shape[0], i.shape[1]] for _, i in images])
        sizes = shapes.prod(1) * first.shape[2]
        flat = np.concatenate([i.reshape(-1) for _, i in images])
        return cls(
            pixels=torch.from_numpy(flat.view(np.int16) if flat.dtype == np.uint16 else flat).to(device),
            offsets=(sizes.cumsum(0) - sizes).to(device),
            heights=shapes[:, 0].to(device),
            widths=shapes[:, 1].to(device),
            sources=torch.tensor([names.index(n) for n, _ in images], device=device),
            names=names,
            bands=first.shape[2],
            peak=float(np.iinfo(first.dtype).max),
        )

    def crops(self, images: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Random crops (B, 3, size, size) float32 in [0, 1] of the given image numbers (B,).

        Images narrower than `size` are mirrored at their far edge. More than three bands: a random triplet; of one or
        two bands the last is repeated, as it is when a scene is coded.
        """
        device = self.pixels.device
        h, w = self.heights[images], self.widths[images]
        uniform = torch.rand(2, len(images), generator=generator, device=device)
        y0 = (uniform[0] * (h - size + 1).clamp(min=1)).long()
        x0 = (uniform[1] * (w - size + 1).clamp(min=1)).long()
        step = torch.arange(size, device=device)
        ys = _mirror(y0[:, None] + step, h[:, None])
        xs = _mirror(x0[:, None] + step, w[:, None])
        keys = torch.rand(len(images), self.bands, generator=generator, device=device)
        fixed = torch.arange(3, device=device).clamp(max=self.bands - 1).expand(len(images), 3)
        bands = keys.argsort(1)[:, :3] if self.bands > 3 else fixed
        flat = (ys[:, None, :, None] * w[:, None, None, None] + xs[:, None, None, :]) * self.bands
        index = self.offsets[images][:, None, None, None] + flat + bands[:, :, None, None]
        values = self.pixels[index]
        values = values.int() & 0xFFFF if values.dtype == torch.int16 else values
        return values.float() / self.peak


def _mirror(position: Tensor, size: Tensor) -> Tensor:
    return torch.where(position < size, position, 2 * size - 2 - position).clamp(min=0)


class Sampler:
    """Draws crops source by source, because frames of one survey overlap and pixels are not equally new.

    Parameters
    ----------
    pools : list[Pool]
        Where the pixels are.
    weights : dict[str, float]
        Share per named source; the others share the rest evenly.
    halved : float
        Share of the crops that are cut at twice the size and halved, by mean or by leaving out pixels. Imagery from the
        web is smooth, its colours above all; at half its size it is as sharp as what sensors deliver.
    """

    def __init__(self, pools: Sequence[Pool], weights: dict[str, float], halved: float = 0.0):
        self.pools, self.halved = pools, halved
        counts = Counter(pool.names[i] for pool in pools for i in pool.sources.tolist())
        names = sorted(counts)
        missing = set(weights) - set(names)
        if missing:
            raise UsageError(
                f"recipe: no data for the sources {sorted(missing)} of its table [weights]; there are {names}: "
                "take them out of it, or give data of that name"
            )
        others = [n for n in names if n not in weights]
        rest = max(0.0, 1.0 - sum(weights.values())) / max(1, len(others))
        share = {n: weights.get(n, rest) for n in names}
        probabilities = []
        for pool in pools:
            by_source = torch.tensor([share[n] / counts[n] for n in pool.names])
            probabilities.append(by_source[pool.sources.cpu()])
        self._probabilities = torch.cat(probabilities)
        self._starts = torch.tensor([0, *(len(p.offsets) for p in pools)]).cumsum(0).tolist()
        self._sides = torch.cat([torch.minimum(p.heights, p.widths).cpu() for p in pools])

    def draw(self, batch: int, size: int, generator: torch.Generator, chooser: torch.Generator | None = None) -> Tensor:
        """(batch, 3, size, size) float32 in [0, 1].

        Images are chosen on the CPU, so that nobody waits for a GPU to say how many are of which pool.

        Parameters
        ----------
        batch, size : int
            Number and side of the crops.
        generator : torch.Generator
            On the pools' device.
        chooser : torch.Generator
            On the CPU; `generator` if that is there.
        """
        chooser = chooser or generator
        chosen = torch.multinomial(self._probabilities, batch, replacement=True, generator=chooser)
        crops = self._crops(chosen, size, generator)
        # What is too small for that stays: more than one mirrored copy is no image any more.
        halved = (torch.rand(batch, generator=chooser) < self.halved) & (self._sides[chosen] > size)
        places = torch.nonzero(halved)[:, 0]
        if len(places):
            small = _halve(self._crops(chosen[places], 2 * size, generator), generator)
            crops[places.to(crops.device, non_blocking=True)] = small
        return crops

    def _crops(self, chosen: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """One crop of each of the images (n,), which are counted through all pools."""
        crops, places = [], []
        for pool, start, stop in zip(self.pools, self._starts, self._starts[1:], strict=False):
            mine = torch.nonzero((chosen >= start) & (chosen < stop))[:, 0]
            if len(mine):
                images = (chosen[mine] - start).to(pool.pixels.device, non_blocking=True)
                crops.append(pool.crops(images, size, generator))
                places.append(mine)
        # As they were drawn: qualities rise through a batch, and no pool is to have the low ones to itself.
        return torch.cat(crops)[torch.cat(places).argsort().to(crops[0].device, non_blocking=True)]


def _halve(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, 2 S, 2 S) to (B, 3, S, S): means of four, or (three crops in ten) every other pixel, as in quick-looks."""
    chance = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    return torch.where(chance < 0.3, x[:, :, ::2, ::2], avg_pool2d(x, 2))


def load_pools(paths: Sequence[Path], device: torch.device, *, threads: int = 4) -> list[Pool]:
    """Decode packs (tar files of images, one folder per source) and plain rasters into one pool per kind.

    Raises
    ------
    UsageError
        A path is missing or holds no usable image, or there is no decoder for packs.
    """
    if any(path.suffix == ".tar" for path in paths) and find_spec("pillow_jxl") is None:
        raise UsageError(f"training packs need the package pillow-jxl-plugin: {installing('train')}")
    kinds: dict[tuple[str, int], list[tuple[str, Image]]] = {}
    for path in paths:
        for name, image in _read_tar(path, threads) if path.suffix == ".tar" else _read_raster(path):
            kinds.setdefault((image.dtype.str, image.shape[2]), []).append((name, image))
    if not kinds:
        raise UsageError("no training images found")
    return [Pool.build(images, device) for _, images in sorted(kinds.items())]


def _read_tar(path: Path, threads: int) -> Iterator[tuple[str, Image]]:
    import pillow_jxl  # noqa: F401  (registers the JPEG XL decoder with Pillow)
    from PIL import Image as PillowImage

    def decode(member: tuple[str, bytes]) -> Image:
        name, data = member
        try:
            return np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"cannot read the image {name} in the training pack {path}: {error}") from error

    try:
        with tarfile.open(path) as tar:
            members = [(m.name, tar.extractfile(m)) for m in tar if m.isfile()]
            blobs = [(name, handle.read()) for name, handle in members if handle is not None]
    except (OSError, tarfile.TarError) as error:
        raise UsageError(f"cannot read the training pack {path}: {error}") from error
    with ThreadPoolExecutor(threads) as executor:
        sources = (PurePosixPath(name).parts[0] for name, _ in blobs)
        yield from zip(sources, executor.map(decode, blobs), strict=True)


def _read_raster(path: Path) -> Iterator[tuple[str, Image]]:
    """A raster as it is if uint8, otherwise each band stretched over 16 bits."""
    import rasterio

    try:
        with rasterio.open(path) as dataset:
            pixels, valid = dataset.read(), dataset.read_masks() != 0
    except rasterio.errors.RasterioError as error:
        raise UsageError(f"cannot read the training raster {path}: {error}") from error
    if pixels.dtype == np.uint8:
        yield path.stem, np.moveaxis(pixels, 0, -1)
        return
    bands = [np.where(there, band.astype(np.float64), np.nan) for band, there in zip(pixels, valid, strict=True)]
    yield path.stem, np.stack([_stretch(band) for band in bands], axis=-1)


def _stretch(band: np.ndarray) -> np.ndarray:
    """From 0.05 to 99.95 % of the finite values other than 0, the usual nodata, to the whole of uint16; NaN is low."""
    known = band[np.isfinite(band) & (band != 0)]
    low, high = np.percentile(known, [0.05, 99.95]) if known.size else (0.0, 1.0)
    relative = (np.nan_to_num(band, nan=low, posinf=high, neginf=low) - low) / max(
        high - low, np.finfo(np.float32).tiny
    )
    return np.rint(np.clip(relative, 0, 1) * 65535).astype(np.uint16)
