import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.planning import CEM, Objective

G = torch.Generator().manual_seed(0)
STATES = torch.randn(2, 3, 4, 6, 2, generator=G, dtype=torch.float64)  # (worlds, particles, candidates, H + 1, S)
ACTIONS = torch.randn(4, 5, 1, generator=G, dtype=torch.float64)
CONTEXT = torch.randn(1, 5, 1, generator=G, dtype=torch.float64)


def stage(x: Tensor, u: Tensor, c: Tensor, t: Tensor) -> Tensor:
    return x[..., 0].square() + 0.1 * u[..., 0].square() * (1 + t) + c[..., 0] * x[..., 1]


def terminal(x: Tensor, c: Tensor) -> Tensor:
    return 3 * x[..., 1].square() + c[..., 0]


def by_hand(
    objective: Objective, states: Tensor, actions: Tensor, context: Tensor, *, previous: Tensor | None = None
) -> float:
    """Cost of one trajectory, step by step."""
    total, factor, steps = 0.0, 1.0, len(actions)
    before = actions[0] if previous is None else previous
    for t in range(steps):
        here = context[max(t - 1, 0)]
        if objective.termination is not None and bool(objective.termination(states[t], here)):
            return total
        if objective.stage is not None:
            total += factor * float(objective.stage(states[t], actions[t], context[t], torch.tensor(t)))
        total += factor * objective.change * float((actions[t] - before).square().sum())
        before, factor = actions[t], factor * objective.discount
    last = 0.0 if objective.terminal is None else factor * float(objective.terminal(states[-1], context[-1]))
    return total + last


def far(x: Tensor, c: Tensor) -> Tensor:
    return x[..., 0] > 1.0 + 0.1 * c[..., 0]


OBJECTIVES = [
    Objective(stage=stage),
    Objective(terminal=terminal),
    Objective(stage=stage, terminal=terminal, discount=0.9),
    Objective(stage=stage, change=0.7),
    Objective(stage=stage, terminal=terminal, termination=far),
    Objective(stage=stage, terminal=terminal, termination=far, change=0.2, discount=0.8),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=range(len(OBJECTIVES)))
@pytest.mark.parametrize("previous", [None, torch.tensor([0.3], dtype=torch.float64)])
def test_equals_the_sum_along_each_trajectory(objective: Objective, previous: Tensor | None) -> None:
    cost = objective.cost(STATES, ACTIONS, CONTEXT, previous=previous)
    assert cost.shape == (2, 3, 4)
    for w in range(2):
        for p in range(3):
            for k in range(4):
                expected = by_hand(objective, STATES[w, p, k], ACTIONS[k], CONTEXT[0], previous=previous)
                assert float(cost[w, p, k]) == pytest.approx(expected, abs=1e-10)


def test_some_trajectories_end_and_some_do_not() -> None:
    """What the cases above rely on."""
    ended = OBJECTIVES[4].ended(STATES, CONTEXT)
    assert ended is not None
    assert ended.shape == STATES.shape[:-1]
    assert 0 < float(ended[..., -1].double().mean()) < 1
    assert bool((ended[..., 1:] >= ended[..., :-1]).all())


def test_nothing_after_the_end_counts_even_where_it_is_no_number() -> None:
    states = torch.tensor([[0.5], [2.0], [float("nan")], [float("inf")]])
    objective = Objective(
        stage=lambda x, u, c, t: x[..., 0],
        terminal=lambda x, c: x[..., 0],
        termination=lambda x, c: x[..., 0] > 1,
    )
    assert float(objective.cost(states, torch.zeros(3, 1), torch.zeros(3, 0))) == 0.5


def test_the_state_in_which_an_episode_ends_last_has_its_terminal_cost() -> None:
    objective = Objective(terminal=lambda x, c: x[..., 0], termination=lambda x, c: x[..., 0] > 1)
    assert float(objective.cost(torch.tensor([[0.0], [0.5], [2.0]]), torch.zeros(2, 1), torch.zeros(2, 0))) == 2.0


def test_a_cost_of_actions_alone_broadcasts() -> None:
    objective = Objective(stage=lambda x, u, c, t: u[..., 0].square())
    cost = objective.cost(STATES, ACTIONS, CONTEXT)
    assert cost.shape == (2, 3, 4)
    torch.testing.assert_close(cost[0, 0], ACTIONS[..., 0].square().sum(-1))


def test_differentiable_in_states_and_actions() -> None:
    objective = Objective(stage=stage, terminal=terminal, change=0.3, discount=0.9)
    states = STATES[0, 0].clone().requires_grad_()
    actions = ACTIONS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, u: objective.cost(x, u, CONTEXT), (states, actions))


def test_a_cost_of_the_wrong_shape_is_refused() -> None:
    for bad in (
        Objective(stage=lambda x, u, c, t: x),
        Objective(stage=lambda x, u, c, t: x.square().sum()),
        Objective(stage=lambda x, u, c, t: x[..., 0, 0]),
    ):
        with pytest.raises(bwm.SpecError, match="expected stage costs of shape"):
            bad.cost(STATES, ACTIONS, CONTEXT)
    with pytest.raises(bwm.SpecError, match="expected a terminal cost of shape"):
        Objective(terminal=lambda x, c: x).cost(STATES, ACTIONS, CONTEXT)


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(bwm.SpecError, match="a stage or a terminal cost"):
        Objective()
    for bad in (0.0, 1.1, float("nan")):
        with pytest.raises(bwm.SpecError, match="discount"):
            Objective(stage=stage, discount=bad)
    for bad in (-1.0, float("nan")):
        with pytest.raises(bwm.SpecError, match="change"):
            Objective(stage=stage, change=bad)


@pytest.mark.parametrize(
    ("model", "lost"),
    [
        (bwm.GaussianProcess(), 0.01),
        (bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(32,)), members=3), 0.15),
    ],
    ids=["GaussianProcess", "DeepEnsemble"],
)
def test_a_reward_that_was_learned_as_a_state_variable(model: bwm.DynamicsModel, lost: float) -> None:
    """Plans for a reward that was only recorded are nearly as good as those for the formula behind it."""

    def reward(x: Tensor, u: Tensor) -> Tensor:
        return -(x[..., 0] - 1).square() - 0.1 * u[..., 0].square()

    def step(x: Tensor, u: Tensor) -> Tensor:
        return torch.stack((0.8 * x[..., 0] + 0.5 * u[..., 0], reward(x, u)), -1)

    g = torch.Generator().manual_seed(0)
    schema = bwm.Schema(
        state=[bwm.Variable("x"), bwm.Variable("reward")],
        action=[bwm.Variable("u", bounds=(-1.0, 1.0))],
        time_step=1.0,
    )
    first = torch.stack((4 * torch.rand(30, generator=g) - 1.5, torch.zeros(30)), -1).double()
    action = 2 * torch.rand(30, 4, 1, generator=g, dtype=torch.float64) - 1
    states = [first]
    for t in range(4):
        states.append(step(states[-1], action[:, t]))
    fitted = model.fit(bwm.Trajectories(schema, state=torch.stack(states, 1), action=action), seed=0, progress=False)
    # the reward of a step is part of the state after it
    learned = Objective(stage=lambda x, u, c, t: -x[..., 1], terminal=lambda x, c: -x[..., 1])
    formula = Objective(stage=lambda x, u, c, t: -reward(x, u))
    truth = bwm.KnownDynamics(structure=bwm.structures.FromFunction(step, schema=schema))
    starts = torch.tensor([[0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    settings = {"horizon": 4, "samples": 200, "iterations": 5, "particles": 2}
    best = CEM(formula, **settings).plan(truth, starts, generator=torch.Generator().manual_seed(0))
    plan = CEM(learned, **settings).plan(fitted, starts, generator=torch.Generator().manual_seed(0))
    tried = torch.stack((plan.actions.to(best.actions), torch.zeros_like(best.actions)))
    really, idle = best.problem.score(tried).cost
    assert bool((really - best.cost <= lost * (idle - best.cost)).all())


def test_truth_values_count_as_0_and_1() -> None:
    objective = Objective(stage=lambda x, u, c, t: x[..., 0] > 0, terminal=lambda x, c: (x[..., 0] > 0).long())
    above = (STATES[..., 0] > 0).double().sum(-1)
    torch.testing.assert_close(objective.cost(STATES, ACTIONS, CONTEXT), above)
    with pytest.raises(bwm.SpecError, match="expected stage costs as a tensor, got float"):
        Objective(stage=lambda x, u, c, t: 1.0).cost(STATES, ACTIONS, CONTEXT)
    with pytest.raises(bwm.SpecError, match="expected a terminal cost as a tensor, got float"):
        Objective(terminal=lambda x, c: 1.0).cost(STATES, ACTIONS, CONTEXT)
