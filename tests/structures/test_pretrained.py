import pytest
import torch
from torch import nn

import bayeswm as bwm
from bayeswm.structures import frozen_network


def network(activation: type[nn.Module], *, bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(3, 16, bias=bias), activation(), nn.Linear(16, 8), activation(), nn.Linear(8, 2, bias=bias))
    return nn.Sequential(*layers).to(dtype)


X = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_network(activation: type[nn.Module], bias: bool) -> None:
    net = network(activation, bias=bias)
    torch.testing.assert_close(frozen_network(net)(X), net(X).detach(), rtol=0, atol=1e-13)


def test_single_precision() -> None:
    net = network(nn.Tanh, dtype=torch.float32)
    torch.testing.assert_close(frozen_network(net)(X.float()), net(X.float()).detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU, nn.ReLU, nn.Sigmoid])
def test_differentiable_in_its_input(activation: type[nn.Module]) -> None:
    net = network(activation)
    x = X[0, :4].clone().requires_grad_()
    found = torch.autograd.grad(frozen_network(net)(x).square().sum(), x)[0]
    expected = torch.autograd.grad(net(x).square().sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_tanh_by_sigmoids(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done on processors whose tanh is slow."""
    monkeypatch.setattr("bayeswm.structures.pretrained.slow_tanh", lambda: True)
    net = network(nn.Tanh)
    torch.testing.assert_close(frozen_network(net)(X), net(X).detach(), rtol=0, atol=1e-13)


def test_one_layer_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 2)).double()
    torch.testing.assert_close(frozen_network(net)(X), net(X).detach(), rtol=0, atol=1e-13)


def test_it_stays_as_it_was() -> None:
    net = network(nn.Tanh)
    f = frozen_network(net)
    before = f(X)
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    assert torch.equal(f(X), before)


def test_inputs_are_not_changed() -> None:
    x = X.clone()
    frozen_network(network(nn.ReLU))(x)
    assert torch.equal(x, X)


def test_other_layers_are_refused() -> None:
    for bad in (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
        nn.Sequential(nn.Tanh(), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)),
    ):
        with pytest.raises(bwm.SpecError, match="Linear layers with one kind of activation"):
            frozen_network(bad)
    with pytest.raises(bwm.SpecError, match="got GELU"):
        frozen_network(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)))
