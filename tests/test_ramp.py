"""What training charges for a latent: the cost of its integer, with a slope where it would round otherwise."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.likelihood import mixture_likelihood
from ltchm_geo.nn.model import LTCHM, bits_per_image, ramped_bits

CONFIG = ModelConfig(channels=32, parameter_width=32)


def parameters_like(y, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(y), 9 * y.shape[1], *y.shape[2:])
    return torch.randn(shape, generator=generator)


def cost(y, parameters):
    return bits_per_image(mixture_likelihood(y, parameters))


@settings(deadline=None)  # the first example pays for what torch loads
@given(integer=st.integers(-20, 20), part=st.floats(-0.5, 0.5), width=st.floats(0.05, 1.0))
def test_off_the_ramp_a_latent_costs_its_integer(integer, part, width):
    y = torch.full((1, 1, 1, 1), integer + part * (1 - width) * 0.999)
    parameters = parameters_like(y)
    torch.testing.assert_close(ramped_bits(y, parameters, width), cost(torch.round(y), parameters))


def test_on_the_ramp_it_is_a_straight_line():
    width = 0.4
    share = torch.linspace(0, 1, 9)
    y = (2.5 + (share - 0.5) * width).reshape(-1, 1, 1, 1)
    parameters = parameters_like(y[:1]).expand(9, -1, -1, -1)
    below, above = cost(torch.full_like(y, 2), parameters), cost(torch.full_like(y, 3), parameters)
    torch.testing.assert_close(ramped_bits(y, parameters, width), below + share * (above - below))


def test_only_latents_on_the_ramp_are_pushed_and_parameters_always():
    y = torch.tensor([0.1, 0.45, -0.45, -1.2]).reshape(1, 4, 1, 1).requires_grad_()
    parameters = parameters_like(y).requires_grad_()
    ramped_bits(y, parameters, 0.3).sum().backward()
    assert y.grad.flatten().bool().tolist() == [False, True, True, False]
    assert parameters.grad.reshape(3, 3, 4).any(0).any(0).all()


def test_a_network_charges_so_in_training_alone():
    torch.manual_seed(0)
    model, quality = LTCHM(CONFIG), torch.tensor([4.0])
    x = torch.rand(1, 3, 128, 128)
    y = model.g_a(x, quality)
    y_hat, z_hat = torch.round(y), torch.round(model.h_a(y, quality))
    parameters = model.parameters_of(y_hat, z_hat, quality)
    charged = model(x, quality, ramp=0.3).bits_y
    torch.testing.assert_close(charged, ramped_bits(y, parameters, 0.3), rtol=1e-4, atol=0.1)
    assert model(x, quality).bits_y != charged  # noise
    torch.testing.assert_close(model.eval()(x, quality, ramp=0.3).bits_y, cost(y_hat, parameters), rtol=1e-4, atol=0.1)
