"""Models of logged actions, for controllers that are not linear."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.causal import TimeGraph
from tests.causal.confounding.logs import BOW, ONE, STATE, fitted, schema


def test_behaviour_that_is_not_linear():
    """A controller that saturates: the linear first stage leaves part of it in the residual, a learned one does not."""
    g = make_generator(0)
    n = 3000
    e, nu, s, w = torch.randn(4, n, 1, generator=g, dtype=torch.float64)
    a = -2 * torch.tanh(2 * s) + e + nu
    after = 0.9 * s + 0.5 * a + e + 0.1 * w
    log = bwm.Trajectories(schema("nu"), state=torch.stack((s, after), 1), action=a[:, None], context=nu[:, None])
    acts = bwm.Schema(state=[bwm.Variable("a")], context=[bwm.Variable("s"), bwm.Variable("nu")], time_step=1.0)
    saturating = bwm.structures.FromFunction(
        lambda x, u, c, p: x + p["k"] * torch.tanh(2 * c[..., :1]) + p["n"] * c[..., 1:],
        schema=acts,
        parameters={"k": Normal(0.0, 3.0), "n": Normal(0.0, 3.0)},
        name="saturating",
    )
    behaviour = bwm.BayesianDynamics(structure=saturating, inference=bwm.inference.Conjugate())
    graph = TimeGraph([*STATE, ("nu[t]", "a[t]")], BOW)
    model = fitted(log, "a_residual", graph=graph, behaviour=behaviour)
    left = model._fitted[0].recipe.outcome_log(log).step_context().flatten()
    # two coefficients from 3,000 rows
    assert float((left - e.flatten()).square().mean()) < 20 * 2 / n
    straight = fitted(log, "a_residual", graph=graph)._fitted[0].recipe.outcome_log(log).step_context().flatten()
    assert float((straight - e.flatten()).square().mean()) > 0.1
    worlds = model.draw(200, generator=make_generator(1))
    assert float(worlds.transition(worlds.start(ONE), ONE).mean.mean()) == pytest.approx(1.4, abs=0.1)
