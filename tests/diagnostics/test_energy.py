"""Energy scores of forecasts: worlds, and some of the draws."""

import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import crps_worlds, forecast, forecast_of, scores
from bayeswm.diagnostics.energy import energy_of_worlds, samples_of, window_energies
from tests.diagnostics.recordings import Linear
from tests.diagnostics.test_univariate_scores import normal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("exhaustive", [True, False])
def test_energy_of_worlds_in_one_dimension_is_the_crps_of_worlds(exhaustive: bool) -> None:
    x, y, w = normal(3, 4, 6), normal(6, seed=1), torch.tensor([0.2, 0.3, 0.5]).double()
    lost = torch.rand(3, 4, 6, generator=generator()) < 0.3
    found = energy_of_worlds(x[..., None], y[:, None], weight=w, exhaustive=exhaustive, lost=lost)
    expected = crps_worlds(x, y, weight=w, exhaustive=exhaustive, valid=~lost)
    assert torch.allclose(found, expected, rtol=1e-9, equal_nan=True)


def test_all_draws_are_the_score(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:20], horizon=3, particles=40)
    scale = torch.tensor([2.0, 0.5]).double()
    found = window_energies(part, scale=scale, generator=generator(), draws=40)
    whole = scores(part, scale=scale, bootstrap=20).energy_score
    assert found.mean(0).numpy() == pytest.approx(whole.values, rel=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize(("worlds", "particles"), [(64, 4), (300, 1)])
def test_some_draws_are_unbiased_for_all(worlds: int, particles: int) -> None:
    """Of as many models as windows, so that these are independent: the mean difference is 0."""
    law = torch.distributions.Normal(torch.eye(2).double(), 0.3)
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.1)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=law), noise=0.4)
    g, gaps = generator(), list[float]()
    for _ in range(60):
        start = torch.randn(1, 2, generator=g, dtype=torch.float64)
        p = bwm.rollout(model, start, worlds=worlds, particles=particles, horizon=2, generator=g)
        part = forecast_of(p, torch.randn(1, 2, 2, generator=g, dtype=torch.float64))
        some, every = (
            window_energies(part, scale=torch.ones(2), generator=g, draws=n) for n in (20, 2 * worlds * particles)
        )
        gaps.append(float((some - every)[0, 1]))
    assert stats.ttest_1samp(gaps, 0.0).pvalue > 1e-5
    assert max(map(abs, gaps)) > 0


def test_how_many_draws_are_taken() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law), noise=0.1)

    def taken(worlds: int, particles: int, *, exhaustive: bool = False) -> tuple[int, ...]:
        options = {"worlds": worlds, "particles": particles, "generator": generator()}
        p = bwm.rollout(model, torch.zeros(3, 2), torch.zeros(3, 4, 1), **options)
        some = samples_of(p, generator()).few(100, exhaustive=exhaustive)
        assert float(some.weight.sum()) == pytest.approx(1.0)
        assert some.lost.shape == some.values.shape[:-1]
        return tuple(some.values.shape[:2])

    assert taken(4, 10) == (4, 10)
    assert taken(4, 40) == (4, 25)
    assert taken(64, 20) == (50, 2)
    assert taken(64, 20, exhaustive=True) == (64, 2)


def test_missing_outcomes_have_no_score(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:20], horizon=3)
    gaps = part.outcomes.clone()
    gaps[3, 1, 0] = float("nan")
    found = window_energies(part._replace(outcomes=gaps), scale=torch.ones(2), generator=generator(), draws=100)
    assert found.isnan().nonzero().tolist() == [[3, 1]]
