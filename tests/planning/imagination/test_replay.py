import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import Objective, replay

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)
LAW = torch.distributions.Uniform(-9.0, 9.0)
PRIOR = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=LAW))
COST = Objective(stage=lambda x, u, c, t: x[..., 0] + 100 * t + 0 * u[..., 0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def worlds(*gains):
    drawn = PRIOR.draw(len(gains), generator=generator()).replace(B=torch.tensor(gains).double()[:, None, None])
    return drawn.reweight(drawn.log_weight, exhaustive=True)


def push(state, step):
    return torch.full((1,), 0.5)


def made(starts, *, model=None, horizon=3, **more):
    model = worlds(1.0, 2.0) if model is None else model
    return replay(
        model, push, starts, horizon=horizon, objective=more.pop("objective", COST), generator=generator(1), **more
    )


def test_every_start_in_every_world():
    found = made(torch.tensor([[0.0], [10.0]]))
    assert found.obs.shape == (12, 1)
    assert found.action.unique().tolist() == [0.5]
    gains = ((found.next_obs - found.obs) / found.action)[:, 0]
    assert gains.tolist() == [1.0] * 6 + [2.0] * 6
    assert found.truncated.tolist() == [False, False, True] * 4
    assert not found.terminated.any()
    expected = -(found.obs[:, 0] + 100 * torch.arange(3).repeat(4))
    torch.testing.assert_close(found.reward, expected)
    assert set(found._asdict()) == {"obs", "action", "reward", "next_obs", "terminated", "truncated"}


def test_branches_end_where_the_objective_says():
    objective = Objective(stage=COST.stage, termination=lambda x, c: x[..., 0] > 0.9)
    found = made(torch.zeros(1, 1), model=worlds(1.0), objective=objective)
    assert found.next_obs[:, 0].tolist() == [0.5, 1.0]
    assert found.terminated.tolist() == [False, True]
    assert found.truncated.tolist() == [False, False]
    assert made(torch.ones(1, 1), objective=objective).obs.shape == (0, 1)


def test_branches_end_where_the_worlds_disagree():
    found = made(torch.zeros(1, 1), horizon=5, epistemic_limit=0.6)
    # 0.25 a step between worlds of gain 1 and 2 under 0.5
    assert found.obs.shape == (4, 1)
    assert found.truncated.tolist() == [False, True] * 2


def test_starts_from_trajectories_know_their_step():
    data = bwm.Trajectories(SCHEMA, state=torch.arange(4.0).view(1, 4, 1), action=torch.zeros(1, 3, 1))
    found = made(data, model=worlds(1.0), horizon=1)
    assert found.obs[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert found.reward.tolist() == [0.0, -101.0, -202.0]
    some = made(data, model=worlds(1.0), horizon=1, count=2)
    assert len(some.obs) == 2
    torch.testing.assert_close(some.reward, -101 * some.obs[:, 0])


def test_worlds_are_taken_by_weight_and_rewards_can_be_given():
    drawn = worlds(1.0, 2.0).reweight(torch.tensor([0.0, -1e9]).double())
    found = made(torch.zeros(1, 1), model=drawn, horizon=1, worlds=3, reward=lambda x, u, y: y[..., 0])
    assert found.next_obs[:, 0].tolist() == [0.5] * 3
    assert found.reward.tolist() == [0.5] * 3


@pytest.mark.filterwarnings("ignore:.*diverged:bayeswm.base.errors.DivergenceWarning")
def test_no_transition_is_infinite():
    wild = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1e38, B=1.0))
    found = made(torch.ones(1, 1), model=wild, horizon=20)
    assert bool(found.next_obs.isfinite().all())
    assert found.truncated.tolist() == [False] * (len(found.obs) - 1) + [True]


def test_what_does_not_fit_is_refused():
    with pytest.raises(bwm.SpecError, match="starts of shape"):
        made(torch.zeros(1))
    with pytest.raises(bwm.SpecError, match="count"):
        made(torch.zeros(2, 1), count=3)
    with pytest.raises(bwm.SpecError, match="horizon"):
        made(torch.zeros(2, 1), horizon=0)
