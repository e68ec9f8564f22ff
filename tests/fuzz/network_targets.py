"""Targets that take the network: its streams, its weights files; see `targets`."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import torch
from decodable import DECODABLE
from drawing import Draw, edited
from rasters import smooth
from targets import MIXED, folder, target

from ltchm_geo import weights
from ltchm_geo.bitstream import TilePayload
from ltchm_geo.components import ComponentTransform
from ltchm_geo.device import pick_device
from ltchm_geo.engine import Engine, load_engine
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM
from ltchm_geo.radiometry import UINT8_MAPPING
from ltchm_geo.tile_coding import GroupCoding
from ltchm_geo.tile_decoder import check_latents, decode_tiles
from ltchm_geo.tile_encoder import encode_tiles
from ltchm_geo.tiles import CutTile
from ltchm_geo.training.export import export_weights
from ltchm_geo.types import Shape2d


def tiny() -> weights.LoadedWeights:
    """Random weights of a very narrow network, made the default of this process."""
    os.environ["LTCHM_WEIGHTS"] = str(_tiny_folder())
    return weights.load("tiny")


@functools.cache
def _tiny_folder() -> Path:
    made = folder() / "weights"
    made.mkdir()
    torch.manual_seed(1)
    model = LTCHM(ModelConfig(channels=32, parameter_width=64)).eval()
    pixels = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    unknown = dict.fromkeys(("licence", "data", "recipe", "commit"), "none")
    export_weights(model, pixels, made, tag="tiny", status="preview", **unknown)
    return made


@functools.cache
def _stream() -> tuple[Engine, bytes]:
    engine = load_engine(tiny().sha256, "cpu")
    return engine, engine.encode(smooth(3, 128, 128, "float32", 0, 1)[None], 40)[0]


@target
def latents(data: bytes) -> None:
    """The entropy stream of a network's tile, with changes or replaced; the sound tile beside it must not change."""
    draw, (engine, sound) = Draw(data), _stream()
    body = bytearray(sound)
    for _ in range(draw.number(4)):
        body[draw.number(len(body))] ^= draw.byte()
    spoiled = bytes(body) if draw.byte() % 4 else draw.rest()
    group = GroupCoding(np.dtype("uint8"), DECODABLE.groups[0].mapping, (None,) * 3, (None,) * 3)
    # The same level, or a sound stream would have a batch of its own.
    payloads = [bytes([0, 2, 0, 40]) + stream for stream in (spoiled, sound)]
    assert TilePayload.unpack(payloads[0]).pack() == payloads[0]
    found = decode_tiles(payloads, group, engine, 128)
    assert isinstance(found[1], np.ndarray)
    assert (check_latents(payloads, group, engine, 128)[0] is None) == isinstance(found[0], np.ndarray)
    assert isinstance(found[0], np.ndarray) or spoiled != sound


@functools.cache
def _components() -> tuple[Engine, GroupCoding, bytes]:
    engine = load_engine(tiny().sha256, "cpu")
    pixels = smooth(4, 128, 128)
    transform = ComponentTransform.from_dict(MIXED.to_dict())
    group = GroupCoding(np.dtype("uint8"), (UINT8_MAPPING,) * 4, (None,) * 4, (None,) * 4, transform=transform)
    noise = np.random.default_rng(1).integers(0, 60, pixels.shape)
    tile = CutTile((pixels // 2 + noise).astype(np.uint8), np.ones(pixels.shape, bool), Shape2d(40, 100))
    return engine, group, encode_tiles([tile], group, engine, 40)[0]


@target
def components(data: bytes) -> None:
    """A tile of several passes that ends with the scene, with changes; the sound tile beside it must not change."""
    draw, (engine, group, sound) = Draw(data), _components()
    body = bytearray(sound)
    for _ in range(draw.number(4)):
        body[draw.number(draw.one_of([12, len(body)]))] = draw.byte()
    payloads = [bytes(body[: len(body) - draw.number(9)]), sound]
    found = decode_tiles(payloads, group, engine, 128)
    assert isinstance(found[1], np.ndarray)
    assert (check_latents(payloads, group, engine, 128)[0] is None) == isinstance(found[0], np.ndarray)


@target
def weights_file(data: bytes) -> None:
    """Any bytes as a weights file, or a small safetensors file with changes in its header."""
    draw = Draw(data)
    path = folder() / "any.safetensors"
    path.write_bytes(draw.rest() if draw.byte() % 4 == 0 else _safetensors(draw))
    loaded = weights.load(path)
    Engine(loaded, pick_device("cpu"))


def _safetensors(draw: Draw) -> bytes:
    tensor = {
        "dtype": draw.one_of(["F32", "I16", "BF16", "F8_E4M3", "BOOL", "U64"]),
        "shape": [2],
        "data_offsets": [0, 8],
    }
    header = {
        "__metadata__": {"ltchm_config": "{}", "ltchm_entropy": "{}"},
        "nn.g_a.x": tensor,
        "entropy.z_cdf": tensor,
    }
    packed = json.dumps(edited(header, draw)).encode()
    return len(packed).to_bytes(8, "little") + packed + draw.rest()[:64]


@target
def network(data: bytes) -> None:
    """Sound weights with changes in configuration, description and tensors; where they load, tiles are coded."""
    draw, base = Draw(data), tiny()
    documents = {key: edited(base.document(key), draw) for key in ("ltchm_config", "ltchm_entropy")}
    tensors = dict(base.tensors)
    for _ in range(draw.number(3)):
        name = draw.one_of(sorted(tensors))
        tensors[name] = _spoiled_tensor(tensors[name], draw)
    metadata = {key: json.dumps(value) for key, value in documents.items()}
    engine = Engine(weights.LoadedWeights(base.entry, base.path, metadata, tensors), pick_device("cpu"))
    side = engine.tile_multiple
    if side <= 256:
        (stream,) = engine.encode(np.full((1, 3, side, side), 0.5, np.float32), draw.number(113))
        engine.decode_latents([stream, b"x" * 40], 40, side)


def _spoiled_tensor(tensor: np.ndarray, draw: Draw) -> np.ndarray:
    how = draw.number(6)
    if how == 0:
        return tensor.reshape(-1)
    if how == 1:
        return tensor.astype(draw.one_of(["float64", "int8", "uint64", "bool", "complex64"]))
    if how == 2:
        return tensor[..., :0]
    changed = tensor.copy().reshape(-1)
    extremes = (
        [np.nan, np.inf, 3e38] if tensor.dtype.kind == "f" else [np.iinfo(tensor.dtype).max, np.iinfo(tensor.dtype).min]
    )
    with np.errstate(all="ignore"):
        changed[draw.number(changed.size) :: 1 + draw.number(9) if how == 3 else changed.size] = draw.one_of(extremes)
    return changed.reshape(tensor.shape)


@target
def weights_manifest(data: bytes) -> None:
    """A weights folder's manifest, with changes."""
    draw = Draw(data)
    tiny()
    base = json.loads((folder() / "weights" / "manifest.json").read_bytes())
    made = folder() / "listed"
    made.mkdir(exist_ok=True)
    content = json.dumps(edited(base, draw)).encode() if draw.byte() % 8 else draw.rest()
    (made / "manifest.json").write_bytes(content)
    before, os.environ["LTCHM_WEIGHTS"] = os.environ["LTCHM_WEIGHTS"], str(made)
    try:
        weights.available()
        weights.find()
    finally:
        os.environ["LTCHM_WEIGHTS"] = before
