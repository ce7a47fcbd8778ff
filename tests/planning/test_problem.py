import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import ConfoundedError, Schema, Variable
from bayeswm.base.laws import Gaussian
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning import CVaR, Limits, Mean, Objective, Problem, Score
from bayeswm.structures import FromFunction
from tests.hidden_models import hidden_mode_worlds, hidden_velocity_worlds
from tests.planning.systems import NotAbove, explosive_model, spring_worlds, squares

INF = float("inf")
START = torch.tensor([[1.0, 0.0], [-0.5, 0.3], [0.0, 2.0]], dtype=torch.float64)


def of(
    worlds: Worlds, state: Belief = START, *, horizon: int = 6, particles: int = 4, seed: int = 0, **more: object
) -> Problem:
    limits = Limits.between(-2.0, 2.0, like=torch.empty(worlds.schema.action.size, dtype=worlds.dtype))
    given = {"objective": squares(), "risk": Mean(), "generator": torch.Generator().manual_seed(seed), **more}
    return Problem(
        given.pop("objective"), worlds, state, horizon=horizon, particles=particles, limits=limits, **given
    )  # fmt: skip


def candidates(n: int, *starts: int, horizon: int = 6, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *starts, horizon, 1, generator=g, dtype=torch.float64)


def test_trajectories_are_those_of_a_rollout_with_the_same_noise() -> None:
    problem, tried = of(spring_worlds()), candidates(5, 3)
    states = problem.trajectories(tried)
    assert states.shape == (3, 4, 5, 3, 7, 2)
    for k in range(5):
        forecast = problem.predictive(tried[k])
        torch.testing.assert_close(states[:, :, k, :, 1:], forecast.particles, rtol=0, atol=1e-12)
    assert torch.equal(states[..., 0, :], START.expand(3, 4, 5, 3, 2))


def test_trajectories_step_by_step() -> None:
    problem, tried = of(spring_worlds(), START[0]), candidates(2)
    states, noise = problem.trajectories(tried), problem.noise.step
    assert noise is not None
    worlds = problem.worlds
    for w in range(3):
        for p in range(4):
            x = START[0].clone()
            for t in range(6):
                pull = worlds.parameters["stiffness"][w] * x[0] + 0.2 * x[1]
                velocity = x[1] + 0.2 * (tried[1, t, 0] - pull) + 0.05 * noise[w, p, 0, t, 0]
                x = torch.stack((x[0] + 0.2 * x[1], velocity))
                torch.testing.assert_close(states[w, p, 1, t + 1], x, rtol=0, atol=1e-12)


def test_all_candidates_and_starts_meet_the_same_noise() -> None:
    problem = of(spring_worlds(), torch.zeros(3, 2))
    same = candidates(1).expand(5, 3, 6, 1)
    states = problem.trajectories(same)
    torch.testing.assert_close(states, states[:, :, :1, :1].expand(states.shape), rtol=0, atol=1e-14)
    assert float(states[..., -1, :].std(1).min()) > 0.01


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("weights", [None, (0.5, 0.3, 0.2)])
def test_a_start_alone_and_in_a_batch(fresh: bool, weights: tuple[float, ...] | None) -> None:
    worlds = spring_worlds(weights=weights)
    tried = candidates(5, 3)
    together = of(worlds, fresh_worlds=fresh).score(tried)
    for i in range(3):
        alone = of(worlds, START[i], fresh_worlds=fresh).score(tried[:, i])
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b[:, i], rtol=0, atol=1e-9)


def test_a_candidate_alone_and_among_others() -> None:
    problem, tried = of(spring_worlds()), candidates(5, 3)
    together = problem.score(tried).cost
    for k in range(5):
        torch.testing.assert_close(problem.score(tried[k : k + 1]).cost[0], together[k], rtol=0, atol=1e-9)


def test_costs_are_of_each_particle() -> None:
    problem, tried = of(spring_worlds(), START[0], risk=CVaR(0.3)), candidates(2)
    states, costs, bad = problem.costs(tried)
    assert costs.shape == (3, 4, 2)
    assert not bool(bad.any())
    for w in range(3):
        one = squares().cost(states[w, 1, 0], tried[0], torch.zeros(6, 0, dtype=torch.float64))
        assert float(costs[w, 1, 0]) == pytest.approx(float(one), abs=1e-12)
    torch.testing.assert_close(problem.score(tried).cost, CVaR(0.3)(costs, problem.worlds.log_weight))


def test_the_action_before_counts_in_the_cost_of_change() -> None:
    objective = Objective(stage=lambda x, u, c, t: 0.0 * u[..., 0], change=2.0)
    tried = candidates(4)
    first = of(spring_worlds(), START[0], objective=objective).score(tried).cost
    later = of(spring_worlds(), START[0], objective=objective, previous=torch.tensor([0.5])).score(tried).cost
    torch.testing.assert_close(later - first, 2.0 * (tried[:, 0, 0] - 0.5).square())


def test_without_noise_one_particle_tells_everything() -> None:
    problem = of(spring_worlds(noise=0.0), generator=None)
    assert problem.particles == 1
    assert problem.trajectories(candidates(2, 3)).shape == (3, 1, 2, 3, 7, 2)
    with pytest.raises(bwm.SpecError, match="the system has noise"):
        of(spring_worlds(), generator=None)


def test_fresh_worlds_mix_the_worlds() -> None:
    worlds = spring_worlds(noise=0.0)
    tried = candidates(3, 3)
    fixed, fresh = of(worlds).trajectories(tried), of(worlds, fresh_worlds=True, particles=8).trajectories(tried)
    assert fresh.shape == (3, 8, 3, 3, 7, 2)
    # one step lies in each particle's own world, later ones do not
    torch.testing.assert_close(fresh[..., 1, :], fixed[..., 1, :].expand(fresh[..., 1, :].shape), rtol=0, atol=1e-14)
    assert float(fresh[..., -1, 1].std(1).min()) > 1e-4
    repeat = of(worlds, fresh_worlds=True, particles=8).trajectories(tried)
    assert torch.equal(fresh, repeat)


def test_context_of_an_episode_and_of_each_step() -> None:
    schema = Schema(
        state=[Variable("x")], action=[Variable("u", bounds=(-1, 1))], context=[Variable("wind")], time_step=1.0
    )
    structure = FromFunction(lambda x, u, c: x + u + c, schema=schema, name="wind")
    worlds = bwm.KnownDynamics(structure=structure).draw(1)
    tried, state = candidates(3, 2), torch.zeros(2, 1)
    by_step = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen: list[Tensor] = []

    def stage(x: Tensor, u: Tensor, c: Tensor, t: Tensor) -> Tensor:
        seen.append(c)
        return x[..., 0]

    problem = of(worlds, state, context=by_step, objective=Objective(stage=stage))
    torch.testing.assert_close(problem.trajectories(tried)[0, 0, :, :, 1:], (tried + by_step).cumsum(-2))
    problem.score(tried)
    assert torch.equal(seen[0].expand(3, 2, 6, 1)[1], by_step)
    constant = of(worlds, state, context=torch.tensor([[0.5], [1.0]]))
    wind = torch.tensor([[0.5], [1.0]])[:, None].double()
    torch.testing.assert_close(constant.trajectories(tried)[0, 0, :, :, 1:], (tried + wind).cumsum(-2))
    torch.testing.assert_close(
        problem.predictive(tried[1]).mean, problem.trajectories(tried)[0, 0, 1, :, 1:], rtol=0, atol=1e-12
    )
    with pytest.raises(bwm.DataError, match=r"expected context= of 1 value"):
        of(worlds, state)
    with pytest.raises(bwm.DataError, match="expected context of shape"):
        of(worlds, state, context=torch.zeros(3, 1))
    with pytest.raises(bwm.DataError, match="expected finite context"):
        of(worlds, state, context=torch.full((2, 1), float("nan")))


def test_a_law_as_belief() -> None:
    mean = START.view(1, 1, 3, 2)
    belief = Gaussian(mean, torch.tensor([0.1, 0.2], dtype=torch.float64))
    problem, tried = of(spring_worlds(noise=0.0), belief), candidates(5, 3)
    assert problem.starts == (3,)
    assert problem.noise.initial is not None
    states = problem.trajectories(tried)
    first = mean + torch.tensor([0.1, 0.2], dtype=torch.float64) * problem.noise.initial
    torch.testing.assert_close(states[..., 0, :], first[:, :, None].expand(3, 4, 5, 3, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(problem.state, first.mean((0, 1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(problem.predictive(tried[2]).particles, states[:, :, 2, :, 1:], rtol=0, atol=1e-12)


def test_a_hidden_velocity_from_a_history() -> None:
    worlds = hidden_velocity_worlds()
    g = torch.Generator().manual_seed(5)
    history = bwm.Trajectories(
        worlds.schema,
        observation=torch.randn(2, 4, 2, generator=g, dtype=torch.float64),
        action=torch.randn(2, 3, 1, generator=g, dtype=torch.float64),
    )
    problem, tried = of(worlds, history), candidates(5, 2)
    assert problem.starts == (2,)
    states = problem.trajectories(tried)
    assert states.shape == (3, 4, 5, 2, 7, 2)
    for k in (0, 3):
        torch.testing.assert_close(problem.predictive(tried[k]).particles, states[:, :, k, :, 1:], rtol=0, atol=1e-12)
    # what is not known of the start is in the spread of the first states
    assert float(states[..., 0, 1].std(1).min()) > 0.01


def test_a_hidden_mode() -> None:
    worlds = hidden_mode_worlds()
    problem, tried = of(worlds, torch.zeros(2, 1), particles=6), candidates(3, 2)
    states = problem.trajectories(tried)
    assert states.shape == (2, 6, 3, 2, 7, 1)
    torch.testing.assert_close(problem.predictive(tried[1]).particles, states[:, :, 1, :, 1:], rtol=0, atol=1e-12)


def test_a_particle_that_diverges_costs_infinity() -> None:
    worlds = explosive_model().draw(1)
    tried = torch.full((3, 6, 1), -0.1, dtype=torch.float64)
    tried[1, 2] = 0.1
    problem = of(worlds, torch.ones(1))
    _, costs, bad = problem.costs(tried)
    assert costs[0, 0].isfinite().tolist() == [True, False, True]
    assert float(costs[0, 0, 1]) == INF
    assert bad[0, 0].tolist() == [False, True, False]
    score = problem.score(tried)
    assert score.diverged.tolist() == [0.0, 1.0, 0.0]
    assert score.key.isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("wrong", [float("nan"), INF, -INF])
def test_a_cost_that_is_no_number_never_wins(wrong: float) -> None:
    def stage(x: Tensor, u: Tensor, c: Tensor, t: Tensor) -> Tensor:
        return torch.where(u[..., 0] > 0.3, wrong, u[..., 0].square())

    tried = torch.tensor([0.5, 0.1, 0.0]).double()[:, None, None].expand(3, 6, 1)
    score = of(spring_worlds(), START[0], objective=Objective(stage=stage)).score(tried)
    assert score.key.isfinite().tolist() == [False, True, True]
    assert float(score.key[0]) == INF
    assert score.diverged.tolist() == [1.0, 0.0, 0.0]


def test_divergence_after_an_episodes_end_is_of_no_concern() -> None:
    ends = Objective(stage=lambda x, u, c, t: x[..., 0].square(), termination=lambda x, c: x[..., 0] > 1.5)
    never = Objective(stage=lambda x, u, c, t: x[..., 0].square())
    doubling = explosive_model(lambda x, u: torch.where(x > 1.5, torch.full_like(x, 1e160), torch.full_like(x, 2.0)))
    tried, worlds = torch.zeros(1, 6, 1).double(), doubling.draw(1)
    score = of(worlds, torch.ones(1), objective=ends).score(tried)
    assert score.cost.tolist() == [1.0]
    assert score.diverged.tolist() == [0.0]
    assert of(worlds, torch.ones(1), objective=never).score(tried).cost.tolist() == [INF]


def test_constraints_soft_and_hard() -> None:
    tried = torch.tensor([-0.5, 0.1, 0.6]).double()[:, None, None].expand(3, 6, 1)
    free = of(spring_worlds()[:1], START[0]).score(tried)
    soft = of(spring_worlds()[:1], START[0], constraints=(NotAbove(0.0, penalty=10.0),)).score(tried)
    hard = of(spring_worlds()[:1], START[0], constraints=(NotAbove(0.0),)).score(tried)
    torch.testing.assert_close(soft.cost - free.cost, torch.tensor([0.0, 1.0, 6.0]).double())
    assert soft.excess.tolist() == [0.0, 0.0, 0.0]
    assert hard.cost.tolist() == free.cost.tolist()
    torch.testing.assert_close(hard.excess, torch.tensor([0.0, 0.1, 0.6]).double())
    assert hard.key[0] == free.cost[0]
    assert hard.key.argsort().tolist() == [0, 1, 2]


def test_keys() -> None:
    cost = torch.tensor([5.0, -1e9, 3.0, 2.0, INF, float("nan"), 1e30])
    excess = torch.tensor([0.0, 0.5, 0.1, INF, 0.1, 0.0, 0.0])
    key = Score(cost, excess, torch.zeros(7)).key
    # kept before broken, less broken before more, and what is no number never
    assert key.argsort()[:3].tolist() == [0, 2, 1]
    assert key.isfinite().tolist() == [True, True, True, False, False, False, False]
    assert bool((key[3:] == INF).all())


def test_gradients_in_the_actions() -> None:
    problem = of(spring_worlds(), START[0], horizon=3)
    tried = candidates(2, horizon=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: problem.score(a).cost, (tried,))


def test_single_precision() -> None:
    problem = of(spring_worlds().to(torch.float32))
    states = problem.trajectories(candidates(2, 3).float())
    assert states.dtype == torch.float32
    assert problem.score(candidates(2, 3).float()).cost.dtype == torch.float32


def test_states_that_make_no_sense() -> None:
    with pytest.raises(bwm.DataError, match="expected a state of shape"):
        of(spring_worlds(), torch.zeros(3))
    with pytest.raises(bwm.DataError, match="expected finite states"):
        of(spring_worlds(), torch.tensor([0.0, float("nan")]))


def test_the_state_is_averaged_by_the_weight_of_the_worlds() -> None:
    worlds = spring_worlds(weights=(0.7, 0.2, 0.1))
    means = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-4.0, 3.0]], dtype=torch.float64)
    problem = of(worlds, Gaussian(means[:, None], torch.zeros(2).double()))
    torch.testing.assert_close(problem.state, torch.tensor([0.7, 0.3]).double())


@pytest.mark.parametrize(
    ("mean", "match"),
    [
        (torch.zeros(2), r"law of the state with means of shape \(1 or 3, 1, \*batch, 2\)"),
        (torch.zeros(1, 1, 3), r"for \('x', 'v'\), got \(1, 1, 3\)"),
        (torch.zeros(2, 1, 2), r"got \(2, 1, 2\)"),
        (torch.full((1, 1, 4, 2), float("nan")), "finite belief"),
    ],
)
def test_laws_that_are_none_of_the_state(mean: Tensor, match: str) -> None:
    with pytest.raises((bwm.SpecError, bwm.DataError), match=match):
        of(spring_worlds(), Gaussian(mean.double(), torch.ones(mean.shape[-1]).double()))


def test_worlds_that_only_say_what_was_logged_are_refused() -> None:
    worlds = spring_worlds()
    worlds.confounded = "the log lacks the wind"
    with pytest.raises(ConfoundedError, match="the log lacks the wind"):
        of(worlds)
