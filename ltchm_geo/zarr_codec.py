"""Stage 7, for zarr: the array-to-bytes codec ``ltchm_geo.ltchm``, so that zarr and xarray read a scene on their own.

zarr asks for tiles one by one, as many at a time as its setting ``async.concurrency`` says (10 per shard); those asked
for side by side are decoded as one batch.

The codec only decodes. A Zarr store writes part of a tile by decoding, changing and re-encoding it, which with a lossy
codec costs quality at every write and nobody sees it; scenes are therefore written by `compress_raster` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration

from ._json import decode_number, encode_number, is_sha256, require_integer, require_keys
from ._microbatch import MicroBatcher
from .components import ComponentTransform
from .errors import CorruptContainerError, UsageError
from .radiometry import BandMapping
from .scene_meta import GROUP_BANDS, BandGroup, SceneMeta, check_version

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.common import JSON

__all__ = ["CODEC_NAME", "LtchmCodec"]

CODEC_NAME = "ltchm_geo.ltchm"

_MAX_BATCH = 64
_GATHER = 0.004  # seconds; tasks come within less, and a tile takes longer

_Kind = tuple["LtchmCodec", tuple[int, ...], np.dtype[Any]]  # tiles that one call can decode

_KEYS = {"format", "weights", "mapping", "fill", "nodata"}
_SINCE = ({"halo"}, {"transform"})  # what versions 1 and 2 brought


@dataclass(frozen=True)
class LtchmCodec(ArrayBytesCodec):
    """One tile of one band group between its payload and its pixels.

    The fields hold the numbers as JSON does (``"NaN"`` for NaN), so that equal codecs compare and hash as equal.

    Parameters
    ----------
    weights : str or None
        SHA-256 of the network's weights; None when no tile needs them.
    mapping : ((offset, scale, low, high), ...)
        Per band, see `radiometry.BandMapping`.
    fill, nodata : (number or None, ...)
        Per band, the value of masked pixels, and the nodata value no valid pixel may take.
    halo : int
        1 where the network sees the neighbours of a tile. Zarr shows this codec one tile at a time: they are then
        replaced by the tile's own rim, and tiles fit together less well than in `SceneDecoder`.
    transform : ComponentTransform or None
        What the network is given instead of the bands.
    """

    weights: str | None
    mapping: tuple[tuple[float | str, ...], ...]
    fill: tuple[float | str | None, ...]
    nodata: tuple[float | str | None, ...]
    halo: int = 0
    transform: ComponentTransform | None = None

    is_fixed_size = False

    @classmethod
    def of(cls, meta: SceneMeta, group: BandGroup) -> LtchmCodec:
        """What it takes to decode a tile of `group` on its own."""
        return cls(
            weights=meta.weights,
            mapping=tuple(tuple(encode_number(n) for n in (m.offset, m.scale, m.low, m.high)) for m in group.mapping),
            fill=tuple(map(encode_number, group.fill)),
            nodata=tuple(map(encode_number, meta.nodata(group))),
            halo=meta.halo,
            transform=group.transform,
        )

    @classmethod
    def from_configuration(cls, found: Any) -> LtchmCodec:
        """Strict; raises `CorruptContainerError` or `UnsupportedVersionError`."""
        version = check_version(found, f"codec {CODEC_NAME}", known=2)
        try:
            found = require_keys(found, _KEYS.union(*_SINCE[:version]), what="configuration")
            if (halo := require_integer(found.get("halo", 0), "halo")) not in (0, 1):
                raise ValueError(f"halo {halo} is neither 0 nor 1")
            # By hash alone: a store must not choose which file is opened here.
            if found["weights"] is not None and not is_sha256(found["weights"]):
                raise ValueError("weights are not named by a SHA-256")
            mapping = tuple(_numbers(numbers, "mapping", 4) for numbers in found["mapping"])
            transform = ComponentTransform.from_dict(found["transform"]) if version > 1 else None
            if transform is not None and len(mapping) != len(transform.centre):
                raise ValueError(f"{len(mapping)} bands, and a transform of {len(transform.centre)}")
            if transform is None and not 1 <= len(mapping) <= GROUP_BANDS:
                raise ValueError(f"{len(mapping)} bands are outside 1..{GROUP_BANDS}")
            for numbers in mapping:
                BandMapping(*map(float, numbers))  # type: ignore[arg-type]  # refuses what is no mapping, None included
            fill, nodata = (_numbers(found[key], key, len(mapping)) for key in ("fill", "nodata"))
        except (ValueError, TypeError, OverflowError) as error:
            raise CorruptContainerError(f"configuration of codec {CODEC_NAME} is damaged: {error}") from error
        return cls(found["weights"], mapping, fill, nodata, halo, transform)  # type: ignore[arg-type]

    @property
    def configuration(self) -> dict[str, Any]:
        """As it is stored in ``zarr.json``."""
        mapping = [list(numbers) for numbers in self.mapping]
        version = 2 if self.transform is not None else 1 if self.halo else 0
        return {
            "format": version,
            "weights": self.weights,
            "mapping": mapping,
            "fill": list(self.fill),
            "nodata": list(self.nodata),
            **({"halo": self.halo} if version else {}),
            **({} if self.transform is None else {"transform": self.transform.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """See `zarr.abc.metadata.Metadata.from_dict`."""
        _, configuration = parse_named_configuration(data, CODEC_NAME)
        return cls.from_configuration(configuration)  # type: ignore[return-value]

    def to_dict(self) -> dict[str, JSON]:
        """See `zarr.abc.metadata.Metadata.to_dict`."""
        return {"name": CODEC_NAME, "configuration": self.configuration}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Payloads have no fixed size."""
        raise NotImplementedError("tiles have no fixed size")

    async def decode(self, chunks_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]) -> Iterable[NDBuffer | None]:
        """Decode tiles, together with those that other tasks ask for meanwhile."""
        return await asyncio.gather(*(self._decode_optional(*chunk) for chunk in chunks_and_specs))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        shape, dtype = chunk_spec.shape, chunk_spec.dtype.to_native_dtype()
        tile = await _BATCHER((self, shape, dtype), chunk_data.to_bytes())
        pixels = np.ascontiguousarray(tile, dtype).reshape(shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _decode_optional(self, chunk_data: Buffer | None, chunk_spec: ArraySpec) -> NDBuffer | None:
        return None if chunk_data is None else await self._decode_single(chunk_data, chunk_spec)

    async def encode(self, chunks_and_specs: Iterable[tuple[NDBuffer | None, ArraySpec]]) -> Iterable[Buffer | None]:
        """Always refused, see the module's docstring."""
        raise UsageError(
            "writing into a compressed scene would decode and re-encode lossy tiles and lose quality at every write; "
            "write with ltchm_geo.compress_raster"
        )

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        await self.encode([(chunk_data, chunk_spec)])
        return None


def _numbers(found: Any, what: str, count: int) -> tuple[float | str | None, ...]:
    """Numbers as JSON holds them, checked and put into their one spelling."""
    if not isinstance(found, list | tuple) or len(found) != count:
        raise ValueError(f"{what} is not {count} numbers")
    return tuple(encode_number(decode_number(number)) for number in found)


def _decode_batch(kind: _Kind, payloads: Sequence[bytes]) -> Sequence[NDArray[Any] | Exception]:
    # Imported here: zarr loads this module to look at metadata, and that must not load torch.
    from .tile_decoder import decode_for_zarr

    codec, shape, dtype = kind
    return decode_for_zarr(payloads, codec.configuration, shape, dtype)


_BATCHER: MicroBatcher[bytes, NDArray[Any]] = MicroBatcher(_decode_batch, _MAX_BATCH, _GATHER)
