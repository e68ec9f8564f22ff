"""Which weights and precision an engine takes, and that a tile's pixels depend on nothing else."""

import json
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import exit_code, needs_fork

from ltchm_geo import cpu, weights
from ltchm_geo import engine as engine_module
from ltchm_geo.device import has_bfloat16, single_precision
from ltchm_geo.engine import PRECISION_VARIABLE, Engine, default_precision, load_engine
from ltchm_geo.errors import DeviceError, InvalidWeightsError, UsageError
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")
LEVEL = 56


@pytest.fixture
def tiles():
    smooth = np.linspace(0, 1, 128, dtype=np.float32)
    tile = np.stack([np.outer(smooth, smooth), np.outer(smooth, smooth[::-1]), np.outer(smooth[::-1], smooth)])
    return np.stack([tile, tile[::-1], 1 - tile]).astype(np.float32)


def test_emulated_bfloat16_is_never_the_default(monkeypatch):
    monkeypatch.delenv(PRECISION_VARIABLE, raising=False)
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    assert default_precision(CPU) == "float32"
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)
    assert default_precision(CPU) == "bfloat16"
    assert default_precision(torch.device("cuda")) == "float32"


@pytest.mark.skipif(not CPUINFO.is_file(), reason="only Linux lists what the CPU can do")
def test_hardware_is_asked():
    flags = {word for line in CPUINFO.read_text().splitlines() if line.startswith("flags") for word in line.split()}
    assert cpu.has_bfloat16() == bool(flags & {"avx512_bf16", "amx_tile"})


def test_environment_names_the_precision(tiny, monkeypatch):
    for name in ("float32", "bfloat16"):
        monkeypatch.setenv(PRECISION_VARIABLE, name)
        assert default_precision(CPU) == name
        assert load_engine(device="cpu").precision == name
    monkeypatch.setenv(PRECISION_VARIABLE, "float16")
    with pytest.raises(UsageError, match="LTCHM_PRECISION=float16"):
        load_engine(device="cpu")


def test_transforms_and_exact_network_must_agree(tiny):
    """Or the latents of one would not fit the other, in the middle of a scene."""
    sound = weights.load()
    config = sound.config | {"channels": 64}
    metadata = dict(sound.metadata) | {"ltchm_config": json.dumps(config)}
    with torch.device("meta"):
        wide = LTCHM(ModelConfig.from_dict(config))
    floats = {f"nn.{k}": np.zeros(v.shape, np.float32) for k, v in wide.state_dict().items()}
    kept = ("nn.g_a.", "nn.g_s.", "nn.h_a.")
    exact = {k: v for k, v in sound.tensors.items() if k.startswith("entropy.")}
    tensors = {k: v for k, v in floats.items() if k.startswith(kept)} | exact
    with pytest.raises(InvalidWeightsError, match=r"\(32, 32\) channels, the transforms \(64, 64\)"):
        Engine(weights.LoadedWeights(sound.entry, sound.path, metadata, tensors), CPU)


def test_weights_keep_the_tag_of_their_folder(tiny, tmp_path, monkeypatch):
    renamed = shutil.copytree(tiny, tmp_path / "renamed")
    manifest = renamed / weights.MANIFEST
    manifest.write_text(manifest.read_text().replace('"tiny-random"', '"another"'))
    first = load_engine(device="cpu")
    monkeypatch.setenv("LTCHM_WEIGHTS", str(renamed))
    assert (first.tag, load_engine(device="cpu").tag) == ("tiny-random", "another")
    assert load_engine(device="cpu") is load_engine(device="cpu")


# --- graphics cards, as far as they can be had without one ----------------------------------------------------------


class Card(str):
    """The CPU, which says that it is a graphics card."""

    type = "cuda"


@pytest.fixture
def card(tiny, monkeypatch):
    engine = Engine(weights.load(None), CPU, "float32")
    engine.device = Card("cpu")
    monkeypatch.setattr(engine_module, "wait", lambda device: None)
    return engine


def precisions():
    return [part.fp32_precision for part in (torch.backends.cudnn.conv, torch.backends.cuda.matmul)]


needs_precisions = pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="as PyTorch has it since 2.9")


@pytest.fixture(params=[None, "ieee", "tf32"])
def application(request):
    """One that chose a precision for all there is, and for convolutions; or did not."""
    parts = (torch.backends, torch.backends.cudnn.conv) if request.param else ()
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = request.param
    yield
    for part, precision in zip(parts, before, strict=True):
        part.fp32_precision = precision


@needs_precisions
@pytest.mark.usefixtures("application")
def test_cards_compute_in_single_precision_whatever_the_application_chose(card, tiles, monkeypatch):
    before, seen, original = precisions(), [], card._at

    def at(*args):
        transform, quality = original(*args)
        return lambda *inputs: (seen.append(precisions()), transform(*inputs))[1], quality

    monkeypatch.setattr(card, "_at", at)
    y, _ = card.analyse(tiles, LEVEL)
    card.synthesise(y, LEVEL)
    assert seen == [["ieee", "ieee"]] * 9
    assert precisions() == before


@needs_precisions
def test_single_precision_lasts_until_the_last_user_ends():
    before, cuda = precisions(), torch.device("cuda")
    with single_precision(cuda):
        assert not torch.backends.cudnn.allow_tf32  # others may still ask
        with single_precision(cuda):
            assert precisions() == ["ieee", "ieee"]
        assert precisions() == ["ieee", "ieee"]
    assert precisions() == before
    with single_precision(CPU):
        assert precisions() == before


def test_single_precision_of_older_releases(monkeypatch):
    backends = [SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)]
    for name, backend in zip(("cudnn", "cuda"), backends, strict=True):
        monkeypatch.setattr(torch.backends, name, SimpleNamespace(matmul=backend) if name == "cuda" else backend)
    with single_precision(torch.device("cuda")):
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    assert [backend.allow_tf32 for backend in backends] == [True, False]


@pytest.mark.parametrize(
    ("capability", "hip", "has"), [((7, 5), None, False), ((8, 0), None, True), ((7, 0), "6.2", True)]
)
def test_cards_that_emulate_bfloat16_do_not_have_it(monkeypatch, capability, hip, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert has_bfloat16(torch.device("cuda")) is has


def room_for(engine, monkeypatch, most):
    """Let networks run out of memory when they get more tiles than that; returns how many they got."""
    passes, original = [], engine._at

    def at(*args):
        transform, quality = original(*args)

        def run(tiles, *others):
            passes.append(len(tiles))
            if len(tiles) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return transform(tiles, *others)

        return run, quality

    monkeypatch.setattr(engine, "_at", at)
    return passes


def test_what_does_not_fit_a_card_is_done_in_parts(card, tiles, monkeypatch):
    card.batch = 1
    streams = card.encode(tiles, LEVEL)
    y, _ = card.decode_latents(streams, LEVEL, 128)
    pixels = card.synthesise(y, LEVEL)
    card.batch = 8
    passes = room_for(card, monkeypatch, 1)
    assert (card.synthesise(y, LEVEL) == pixels).all()
    assert (card.batch, passes) == (1, [3, 3, 2, 1, 1, 1])
    card.batch = 2
    assert card.encode(tiles, LEVEL) == streams
    assert card.batch == 1


@pytest.mark.parametrize("where", ["network", "coder"])
def test_a_card_without_memory_is_told(card, tiles, monkeypatch, where):
    if where == "network":
        room_for(card, monkeypatch, 0)
    else:
        monkeypatch.setattr(card.coder, "encode", out_of_memory)
    with pytest.raises(DeviceError, match=r"too little free memory: .* --workers 1, or use --device cpu"):
        card.encode(tiles, LEVEL)


def out_of_memory(*_, **__):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def half(tiny):
    return Engine(weights.load(None), CPU, "bfloat16")


def test_precision_of_a_call_overrides_the_engine(tiny, half, tiles):
    y, _ = half.analyse(tiles, LEVEL)
    single = Engine(weights.load(None), CPU, "float32").synthesise(y, LEVEL)
    assert (half.synthesise(y, LEVEL, precision="float32") == single).all()
    lowered = half.synthesise(y, LEVEL)
    assert (lowered != single).any()
    assert np.sqrt(np.mean((lowered - single) ** 2)) < 0.01 * single.std()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pixels_depend_on_no_neighbour_and_no_thread(tiny, tiles, precision):
    engine = Engine(weights.load(None), CPU, precision)
    y, _ = engine.analyse(tiles, LEVEL)
    together = engine.synthesise(y, LEVEL)
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        alone = [engine.synthesise(part, LEVEL) for part in y.split(1)]
        assert (np.concatenate(alone) == together).all()
    torch.set_num_threads(before)


def test_threads_of_the_pool_flush_denormals():
    def halved() -> float:
        return (torch.tensor([1e-38]) * 0.01).item()

    assert cpu.pool(1).submit(halved).result() == 0.0
    assert cpu.pool(1).submit(torch.get_num_threads).result() == 1
    found: list[float] = []
    other = threading.Thread(target=lambda: found.append(halved()))  # the caller's own threads stay as they were
    other.start()
    other.join()
    assert found[0] > 0


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_decodes(tiny, tiles):
    """The threads of the parent's pool are not its own."""
    engine = load_engine(device="cpu")
    streams = engine.encode(tiles, LEVEL)

    def decode():
        sys.exit(0 if engine.decode_latents(streams, LEVEL, 128)[1].all() else 1)

    assert exit_code(decode) == 0
