"""On linear systems the growth of errors and of small differences is exact."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import error_growth, forecast, forecast_of
from tests.diagnostics.recordings import Linear
from tests.models import sensed

DT, STEPS, RATES = 0.1, 6, (1.2, 0.7)
START = 1.0 + torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def system(*, noise: float, factors: tuple[float, float] = RATES) -> bwm.KnownDynamics:
    """Return x' = a x of two variables."""
    schema = bwm.Schema(state=[bwm.Variable("x", unit="m"), bwm.Variable("v")], time_step=DT)
    matrix = torch.diag(torch.tensor(factors, dtype=torch.float64))
    return bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=matrix), noise=noise)


def powers() -> torch.Tensor:
    """Return a^h, shape (H, 2)."""
    return torch.tensor(RATES, dtype=torch.float64) ** torch.arange(1.0, STEPS + 1, dtype=torch.float64)[:, None]


def recorded(error: torch.Tensor) -> bwm.Trajectories:
    """Return the noiseless paths, off by an error that broadcasts to (windows, H, S)."""
    paths = torch.cat((START[:, None], START[:, None] * powers() + error), 1)
    return bwm.Trajectories(system(noise=0.0).schema, state=paths, action=torch.empty(len(START), STEPS, 0))


def test_rates_floor_and_ratio_are_exact() -> None:
    # errors of 0.01 e^(g t); the floor of x' = a x from d apart is d a^h, whatever the noise, and grows at ln(a) / dt
    growth = torch.tensor([3.0, -1.0], dtype=torch.float64)
    time = DT * torch.arange(1.0, STEPS + 1, dtype=torch.float64)[:, None]
    data = recorded(0.01 * (growth * time).exp())
    quiet, apart = system(noise=0.0), torch.tensor([1e-3, 1e-2], dtype=torch.float64)
    found = error_growth(forecast(quiet, data, horizon=STEPS), perturbation=apart, bootstrap=20)
    assert found.rmse.values == pytest.approx((0.01 * (growth * time).exp()).numpy(), rel=1e-6)
    assert found.rate.values == pytest.approx(growth.numpy(), abs=1e-6)
    assert found.rate_se.values == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found.floor.values == pytest.approx((apart * powers()).numpy(), rel=1e-6)
    assert found.floor_rate.values == pytest.approx([math.log(a) / DT for a in RATES], abs=1e-6)
    assert found.ratio.values == pytest.approx((found.rmse / found.floor).values, rel=1e-12)
    noisy = error_growth(forecast(system(noise=0.5), data, horizon=STEPS), perturbation=apart, bootstrap=20)
    assert noisy.floor.values == pytest.approx(found.floor.values, rel=1e-6)


def test_the_perturbation_is_one_step_of_noise_unless_given() -> None:
    found = error_growth(forecast(system(noise=0.05), recorded(torch.zeros(2)), horizon=STEPS), bootstrap=20)
    assert found.floor.values == pytest.approx(0.05 * powers().numpy(), rel=1e-6)


def test_errors_by_recording_are_those_of_the_bootstrap() -> None:
    # one half of the recordings grows at 2 / s, the other at 4 / s from the same error: the rates of the resamples lie
    # between
    time = DT * torch.arange(1.0, STEPS + 1, dtype=torch.float64)[:, None]
    growth = torch.tensor([2.0, 4.0], dtype=torch.float64).repeat_interleave(6)[:, None, None]
    found = error_growth(forecast(system(noise=0.0), recorded((growth * time).exp()), horizon=STEPS), bootstrap=200)
    assert (found.rate_se > 0.05).all()
    assert ((found.rate_lower > 2) & (found.rate_upper < 4) & (found.rate_lower < found.rate)).all()
    assert (found.rate < found.rate_upper).all()


def test_worlds_have_floors_of_their_own(linear: Linear) -> None:
    # A is uncertain on its diagonal: the mean over the worlds of the squared distance d^2 a^2h in each
    spread = 0.2 * torch.eye(2).double() + 1e-12
    law = torch.distributions.Normal(torch.diag(torch.tensor(RATES).double()), spread)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(system(noise=0.0).schema, A=law), noise=0.1)
    (part,) = forecast(model, recorded(torch.zeros(2)), horizon=STEPS, worlds=5)
    found = error_growth(part, perturbation=[0.01, 0.01], bootstrap=20)
    assert part.worlds is not None
    factor = part.worlds.parameters["A"].diagonal(dim1=-2, dim2=-1).reshape(5, 1, 2)
    steps = torch.arange(1.0, STEPS + 1, dtype=torch.float64)[:, None]
    expected = 0.01 * (factor.abs() ** (2 * steps)).mean(0).sqrt()
    assert found.floor.values == pytest.approx(expected.numpy(), rel=1e-6)
    # with actions and a coupling: signs at random make the covariance of the start d^2 I; over these 1200 windows the
    # mean of their product has an error of 0.03, which moves a floor by less than 1 %
    coupled = error_growth(forecast(linear.truth, linear.data, horizon=2), perturbation=[0.1, 0.1], bootstrap=20)
    assert coupled.floor.sel(horizon=1).values == pytest.approx([0.1 * 0.85**0.5, 0.1 * 0.73**0.5], rel=0.05)


def test_without_worlds_there_is_no_floor() -> None:
    p = bwm.rollout(system(noise=0.1), START, horizon=STEPS, generator=torch.Generator().manual_seed(0))
    alone = forecast_of(p, START[:, None] * powers() + 1.0)
    found = error_growth(alone, bootstrap=20)
    assert "floor" not in found
    assert "ratio" not in found
    assert found.sizes == {"horizon": STEPS, "variable": 2}
    with pytest.raises(bwm.SpecError, match="knows its model"):
        error_growth(alone, perturbation=[0.1, 0.1])


def test_a_hidden_state_has_errors_and_no_floor() -> None:
    data, model = sensed.record(episodes=6, steps=8), sensed.model()
    found = error_growth(forecast(model, data, horizon=3), bootstrap=20)
    assert "floor" not in found
    assert (found.rmse > 0).all()
    with pytest.raises(bwm.SpecError, match="state is hidden"):
        error_growth(forecast(model, data, horizon=3), perturbation=[0.1, 0.1])


def test_what_was_not_recorded_does_not_count_and_no_error_has_no_rate() -> None:
    data = recorded(torch.zeros(2))
    assert data.state is not None
    state = data.state.clone()
    state[:, 3:, 0] = float("nan")
    state[:, 1:, 1] = state[:, :1, 1]
    missing = bwm.Trajectories(data.schema, state=state, action=data.action, allow_missing=True)
    still = system(noise=0.0, factors=(1.2, 1.0))
    found = error_growth(forecast(still, missing, horizon=STEPS), perturbation=[0.1, 0.0], bootstrap=20)
    assert found.floor.sel(variable="x").isnull().values.tolist() == [False] * 2 + [True] * 4
    assert found.floor_rate.sel(variable="x").item() == pytest.approx(math.log(1.2) / DT, abs=1e-6)
    assert found.rate.isnull().all()
    assert (found.rmse.sel(variable="v") == 0).all()
    assert found.ratio.sel(variable="v").isnull().all()


def test_bad_requests_are_named() -> None:
    data = recorded(torch.zeros(2))
    for bad in ([0.1], [-0.1, 0.1], [0.0, 0.0]):
        with pytest.raises(bwm.SpecError, match="perturbation= of 2 finite numbers"):
            error_growth(forecast(system(noise=0.0), data, horizon=STEPS), perturbation=bad)
    with pytest.raises(bwm.SpecError, match="2 steps or more"):
        error_growth(forecast(system(noise=0.1), data, horizon=1))
