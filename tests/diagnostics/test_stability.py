"""Lyapunov exponents where they are exact, and the share that diverges."""

import math

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.base import DataError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import forecast, forecast_of, stability, stability_of
from bayeswm.structures import FromFunction, Linear, Pendulum

F64 = torch.float64
PAIR = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.5)
LINE = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)


def test_exponents_of_linear_systems_are_the_logarithms_of_their_eigenvalues() -> None:
    for A in ([[1.2, 0.7], [0.0, -0.6]], [[0.9, -0.4], [0.4, 0.9]]):  # real ones, and a pair on a circle
        matrix = torch.tensor(A, dtype=F64)
        model = bwm.KnownDynamics(structure=Linear(PAIR, A=matrix), noise=0.1)
        found = stability(model, torch.ones(2, 2), None, horizon=120, discard=60, particles=2)
        exact = torch.linalg.eigvals(matrix).abs().log().sort(descending=True).values / 0.5
        # the frame has turned by (0.6 / 1.2)^60; a rotation is exact at once
        np.testing.assert_allclose(found["exponent"].values[0], exact, atol=1e-9)
        assert float(found["exponent_se"].max()) < 1e-9
        assert float(found["diverged"].max()) == 0.0


def test_the_sum_is_the_growth_of_volume_at_any_horizon() -> None:
    matrix = torch.tensor([[1.2, 0.7], [0.3, -0.6]], dtype=F64)
    found = stability(bwm.KnownDynamics(structure=Linear(PAIR, A=matrix), noise=0.1), torch.ones(1, 2), None, horizon=3)
    volume = float(torch.linalg.det(matrix).abs().log()) / 0.5
    assert float(found["exponent"].sum()) == pytest.approx(volume, abs=1e-12)
    assert bool(found["exponent_se"].isnull().all())  # a single path


@pytest.mark.statistical
def test_the_chaotic_logistic_map_has_the_exponent_log_2() -> None:
    structure = FromFunction(lambda x, u: 4 * x * (1 - x), schema=LINE, name="logistic")
    start = torch.rand(200, 1, generator=make_generator(0), dtype=F64)
    found = stability(bwm.KnownDynamics(structure=structure), start, None, horizon=200, discard=20)
    error = float(found["exponent_se"][0, 0])
    assert abs(float(found["exponent"][0, 0]) - math.log(2)) < 4.4 * error
    assert error < 0.01


def test_a_damped_pendulum_forgets_and_each_world_has_its_own_rate() -> None:
    damping = torch.distributions.LogNormal(math.log(0.5), 0.3)
    model = bwm.KnownDynamics(structure=Pendulum(damping=damping), noise=0.0)
    found = stability(model, torch.tensor([[0.1, 0.0]]), torch.zeros(100, 1), worlds=3)
    assert found["exponent"].shape == (3, 2)
    assert bool((found["exponent"] < 0).all())
    assert len(set(found["exponent"].sum("index").values.round(6).tolist())) == 3


def test_what_diverges_is_counted_and_left_out() -> None:
    # x' = x^2 leaves the finite numbers from above 1, and dies out below
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x**2, schema=LINE, name="square"))
    found = stability(model, torch.tensor([[2.0], [0.5], [3.0], [0.9]], dtype=F64), None, horizon=15)
    assert float(found["diverged"][0]) == 0.0
    assert float(found["diverged"][-1]) == 0.5
    assert bool(found["exponent"].notnull().all())
    gone = stability(model, torch.tensor([[2.0]], dtype=F64), None, horizon=15)
    assert bool(gone["exponent"].isnull().all())


def test_forecasts_of_recordings_give_the_exponents_under_their_actions() -> None:
    schema = bwm.Schema(
        state=[bwm.Variable("x")], action=[bwm.Variable("u")], context=[bwm.Variable("c")], time_step=0.5
    )
    # x' = (u + c) x: the exponent of a window is the mean of log(u + c), exactly
    structure = FromFunction(lambda x, u, c: (u + c) * x, schema=schema, name="gain")
    model, g = bwm.KnownDynamics(structure=structure), make_generator(0)
    u, c = torch.rand(6, 20, 1, generator=g, dtype=F64), torch.rand(6, 1, generator=g, dtype=F64)
    state = torch.cat((torch.ones(6, 1, 1, dtype=F64), (u + c[:, None]).cumprod(1)), 1)
    data = bwm.Trajectories(schema, state=state, action=u, context=c)
    rate = (u + c[:, None]).log()[..., 0] / 0.5
    for chunk in (12, 5):  # at once, and in parts of unequal size
        found = stability_of(forecast(model, data, horizon=10, particles=3, chunk=chunk))
        assert float(found["exponent"][0, 0]) == pytest.approx(float(rate.mean()), abs=1e-12)
        # two windows of each recording
        error = float(rate.mean(1).std() / math.sqrt(6))
        assert float(found["exponent_se"][0, 0]) == pytest.approx(error, rel=1e-9)
        assert found["diverged"].sizes == {"horizon": 10}
    assert np.isnan(stability_of(forecast(model, data[:1], horizon=10, particles=3))["exponent_se"]).all()
    late = stability_of(forecast(model, data, horizon=20, particles=1), discard=5)
    assert float(late["exponent"][0, 0]) == pytest.approx(float(rate[:, 5:].mean()), abs=1e-12)
    direct = stability(model, state[:, 0], u, context=c)
    assert float(direct["exponent"][0, 0]) == pytest.approx(float(rate.mean()), abs=1e-12)
    assert float(direct["exponent_se"][0, 0]) == pytest.approx(error, rel=1e-9)


def test_forecasts_that_make_no_sense_are_refused() -> None:
    known = bwm.KnownDynamics(structure=Linear(PAIR, A=torch.eye(2, dtype=F64)), noise=0.1)
    data = bwm.Trajectories(PAIR, state=torch.zeros(5, 9, 2, dtype=F64))
    (part,) = forecast(known, data, horizon=8)
    with pytest.raises(SpecError, match="knows its model and its data"):
        stability_of(forecast_of(part.predictive, part.outcomes))
    with pytest.raises(DataError, match="at least one forecast"):
        stability_of([])
    with pytest.raises(SpecError, match="discard"):
        stability_of(part, discard=8)
    with pytest.raises(SpecError, match="fresh worlds"):
        stability_of(forecast(known, data, horizon=8, fresh_worlds=True))
    hidden = bwm.KnownDynamics(structure=known.structure, noise=0.1, sensor_noise=0.1)
    with pytest.raises(SpecError, match="hidden state"):
        stability_of(forecast(hidden, data, horizon=2))


def test_what_makes_no_sense_is_refused() -> None:
    model = bwm.KnownDynamics(structure=Linear(PAIR, A=torch.eye(2, dtype=F64)), noise=0.1)
    with pytest.raises(SpecError, match="discard"):
        stability(model, torch.zeros(1, 2), None, horizon=5, discard=5)
    with pytest.raises(SpecError, match=r"starts of shape \(n, 2\)"):
        stability(model, torch.zeros(2), None, horizon=5)
