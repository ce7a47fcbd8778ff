"""Predictive checks: p-values whose exact values are known, missing data, divergence."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import DataError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import predictive_check
from bayeswm.inference import Conjugate
from bayeswm.structures import Linear

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
NOISE, DRAWS = 0.5, 4000


def walk(a: float = 1.0) -> bwm.KnownDynamics:
    return bwm.KnownDynamics(structure=Linear(SCHEMA, A=a * torch.eye(1, dtype=F64)), noise=NOISE)


def recordings(scale: float = 0.45) -> bwm.Trajectories:
    steps = scale * torch.randn(3, 10, 1, generator=make_generator(3), dtype=F64)
    return bwm.Trajectories(SCHEMA, state=torch.cat((torch.zeros(3, 1, 1), steps.cumsum(1)), 1), lengths=[10, 10, 6])


def squares(paths: Tensor) -> Tensor:
    return paths.diff(dim=2).square().nansum((1, 2))


def last(paths: Tensor) -> Tensor:
    return paths[:, 0, -1]


def error(p: float) -> float:
    """Four standard errors of a share of the draws."""
    return 4 * math.sqrt(p * (1 - p) / DRAWS)


@pytest.mark.statistical
def test_the_steps_of_a_walk_have_a_chi_square_p_value() -> None:
    data = recordings()
    found = predictive_check(walk(), data, statistics={"squares": squares}, draws=DRAWS)
    expected = float(stats.chi2.sf(float(found["observed"].squeeze()) / NOISE**2, 26))  # 10 + 10 + 6 steps
    assert 0.02 < expected < 0.98
    assert abs(float(found["p_value"].squeeze()) - expected) < error(expected)


@pytest.mark.statistical
def test_a_prior_predictive_check_knows_the_spread_of_the_prior() -> None:
    drift = Linear(SCHEMA, A=torch.eye(1), c=Normal(torch.zeros(1), 1.0))
    model = bwm.BayesianDynamics(structure=drift, noise=NOISE, inference=Conjugate())
    data = bwm.Trajectories(SCHEMA, state=torch.linspace(0, 8, 11, dtype=F64).view(1, 11, 1))
    worlds = model.prior(DRAWS, generator=make_generator(0))
    found = predictive_check(worlds, data, statistics={"last": last}, draws=DRAWS)
    # x[10] = 10 c + noise of 10 steps
    expected = float(stats.norm.sf(8 / math.sqrt(100 + 10 * NOISE**2)))
    assert abs(float(found["p_value"].squeeze()) - expected) < error(expected)


def test_default_statistics_are_those_of_the_data() -> None:
    data = recordings()
    found = predictive_check(walk(), data, draws=20)
    inside = torch.cat([data.state[i, : n + 1, 0] for i, n in enumerate(data.lengths.tolist())])
    steps = torch.cat([data.state[i, : n + 1, 0].diff() for i, n in enumerate(data.lengths.tolist())])
    expected = [inside.mean(), inside.std(correction=0), inside.min(), inside.max(), steps.abs().max()]
    torch.testing.assert_close(torch.as_tensor(found["observed"].values[:, 0]), torch.stack(expected))
    assert found["replicated"].shape == (20, 5, 1)
    again = predictive_check(walk(), data, draws=20)
    assert found.identical(again)


def test_a_model_that_moves_too_much_is_seen() -> None:
    p = predictive_check(walk(), recordings(0.1), draws=100)["p_value"]
    assert float(p.sel(statistic="largest_step").squeeze()) == 1.0


def test_what_makes_no_sense_is_refused() -> None:
    state = torch.ones(1, 11, 1, dtype=F64)
    data = bwm.Trajectories(SCHEMA, state=state)
    with pytest.raises(DataError, match="all left the finite numbers"):
        predictive_check(walk(1e200), data, draws=5)
    with pytest.raises(SpecError, match="squares: expected a statistic of shape"):
        predictive_check(walk(), data, statistics={"squares": lambda paths: squares(paths)[:, 0]}, draws=5)
    with pytest.raises(SpecError, match="draws >= 2"):
        predictive_check(walk(), data, draws=1)
