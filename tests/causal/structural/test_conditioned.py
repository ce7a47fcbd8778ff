import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.causal import Learned, Mechanism, StructuralModel, counterfactual
from bayeswm.causal.structural.conditioned import ConditionedModel
from bayeswm.inference import Inferred
from bayeswm.inference.normal_inverse_gamma import NormalRegression
from tests.causal.learned_models import linear
from tests.causal.reference_models import line

NAN = float("nan")


def gain() -> StructuralModel:
    """s' = theta a + w, theta ~ N(1, 1), w ~ N(0, 1)."""
    mechanism = Mechanism(lambda a, theta: theta * a, noise=1.0)
    return StructuralModel({"s": mechanism}, schema=line(), parameters={"theta": Normal(1.0, 1.0)})


def pair() -> StructuralModel:
    """x = 0.5 x[t-1] + b + noise; y = k x + m x[t-1] + noise."""
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=1.0)
    return StructuralModel(
        {
            "x": Mechanism(lambda x, b: 0.5 * x + b, ("x[t-1]", "b"), noise=1.0),
            "y": Mechanism(lambda x, old, k, m: k * x + m * old, ("x", "x[t-1]", "k", "m"), noise=0.5),
        },
        schema=schema,
        parameters={"b": Normal(0.0, 2.0), "k": Normal(1.0, 1.0), "m": Normal(0.0, 0.5)},
    )


def episodes(count: int, horizon: int) -> bwm.Trajectories:
    x = torch.randn(count, horizon + 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return bwm.Trajectories(pair().schema, state=x)


def test_a_normal_parameter_is_exact() -> None:
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    found = gain().condition(factual)
    assert isinstance(found, ConditionedModel)
    assert isinstance(found.posterior, NormalRegression)
    assert found.posterior.mean.item() == pytest.approx(1.5, abs=1e-12)
    assert found.posterior.covariance.item() == pytest.approx(0.5, abs=1e-12)
    assert found.condition(factual, in_training=True) is found
    model = gain()
    assert model.condition(factual, in_training=True) is model


@pytest.mark.statistical
def test_a_counterfactual_shares_the_parameter(generator: torch.Generator) -> None:
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    found = counterfactual(gain(), factual, bwm.do(a=3.0), worlds=4000, generator=generator)
    assert abs(found.mean.item() - 5.0) / (2 / 4000) ** 0.5 < 4.5
    assert abs(found.variance.item() / 2.0 - 1) / (2 / 4000) ** 0.5 < 4.5
    same = counterfactual(gain(), factual, bwm.do(a=1.0), worlds=10, generator=generator)
    assert (same.mean.item(), same.variance.item()) == pytest.approx((2.0, 0.0))


def test_several_parameters_against_dense_algebra() -> None:
    data = episodes(3, 5)
    found = pair().condition(data)
    before, after = data.states()[:, :-1].flatten(0, 1), data.states()[:, 1:].flatten(0, 1)
    rows, zero = len(after), torch.zeros(len(after)).double()
    phi = torch.cat(
        (
            torch.stack((torch.ones(rows).double(), zero, zero), -1),
            torch.stack((zero, after[:, 0], before[:, 0]), -1) / 0.5,
        )
    )
    y = torch.cat((after[:, 0] - 0.5 * before[:, 0], after[:, 1] / 0.5))
    prior = torch.tensor([2.0, 1.0, 0.5]).double().square().reciprocal().diag()
    covariance = torch.linalg.inv(prior + phi.mT @ phi)
    mean = covariance @ (phi.mT @ y + prior @ torch.tensor([0.0, 1.0, 0.0]).double())
    assert isinstance(found, ConditionedModel)
    assert isinstance(found.posterior, NormalRegression)
    torch.testing.assert_close(found.posterior.mean, mean)
    torch.testing.assert_close(found.posterior.covariance, covariance)
    assert found.names == ("b", "k", "m")
    in_parts = pair().condition(data[:1]).condition(data[1:])
    assert isinstance(in_parts, ConditionedModel)
    torch.testing.assert_close(in_parts.posterior.mean, mean)  # pyright: ignore[reportAttributeAccessIssue]


def against_grid(found: object, name: str, grid: torch.Tensor, log: torch.Tensor) -> None:
    """Compare draws with a posterior on a grid; moved draws count as at least a quarter of their number."""
    assert isinstance(found, ConditionedModel)
    assert isinstance(found.posterior, Inferred)
    draws, weight = found.posterior.values[name].flatten(), torch.softmax(log, 0)
    mean = float(weight @ grid)
    sd = float(weight @ (grid - mean).square()) ** 0.5
    assert abs(float(draws.mean()) - mean) / sd < 4.5 / (len(draws) / 4) ** 0.5
    assert abs(float(draws.std()) / sd - 1) < 4.5 / (2 * len(draws) / 4) ** 0.5


@pytest.mark.statistical
def test_unknown_noise_is_drawn() -> None:
    law = LogNormal(0.0, 1.0)
    mechanism = Mechanism(lambda s: 0.8 * s, ("s[t-1]",), noise="sd")
    model = StructuralModel({"s": mechanism}, parameters={"sd": law})
    x = torch.randn(2, 21, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
    data = bwm.Trajectories(model.schema, state=x)
    grid = torch.linspace(0.05, 2.0, 20_001, dtype=torch.float64)
    residual = (x[:, 1:] - 0.8 * x[:, :-1]).flatten()
    log = law.log_prob(grid) + Normal(0.0, grid[:, None]).log_prob(residual).sum(-1)
    found = model.condition(data)
    against_grid(found, "sd", grid, log)
    against_grid(model.condition(data[:1]).condition(data[1:]), "sd", grid, log)
    drawn = found.draw(500, generator=torch.Generator().manual_seed(0))
    assert len(drawn.parameters["sd"].unique()) > 400
    assert not drawn.exhaustive


@pytest.mark.statistical
def test_missing_values_are_integrated_over(generator: torch.Generator) -> None:
    """X ~ N(0, 1) is missing from Y = b X + N(0, 1): Y ~ N(0, 1 + b^2)."""
    model = StructuralModel(
        {"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X, b: b * X, noise=1.0)},
        parameters={"b": LogNormal(0.0, 0.7)},
    )
    y = [3.0, -2.0, 0.5, 4.0]
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [NAN, v]] for v in y], allow_missing=True)
    grid = torch.linspace(0.01, 20, 40_001, dtype=torch.float64)
    log = LogNormal(0.0, 0.7).log_prob(grid)
    log = log + Normal(0.0, (1 + grid.square()).sqrt()[:, None]).log_prob(torch.tensor(y).double()).sum(-1)
    against_grid(model.condition(data), "b", grid, log)
    found = counterfactual(model, data, bwm.do(X=0.0), worlds=50, generator=generator)
    assert found.mean.shape == (4, 1, 2)
    bent = StructuralModel(
        {"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X, b: b * X * X, noise=1.0)},
        parameters={"b": LogNormal(0.0, 0.7)},
    )
    with pytest.raises(bwm.SpecError, match="draw worlds"):
        bent.condition(data)


def test_what_is_refused() -> None:
    silent = StructuralModel(
        {"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X, b: b * X)}, parameters={"b": Normal(0.0, 1.0)}
    )
    data = bwm.Trajectories(silent.schema, state=[[[0.0, 0.0], [1.0, 2.0]]])
    with pytest.raises(bwm.SpecError, match="'Y' to have noise"):
        silent.condition(data)
    both = StructuralModel(
        {"X": Learned(linear()), "Y": Mechanism(lambda X, b: b * X, noise=1.0)}, parameters={"b": Normal(0.0, 1.0)}
    ).fit(bwm.Trajectories(silent.schema, state=[[[0.0, 0.0], [1.0 + i, 2.0]] for i in range(20)]), seed=0)
    with pytest.raises(bwm.SpecError, match="learned ones of"):
        both.condition(data)
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    found = gain().condition(factual)
    with pytest.raises(bwm.SpecError, match="generator="):
        found.draw(3)
    with pytest.raises(bwm.SpecError, match="on more episodes"):
        found.fit(factual)
    assert "1 episode" in repr(found)
