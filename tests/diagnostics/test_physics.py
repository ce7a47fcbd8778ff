"""Balances and symmetries of systems that have them exactly, and of such that break them by a known amount."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.diagnostics import energy_residual, forecast, forecast_of, symmetry_residual
from bayeswm.structures import RK4, Integrator, Leapfrog, Linear, Pendulum

CART = bwm.Schema(
    state=[bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")],
    action=[bwm.Variable("force", unit="N")],
    time_step=0.1,
)


def pendulum_energy(x: Tensor) -> Tensor:
    """Return the energy of a point mass of 1 kg on 1 m, hanging at 0, in J."""
    return x[..., 1].square() / 2 - 9.81 * x[..., 0].cos()


def swing(integrator: Integrator, *, time_step: float) -> float:
    """Return the largest residual of a swing of one second."""
    structure = Pendulum(integrator=integrator, time_step=time_step)
    model = bwm.KnownDynamics(structure=structure, noise=0.0, dtype=torch.float64)
    start = torch.tensor([[1.0, 0.0], [0.5, 2.0], [-2.0, 1.0], [0.1, 0.0], [0.0, 4.0]]).double()
    path = bwm.rollout(model, start, torch.zeros(5, round(1 / time_step), 1), particles=1)
    found = energy_residual(forecast_of(path, path.mean), pendulum_energy, bootstrap=20)
    return float(np.abs(found.residual_rms).max())


@pytest.mark.parametrize(("integrator", "order"), [(Leapfrog(), 2), (RK4(), 4)])
def test_a_frictionless_pendulum_keeps_its_energy_to_the_order_of_the_integrator(
    integrator: Integrator, order: int
) -> None:
    coarse, fine = swing(integrator, time_step=0.02), swing(integrator, time_step=0.01)
    assert coarse < {2: 1e-2, 4: 1e-6}[order]
    # leading error C dt^p, the next term of relative size about dt
    assert math.log2(coarse / fine) > order - 0.1


def cart(B: float, *, noise: float = 0.0) -> bwm.KnownDynamics:
    """Return a cart of 2 kg under a force that is held for 0.1 s, or what a model makes of it."""
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
    push = torch.tensor([[0.0025], [0.05]], dtype=torch.float64)  # dt^2 / 2m, dt / m
    structure = Linear(CART, A=A, B=B * push)
    return bwm.KnownDynamics(structure=structure, noise={"v": noise}, dtype=torch.float64)


def pushed(model: bwm.KnownDynamics, *, steps: int = 5) -> bwm.Trajectories:
    g = torch.Generator().manual_seed(0)
    start, force = torch.randn(6, 2, generator=g).double(), torch.randn(6, steps, 1, generator=g).double()
    path = bwm.rollout(model, start, force, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(CART, state=torch.cat((start[:, None], path), 1), action=force)


def test_a_cart_gains_the_work_of_its_force_and_the_momentum_of_its_impulse() -> None:
    data = pushed(cart(1.0))

    def parts() -> list[bwm.diagnostics.Forecast]:
        return list(forecast(cart(1.0), data, horizon=5, chunk=4))

    kinetic = energy_residual(
        parts(), lambda x: x[..., 1].square(), work=lambda x, u: u[..., 0] * x[..., 0].diff(), bootstrap=20
    )
    momentum = energy_residual(parts(), lambda x: 2 * x[..., 1], work=lambda x, u: 0.1 * u[..., 0], bootstrap=20)
    for found in (kinetic, momentum):
        assert found.residual_rms.values == pytest.approx(0.0, abs=1e-12)
        assert dict(found.sizes) == {"horizon": 5}
    # a model whose force is twice too strong gains the same impulse again
    wrong = list(forecast(cart(2.0), data, horizon=5))
    found = energy_residual(wrong, lambda x: 2 * x[..., 1], work=lambda x, u: 0.1 * u[..., 0], bootstrap=20)
    surplus = 0.1 * data.action[..., 0].cumsum(1)
    assert found.residual.values == pytest.approx(surplus.mean(0).numpy())
    assert found.residual_rms.values == pytest.approx(surplus.square().mean(0).sqrt().numpy())
    assert found.residual_sd.values == pytest.approx(0.0, abs=1e-12)


def test_the_spread_is_that_of_the_particles() -> None:
    part = next(forecast(cart(1.0, noise=0.3), pushed(cart(1.0)), horizon=5, particles=50))
    found = energy_residual(part, lambda x: x[..., 1], work=lambda x, u: 0.05 * u[..., 0], bootstrap=20)
    velocity = part.predictive.particles[0, ..., 1]
    assert found.residual_sd.values == pytest.approx(velocity.var(0, unbiased=False).mean(0).sqrt().numpy())


def test_what_an_energy_cannot_be() -> None:
    part = next(forecast(cart(1.0), pushed(cart(1.0)), horizon=5))
    with pytest.raises(DataError, match="the energy of shape"):
        energy_residual(part, lambda x: x)
    with pytest.raises(DataError, match="the work of shape"):
        energy_residual(part, lambda x: x[..., 0], work=lambda x, _: x[..., 0])
    alone = forecast_of(part.predictive, part.outcomes)
    with pytest.raises(SpecError, match="knows its model"):
        energy_residual(alone, lambda x: x[..., 0], work=lambda _, u: u[..., 0])
    one_step = cart(1.0, noise=0.1).predictive(torch.zeros(2, 2), torch.zeros(2, 1))
    with pytest.raises(SpecError, match="expected a rollout"):
        energy_residual(forecast_of(one_step, one_step.mean), lambda x: x[..., 0])


def reflect(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return -x, -u


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_a_pendulum_is_symmetric_under_reflection(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    worlds = bwm.KnownDynamics(structure=Pendulum(damping=0.1), noise=0.1, dtype=torch.float64).draw(1)
    states, actions = 3 * torch.randn(9, 2, generator=g), torch.randn(9, 1, generator=g)
    found = symmetry_residual(worlds, states, actions, transform=reflect)
    # sines of angles shifted by pi round apart at 1e-16 of each of four stages
    assert found.largest.values == pytest.approx(0.0, abs=1e-13)
    # and a whole turn changes nothing
    turn = torch.tensor([math.tau, 0.0], dtype=torch.float64)
    turned = symmetry_residual(worlds, states, actions, transform=lambda x, u: (x + turn, u))
    assert turned.largest.values == pytest.approx(0.0, abs=1e-13)


def test_a_constant_force_breaks_the_reflection_by_twice_its_push() -> None:
    structure = Linear(CART, A=torch.eye(2).double(), B=1.0, c=torch.tensor([0.0, 0.3], dtype=torch.float64))
    worlds = bwm.KnownDynamics(structure=structure, noise=0.1, dtype=torch.float64).draw(1)
    g = torch.Generator().manual_seed(0)
    found = symmetry_residual(worlds, torch.randn(5, 2, generator=g), torch.randn(5, 1, generator=g), transform=reflect)
    for values in (found.residual, found.largest):
        assert values.sel(variable="x").values == pytest.approx(0.0, abs=1e-12)
        assert values.sel(variable="v").values == pytest.approx(0.6)


def test_a_transform_keeps_shapes() -> None:
    worlds = cart(1.0).draw(1)
    with pytest.raises(DataError, match="keeps the shapes"):
        symmetry_residual(worlds, torch.zeros(1, 2), torch.zeros(1, 1), transform=lambda x, u: (x[..., :1], u))
