"""Predictive checks: p-values against exact laws, priors, ragged and hidden data, divergence."""

import math

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import DataError, DivergenceWarning, SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import predictive_check
from bayeswm.inference import Conjugate
from bayeswm.structures import Linear
from tests.statistical.checks import BUDGET

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)


def drift(law: Normal | float = 0.0, *, a: float = 1.0) -> Linear:
    value = law if isinstance(law, Normal) else torch.tensor([law], dtype=F64)
    return Linear(SCHEMA, A=a * torch.eye(1, dtype=F64), c=value)


def ends(states: torch.Tensor) -> torch.Tensor:
    """The last state of the first episode."""
    return states[:, 0, -1, 0]


def walk(end: float) -> bwm.Trajectories:
    return bwm.Trajectories(SCHEMA, state=torch.linspace(0.0, end, 5, dtype=F64).view(1, 5, 1))


@pytest.mark.statistical
def test_a_prior_predictive_p_value_has_its_exact_value() -> None:
    # four steps with c ~ N(0, 1) and noise 1: the end is N(0, 16 + 4)
    model = bwm.BayesianDynamics(structure=drift(Normal(torch.zeros(1), 1.0)), noise=1.0)
    found = predictive_check(model, walk(3.0), statistics={"end": ends}, prior=True, worlds=4000)
    p = 0.5 * math.erfc(3 / math.sqrt(2 * 20))
    assert found["quantity"].values.tolist() == ["end"]
    assert abs(float(found["p_value"][0]) - p) < 4.4 * math.sqrt(p * (1 - p) / 4000)
    assert float(found["p_value_se"][0]) == pytest.approx(math.sqrt(p * (1 - p) / 4000), rel=0.05)
    # 5 % and 95 % quantiles: standard error sqrt(0.05 0.95 / n) / density
    half, error = 1.6448536 * math.sqrt(20), 4.4 * math.sqrt(0.0475 / 4000) / (0.10313564 / math.sqrt(20))
    assert abs(float(found["lower"][0]) + half) < error
    assert abs(float(found["upper"][0]) - half) < error
    assert found.attrs["drawn_from"] == "prior"


@pytest.mark.statistical
def test_a_posterior_predictive_p_value_has_its_exact_value() -> None:
    # given changes of 1, 1, 1, 1 with noise 1, c ~ N(4 / 5, 1 / 5): the end is N(16 / 5, 16 / 5 + 4)
    model = bwm.BayesianDynamics(
        structure=drift(Normal(torch.zeros(1), 1.0)), noise=1.0, inference=Conjugate(draws=4000)
    )
    found = predictive_check(model.fit(walk(4.0), seed=0), walk(4.0), statistics={"end": ends}, worlds=4000)
    p = 0.5 * math.erfc((4 - 3.2) / math.sqrt(2 * 7.2))
    assert abs(float(found["p_value"][0]) - p) < 4.4 * math.sqrt(p * (1 - p) / 4000)
    assert float(found["observed"][0]) == 4.0


def test_default_statistics_of_ragged_data_with_gaps() -> None:
    state = torch.tensor([[[1.0], [2.0], [4.0]], [[0.0], [-3.0], [math.nan]]], dtype=F64)
    data = bwm.Trajectories(SCHEMA, state=state, lengths=[2, 1])
    found = predictive_check(bwm.KnownDynamics(structure=drift(), noise=1.0), data, worlds=50)
    values = dict(zip(found["quantity"].values.tolist(), found["observed"].values.tolist(), strict=True))
    rough = math.sqrt((1 + 4 + 9) / 3)
    expected = {"mean": 0.8, "stddev": math.sqrt(5.36), "minimum": -3, "maximum": 4, "roughness": rough}
    assert values == pytest.approx({f"{k}[x]": v for k, v in expected.items()})
    assert not bool(found["replicated"].isnull().any())
    assert found["replicated"].shape == (50, 5)


@pytest.mark.statistical
def test_too_calm_a_model_is_seen_and_the_truth_is_not() -> None:
    truth = bwm.KnownDynamics(structure=drift(a=0.9), noise=1.0)
    data = bwm.data.simulate(truth, torch.zeros(10, 1), torch.zeros(20, 0), generator=make_generator(0))
    calm = bwm.KnownDynamics(structure=drift(a=0.9), noise=0.5)
    p = [float(predictive_check(m, data)["p_value"].sel(quantity="roughness[x]")) for m in (truth, calm)]
    assert 2 * min(p[0], 1 - p[0]) > BUDGET
    assert p[1] == 0.0


def test_a_few_weighted_worlds_and_a_hidden_state_are_checked() -> None:
    data = walk(1.0)
    hidden = bwm.KnownDynamics(structure=drift(), noise=0.1, sensor_noise=0.3)
    found = predictive_check(hidden, data, worlds=20)
    assert found["quantity"].values.tolist()[0] == "mean[x]"
    assert float(found["replicated"].std("draw").min()) > 0


def test_diverged_replications_are_left_out() -> None:
    # x' = a x with a = e^N(0, 40) leaves the finite numbers about half of the time
    growth = torch.distributions.LogNormal(torch.zeros(1, 1, dtype=F64), 40.0)
    model = bwm.KnownDynamics(structure=Linear(SCHEMA, A=growth), noise=0.1)
    data = bwm.Trajectories(SCHEMA, state=torch.ones(1, 20, 1, dtype=F64))
    with pytest.warns(DivergenceWarning, match="of 100 replications diverged"):
        found = predictive_check(model, data, worlds=100)
    lost = int(found["replicated"].isnull().all("quantity").sum())
    assert 20 < lost < 80
    assert found.attrs["diverged"] == lost
    assert not bool(found["p_value"].isnull().any())
    certain = bwm.KnownDynamics(structure=drift(a=1e300), noise=0.1)
    with pytest.raises(DataError, match="all left the finite numbers"):
        predictive_check(certain, data, worlds=5)


def test_what_makes_no_sense_is_refused() -> None:
    model = bwm.KnownDynamics(structure=drift(), noise=0.1)
    with pytest.raises(SpecError, match=r"end: expected a statistic of shape \(1,\) or \(1, 1\)"):
        predictive_check(model, walk(1.0), statistics={"end": lambda x: x})
    with pytest.raises(SpecError, match="worlds >= 2"):
        predictive_check(model, walk(1.0), worlds=1)
    one, two = (predictive_check(model, walk(1.0), seed=3) for _ in range(2))
    assert one.identical(two)
