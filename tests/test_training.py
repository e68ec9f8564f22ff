"""The training loop: optimiser, resuming, decay, guarded steps, recipes and the command line."""

from __future__ import annotations

import json
import math
import signal
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from test_training_data import add_image
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ltchm_geo.baselines.registry import build
from ltchm_geo.cli.train import train
from ltchm_geo.errors import UsageError
from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.inference import Lowered, prepare
from ltchm_geo.nn.likelihood import mixture_likelihood
from ltchm_geo.nn.model import LTCHM, autocast
from ltchm_geo.training import loop, optim, throughput
from ltchm_geo.training.augment import augment
from ltchm_geo.training.data import Pool, Sampler
from ltchm_geo.training.loop import Trainer, average_ltchm, average_model, read_checkpoint, read_facts
from ltchm_geo.training.optim import MuonAdamW, make_optimizer, orthogonalise
from ltchm_geo.training.recipe import Recipe
from ltchm_geo.training.throughput import Throughput

CPU = torch.device("cpu")
TINY = ModelConfig(channels=32, parameter_width=32)
ROOT = Path(__file__).parents[1]
RECIPES = sorted([*(ROOT / "weights" / "recipes").glob("*.toml"), *(ROOT / "benchmarks" / "recipes").glob("*.toml")])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_trainer(**changes):
    """A trainer of a tiny network on one random image, not far from real settings."""
    settings = {"crop": 128, "batch": 1, "decay_crop": 128, "decay_batch": 1, "warmup": 2, "mixed_precision": False}
    image = np.random.default_rng(1).integers(0, 256, (150, 140, 3), dtype=np.uint8)
    sampler = Sampler([Pool.build([("noise", image)], CPU)], {})
    size = {} if "options" in changes else {"model": TINY}
    return Trainer(Recipe(**(size | settings | changes)), sampler, CPU)


def everything(trainer):
    """Copies of all tensors that a run carries from step to step."""
    tensors = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in trainer.average.items()}
    tensors |= trainer._optimizer_tensors()
    return {k: v.detach().clone() for k, v in tensors.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    different = [k for k in first if not torch.equal(first[k], second[k])]
    assert not different


# --- optimiser --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (24, 96), (96, 24)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    out = orthogonalise(matrix)
    values = torch.linalg.svdvals(out)
    before = torch.linalg.svdvals(matrix)
    assert out.shape == shape
    assert out.dtype == torch.float32
    wide = before > 0.05 * before[0]  # five iterations do not lift the very smallest
    assert float(values[wide].min()) > 0.5
    assert float(values.max()) < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float((out * (u @ vh)).sum()) > 0.8 * min(shape)  # the same singular vectors


@pytest.mark.parametrize("shape", [(32, 32), (3, 24, 96), (16, 500)])
def test_one_polynomial_does_what_iterations_do(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    matrix *= torch.logspace(-4, 0, shape[-1], dtype=torch.float64)  # strong and weak directions
    a, b, c = optim._NEWTON_SCHULZ
    x = matrix / matrix.norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        x = a * x + b * x @ x.mT @ x + c * x @ x.mT @ x @ x.mT @ x
    single = matrix.float()
    normal = single / single.norm(dim=(-2, -1), keepdim=True)
    several = normal.reshape(-1, *shape[-2:])
    for factor in (optim._polynomial(normal @ normal.mT, 5) @ normal, optim._iterated(several, 5).reshape(shape)):
        torch.testing.assert_close(factor.double(), x, rtol=0, atol=2e-4)


def test_adamw_group_equals_torchs():
    generator = torch.Generator().manual_seed(0)
    ours = [
        torch.randn(4, 5, generator=generator).requires_grad_(),
        torch.randn(7, generator=generator).requires_grad_(),
    ]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    own = MuonAdamW([{"params": ours, "lr": 1e-2, "muon": False}], betas=(0.9, 0.99))
    reference = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    for _ in range(10):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator) * 1e-3
            b.grad = a.grad.clone()
        own.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_muon_moves_by_the_learning_rate_whatever_the_gradients_size():
    for scale in (1e-6, 1e3):
        weight = torch.zeros(32, 32, 3, 3).requires_grad_()
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * scale
        MuonAdamW([{"params": [weight], "lr": 0.01, "muon": True}]).step()
        # RMS of 0.2 per unit of learning rate, whatever the shape.
        assert float(weight.detach().pow(2).mean().sqrt()) == pytest.approx(0.01 * 0.2, rel=0.25)


def test_only_dense_convolutions_go_to_muon():
    model = LTCHM(TINY)
    names = {id(p): name for name, p in model.named_parameters()}
    adamw, muon = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=2e-3).param_groups
    assert (adamw["muon"], muon["muon"]) == (False, True)
    assert (adamw["lr"], muon["lr"]) == (1e-3, 2e-3)
    matrices = {names[id(p)] for p in muon["params"]}
    assert len(matrices) + len(adamw["params"]) == len(names)
    assert {"g_a.down2.conv1.weight", "h_s.layers.0.weight", "parameter_net.layers.2.weight"} <= matrices
    apart = ("gamma", "beta", "bias", "position_bias", "log2_scale", "scale", "shift")
    assert not [n for n in matrices if n.endswith(apart) or ".depthwise." in n or n.startswith("prior.")]
    assert not [n for n in matrices if ".convs." in n and n.endswith((".0.weight", ".1.weight", ".2.weight"))]
    assert len(make_optimizer(model, kind="adamw", lr=1e-3, muon_lr=2e-3).param_groups) == 1


def test_parts_can_learn_more_slowly():
    model = LTCHM(TINY)
    slow = {"g_a": 0.5, "g_s": 0.5, "context": 0.25}
    groups = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=2e-3, rates=slow).param_groups
    rate = {id(p): (group["lr"], group["muon"]) for group in groups for p in group["params"]}
    rates = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert rates["g_a.down2.conv1.weight"] == rates["g_s.up2.conv2.weight"] == (1e-3, True)
    assert rates["g_a.down2.conv1.bias"] == rates["g_s.scale1.log2_scale"] == (0.5e-3, False)
    assert rates["h_s.layers.0.weight"] == rates["parameter_net.layers.2.weight"] == (2e-3, True)
    assert rates["context.conv.weight"] == (0.5e-3, True)
    assert rates["context.conv.bias"] == (0.25e-3, False)
    assert rates["prior.biases.0"] == (1e-3, False)
    assert len(rate) == len(rates)


@pytest.mark.parametrize("ramp", [0.0, 0.3])
def test_a_part_at_rate_zero_stays_and_is_charged_as_files_are(ramp):
    trainer = make_trainer(rates={"g_a": 0.0, "g_s": 0.0}, quality_low=3.0, quality_high=3.0, whiten=True, ramp=ramp)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    crops = trainer._crops(1, 128)
    trainer._crops = lambda *_: crops
    with torch.no_grad():
        y = trainer.model.g_a(crops, torch.tensor([3.0]))
        parameters = trainer.model.parameters_of(
            torch.round(y), torch.round(trainer.model.h_a(y, torch.tensor([3.0]))), torch.tensor([3.0])
        )
        exact = -torch.log2(mixture_likelihood(torch.round(y), parameters)).sum()
    estimate = trainer.model(crops, torch.tensor([3.0]), **trainer._charging())
    assert float(estimate.bits_y.detach()) == pytest.approx(float(exact), rel=1e-5)
    trainer.train_step()
    changed = {
        name.split(".")[0] for name, value in trainer.model.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"h_a", "h_s", "context", "parameter_net", "prior"}


def test_rates_of_parts_that_are_not_there():
    with pytest.raises(UsageError, match=r"no parts \['contxt'\].*'context'"):
        make_optimizer(LTCHM(TINY), kind="muon", lr=1e-3, muon_lr=2e-3, rates={"contxt": 0.1})


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3


def optimizer_state(optimizer, model):
    return {f"{n}:{k}": v.clone() for n, p in model.named_parameters() for k, v in optimizer.state[p].items()}


def test_muon_of_many_parameters_equals_muon_of_each():
    model = LTCHM(TINY).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=2e-3)
    muon = optimizer.param_groups[1]
    expected = [p.detach().clone() for p in muon["params"]]
    momenta = [torch.zeros_like(p) for p in expected]
    for seed in range(3):
        gradients(model, seed)
        optimizer.step()
        for value, momentum, parameter in zip(expected, momenta, muon["params"], strict=True):
            momentum.lerp_(parameter.grad, 0.05)
            matrix = parameter.grad.lerp(momentum, 0.95).reshape(len(value), -1)
            scale = 0.2 * max(matrix.shape) ** 0.5
            value.sub_(orthogonalise(matrix).reshape(value.shape), alpha=2e-3 * scale)
    for parameter, value, momentum in zip(muon["params"], expected, momenta, strict=True):
        torch.testing.assert_close(parameter, value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(optimizer.state[parameter]["momentum"], momentum, rtol=1e-5, atol=1e-9)


def same_strides(first, second):
    """Where they matter: along axes of more than one."""
    pairs = zip(first.shape, first.stride(), second.stride(), strict=True)
    return first.shape == second.shape and all(size == 1 or a == b for size, a, b in pairs)


def test_updates_lie_in_memory_as_their_parameters_do(monkeypatch):
    model, lists = LTCHM(TINY).to(memory_format=torch.channels_last), []
    for name in ("_foreach_add_", "_foreach_copy_"):
        real = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *both, real=real: lists.append(both) or real(*both))
    gradients(model, 0)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)  # as autograd has it
    make_optimizer(model, kind="muon", lr=1e-3, muon_lr=2e-3).step()
    pairs = [pair for both in lists for pair in zip(*both, strict=True)]
    assert len(pairs) > 2 * len(list(model.parameters()))
    assert all(same_strides(old, new) for old, new in pairs)


def test_a_step_that_is_not_followed_changes_nothing():
    model = LTCHM(TINY)
    optimizer = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=2e-3)
    gradients(model, 0)
    optimizer.step_if(torch.tensor(True))
    before = model.state_dict() | optimizer_state(optimizer, model)
    before = {name: value.clone() for name, value in before.items()}
    for parameter in model.parameters():
        parameter.grad.fill_(math.nan)
    optimizer.step_if(torch.tensor(False))
    assert_same(before, model.state_dict() | optimizer_state(optimizer, model))


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whiten", [False, True])
def test_a_resumed_run_continues_bit_for_bit(whiten, tmp_path):
    whole = make_trainer(mixed_precision=True, whiten=whiten)
    for _ in range(2):
        whole.train_step()
    whole.save(tmp_path / "half.safetensors")
    for _ in range(2):
        whole.train_step()
    torch.manual_seed(99)  # the resumed run must not depend on the state it finds
    resumed = make_trainer(mixed_precision=True, whiten=whiten)
    resumed.load(tmp_path / "half.safetensors")
    assert resumed.step == 2
    assert bool(resumed.optimizer.whitenings) == whiten
    for _ in range(2):
        resumed.train_step()
    assert_same(everything(resumed), everything(whole))
    assert (resumed.step, resumed.usual_norm, resumed.skipped) == (whole.step, whole.usual_norm, whole.skipped)
    assert not (tmp_path / "half.part").exists()


def test_what_is_restored_lies_in_memory_as_the_model_does(tmp_path):
    trainer, resumed = make_trainer(), make_trainer(seed=3)
    trainer.train_step()
    trainer.save(tmp_path / "one.safetensors")
    resumed.model.to(memory_format=torch.channels_last)
    resumed.load(tmp_path / "one.safetensors")
    assert_same(everything(resumed), everything(trainer))
    model = dict(resumed.model.state_dict())
    assert not model["g_a.down2.conv1.weight"].is_contiguous()
    assert all(same_strides(value, model[name]) for name, value in resumed.average.items())
    states = [(p, v) for p, state in resumed.optimizer.state.items() for v in state.values() if v.ndim]
    assert all(same_strides(value, parameter) for parameter, value in states)


def test_runs_of_one_seed_are_the_same_and_of_two_are_not():
    first, second, other = make_trainer(), make_trainer(), make_trainer(seed=5)
    assert_same(first.model.state_dict(), second.model.state_dict())
    assert not torch.equal(other.model.g_a.down1.conv1.weight, first.model.g_a.down1.conv1.weight)


def test_decay_ends_at_one_percent_and_stops(tmp_path):
    trainer, factors = make_trainer(warmup=1), []
    trainer.train_step()
    trainer.begin_decay(4)
    assert not trainer.decayed
    stop = lambda: bool(factors.append(trainer._lr_factor()))  # noqa: E731  (never stops by itself)
    trainer.run(stop, lambda report: None)
    assert trainer.decayed
    assert trainer.step == 5
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[2] == pytest.approx(0.505)
    assert factors[-1] == trainer._lr_factor() == pytest.approx(0.01)
    trainer.save(tmp_path / "final.safetensors")
    again = make_trainer()
    again.load(tmp_path / "final.safetensors")
    assert again.decayed
    again.run(lambda: False, lambda report: None)
    assert again.step == 5


@pytest.mark.parametrize(("begin", "late"), [(0.0, 4), (0.75, 1), (1.0, 0)])
def test_decay_takes_its_own_crops(begin, late):
    trainer, sizes = make_trainer(batch=2, decay_crop=256, decay_from=begin), []
    draw = trainer.sampler.draw
    trainer.sampler.draw = lambda batch, size, *random: sizes.append((batch, size)) or draw(batch, 128, *random)
    trainer.train_step()
    trainer.begin_decay(4)
    while not trainer.decayed:
        trainer.train_step()
    assert sizes == [(2, 128)] * (5 - late) + [(1, 256)] * late


def test_warmup_is_linear():
    trainer = make_trainer(warmup=4)
    assert [trainer._lr_factor() for trainer.step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_loss_drops_on_a_trivial_data_set(monkeypatch):
    monkeypatch.setattr(loop, "augment", lambda x, generator: x)
    image = np.full((128, 128, 3), (200, 40, 90), np.uint8)
    sampler = Sampler([Pool.build([("flat", image)], CPU)], {})
    trainer, reports = make_trainer(warmup=1, lr=3e-3, quality_low=3.0, quality_high=3.0), []
    trainer.sampler = sampler
    trainer.run(lambda: trainer.step >= 12, reports.append, every=4)
    assert [report.step for report in reports] == [4, 8, 12]
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].psnr > reports[0].psnr
    assert reports[-1].steps_per_second > 0


def test_mixed_precision_lowers_in_training_what_it_lowers_in_use():
    model = make_trainer().model.eval()
    lowered = set()

    def note(name, output):
        if output.dtype == torch.bfloat16:
            lowered.add(name)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
    with torch.no_grad(), autocast(torch.zeros(1), enabled=True):
        y = model.g_a(torch.rand(1, 3, 128, 128), torch.tensor([3.0]))
        x_hat = model.g_s(y, torch.tensor([3.0]))
    assert y.dtype == x_hat.dtype == torch.float32
    for transform in (model.g_a, model.g_s):
        prepare(transform, "bfloat16", torch.device("cpu"))
    in_use = {name.removesuffix(".conv") for name, module in model.named_modules() if isinstance(module, Lowered)}
    assert lowered == in_use
    assert "g_a.stage1.1.conv1" in lowered


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 40, 62)])
def test_the_recipes_share_of_crops_becomes_planes(share, least, most, monkeypatch):
    monkeypatch.setattr(loop, "augment", lambda x, generator: x)
    crops = make_trainer(planes=share)._crops(64, 128)
    single = (crops[:, :1] == crops).flatten(1).all(1)
    assert least <= int(single.sum()) <= most


def damage(trainer, factor):
    """Multiply one gradient by `factor` from now on."""
    return trainer.model.g_s.up0.bias.register_hook(lambda gradient: gradient * factor)


@pytest.mark.parametrize("factor", [math.nan, 1e9])
def test_a_wild_gradient_step_is_skipped(factor):
    trainer = make_trainer(warmup=0)
    trainer.train_step()
    trainer.train_step()
    before, usual = everything(trainer), trainer.usual_norm
    hook = damage(trainer, factor)
    trainer.train_step()
    hook.remove()
    after = everything(trainer)
    unaveraged = [k for k in before if not k.startswith("average.")]
    assert_same({k: before[k] for k in unaveraged}, {k: after[k] for k in unaveraged})
    assert (trainer.skipped, trainer.step) == (1, 3)
    assert usual <= trainer.usual_norm <= usual * 1.07  # never blocks for good, never jumps
    trainer.train_step()
    assert trainer.skipped == 1
    assert all(bool(torch.isfinite(v).all()) for v in everything(trainer).values())


def test_average_follows_the_weights():
    trainer = make_trainer(ema=0.5)
    name = "g_a.down1.conv1.weight"
    old = trainer.average[name].clone()
    trainer.train_step()
    # Step 1: memory (1 + 1) / (10 + 1), well below the recipe's 0.5.
    expected = old + (1 - 2 / 11) * (trainer.model.state_dict()[name] - old)
    torch.testing.assert_close(trainer.average[name], expected)


@pytest.mark.parametrize("architecture", ["ltchm", "cheng2020-attn"])
def test_no_step_waits_for_a_value_from_the_device(architecture):
    random, options = torch.Generator(), {"channels": 32, "parameter_width": 32}
    with FakeTensorMode():  # tensors without values: asking for one is an error
        with pytest.raises(DataDependentOutputException):
            float(torch.ones(()))
        numbers = [torch.full((2,), value) for value in (0, 300, 300, 0)]
        pool = Pool(torch.zeros(300**2 * 3, dtype=torch.uint8), *numbers, ["a"], 3, 255.0)
        x = augment(pool.crops(torch.zeros(2, dtype=torch.int64), 256, random), random)
        model = build(architecture, options)
        estimate = model(x, torch.rand(2) * 7, mixed_precision=True)
        (estimate.x_hat.mean() + (estimate.bits_y + estimate.bits_z).mean()).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer = make_optimizer(model, kind="muon", lr=1e-3, muon_lr=1e-3)
        optimizer.step_if(torch.isfinite(norm))
        assert len(optimizer.state) == len(list(model.parameters()))


@pytest.mark.parametrize("architecture", ["ltchm-neither", "cheng2020-attn"])
def test_other_architectures_train_and_resume_bit_for_bit(architecture, tmp_path):
    changes = {"architecture": architecture}
    changes |= {"options": {"channels": 16, "parameter_width": 16}} if architecture == "cheng2020-attn" else {}
    whole = make_trainer(**changes)
    whole.train_step()
    whole.save(tmp_path / "one.safetensors")
    whole.train_step()
    resumed = make_trainer(**changes)
    resumed.load(tmp_path / "one.safetensors")
    resumed.train_step()
    assert_same(everything(resumed), everything(whole))
    with pytest.raises(UsageError, match="holds another model"):
        make_trainer().load(tmp_path / "one.safetensors")
    with pytest.raises(UsageError, match=f"holds a {architecture}"):
        average_ltchm(tmp_path / "one.safetensors")


def test_checkpoints_of_the_time_before_architectures_are_ltchm(tmp_path):
    trainer = make_trainer()
    trainer.train_step()
    trainer.save(tmp_path / "new.safetensors")
    facts, tensors = read_checkpoint(tmp_path / "new.safetensors")
    for key in ("architecture", "options", "compile"):
        del facts["recipe"][key]
    del tensors["rng.chooser"]
    save_file(tensors, tmp_path / "old.safetensors", {"format": "ltchm-checkpoint-1", "facts": json.dumps(facts)})
    trainer.train_step()
    resumed = make_trainer()
    resumed.load(tmp_path / "old.safetensors")
    resumed.train_step()
    assert_same(everything(resumed), everything(trainer))
    assert average_ltchm(tmp_path / "old.safetensors").config == TINY


def test_a_run_can_move_to_another_kind_of_device(tmp_path):
    trainer = make_trainer()
    trainer.train_step()
    trainer.save(tmp_path / "here.safetensors")
    facts, tensors = read_checkpoint(tmp_path / "here.safetensors")
    tensors["rng.generator"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU's generator would leave it
    save_file(tensors, tmp_path / "there.safetensors", {"format": "ltchm-checkpoint-1", "facts": json.dumps(facts)})
    moved = make_trainer()
    moved.load(tmp_path / "there.safetensors")
    moved.train_step()
    assert moved.step == 2
    assert not torch.equal(moved.generator.get_state(), make_trainer().generator.get_state())


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoints_hold_the_recipe_and_the_average(tmp_path):
    trainer = make_trainer()
    trainer.train_step()
    trainer.save(tmp_path / "one.safetensors")
    facts, _ = read_checkpoint(tmp_path / "one.safetensors")
    assert Recipe.from_dict(facts["recipe"]) == trainer.recipe
    model = average_model(tmp_path / "one.safetensors")
    assert not model.training
    assert_same(model.state_dict(), trainer.average)


def test_foreign_checkpoints_are_refused(tmp_path):
    trainer = make_trainer()
    with pytest.raises(UsageError, match="cannot read the checkpoint"):
        trainer.load(tmp_path / "absent.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(bytes(64))
    with pytest.raises(UsageError, match="cannot read the checkpoint"):
        trainer.load(tmp_path / "noise.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="not a training checkpoint"):
        trainer.load(tmp_path / "other.safetensors")
    trainer.save(tmp_path / "narrow.safetensors")
    wider = Trainer(Recipe(model=ModelConfig(channels=32, parameter_width=64)), trainer.sampler, CPU)
    with pytest.raises(UsageError, match="holds another model"):
        wider.load(tmp_path / "narrow.safetensors")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "one.safetensors"
    make_trainer().save(path)
    return path


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        (None, r"its facts cannot be read \('facts'\)"),
        ("{", r"its facts cannot be read \(Expecting"),
        ("[]", "its facts lack decay"),
        ('{"step": 1, "decay": null, "skipped": 0, "usual_norm": 1.0}', "its facts lack recipe"),
    ],
)
def test_checkpoints_with_broken_facts_are_refused(checkpoint, tmp_path, facts, complaint):
    metadata = {"format": "ltchm-checkpoint-1"} | ({} if facts is None else {"facts": facts})
    save_file(read_checkpoint(checkpoint)[1], tmp_path / "broken.safetensors", metadata)
    for read in (read_facts, average_model, make_trainer().load):
        with pytest.raises(UsageError, match=rf"broken\.safetensors is damaged, or of another version: {complaint}"):
            read(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("average.g_a.down1.conv1.weight", None, r"lacks average\.g_a\.down1\.conv1\.weight$"),
        ("model.g_a.down1.conv1.bias", (3,), r"model\.g_a\.down1\.conv1\.bias \(3,\) does not fit its model$"),
        ("average.g_b", (1, 2), r"average\.g_b \(1, 2\) does not fit its model$"),
        ("rng.torch", None, r"lacks rng\.torch$"),
    ],
)
def test_checkpoints_without_some_tensors_are_refused(checkpoint, tmp_path, name, shape, complaint):
    facts, tensors = read_checkpoint(checkpoint)
    tensors |= {name: torch.zeros(shape or 1)}
    tensors = {key: value for key, value in tensors.items() if shape or key != name}
    save_file(tensors, tmp_path / "broken.safetensors", {"format": "ltchm-checkpoint-1", "facts": json.dumps(facts)})
    with pytest.raises(UsageError, match=complaint):
        make_trainer().load(tmp_path / "broken.safetensors")
    if name.startswith("average."):
        with pytest.raises(UsageError, match=complaint):
            average_model(tmp_path / "broken.safetensors")


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load(path):
    recipe = Recipe.load(path)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert sum(recipe.weights.values()) <= 1


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 1e-3}, "unknown keys"),
        ({"crop": 100}, "multiples of 128"),
        ({"decay_crop": 0}, "multiples of 128"),
        ({"batch": 0}, "at least 1"),
        ({"predict": 129}, "predict must be from 0 to 128"),
        ({"predict": -1}, "predict must be from 0"),
        ({"architecture": "tcm", "predict": 1}, "predict must be from 0 to 0"),
        ({"rates": {"g_a": -0.1}}, "rates must not be negative"),
        ({"optimizer": "sgd"}, "optimizer must be"),
        ({"quality_low": 5.0, "quality_high": 4.0}, "quality_low <= quality_high"),
        ({"model": {"depth": 3}}, r"unknown keys in the table \[model\]: \['depth'\]$"),
        ({"model": {"channels": "64"}}, "model config: sizes must be integers"),
        ({"model": 3}, "model must be a table, not 3"),
        ({"lr": "1e-3"}, "lr must be a number, not '1e-3'"),
        ({"halved": -0.1}, "halved must be from 0 to 1"),
        ({"decay_from": 2}, "decay_from must be from 0 to 1"),
        ({"planes": 1.5}, "planes must be from 0 to 1"),
        ({"ramp": -0.1}, "ramp must be from 0 to 1"),
        ({"ramp": 0.3, "architecture": "tcm"}, "only an ltchm has one"),
        ({"batch": 16.0}, r"batch must be a whole number, not 16\.0"),
        ({"batch": True}, "batch must be a whole number, not True"),
        ({"compile": 1}, "compile must be true or false, not 1"),
        ({"optimizer": ["muon"]}, "optimizer must be a text"),
        ({"weights": {"rsscn7": "0.4"}}, r"weights\.rsscn7 must be a number, not '0\.4'"),
        ({"options": {"channels": 32}}, r"ltchm does not read the table \[options\]"),
        ({"architecture": "tcm", "model": {"channels": 32}}, r"tcm does not read the table \[model\]"),
    ],
)
def test_wrong_recipes_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(wrong)


def test_whole_numbers_are_numbers():
    assert Recipe.from_dict({"clip": 1, "weights": {"a": 1}}) == Recipe(clip=1.0, weights={"a": 1.0})


@pytest.mark.parametrize("content", [b"crop = = 3", "start = 'früh'".encode("latin-1")])
def test_unreadable_recipes_are_named(content, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read the recipe .*bad\.toml"):
        Recipe.load(tmp_path / "bad.toml")


# --- command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def _restored_process():
    """`ltchm train` takes over signals and flushes denormals for its whole process; give both back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("_restored_process")
def test_train_command_from_start_to_final_weights(tmp_path):
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "pack.tar", "w") as tar:
        for i, kind in enumerate(["PNG", "JXL", "PNG"]):
            add_image(tar, f"source{i}/image.{kind.lower()}", rng.integers(0, 256, (130, 140, 3), dtype=np.uint8), kind)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'crop = 128\nbatch = 1\ndecay_crop = 128\ndecay_batch = 1\nwarmup = 1\nmixed_precision = false\nstart = "klt"\n'
        '[model]\nchannels = 32\nparameter_width = 32\ndam_gain = true\nskip = "2x2"\n[weights]\nsource1 = 0.6\n'
    )
    out = tmp_path / "run"

    def run(*options):
        arguments = [str(recipe), str(tmp_path / "pack.tar"), "--out", str(out), "--device", "cpu", "--threads", "1"]
        return CliRunner().invoke(train, [*arguments, *options])

    early = run("--decay-steps", "2")
    assert isinstance(early.exception, UsageError)
    assert "nothing to branch off" in str(early.exception)
    first = run("--steps", "2")
    assert first.exit_code == 0, first.output
    assert "started as the Karhunen-Loeve transform of the data" in first.output
    assert read_checkpoint(out / "trunk.safetensors")[0]["step"] == 2
    second = run("--steps", "3")
    assert "resumed trunk.safetensors at step 2" in second.output
    assert "Karhunen" not in second.output
    assert "TMAC/s in matrix products" in second.output
    assert read_checkpoint(out / "trunk.safetensors")[0]["step"] == 3
    stopped = run("--decay-steps", "5", "--steps", "4")
    assert stopped.exit_code == 0, stopped.output
    assert "instead of" not in stopped.output
    assert read_checkpoint(out / "branch.safetensors")[0]["decay"] == [3, 5]
    final = run("--decay-steps", "2")
    assert final.exit_code == 0, final.output
    assert "resumed branch.safetensors at step 4" in final.output
    assert "the branch from step 3 takes 2 steps instead of 5" in final.output
    assert "finished" in final.output
    assert sorted(p.name for p in out.iterdir()) == ["final.safetensors", "log.jsonl", "trunk.safetensors"]
    assert read_checkpoint(out / "final.safetensors")[0]["step"] == 5
    assert average_model(out / "final.safetensors").config == replace(TINY, dam_gain=True, skip="2x2")

    source, out = out / "final.safetensors", tmp_path / "next"
    onward = run("--start-from", str(source), "--decay-steps", "1")
    assert onward.exit_code == 0, onward.output
    assert f"started from {source}" in onward.output
    assert "finished" in onward.output


@pytest.mark.usefixtures("_restored_process")
def test_predictions_need_a_transform_to_predict_the_latents_of(tmp_path):
    with tarfile.open(tmp_path / "pack.tar", "w") as tar:
        add_image(tar, "source/image.png", np.zeros((130, 140, 3), dtype=np.uint8), "PNG")
    (tmp_path / "tiny.toml").write_text("predict = 1\n[model]\nchannels = 32\nparameter_width = 32\n")
    arguments = [str(tmp_path / name) for name in ("tiny.toml", "pack.tar")]
    result = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == 'recipe: predict needs start = "klt", or weights to --start-from'


@pytest.mark.parametrize(
    "wrong",
    ["--threads 0", "--steps 0", "--decay-steps 0", "--minutes 0", "--minutes -1", "--save-minutes -1"],
)
def test_limits_that_make_no_sense_are_refused(wrong, tmp_path):
    result = CliRunner().invoke(train, [*[str(RECIPES[0])] * 2, "--out", str(tmp_path / "run"), *wrong.split()])
    assert result.exit_code == 2
    assert "is not in the range" in result.output


def test_matrix_products_are_timed_warm(monkeypatch):
    events = []
    clock = SimpleNamespace(perf_counter=lambda: events.append("clock") or len(events))
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "wait", lambda device: events.append("wait"))
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: events.append("product"))
    throughput.matrix_rate(CPU, torch.float32, seconds=1)
    assert events == ["product", "wait", "clock", "product", "wait", "clock"]


def test_measuring_the_device_does_not_touch_the_run():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    throughput = Throughput.measure(Recipe(model=TINY, mixed_precision=False), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert throughput.matrix_rate > 1e8
    # Three passes, each of the network's cost: at this speed nothing would be left for anything else.
    tiles_per_second = throughput.matrix_rate / (3 * throughput.macs_per_tile)
    assert throughput.share(tiles_per_second) == pytest.approx(1)
