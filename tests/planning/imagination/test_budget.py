import dataclasses

import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, Budgeted, Objective, epistemic_budget

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)


def worlds(*gains, noise=0.0):
    law = torch.distributions.Uniform(-9.0, 9.0)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=law), noise=noise)
    drawn = model.draw(len(gains), generator=torch.Generator().manual_seed(0))
    drawn = drawn.replace(B=torch.tensor(gains).double()[:, None, None])
    return drawn.reweight(drawn.log_weight, exhaustive=True)


def test_steps_until_the_worlds_disagree():
    actions = torch.stack((torch.full((6, 1), 0.5), torch.full((6, 1), 0.1), torch.ones(6, 1)))
    r = bwm.rollout(worlds(1.0, 2.0), torch.zeros(3, 1), actions, particles=1)
    # the standard deviation between worlds is 0.5 |u| a step; a limit of 0.6 holds 2 steps at 0.5
    assert epistemic_budget(r, 0.6).tolist() == [2, 6, 1]
    assert epistemic_budget(r, 0.6, scale=torch.tensor([2.0])).tolist() == [4, 6, 2]


def test_once_exceeded_it_stays_exceeded():
    plan = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    r = bwm.rollout(worlds(1.0, 2.0), torch.zeros(1), plan, particles=1)
    assert epistemic_budget(r, 0.6).tolist() == 1


@pytest.mark.filterwarnings("ignore:the epistemic variance is undefined:bayeswm.base.errors.UndefinedWarning")
def test_without_a_split_it_refuses():
    r = bwm.rollout(
        worlds(1.0, noise=0.1)[:1].reweight(torch.zeros(1), exhaustive=False),
        torch.zeros(1),
        torch.zeros(2, 1),
        generator=torch.Generator(),
    )
    with pytest.raises(bwm.SpecError, match="split"):
        epistemic_budget(r, 1.0)
    with pytest.raises(bwm.SpecError, match="limit"):
        epistemic_budget(r, 0.0)


def test_beyond_the_budget_only_the_terminal_cost_counts():
    g = torch.Generator().manual_seed(0)
    plain = Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + t, terminal=lambda x, c: 10 * x[..., 0] ** 2)
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    states, none = torch.randn(2, 3, 4, 7, 1, generator=g).double(), torch.zeros(6, 0)
    actions = torch.zeros(4, 6, 1).double()
    wide = Budgeted(**fields, limit=1e6)
    torch.testing.assert_close(wide.cost(states, actions, none), plain.cost(states, actions, none))
    limit = 0.8
    spread = states[..., 1:, 0].mean(1).std(0)
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for b in range(4):
        over = (spread[b] > limit).nonzero()
        n = int(over[0]) if len(over) else 6
        expected[:, :, b] = (states[:, :, b, :n, 0] ** 2 + torch.arange(n)).sum(-1) + 10 * states[:, :, b, n, 0] ** 2
    torch.testing.assert_close(Budgeted(**fields, limit=limit).cost(states, actions, none), expected)


def test_a_planner_does_not_count_on_what_it_does_not_know():
    # far ahead the worlds promise a jackpot, but they disagree long before
    objective = {"stage": lambda x, u, c, t: u[..., 0] ** 2, "terminal": lambda x, c: -(x[..., 0] > 2).double() * 50}
    drawn = worlds(0.5, 1.0)
    search = {"horizon": 6, "samples": 64, "elites": 6, "iterations": 4, "particles": 1}
    state, g = torch.zeros(1), torch.Generator().manual_seed(0)
    bold = CEM(Objective(**objective), **search).plan(drawn, state, generator=g)
    wary = CEM(Budgeted(**objective, limit=0.2), **search).plan(drawn, state, generator=g)
    assert float(bold.cost) < -20  # the jackpot in one of two worlds
    assert float(wary.cost) >= 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(bwm.SpecError, match="terminal"):
        Budgeted(stage=lambda x, u, c, t: x[..., 0], limit=1.0)
    with pytest.raises(bwm.SpecError, match="limit"):
        Budgeted(terminal=lambda x, c: x[..., 0], limit=-1.0)
    with pytest.raises(bwm.SpecError, match="2 worlds"):
        Budgeted(terminal=lambda x, c: x[..., 0], limit=1.0).cost(
            torch.zeros(1, 1, 3, 1), torch.zeros(2, 1), torch.zeros(2, 0)
        )
