"""What an encoder of 8-bit integers would cost in rate, and gain in time.

    python examples/10_int8_encoder.py SCENE.tif... [--levels 0,32,64,96] [--tiles 24]

The 3x3 convolutions that run in bfloat16 today (`ltchm_geo.nn.inference`) are computed as 8-bit ones would: weights
rounded to 8 bits per output channel, inputs to 8 bits per layer between bounds seen on other tiles. Everything else of
g_a, and all of the decoder, stays as it is. Bytes are those of real streams; tiles are 256 x 256 and 8-bit RGB.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ltchm_geo.engine import Engine, load_engine, load_transforms
from ltchm_geo.metrics import bd_rate, psnr
from ltchm_geo.nn.config import LEVELS_PER_ANCHOR
from ltchm_geo.nn.inference import Lowered, prepare
from ltchm_geo.nn.transforms import Analysis, fold_quality
from ltchm_geo.nn.winograd import WinogradConv, suits
from ltchm_geo.weights import load

SIDE = 256
#: Of the inputs of a layer, outside the bounds on either side: clipping a few buys finer steps for the others.
CLIPPED = 1e-5


class EightBit(nn.Module):
    """A convolution of 8-bit inputs by 8-bit weights, sums exact; simulated in float32."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = copy.deepcopy(conv).float()
        step = self.conv.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        self.conv.weight.data = torch.round(self.conv.weight / step) * step
        self.seen: list[Tensor] | None = []  # while inputs are looked at
        self.low, self.step = 0.0, 1.0

    def settle(self) -> None:
        """Take the bounds of the inputs from those seen."""
        assert self.seen
        values = torch.cat(self.seen)
        count = max(1, round(CLIPPED * len(values)))
        low, high = -torch.topk(-values, count).values[-1], torch.topk(values, count).values[-1]
        self.low, self.step, self.seen = float(low), float(high - low) / 255, None

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        x = x.float()
        if self.seen is not None:
            self.seen.append(x.flatten()[::7])
        else:
            # As integers have it, zero is a level of its own: padding is exact.
            zero = round(-self.low / self.step)
            x = (torch.round(x / self.step) + zero).clamp(0, 255).sub(zero) * self.step
        return self.conv(x)


def eight_bit(g_a: Analysis) -> list[EightBit]:
    """Replace, in place, what `prepare` would compute in bfloat16."""
    model = copy.deepcopy(g_a)
    prepare(model, "bfloat16", torch.device("cpu"))
    made = []
    for name, module in list(model.named_modules()):
        if isinstance(module, Lowered | WinogradConv):
            conv = g_a.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            made.append(EightBit(conv))
            g_a.set_submodule(name, made[-1])
    return made


def tiles_of(path: Path, limit: int) -> NDArray[np.float32]:
    """Tiles (B, 3, 256, 256) in [0, 1], spread over a scene."""
    with rasterio.open(path) as source:
        if source.count < 3 or source.dtypes[0] != "uint8":
            raise click.UsageError(f"{path} is no 8-bit image of three bands")
        pixels = source.read([1, 2, 3])
    _, height, width = pixels.shape
    corners = [(y, x) for y in range(0, height - SIDE + 1, SIDE) for x in range(0, width - SIDE + 1, SIDE)]
    chosen = corners[:: max(1, -(-len(corners) // limit))]
    return np.stack([pixels[:, y : y + SIDE, x : x + SIDE] for y, x in chosen]).astype(np.float32) / 255


def coded(engine: Engine, g_a: nn.Module, level: int, tiles: NDArray[np.float32]) -> tuple[float, float]:
    """Bits per pixel of the streams, and PSNR of what they decode to."""
    quality = torch.tensor([level / LEVELS_PER_ANCHOR])
    h_a = load_transforms(load(engine.sha256))["h_a"].eval()
    size, restored = 0, []
    for tile in torch.from_numpy(tiles)[:, None]:
        y = g_a(tile.contiguous(memory_format=torch.channels_last), quality).float()
        z = torch.round(h_a(y, quality)).int().contiguous()
        latents = torch.round(y).int().contiguous()
        size += sum(map(len, engine.coder.encode(latents, z, level)))
        restored.append(engine.synthesise(latents, level))
    pixels = np.clip(np.rint(np.concatenate(restored) * 255), 0, 255)
    return 8 * size / (len(tiles) * SIDE * SIDE), psnr(np.rint(tiles * 255), pixels, 255.0)


def transforms(engine: Engine, level: int, calibration: NDArray[np.float32]) -> Iterator[tuple[str, nn.Module]]:
    """g_a at a level, by name of its arithmetic."""
    g_a = load_transforms(load(engine.sha256))["g_a"]
    assert isinstance(g_a, Analysis)
    fold_quality(g_a, level / LEVELS_PER_ANCHOR)
    for name in ("float32", "bfloat16", "int8"):
        made = copy.deepcopy(g_a).eval().to(memory_format=torch.channels_last)
        if name == "int8":
            layers = eight_bit(made)
            for tile in torch.from_numpy(calibration)[:, None]:
                made(tile, torch.tensor([level / LEVELS_PER_ANCHOR]))
            for layer in layers:
                layer.settle()
        else:
            prepare(made, name, torch.device("cpu"))  # type: ignore[arg-type]
        yield name, made


def milliseconds(run: Callable[[], object]) -> float:
    """Median of 15 runs after two to warm up."""
    times = []
    for _ in range(17):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[2:])


def speeds(channels: int, side: int) -> dict[str, float]:
    """Milliseconds of one 3x3 convolution, one thread: of PyTorch in three precisions, and what is used now."""
    conv = nn.Conv2d(channels, channels, 3, padding=1).eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    half, low = x.bfloat16(), torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
    scales = conv.weight.detach().abs().amax(dim=(1, 2, 3)).double() / 127
    weight = torch.quantize_per_channel(conv.weight.detach(), scales, torch.zeros(channels).long(), 0, torch.qint8)
    packed = torch.ops.quantized.conv2d_prepack(weight, conv.bias.detach(), [1, 1], [1, 1], [1, 1], 1)
    lowered = copy.deepcopy(conv).bfloat16()
    used: nn.Module = WinogradConv(copy.deepcopy(conv)) if suits(conv) else lowered
    return {
        "float32": milliseconds(lambda: F.conv2d(x, conv.weight, conv.bias, padding=1)),
        "bfloat16": milliseconds(lambda: lowered(half)),
        "now": milliseconds(lambda: used(half)),
        "int8": milliseconds(lambda: torch.ops.quantized.conv2d(low, packed, 0.05, 128)),
        "int8, rounding its input": milliseconds(
            lambda: torch.ops.quantized.conv2d(
                torch.quantize_per_tensor(x, 0.05, 128, torch.quint8), packed, 0.05, 128
            ).dequantize()
        ),
    }


@click.command()
@click.argument("scenes", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--levels", default="0,32,64,96", show_default=True, help="Quality levels, at least four.")
@click.option("--tiles", default=24, show_default=True, help="Tiles of each scene at most; a quarter calibrates.")
@torch.inference_mode()
def main(scenes: tuple[Path, ...], levels: str, tiles: int) -> None:
    """Print rate and distortion of g_a in float32, bfloat16 and int8, and how fast its convolutions are in each."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # deprecated: one reason against it
    for channels, side in ((64, 128), (128, 128), (128, 64)):
        found = speeds(channels, side)
        print(f"3x3, {channels} channels, {side} x {side}: " + ", ".join(f"{k} {v:.2f} ms" for k, v in found.items()))
    engine = load_engine(device="cpu", precision="float32")
    cut = [tiles_of(path, tiles) for path in scenes]
    calibration = np.concatenate([some[::4] for some in cut])
    tested = [np.concatenate([some[i::4] for i in (1, 2, 3)]) for some in cut]
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for level in map(int, levels.split(",")):
        for name, g_a in transforms(engine, level, calibration):
            for path, some in zip(scenes, tested, strict=True):
                bpp, quality = coded(engine, g_a, level, some)
                curves.setdefault((path.stem, name), []).append((bpp, quality))
                print(f"{path.stem:24} level {level:3} {name:8} {bpp:.4f} bpp {quality:.3f} dB", flush=True)
    for name in ("bfloat16", "int8"):
        rates = [bd_rate(curves[path.stem, "float32"], curves[path.stem, name]) for path in scenes]
        print(f"{name}: BD-rate against float32 {statistics.fmean(rates):+.2f} % (mean of {len(rates)} scenes)")


if __name__ == "__main__":
    main()
