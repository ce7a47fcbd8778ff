import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import MultivariateGaussian, SpecError
from bayeswm.planning import (
    CVaR,
    Epistemic,
    LinearPolicy,
    Mean,
    MLPPolicy,
    Objective,
    PolicyCost,
    RBFPolicy,
    WorstWorld,
    quadratic,
)
from bayeswm.propagation import FixedWorlds, FreshWorlds, Linearized, Method, MomentMatching, MomentReset, Unscented
from tests.planning import regulator
from tests.planning.systems import SCHEMA, explosive_model, spring_worlds, squares

F64 = torch.float64
X0 = torch.tensor([[1.0, 0.0], [-0.5, 0.3]], dtype=F64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def springs(method: Method, objective: Objective | None = None, **more: object) -> PolicyCost:
    given = {"horizon": 5, "generator": generator(), "draws": 40, **more}
    return PolicyCost(spring_worlds(), squares() if objective is None else objective, X0, method=method, **given)


BRACED = LinearPolicy(SCHEMA).replace(gain=torch.tensor([[-0.5, -0.7]], dtype=F64))
GAUSSIAN = [MomentMatching(), MomentMatching(pooled=True), Unscented(), MomentReset(30)]


@pytest.mark.parametrize("method", [*GAUSSIAN, Linearized()], ids=repr)
def test_moments_of_a_linear_system_give_the_exact_expected_cost(method: Method) -> None:
    cost = PolicyCost(
        regulator.model(0.2), regulator.objective(), regulator.STARTS, horizon=12, generator=generator(), method=method
    )
    found, exact = float(cost(regulator.best_policy())), regulator.optimum(12, noise=0.2)
    assert found == pytest.approx(exact, rel=1e-10)


def test_an_uncertain_start_costs_its_spread() -> None:
    P = regulator.riccati()[0]
    root = torch.tensor([[0.3, 0.0], [0.1, 0.2]], dtype=F64)
    law = MultivariateGaussian(regulator.STARTS[None, None], root.expand(1, 1, 3, 2, 2))
    cost = PolicyCost(
        regulator.model(), regulator.objective(), law, horizon=5, generator=generator(), method=MomentMatching()
    )
    exact = regulator.optimum(5) + float((P @ root @ root.T).trace())
    assert float(cost(regulator.best_policy())) == pytest.approx(exact, rel=1e-10)


def test_particles_without_noise_cost_what_the_path_costs() -> None:
    cost = PolicyCost(regulator.model(), regulator.objective(), regulator.STARTS, horizon=12, generator=generator())
    assert float(cost(regulator.best_policy())) == pytest.approx(regulator.optimum(12), rel=1e-12)


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.3), Epistemic(CVaR(0.5)), WorstWorld()], ids=repr)
def test_particles_cost_what_their_trajectories_cost(risk: Mean) -> None:
    objective = Objective(
        stage=squares().stage, change=0.3, termination=lambda x, c: x[..., 0] < -0.6, terminal=squares().terminal
    )
    cost = springs(FixedWorlds(6), objective, risk=risk)
    paths = cost.predictive(BRACED).particles
    begin = X0[:, None].expand(3, 6, 2, 1, 2)
    states = torch.cat((begin, paths), -2)
    actions = BRACED(states[..., :-1, :], 0)
    exact = risk(objective.cost(states, actions, states[..., :-1, :0]), spring_worlds().log_weight).mean()
    torch.testing.assert_close(cost(BRACED), exact)


@pytest.mark.parametrize("risk", [Mean(), Epistemic(CVaR(0.4)), WorstWorld()], ids=repr)
def test_risks_over_worlds_from_moments(risk: Mean) -> None:
    weights = (0.5, 0.2, 0.3)
    worlds = spring_worlds(weights=weights)
    given = {"horizon": 5, "generator": generator(), "method": MomentMatching(), "draws": 40}
    found = PolicyCost(worlds, squares(), X0, risk=risk, **given)(BRACED)
    each = []
    for w in range(3):
        one = worlds[w]
        rows = [PolicyCost(one, squares(), x, **given | {"generator": generator()})(BRACED) for x in X0]
        each.append(torch.stack(rows))
    exact = risk(torch.stack(each)[:, None], worlds.log_weight).mean()
    # the draws are shared by all worlds and starts, and of the same seed
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("method", [FixedWorlds(4), FreshWorlds(4), *GAUSSIAN], ids=repr)
def test_the_same_policy_costs_the_same_each_time(method: Method) -> None:
    cost, again, other = springs(method), springs(method), springs(method, generator=generator(1))
    first = cost(BRACED)
    assert torch.equal(cost(BRACED), first)
    assert torch.equal(again(BRACED), first)
    assert not torch.equal(other(BRACED), first)


@pytest.mark.parametrize("method", [FixedWorlds(3), FreshWorlds(3), *GAUSSIAN, Linearized()], ids=repr)
@pytest.mark.parametrize("kind", ["linear", "rbf", "mlp"])
def test_gradient(method: Method, kind: str) -> None:
    policy = {
        "linear": BRACED,
        "rbf": RBFPolicy(SCHEMA, basis=2, generator=generator()),
        "mlp": MLPPolicy(SCHEMA, hidden=(2,), generator=generator()),
    }[kind]
    cost = springs(method, horizon=3, draws=10)
    names, values = zip(*policy.parameters.items(), strict=True)

    def risk(*parameters: Tensor) -> Tensor:
        return cost(policy.replace(**dict(zip(names, parameters, strict=True))))

    assert torch.autograd.gradcheck(risk, tuple(v.clone().requires_grad_() for v in values), atol=1e-5)


@pytest.mark.statistical
def test_both_routes_agree_on_a_pendulum_with_small_noise() -> None:
    # near upright the belief stays close to Gaussian: the bias is small against the Monte Carlo error of one in 80
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.01]))
    policy = LinearPolicy(model.schema).replace(gain=torch.tensor([[-15.0, 0.0, -5.0]], dtype=F64))
    given = {"horizon": 20, "worlds": 1}
    x0 = torch.tensor([0.1, 0.0], dtype=F64)
    exact = PolicyCost(model, objective, x0, method=MomentMatching(), generator=generator(), **given)(policy)
    parts = PolicyCost(model, objective, x0, method=FixedWorlds(6000), generator=generator(1), **given)
    paths = parts.predictive(policy).particles
    states = torch.cat((x0.expand(1, 6000, 1, 2), paths), -2)
    each = objective.cost(states, policy(states[..., :-1, :], 0), states[..., :-1, :0])
    error = float(each.std()) / math.sqrt(6000)
    assert math.erfc(abs(float(parts(policy) - exact)) / error / math.sqrt(2)) > 1e-5


def test_what_moments_do_not_tell_is_refused() -> None:
    ending = Objective(stage=squares().stage, termination=lambda x, c: x[..., 0] > 2)
    smooth = Objective(stage=squares().stage, change=0.1)
    for objective in (ending, smooth):
        with pytest.raises(SpecError, match="without termination and change"):
            springs(MomentMatching(), objective)(BRACED)
        assert math.isfinite(float(springs(FixedWorlds(2), objective)(BRACED)))
    for risk in (CVaR(0.1), WorstWorld(CVaR(0.1))):
        with pytest.raises(SpecError, match="expected risk="):
            springs(MomentMatching(), risk=risk)(BRACED)
    with pytest.raises(SpecError, match="pooled=False"):
        springs(MomentMatching(pooled=True), risk=WorstWorld())(BRACED)


@pytest.mark.parametrize("method", [FixedWorlds(2), MomentMatching()], ids=repr)
def test_what_diverges_costs_infinity_without_a_warning(method: Method) -> None:
    model = explosive_model()
    cost = PolicyCost(model, squares(), torch.ones(1), horizon=4, generator=generator(), method=method)
    policy = LinearPolicy(model.schema)
    assert float(cost(policy.replace(bias=torch.tensor([0.5], dtype=F64)))) == math.inf
    assert math.isfinite(float(cost(policy.replace(bias=torch.tensor([-0.5], dtype=F64)))))


@pytest.mark.parametrize("method", [FixedWorlds(2), MomentMatching()], ids=repr)
def test_actions_that_are_not_finite_cost_infinity(method: Method) -> None:
    assert float(springs(method)(lambda x, t: torch.full_like(x[..., :1], float("nan")))) == math.inf


def test_what_diverges_after_the_end_is_of_no_concern() -> None:
    model = explosive_model(lambda x, u: torch.full_like(x, 1e80))
    objective = Objective(stage=lambda x, u, c, t: x[..., 0] ** 2, termination=lambda x, c: x[..., 0].abs() > 10)
    cost = PolicyCost(model, objective, torch.ones(1), horizon=4, generator=generator())
    assert float(cost(LinearPolicy(model.schema))) == 1.0


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpecError, match=r"generator=torch\.Generator"):
        springs(FixedWorlds(), generator=None)
    with pytest.raises(SpecError, match="horizon >= 1"):
        springs(FixedWorlds(), horizon=0)
    with pytest.raises(SpecError, match="FixedWorlds"):
        springs(FixedWorlds)  # pyright: ignore[reportArgumentType]
