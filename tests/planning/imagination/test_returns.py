import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, Objective, PlannedPolicy, policy_return

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)
LAST = Objective(terminal=lambda x, c: -x[..., 0])  # the return is the last state


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def worlds(*offsets, noise=0.0, weights=None):
    law = torch.distributions.Uniform(-9.0, 9.0)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=1.0, c=law), noise=noise)
    drawn = model.draw(len(offsets), generator=generator()).replace(c=torch.tensor(offsets).double()[:, None])
    weights = torch.ones(len(offsets)) if weights is None else torch.tensor(weights)
    return drawn.reweight(weights.double().log(), exhaustive=True)


def test_two_worlds_without_chance_are_exact():
    found = policy_return(worlds(1.0, 2.0, weights=[0.75, 0.25]), torch.ones(3, 1), torch.zeros(2, 1), objective=LAST)
    # x = 3 (c + 1): 6 with 0.75 and 9 with 0.25
    torch.testing.assert_close(found.mean.value, torch.tensor([6.75, 6.75]).double())
    assert found.mean.standard_error.tolist() == [0.0, 0.0]
    torch.testing.assert_close(found.epistemic_variance, torch.tensor([1.6875, 1.6875]).double())
    assert found.aleatoric_variance.tolist() == [0.0, 0.0]
    assert found.quantile(0.5).tolist() == [6.0, 6.0]
    assert [v[0].item() for v in found.interval(0.9)] == [6.0, 9.0]
    with pytest.raises(bwm.SpecError, match="level"):
        found.interval(1.5)


@pytest.mark.statistical
def test_chance_and_ignorance_are_told_apart():
    found = policy_return(
        worlds(1.0, 2.0, noise=0.5),
        torch.zeros(4, 1),
        torch.zeros(1),
        objective=LAST,
        particles=20_000,
        generator=generator(1),
    )
    # chance: 4 steps of variance 0.25; worlds: 4 and 8 with equal weights. A variance from n values has the relative
    # standard error sqrt(2 / n) = 0.007, and the worlds' means that of 1 / sqrt(20,000): 4.5 of them (p < 1e-5)
    assert float(found.aleatoric_variance) == pytest.approx(1.0, rel=0.03)
    assert float(found.epistemic_variance) == pytest.approx(4.0, abs=4.5 * 2 * 2 * 0.5**0.5 / 20_000**0.5)
    assert float(found.variance) == pytest.approx(float(found.aleatoric_variance + found.epistemic_variance))
    error = found.mean
    assert abs(float(error.value) - 6.0) < 4.5 * float(error.standard_error)


def test_a_planner_as_policy_and_a_policy_agree_with_its_actions():
    planner = CEM(Objective(terminal=lambda x, c: x[..., 0] ** 2), horizon=2, samples=32, elites=4, iterations=3)
    drawn = worlds(0.0)
    policy = PlannedPolicy(planner, drawn, generator=generator())
    found = policy_return(drawn, policy, torch.ones(1), objective=LAST, horizon=3, particles=2)
    assert abs(float(found.mean.value)) < 0.3
    fixed = policy_return(drawn, lambda x, t: torch.ones(1), torch.ones(1), objective=LAST, horizon=3, particles=2)
    assert float(fixed.mean.value) == 4.0


@pytest.mark.filterwarnings("ignore:.*diverged:bayeswm.base.errors.DivergenceWarning")
def test_what_diverges_returns_minus_infinity():
    wild = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1e38, B=1.0))
    found = policy_return(wild, torch.zeros(20, 1), torch.ones(1), objective=LAST)
    assert float(found.mean.value) == float("-inf")
