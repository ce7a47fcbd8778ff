import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import FitError, Gaussian, SpecError
from bayeswm.planning import (
    LBFGS,
    Adam,
    CVaR,
    Descent,
    LinearPolicy,
    MLPPolicy,
    Objective,
    PolicyCost,
    RBFPolicy,
    optimise_policy,
    quadratic,
)
from bayeswm.propagation import FixedWorlds, Method, MomentMatching, MomentReset, Unscented
from tests.planning import regulator
from tests.planning.systems import SCHEMA, explosive_model, spring_worlds, squares

F64 = torch.float64
X0 = torch.tensor([[1.0, 0.0], [-0.5, 0.3]], dtype=F64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("descent", [LBFGS(), Adam(iterations=200, rate=0.3)], ids=repr)
def test_particles_reach_the_optimum_of_a_linear_regulator(descent: Descent) -> None:
    found = optimise_policy(
        regulator.model(),
        LinearPolicy(regulator.SCHEMA),
        regulator.objective(),
        belief=regulator.STARTS,
        horizon=12,
        generator=generator(),
        descent=descent,
    )
    best = regulator.optimum(12)
    assert best * (1 - 1e-12) <= found.cost <= best * (1 + 1e-3)
    if isinstance(descent, LBFGS):
        torch.testing.assert_close(found.policy.parameters["gain"], regulator.riccati()[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [MomentMatching(), MomentMatching(pooled=True), Unscented()], ids=repr)
def test_moments_reach_the_optimum_of_a_noisy_linear_regulator(method: Method) -> None:
    found = optimise_policy(
        regulator.model(0.2),
        LinearPolicy(regulator.SCHEMA),
        regulator.objective(),
        belief=regulator.STARTS,
        horizon=12,
        generator=generator(),
        method=method,
    )
    best = regulator.optimum(12, noise=0.2)
    assert best * (1 - 1e-10) <= found.cost <= best * (1 + 1e-3)


def test_noisy_particles_come_near_it_by_the_true_expected_cost() -> None:
    # 3 x 400 paths: what a gain owes to them costs second order, (tr of noise) / paths, far below 1 %
    model = regulator.model(0.2)
    found = optimise_policy(
        model,
        LinearPolicy(regulator.SCHEMA),
        regulator.objective(),
        belief=regulator.STARTS,
        horizon=12,
        generator=generator(),
        method=FixedWorlds(400),
    )
    truth = PolicyCost(
        model, regulator.objective(), regulator.STARTS, horizon=12, generator=generator(), method=MomentMatching()
    )
    assert float(truth(found.policy)) <= regulator.optimum(12, noise=0.2) * 1.01


@pytest.mark.parametrize("kind", ["rbf", "mlp"])
def test_other_policies_come_close_to_linear_feedback(kind: str) -> None:
    # on the states that matter here they can represent it; the optimum bounds them from below
    policy = {
        "rbf": RBFPolicy(regulator.SCHEMA, basis=15, generator=generator(1)),
        "mlp": MLPPolicy(regulator.SCHEMA, hidden=(16,), generator=generator(1)),
    }[kind]
    found = optimise_policy(
        regulator.model(), policy, regulator.objective(), belief=regulator.STARTS, horizon=12, generator=generator()
    )
    best = regulator.optimum(12)
    assert best * (1 - 1e-12) <= found.cost <= best * 1.02


def search(policy: LinearPolicy | RBFPolicy | None = None, **more: object) -> bwm.planning.FittedPolicy:
    given = {"belief": X0, "horizon": 6, "generator": generator(), "method": FixedWorlds(4), **more}
    return optimise_policy(spring_worlds(), LinearPolicy(SCHEMA) if policy is None else policy, squares(), **given)


def test_the_best_that_was_tried_is_returned() -> None:
    found = search(restarts=3, descent=Adam(iterations=30, rate=0.5))
    assert [len(h) for h in found.history] == [30, 30, 30]
    assert found.cost == min(float(h.min()) for h in found.history)
    fixed = PolicyCost(spring_worlds(), squares(), X0, horizon=6, generator=generator(), method=FixedWorlds(4))
    assert float(fixed(found.policy)) == pytest.approx(found.cost, rel=1e-12)
    assert float(fixed(LinearPolicy(SCHEMA))) == float(found.history[0][0])


def test_it_begins_with_the_policy_that_is_given() -> None:
    good = search().policy
    again = search(good, descent=LBFGS(iterations=1))
    assert float(again.history[0][0]) == pytest.approx(search().cost, rel=1e-12)


@pytest.mark.parametrize("method", [FixedWorlds(4), MomentReset(20), MomentMatching()], ids=repr)
def test_the_generator_decides(method: Method) -> None:
    policy = RBFPolicy(SCHEMA, basis=4, generator=generator())
    one, same = (search(policy, method=method, restarts=2, descent=LBFGS(iterations=5)) for _ in range(2))
    assert all(torch.equal(v, same.policy.parameters[k]) for k, v in one.policy.parameters.items())
    assert all(torch.equal(a, b) for a, b in zip(one.history, same.history, strict=True))


def test_parameters_are_plain_and_of_their_own_format() -> None:
    single = LinearPolicy(SCHEMA)
    single = single.replace(**{k: v.float() for k, v in single.parameters.items()})
    found = search(single, descent=LBFGS(iterations=3))
    assert all(type(v) is Tensor and not v.requires_grad for v in found.policy.parameters.values())
    assert {v.dtype for v in found.policy.parameters.values()} == {torch.float32}
    assert float(single.parameters["gain"].abs().max()) == 0


def test_a_cautious_policy_differs() -> None:
    mean, cautious = search(), search(risk=CVaR(0.1))
    fixed = PolicyCost(
        spring_worlds(), squares(), X0, horizon=6, generator=generator(), method=FixedWorlds(4), risk=CVaR(0.1)
    )
    assert float(fixed(cautious.policy)) < float(fixed(mean.policy))


@pytest.mark.parametrize("descent", [LBFGS(iterations=30), Adam(iterations=60, rate=0.5)], ids=repr)
@pytest.mark.parametrize("method", [FixedWorlds(2), MomentMatching()], ids=repr)
def test_what_diverges_never_wins(method: Method, descent: Descent) -> None:
    # the lowest cost of those that can be used lies at the edge of what diverges: x' = (x + 0.1 u) / 2, u <= 0
    model = explosive_model()
    objective = Objective(stage=lambda x, u, c, t: (x[..., 0] - 5.0) ** 2)
    policy = LinearPolicy(model.schema).replace(bias=torch.tensor([-0.9], dtype=F64))
    found = optimise_policy(
        model,
        policy,
        objective,
        belief=torch.ones(1),
        horizon=4,
        generator=generator(),
        method=method,
        descent=descent,
    )
    assert any(not bool(h.isfinite().all()) for h in found.history)
    assert math.isfinite(found.cost)
    assert found.cost <= float(found.history[0][0])
    # a warning would be an error here
    path = bwm.rollout(model, torch.ones(1), found.policy, horizon=4).mean
    assert float(path.abs().max()) < 2.0


def test_nothing_but_divergence_is_an_error() -> None:
    model = explosive_model(lambda x, u: torch.full_like(x, 1e160))
    with pytest.raises(FitError, match="diverged"):
        optimise_policy(
            model, LinearPolicy(model.schema), squares(), belief=torch.ones(1), horizon=4, generator=generator()
        )


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpecError, match="restarts >= 1"):
        search(restarts=0)
    with pytest.raises(SpecError, match="LinearPolicy"):
        search(lambda x, t: x[..., :1])  # pyright: ignore[reportArgumentType]


def test_a_gaussian_process_is_enough_to_balance_a_pendulum() -> None:
    truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    g = generator()
    x0 = (torch.rand(20, 2, generator=g, dtype=F64) - 0.5) * torch.tensor([0.8, 2.0], dtype=F64)
    actions = 4 * torch.rand(20, 4, 1, generator=g, dtype=F64) - 2
    paths = bwm.rollout(truth, x0, actions).mean
    noisy = torch.cat((x0[:, None], paths), 1) + 1e-3 * torch.randn(20, 5, 2, generator=g, dtype=F64)
    data = bwm.Trajectories(truth.schema, state=noisy, action=actions)
    model = bwm.GaussianProcess(restarts=1).fit(data, progress=False)
    belief = Gaussian(torch.tensor([0.1, 0.0], dtype=F64).view(1, 1, 2), torch.tensor([0.05, 0.1], dtype=F64))
    found = optimise_policy(
        model,
        LinearPolicy(truth.schema),
        quadratic(torch.tensor([1.0, 0.1], dtype=F64), torch.tensor([0.01], dtype=F64)),
        belief=belief,
        horizon=15,
        generator=g,
        method=MomentMatching(pooled=True),
        descent=LBFGS(iterations=20),
        worlds=1,
    )
    # two standard deviations to either side of where it was to begin, and twice as long
    ends = torch.tensor([[0.2, 0.2], [0.0, -0.2], [0.2, -0.2], [0.0, 0.2]], dtype=F64)
    held = bwm.rollout(truth, ends, found.policy, horizon=60)
    assert float(held.mean[:, -20:, 0].abs().max()) < 0.02
    fallen = bwm.rollout(truth, ends, LinearPolicy(truth.schema), horizon=60)
    assert float(fallen.mean[:, -20:, 0].abs().amax(-1).min()) > 1.0
