"""Balances of energy along rollouts of known systems, whose residuals are known."""

import math

import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.base import DataError, SpecError, UnknownVariableError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import balance, forecast, forecast_of
from bayeswm.structures import RK4, Integrator, Leapfrog, Linear, Pendulum

F64 = torch.float64
PAIR = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


def energy(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(-1) / 2


def schema_with_input() -> bwm.Schema:
    return bwm.Schema(state=PAIR.state, action=[bwm.Variable("u")], time_step=0.1)


def turned(gain: float = 1.0) -> bwm.KnownDynamics:
    """The oscillator x'' = -x + u over a step of 0.1 s with the input held, exactly, times a gain."""
    c, s = math.cos(0.1), math.sin(0.1)
    A, B = gain * torch.tensor([[c, s], [-s, c]], dtype=F64), torch.tensor([[1 - c], [s]], dtype=F64)
    return bwm.KnownDynamics(structure=Linear(schema_with_input(), A=A, B=B))


def test_energy_is_kept_or_grows_as_it_must() -> None:
    start = normal(6, 2)
    for gain in (1.0, 1.01):
        r = bwm.rollout(turned(gain), start, torch.zeros(50, 1), particles=1)
        found = balance(r, {"energy": energy})
        steps = torch.arange(1, 51, dtype=F64)
        exact = energy(start).mean() * (gain ** (2 * steps) - 1)
        torch.testing.assert_close(torch.as_tensor(found["residual"].values[0, 0]), exact, atol=1e-12, rtol=1e-9)
        time = 0.1 * steps
        slope = float((exact * time).sum() / time.square().sum())
        assert float(found["drift"][0, 0]) == pytest.approx(slope, abs=1e-12)
    assert float(found["rms"][0, 0, -1]) > float(found["residual"][0, 0, -1])


@pytest.mark.parametrize(("integrator", "order"), [(Leapfrog(), 2), (RK4(), 4)])
def test_a_frictionless_pendulum_keeps_its_energy_to_the_order_of_the_integrator(
    integrator: Integrator, order: int
) -> None:
    start = torch.tensor([[1.0, 0.0], [0.5, 2.0], [-2.0, 1.0]], dtype=F64)
    worst = list[float]()
    for time_step in (0.02, 0.01):
        model = bwm.KnownDynamics(structure=Pendulum(integrator=integrator, time_step=time_step), noise=0.0)
        swing = bwm.rollout(model, start, torch.zeros(round(1 / time_step), 1), particles=1)
        found = balance(swing, {"energy": lambda x: x[..., 1].square() / 2 - 9.81 * x[..., 0].cos()})
        worst.append(float(found["rms"].max()))
    # the error is C dt^p at most, and the next term smaller by about dt
    assert worst[0] < {2: 1e-2, 4: 1e-6}[order]
    assert math.log2(worst[0] / worst[1]) > order - 0.1


def test_the_power_of_the_input_is_counted() -> None:
    # E' = u v with v'' = -v while u is held: the trapezium rule is wrong by at most h^3 / 12 |u v| in a step
    start, u = normal(6, 2), normal(6, 50, 1, seed=1)
    r = bwm.rollout(turned(), start, u, particles=1)
    without = balance(r, {"energy": energy})
    found = balance(r, {"energy": energy}, rates={"energy": lambda x, a: a[..., 0] * x[..., 1]}, actions=u)
    # within a step of 0.1 s the speed exceeds that at its ends by no more than a tenth of what pushes, |x| + |u|
    speed = 1.1 * float(r.particles.norm(dim=-1).max()) + 0.1 * float(u.abs().max())
    bound = 50 * 0.1**3 / 12 * float(u.abs().max()) * speed
    assert float(found["rms"].max()) < bound
    assert float(without["rms"].max()) > 10 * float(found["rms"].max())


def test_quantities_of_several_worlds_use_their_parameters() -> None:
    law = torch.distributions.LogNormal(torch.zeros(1, dtype=F64), 0.5)
    # x' = x + c: momentum c m is made at the rate c / dt
    model = bwm.KnownDynamics(structure=Linear(PAIR, A=torch.eye(2, dtype=F64), c=law.expand((2,))), noise=0.0)
    worlds = model.draw(3, generator=make_generator(0))
    c = worlds.parameters["c"]
    r = bwm.rollout(worlds, normal(4, 2), None, horizon=5, particles=2, generator=make_generator(0))
    ratio = c[:, 0].view(3, 1, 1, 1)
    found = balance(r, {"share": lambda x: x[..., 0] / ratio})
    exact = torch.arange(1, 6, dtype=F64).expand(3, 5)
    torch.testing.assert_close(torch.as_tensor(found["residual"].values[0]), exact)


def test_balances_that_make_no_sense_are_refused() -> None:
    r = bwm.rollout(turned(), normal(6, 2), torch.zeros(5, 1), particles=1)
    with pytest.raises(UnknownVariableError, match="energi"):
        balance(r, {"energy": energy}, rates={"energi": lambda x, a: x[..., 0]}, actions=torch.zeros(5, 1))
    with pytest.raises(SpecError, match="actions="):
        balance(r, {"energy": energy}, rates={"energy": lambda x, a: x[..., 0]})
    with pytest.raises(SpecError, match="energy: expected values of shape"):
        balance(r, {"energy": lambda x: x})


def test_forecasts_of_recordings_are_one_rollout_under_the_recorded_actions() -> None:
    start, u = normal(6, 2), normal(6, 20, 1, seed=1)
    power = {"energy": lambda x, a: a[..., 0] * x[..., 1]}
    r = bwm.rollout(turned(), start, u, particles=1)
    data = bwm.Trajectories(schema_with_input(), state=torch.cat((start[:, None], r.particles[0, 0]), 1), action=u)
    whole = balance(r, {"energy": energy}, rates=power, actions=u)
    for chunk in (6, 4):  # at once, and in two parts of unequal size
        parts = forecast(turned(), data, horizon=20, particles=1, chunk=chunk)
        xr.testing.assert_allclose(balance(parts, {"energy": energy}, rates=power), whole, rtol=1e-12, atol=1e-14)
    one = forecast_of(r, r.particles[0, 0])
    xr.testing.assert_allclose(balance(one, {"energy": energy}), balance(r, {"energy": energy}))


def test_what_diverges_is_left_out_step_by_step() -> None:
    # x' = x^2 from above 1 leaves the finite numbers, from 1 it stays
    square = bwm.structures.FromFunction(
        lambda x, u: x**2, schema=bwm.Schema(state=[bwm.Variable("x")], time_step=1.0), name="square"
    )
    with pytest.warns(bwm.DivergenceWarning):
        r = bwm.rollout(bwm.KnownDynamics(structure=square), torch.tensor([[1.0], [3.0]], dtype=F64), None, horizon=12)
    found = balance(r, {"x": lambda x: x[..., 0]})
    assert float(found["residual"][0, 0, 0]) == pytest.approx((9 - 3) / 2)
    assert float(found["residual"][0, 0, -1]) == 0.0


def test_forecasts_that_make_no_sense_are_refused() -> None:
    start, u = normal(6, 2), normal(6, 5, 1, seed=1)
    r = bwm.rollout(turned(), start, u, particles=1)
    one, power = forecast_of(r, r.particles[0, 0]), {"energy": lambda x, a: a[..., 0] * x[..., 1]}
    with pytest.raises(SpecError, match="no actions= with forecasts"):
        balance(one, {"energy": energy}, rates=power, actions=u)
    with pytest.raises(SpecError, match="actions= of all steps"):
        balance(one, {"energy": energy}, rates=power)  # made of a predictive alone
    with pytest.raises(DataError, match="at least one forecast"):
        balance([], {"energy": energy})
    hidden = bwm.KnownDynamics(structure=turned().structure, sensor_noise=0.1)
    data = bwm.Trajectories(schema_with_input(), state=torch.cat((start[:, None], r.particles[0, 0]), 1), action=u)
    with pytest.raises(SpecError, match="forecasts of states"):
        balance(forecast(hidden, data, horizon=2), {"energy": energy})
