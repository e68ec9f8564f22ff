"""Write `vectors/compressai_oracle.npz` and `cheng2020_oracle.npz`: what CompressAI computes for given parameters.

CompressAI is no dependency of this project, so its answers are frozen once and `test_nn_compressai.py` and
`test_baselines.py` compare with them. Needs only torch, scipy and `pip install --no-deps compressai`; run it by hand,
in an environment of its own:

    python tests/make_compressai_oracle.py

Parameters and inputs are float32, the computation is float64: a disagreement is ours, not rounding of the oracle.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TARGET = Path(__file__).parent / "vectors" / "compressai_oracle.npz"
CHENG2020 = TARGET.with_name("cheng2020_oracle.npz")
CHANNELS, MIXTURES = 8, 3


def stub_packages() -> None:
    """Enter empty parents for the wanted submodules: CompressAI's own `__init__` files import torchvision and more."""
    spec = importlib.util.find_spec("compressai")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("compressai is not installed here: pip install --no-deps compressai")
    root = Path(next(iter(spec.submodule_search_locations)))
    for name in ("compressai", "compressai.layers", "compressai.entropy_models", "compressai.models"):
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


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Set all parameters to waves, from their order and size alone, so that no weights need storing."""
    for number, (name, parameter) in enumerate(module.named_parameters()):
        wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + number).reshape(parameter.shape)
        positive = name.endswith(("beta", "gamma"))
        parameter.copy_(0.5 + 0.4 * wave if positive else wave / max(1, parameter[0].numel()) ** 0.5)


def cheng2020_case() -> dict[str, Tensor]:
    """Every transform of Cheng2020 with attention on its own input, all float64, with this project's LeakyReLU."""
    for name in ("compressai.ans", "compressai.latent_codecs"):
        sys.modules[name] = types.ModuleType(name)
    for name, absent in {"ans": ("BufferedRansEncoder", "RansDecoder"), "latent_codecs": ("LatentCodec",)}.items():
        for member in absent:
            setattr(sys.modules[f"compressai.{name}"], member, object)
    registry = sys.modules["compressai.registry"] = types.ModuleType("compressai.registry")
    registry.register_model = registry.register_module = lambda _name: lambda kind: kind  # type: ignore[attr-defined]
    layers: Any = sys.modules["compressai.layers"]
    for part in ("gdn", "layers"):
        found = importlib.import_module(f"compressai.layers.{part}")
        layers.__dict__.update({k: v for k, v in vars(found).items() if not k.startswith("_")})
    models: Any = sys.modules["compressai.entropy_models"]
    models.__dict__.update(vars(importlib.import_module("compressai.entropy_models.entropy_models")))
    from compressai.models.waseda import Cheng2020Attention

    net = Cheng2020Attention(CHANNELS).double()
    for module in net.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 2.0**-7
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(7)).double()
    y = torch.randn(1, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(8)).double()
    z = torch.randn(1, CHANNELS, 1, 1, generator=torch.Generator().manual_seed(9)).double()
    parts = {"g_a": x, "g_s": y, "h_a": y, "h_s": z, "context_prediction": y}
    frozen = {"x": x, "y": y, "z": z}
    for name, value in parts.items():
        fill(getattr(net, name))
        frozen[name] = getattr(net, name)(value)
    return frozen


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
    frozen = {name: value.detach().float().numpy() for name, value in cheng2020_case().items()}
    np.savez_compressed(CHENG2020, compressai_version=np.array(version), **frozen)
    print(f"{TARGET} and {CHENG2020.name}: answers of compressai {version}")


if __name__ == "__main__":
    main()
