"""Networks: their shape, their start, and what they depend on."""

import pytest
import torch

from dimlib.networks import MLP


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = MLP(7, width=16, blocks=2)
    for parameter in net.parameters():                                     # no longer the zero function
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_starts_as_the_zero_function(blocks):
    answer = MLP(7, width=16, blocks=blocks)(torch.randn(5, 7), torch.randn(5))
    assert torch.equal(answer, torch.zeros(5, 7))


@pytest.mark.parametrize("rows", [1, 5])
def test_keeps_the_shape(net, rows):
    assert net(torch.randn(rows, 7), torch.zeros(rows)).shape == (rows, 7)


def test_every_parameter_learns(net):
    net(torch.randn(20, 7), torch.randn(20)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.norm() > 0, name


def test_rows_do_not_see_each_other(net):
    x, level = torch.randn(6, 7), torch.randn(6)
    assert torch.allclose(net(x, level)[2:4], net(x[2:4], level[2:4]), atol=1e-5)


def test_the_noise_level_matters(net):
    x = torch.randn(1, 7).expand(2, -1)
    low, high = net(x, torch.tensor([0.01, 1.0]).log())
    assert (low - high).abs().max() > 1e-3


def test_the_config_makes_the_same_network(net):
    again = MLP(**net.config)
    again.load_state_dict(net.state_dict())
    x, level = torch.randn(3, 7), torch.zeros(3)
    assert torch.equal(again(x, level), net(x, level))
