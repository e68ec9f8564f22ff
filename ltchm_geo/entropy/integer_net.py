"""The parameter network in integers: mixture parameters that every machine computes alike.

`IntegerNet` mirrors h_s, the masked context and the parameter network of `nn.hyperprior`; docs/exact-network.md is its
specification. `ExactCoder` joins it to the entropy coder. Nothing here depends on batch, threads or device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ltchm_geo.cancellation import check
from ltchm_geo.entropy import arithmetic as ar
from ltchm_geo.entropy import rans, tables
from ltchm_geo.entropy.integer_layers import MAX_CHANNELS, Affine, Convolution, Deconvolution, Hybrid, Store, integer
from ltchm_geo.errors import InvalidWeightsError, UsageError
from ltchm_geo.timing import StageClock
from ltchm_geo.types import Shape2d

__all__ = ["ExactCoder", "IntegerNet", "Stepper", "describe"]

#: Keys of a description, by version. In version 0, y has as many channels as z.
_KEYS = {0: {"version", "channels", "hyper"}, 1: {"version", "channels", "latent_channels", "hyper"}}
#: Spatial ratio of y to z.
HYPER_RATIO = 4
_PARAMETERS = 9
_TAPS = 12
_MAX_LAYERS = 64
_CHUNK_TILES = 64  # coded at once: bounds the memory
_CACHED_TILES = 8  # passed through whole maps at once on a CPU: keeps the operands in its cache


class Layer(Protocol):
    """A step of the hyper decoder: (B, H, W, C) to (B, H', W', channels)."""

    channels: int

    def __call__(self, x: Tensor) -> Tensor: ...


_LAYERS: dict[str, type[Convolution] | type[Deconvolution] | type[Hybrid]] = {
    "conv": Convolution,
    "deconv": Deconvolution,
    "hybrid": Hybrid,
}


def describe(channels: int, latent_channels: int, hyper: list[dict[str, Any]]) -> dict[str, Any]:
    """The description of a network, in the oldest version that can hold it."""
    if latent_channels == channels:
        return {"version": 0, "channels": channels, "hyper": hyper}
    return {"version": 1, "channels": channels, "latent_channels": latent_channels, "hyper": hyper}


class IntegerNet:
    """Mixture parameters of y from z and the latents before it, by integer arithmetic only.

    Parameters
    ----------
    tensors : stored integers by name, from `training.integerise` or a weights file; checked, not trusted.
    spec : their description, plain JSON data.
    device, mode : where to compute, and how ("float64", "split32", "int8"); results do not depend on them.

    Raises
    ------
    InvalidWeightsError
        The description is malformed or an integer could break exactness.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        spec: Mapping[str, Any],
        device: str | torch.device = "cpu",
        mode: str | None = None,
    ):
        self.device = torch.device(device)
        version = spec.get("version")
        if type(version) is not int or set(spec) != _KEYS.get(version):
            raise InvalidWeightsError("exact network: unknown version or keys of its description; update ltchm_geo")
        self._tiles = _CACHED_TILES if self.device.type == "cpu" else _CHUNK_TILES
        n = self.channels = integer(spec, "channels", 8, MAX_CHANNELS)
        m = self.latent_channels = integer(spec, "latent_channels", 8, MAX_CHANNELS) if version else n
        store = Store(tensors, self.device, ar.check_mode(mode or ar.pick_mode(self.device), self.device))
        self.dtype = store.dtype
        self._layers = _hyper_layers(store, spec["hyper"], n)
        self._hyper_affine = Affine(store, "hyper_affine", 2 * n)
        self._context = store.linear("context", _TAPS * m, 2 * n)
        self._context_affine = Affine(store, "context_affine", 2 * n)
        self._first = store.linear("mlp.0", 4 * n)
        self._hidden = store.linear("mlp.1", self._first.columns)
        self._last = store.linear("mlp.2", self._hidden.columns, _PARAMETERS * m)
        store.finish()

    @torch.inference_mode()
    def hyper_features(self, z: Tensor, level: int) -> Tensor:
        """Features (B, 2N, 4 hz, 4 wz), activations, of z (B, N, hz, wz) int32 at a quality level 0 ... 112."""
        if z.ndim != 4 or z.shape[1] != self.channels:
            raise UsageError(f"z must be (B, {self.channels}, h, w), not {tuple(z.shape)}")
        affine = self._hyper_affine.at(level)
        return torch.cat([self._synthesise(part, affine) for part in z.split(self._tiles)])

    def _synthesise(self, z: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        check()
        x = self.activation(z).permute(0, 2, 3, 1).contiguous()
        for layer in self._layers:
            x = layer(x)
        return ar.affine(x, *affine).permute(0, 3, 1, 2)

    def parameters(self, hyper: Tensor, y: Tensor, level: int, extent: Shape2d | None = None) -> NDArray[np.int16]:
        """Parameters (B, P, 9, M) int16 of latents y (B, M, h, w) int32, positions in wavefront order."""
        if y.shape != (len(hyper), self.latent_channels, *hyper.shape[2:]):
            raise UsageError(f"y {tuple(y.shape)} does not fit hyper features {tuple(hyper.shape)}")
        h, w = y.shape[2:]
        out = []
        for part, latents in zip(hyper.split(self._tiles), y.split(self._tiles), strict=True):
            check()
            stepper = Stepper(self, part, level, steps=[np.concatenate(rans.wavefront(h, w, extent))])
            stepper.fill(latents)
            out.append(stepper.step(0))
        return np.concatenate(out)

    def begin(self, hyper: Tensor, level: int, extent: Shape2d | None = None) -> Stepper:
        """Start decoding: parameters step by step, each from the latents put before."""
        h, w = hyper.shape[2:]
        steps = [step for step in rans.wavefront(h, w, extent) if step.size]  # narrow latents have empty ones
        return Stepper(self, hyper, level, steps=steps)

    def activation(self, latents: Tensor) -> Tensor:
        """Latents, of any integer type, as activations."""
        return latents.to(self.device).clamp(-ar.LIMIT, ar.LIMIT).to(self.dtype)

    def mixture(self, taps: Tensor, hyper: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        """Parameters (rows, 9 M) int16 from the known latents (rows, 12 M) and the hyper features (rows, 2N)."""
        context = ar.affine(self._context(taps), *affine)
        x = self._first(torch.cat([hyper, context], dim=1), leaky=1)
        x = self._last(self._hidden(x, leaky=1))
        x[:, 6 * self.latent_channels :].clamp_(tables.LS_MIN, tables.LS_MAX)
        return x.to(torch.int16)

    def context_affine(self, level: int) -> tuple[Tensor, Tensor]:
        """Scale and offset of the context features at a level."""
        return self._context_affine.at(level)


def _hyper_layers(store: Store, described: Any, channels: int) -> list[Layer]:
    if not isinstance(described, list) or not 1 <= len(described) <= _MAX_LAYERS:
        raise InvalidWeightsError("exact network: `hyper` must be a list of layers")
    layers: list[Layer] = []
    width, ratio = channels, 1
    for i, spec in enumerate(described):
        kind = _LAYERS.get(str(spec.get("op"))) if isinstance(spec, dict) else None
        if kind is None:
            raise InvalidWeightsError(f"exact network: unknown layer {i}; update ltchm_geo")
        layers.append(kind(store, f"hyper.{i}", spec, width))
        width, ratio = layers[-1].channels, ratio * (2 if kind is Deconvolution else 1)
    if width != 2 * channels or ratio != HYPER_RATIO:
        raise InvalidWeightsError("exact network: the hyper decoder must give 2N channels at four times the size")
    return layers


class Stepper:
    """Parameters of latents y, one set of positions after the other.

    The latents known so far lie on a canvas with a margin of zeros, so that the twelve known neighbours of any set of
    positions are one gather; all tiles and positions of a step share each matrix product. In mode "int8" the canvas is
    int8, too, until a latent needs more.
    """

    def __init__(self, net: IntegerNet, hyper: Tensor, level: int, steps: Sequence[NDArray[np.int64]]):
        self._net = net
        b, c, self._h, self._w = hyper.shape
        order = np.concatenate(steps)
        ends = np.cumsum([len(s) for s in steps]).tolist()
        self._spans = [slice(end - len(s), end) for s, end in zip(steps, ends, strict=True)]
        with torch.inference_mode():
            self._hyper = hyper.permute(0, 2, 3, 1).reshape(b, -1, c)[:, torch.from_numpy(order).to(net.device)]
            self._affine = net.context_affine(level)
            cells, narrow = (self._h + 2) * (self._w + 4), net.dtype == torch.int16
            dtype = torch.int8 if narrow else net.dtype
            self._canvas = torch.zeros(b, cells, net.latent_channels, dtype=dtype, device=net.device)
        row, column = np.divmod(order, self._w)
        self._cells = torch.from_numpy((row + 2) * (self._w + 4) + column + 2).to(net.device)
        self._taps = torch.from_numpy(ar.causal_taps(self._w, order)).to(net.device)

    def __len__(self) -> int:
        return len(self._spans)

    @torch.inference_mode()
    def fill(self, y: Tensor) -> None:
        """Make all latents (B, M, h, w) known at once."""
        inside = self._fitting(self._net.activation(y)).permute(0, 2, 3, 1)
        self._canvas = F.pad(inside, (0, 0, 2, 2, 2, 0)).reshape(self._canvas.shape)

    @torch.inference_mode()
    def step(self, t: int) -> NDArray[np.int16]:
        """Parameters (B, p, 9, M) int16 of the positions of step `t`."""
        span, (b, _, m) = self._spans[t], self._canvas.shape
        count = span.stop - span.start
        taps = self._canvas.index_select(1, self._taps[span].reshape(-1)).reshape(b * count, _TAPS * m)
        hyper = self._hyper[:, span].reshape(b * count, -1)
        found: NDArray[np.int16] = self._net.mixture(taps, hyper, self._affine).cpu().numpy()
        return found.reshape(b, count, _PARAMETERS, m)

    @torch.inference_mode()
    def put(self, t: int, y: NDArray[np.int32]) -> None:
        """Make the latents (B, p, M) of step `t` known."""
        latents = self._fitting(self._net.activation(torch.from_numpy(y)))
        self._canvas.index_copy_(1, self._cells[self._spans[t]], latents)

    def _fitting(self, latents: Tensor) -> Tensor:
        """Latents in the canvas's type, which grows if it must."""
        if self._canvas.dtype == torch.int8 and latents.numel():
            low, high = (int(end) for end in latents.aminmax())
            if not -128 <= low <= high <= 127:
                self._canvas = self._canvas.to(self._net.dtype)
        return latents.to(self._canvas.dtype)


class ExactCoder:
    """Latents of many tiles to streams and back: `IntegerNet` and the entropy coder in one.

    Parameters
    ----------
    net : IntegerNet
    z_cdf : (N, 2 * Z_MAX + 2) integers
        Cumulative tables of z, see `tables.check_z_cdf`.
    """

    def __init__(self, net: IntegerNet, z_cdf: NDArray[np.integer]):
        self.net = net
        self.z_cdf = tables.check_z_cdf(z_cdf)
        if len(self.z_cdf) != net.channels:
            raise InvalidWeightsError(f"exact network: z_cdf has {len(self.z_cdf)} rows for {net.channels} channels")

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        spec: Mapping[str, Any],
        device: str | torch.device = "cpu",
        mode: str | None = None,
    ) -> ExactCoder:
        """Coder from the result of `training.integerise.integerise`, where `z_cdf` is one of the tensors."""
        others = dict(tensors)
        z_cdf = others.pop("z_cdf", None)
        if z_cdf is None:
            raise InvalidWeightsError("exact network: tensor z_cdf is missing")
        return cls(IntegerNet(others, spec, device, mode), z_cdf)

    def encode(
        self,
        y: Tensor,
        z: Tensor,
        level: int,
        threads: int | None = None,
        clock: StageClock | None = None,
        *,
        extent: Shape2d | None = None,
    ) -> list[bytes]:
        """One stream per tile.

        Parameters
        ----------
        y, z : (B, M, h, w) and (B, N, h / 4, w / 4) int32, any values, on any device.
        level : quality level 0 ... 112.
        threads : how many the entropy coder may use; default: all cores.
        clock : takes the time of the stages "parameters" and "entropy".
        extent : rows and columns of y to code; all others must be zero. Default: all.
        """
        clock = clock or StageClock()
        streams: list[bytes] = []
        for some_y, some_z in zip(y.split(_CHUNK_TILES), z.split(_CHUNK_TILES), strict=True):
            with clock("parameters"):
                latents, ordered, params = self.symbols(some_y, some_z, level, extent)
            with clock("entropy"):
                streams += rans.encode(latents, ordered, params, self.z_cdf, threads)
        return streams

    def symbols(
        self, y: Tensor, z: Tensor, level: int, extent: Shape2d | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16]]:
        """What `rans.encode` and `rans.ideal_bits` take: z, y in wavefront order, and y's parameters."""
        params = self.net.parameters(self.net.hyper_features(z, level), y, level, extent)
        h, w = y.shape[2:]
        rows = y.cpu().numpy().reshape(len(y), self.net.latent_channels, h * w).transpose(0, 2, 1)
        return z.cpu().numpy(), rows[:, np.concatenate(rans.wavefront(h, w, extent))], params

    def decode(
        self,
        streams: Sequence[bytes],
        level: int,
        latent_shape: tuple[int, int],
        threads: int | None = None,
        clock: StageClock | None = None,
        *,
        extent: Shape2d | None = None,
    ) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        """Inverse of `encode`.

        Parameters
        ----------
        streams : one per tile, from anywhere; a damaged one disturbs no other.
        level : as encoded.
        latent_shape : height and width of y, multiples of four.
        threads, clock, extent : as for `encode`.

        Returns
        -------
        y, z : int32 on the CPU.
        ok : (B,) bool; latents are meaningless where it is False.
        """
        clock = clock or StageClock()
        parts = [
            self._decode(streams[i : i + _CHUNK_TILES], level, latent_shape, threads, clock, extent)
            for i in range(0, len(streams), _CHUNK_TILES)
        ]
        if not parts:
            raise UsageError("no streams to decode")
        ys, zs, oks = zip(*parts, strict=True)
        return torch.cat(ys), torch.cat(zs), np.concatenate(oks)

    def _decode(
        self,
        streams: Sequence[bytes],
        level: int,
        latent_shape: tuple[int, int],
        threads: int | None,
        clock: StageClock,
        extent: Shape2d | None,
    ) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        h, w = latent_shape
        if h % HYPER_RATIO or w % HYPER_RATIO or min(h, w) < HYPER_RATIO:
            raise UsageError(f"latents of {h} x {w} do not have sides in multiples of {HYPER_RATIO}")
        n, m, count = self.net.channels, self.net.latent_channels, len(streams)
        with clock("entropy"):
            decoder = rans.Decoder(streams, self.z_cdf, threads)
            z = torch.from_numpy(decoder.z((n, h // HYPER_RATIO, w // HYPER_RATIO)))
        with clock("parameters"):
            stepper = self.net.begin(self.net.hyper_features(z, level), level, extent)
        order = np.concatenate(rans.wavefront(h, w, extent))
        ordered = np.empty((count, len(order), m), dtype=np.int32)
        at = 0
        for t in range(len(stepper)):
            check()
            with clock("parameters"):
                params = stepper.step(t)
            with clock("entropy"):
                found = decoder.y(params)
            with clock("parameters"):
                stepper.put(t, found)
            ordered[:, at : at + found.shape[1]] = found
            at += found.shape[1]
        y = np.zeros((count, h * w, m), dtype=np.int32)
        y[:, order] = ordered
        return torch.from_numpy(y).reshape(count, h, w, m).permute(0, 3, 1, 2).contiguous(), z, decoder.finish()
