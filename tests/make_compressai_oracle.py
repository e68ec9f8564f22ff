"""Write `vectors/compressai_oracle.npz`: what CompressAI computes for random inputs and parameters.

CompressAI is no dependency of this project, so its answers are frozen once and `test_nn_compressai.py` compares with
them. Needs only torch, scipy and `pip install --no-deps compressai`; run it by hand, in an environment of its own:

    python tests/make_compressai_oracle.py

Parameters and inputs are float32, the computation is float64: a disagreement is ours, not rounding of the oracle.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TARGET = Path(__file__).parent / "vectors" / "compressai_oracle.npz"
CHANNELS, MIXTURES = 8, 3


def stub_packages() -> None:
    """Enter empty parents for the wanted submodules: CompressAI's own `__init__` files import torchvision and more."""
    spec = importlib.util.find_spec("compressai")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("compressai is not installed here: pip install --no-deps compressai")
    root = Path(next(iter(spec.submodule_search_locations)))
    for name in ("compressai", "compressai.layers", "compressai.entropy_models"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    coders: Any = sys.modules["compressai"]
    coders.get_entropy_coder, coders.available_entropy_coders = (lambda: "ans"), (lambda: ["ans"])


def gdn_case(generator: torch.Generator, *, inverse: bool) -> dict[str, Tensor]:
    """Random GDN parameters (some below the bounds), an input and the output."""
    from compressai.layers.gdn import GDN

    layer = GDN(CHANNELS, inverse=inverse)
    state = {
        "beta": torch.rand(CHANNELS, generator=generator) - 0.05,
        "gamma": torch.randn(CHANNELS, CHANNELS, generator=generator) * 0.3,
    }
    layer.load_state_dict(state, strict=False)
    x = torch.randn(2, CHANNELS, 5, 7, generator=generator) * 3
    return {**state, "x": x, "out": layer.double()(x.double())}


def bottleneck_case(generator: torch.Generator) -> dict[str, Tensor]:
    """A random factorised prior, latents from the centre to the far tails, and their likelihoods."""
    from compressai.entropy_models.entropy_models import EntropyBottleneck

    model = EntropyBottleneck(CHANNELS)
    state = {}
    for name, value in model.named_parameters():
        if name != "quantiles":
            state[name] = value.detach() + 0.3 * torch.randn(value.shape, generator=generator)
    model.load_state_dict(state, strict=False)
    z = torch.randn(2, CHANNELS, 4, 4, generator=generator) * 40
    points = z.double().transpose(0, 1).reshape(CHANNELS, 1, -1)
    likelihood = model.double()._likelihood(points)[0].reshape(CHANNELS, 2, 4, 4).transpose(0, 1)
    return {**{k.removeprefix("_"): v for k, v in state.items()}, "z": z, "likelihood": likelihood}


def mixture_case(generator: torch.Generator) -> dict[str, Tensor]:
    """Random Gaussian mixtures, latents near and far, and their likelihoods."""
    from compressai.entropy_models.entropy_models import GaussianMixtureConditional

    shape = (2, MIXTURES, CHANNELS, 4, 6)
    logits, means = (torch.randn(shape, generator=generator) * scale for scale in (1.5, 4.0))
    log2_sigmas = torch.rand(shape, generator=generator) * 9 - 3  # 0.125 ... 64
    y = torch.randn(2, CHANNELS, 4, 6, generator=generator) * 6
    weights, scales = torch.softmax(logits.double(), 1), torch.exp2(log2_sigmas.double())
    model = GaussianMixtureConditional(K=MIXTURES).double()
    likelihood = model._likelihood(y.double(), *(v.flatten(1, 2) for v in (scales, means.double(), weights)))
    return {"logits": logits, "means": means, "log2_sigmas": log2_sigmas, "y": y, "likelihood": likelihood}


def main() -> None:
    """Compute every case and write the file."""
    version = importlib.metadata.version("compressai")
    stub_packages()
    generator = torch.Generator().manual_seed(20240808)
    torch.manual_seed(1)
    cases = {
        "gdn": gdn_case(generator, inverse=False),
        "igdn": gdn_case(generator, inverse=True),
        "bottleneck": bottleneck_case(generator),
        "mixture": mixture_case(generator),
    }
    arrays = {f"{case}.{name}": v.detach().numpy() for case, values in cases.items() for name, v in values.items()}
    np.savez_compressed(TARGET, compressai_version=np.array(version), **arrays)
    print(f"{TARGET}: {len(arrays)} arrays from compressai {version}")


if __name__ == "__main__":
    main()
